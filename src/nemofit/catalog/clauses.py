"""The clauses in which ``data/quants.yaml`` writes down what llama-quantize does.

>>> clause = parse_clause("Q5_K if no_imatrix and i<L/8")
>>> clause.holds(Case(layers=32, i=3)), clause.holds(Case(layers=32, i=4))
(True, False)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ..errors import DataError

CATEGORIES: Final = (
    "output", "token_embd", "attn_q", "attn_k", "attn_v", "attn_output",
    "ffn_gate", "ffn_up", "ffn_down", "other",
)  # fmt: skip
"""Kinds of tensor that llama-quantize tells apart; ``other`` has no rules."""

MIXTURES: Final = ("float", "standard", "low_bit", "experts")
"""Frames around the rules of a file type."""

_CLAUSE = re.compile(r"(\w{1,40})(?: if (.{1,200}))?")
_BOUND = re.compile(r"(i|seen|gqa|experts)(<|>=|=)(?:(\d{1,6})|(\d{0,3})L/([1-9]\d{0,2}))")
_PLACES: Final = ("i", "seen", "more_bits")


@dataclass(frozen=True, slots=True)
class Case:
    """What the conditions ask about.

    Attributes:
        gqa: Query heads per key-value head in layer 0.
        experts: Experts of each layer, 0 without.
        imatrix: An importance matrix was given.
        layers: L: layers, or tensors of this kind.
        i: Layer of the tensor.
        seen: Place of the tensor among those of its kind.
    """

    gqa: int = 1
    experts: int = 0
    imatrix: bool = False
    layers: int = 0
    i: int = 0
    seen: int = 0

    @property
    def more_bits(self) -> bool:
        """llama-quantize's first and last eighth, and every third layer between."""
        eighth = self.layers // 8
        return self.i < eighth or self.i >= 7 * self.layers // 8 or (self.i - eighth) % 3 == 2


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: ``what`` alone, or compared with a number or a fraction of the layers."""

    what: str
    operator: str = ""
    factor: int = 1
    divisor: int = 0

    def holds(self, case: Case) -> bool:
        if not self.operator:
            return not case.imatrix if self.what == "no_imatrix" else getattr(case, self.what)
        value: int = getattr(case, self.what)
        bound = self.factor * case.layers // self.divisor if self.divisor else self.factor
        if self.operator == "<":
            return value < bound
        return value >= bound if self.operator == ">=" else value == bound


@dataclass(frozen=True, slots=True)
class Clause:
    """A tensor type and the conditions that all have to hold for it."""

    type: str
    conditions: tuple[Condition, ...] = ()

    def holds(self, case: Case) -> bool:
        return all(c.holds(case) for c in self.conditions)

    @property
    def places(self) -> frozenset[str]:
        """Which of i, seen, more_bits the conditions ask for; empty: one answer for all layers."""
        return frozenset(c.what for c in self.conditions if c.what in _PLACES)


def parse_clause(text: str) -> Clause:
    """Read ``TYPE`` or ``TYPE if CONDITION and CONDITION``.

    Raises:
        DataError: Not of that form.
    """
    found = _CLAUSE.fullmatch(text)
    if found is None:
        raise DataError(f"{text!r:.60} is no rule", "write 'TYPE' or 'TYPE if CONDITION'")
    conditions = found.group(2).split(" and ") if found.group(2) else ()
    return Clause(found.group(1), tuple(_condition(c.strip()) for c in conditions))


def parse_rules(rules: Mapping[str, Iterable[str]]) -> dict[str, tuple[Clause, ...]]:
    """Read the rules of a file type: kind of tensor -> clauses."""
    return {kind: tuple(map(parse_clause, clauses)) for kind, clauses in rules.items()}


def _condition(text: str) -> Condition:
    if text in ("imatrix", "no_imatrix", "more_bits"):
        return Condition(text)
    found = _BOUND.fullmatch(text)
    if found is None:
        raise DataError(
            f"{text!r:.60} is no condition",
            "write for example more_bits, imatrix, no_imatrix, gqa>=4, experts=8, i<2 or i<L/8",
        )
    what, operator, number, factor, divisor = found.groups()
    if number is not None:
        return Condition(what, operator, int(number))
    return Condition(what, operator, int(factor or 1), int(divisor))
