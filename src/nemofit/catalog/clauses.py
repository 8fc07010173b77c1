"""The clauses in which ``data/quants.yaml`` writes down what llama-quantize does.

>>> clauses = [parse_clause("Q6_K if experts=8"), parse_clause("Q5_K if i<L/4")]
>>> choose(clauses, "Q4_K", {"gqa": 8, "experts": 0, "imatrix": 0}, 8).types
('Q5_K', 'Q5_K', 'Q4_K', 'Q4_K', 'Q4_K', 'Q4_K', 'Q4_K', 'Q4_K', 'Q4_K')

Conditions ask about the model: ``gqa`` (query heads per key-value head in layer 0), ``experts``
(of each layer, 0 without), ``imatrix``; or about the tensor's place: ``i`` (its layer), ``seen``
(its place among the tensors of its kind), ``more_bits`` (the first and last eighth of the layers
and every third between). ``L`` is the number of layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
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
class Condition:
    """One condition: ``what`` alone, or compared with a number or a fraction of the layers."""

    what: str
    operator: str = ""
    factor: int = 1
    divisor: int = 0

    @property
    def is_place(self) -> bool:
        """Whether the answer depends on the tensor's place and not on the model alone."""
        return self.what in _PLACES

    def holds(self, value: int, layers: int) -> bool:
        """Whether ``value``, what the condition asks for, meets it.

        Args:
            value: The tensor's place, or the model's gqa, experts or imatrix (0 or 1).
            layers: L.
        """
        if self.what == "more_bits":
            eighth = layers // 8
            return value < eighth or value >= 7 * layers // 8 or (value - eighth) % 3 == 2
        if not self.operator:
            return bool(value) is (self.what == "imatrix")
        bound = self.factor * layers // self.divisor if self.divisor else self.factor
        if self.operator == "<":
            return value < bound
        return value >= bound if self.operator == ">=" else value == bound


@dataclass(frozen=True, slots=True)
class Clause:
    """A tensor type and the conditions that all have to hold for it."""

    type: str
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """What a list of clauses comes to for one kind of tensor of one model.

    Attributes:
        types: Type by place; a single one holds everywhere, the last for all places beyond.
        by: Which place: "i" or "seen".
    """

    types: tuple[str, ...]
    by: str = "i"


def choose(
    clauses: Iterable[Clause], default: str, values: Mapping[str, int], layers: int
) -> Choice:
    """Evaluate clauses for every place at once: the first that holds gives the type.

    Args:
        clauses: The rules of one kind of tensor.
        default: The type where none holds.
        values: What gqa, experts and imatrix are; no_imatrix is read off imatrix.
        layers: L.
    """
    left: list[tuple[str, tuple[Condition, ...]]] = []
    for clause in clauses:
        places = tuple(c for c in clause.conditions if c.is_place)
        general = (c for c in clause.conditions if not c.is_place)
        if all(c.holds(values[c.what.removeprefix("no_")], layers) for c in general):
            left.append((clause.type, places))
            if not places:
                break
    if not left or not left[0][1]:
        return Choice((left[0][0] if left else default,))
    types = [default] * (layers + 1)  # beyond L no condition changes any more
    for type_name, places in reversed(left):
        types = [type_name if m else t for m, t in zip(_mask(places, layers), types, strict=True)]
    by = "seen" if any(c.what == "seen" for _, places in left for c in places) else "i"
    return Choice(tuple(types), by)


@lru_cache(maxsize=1024)
def _mask(conditions: tuple[Condition, ...], layers: int) -> tuple[bool, ...]:
    return tuple(all(c.holds(at, layers) for c in conditions) for at in range(layers + 1))


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
