"""What would run if a program that holds GPU memory were closed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nemofit.catalog.model import ModelSpec
from nemofit.machine.holders import Held, holding, without
from nemofit.machine.records import Machine

from .goal import Goal
from .records import Plan
from .search import Search

MOST: Final = 3
"""Programs that are tried each by itself, the largest first; then all together."""
FASTER: Final = 1.15
"""Less than this is within the spread of the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Programs, and the plan that they stand in the way of.

    Attributes:
        words: ``"firefox holds 1.30 GiB on GPU 0; with it closed Q5_K_M fits"``.
    """

    held: tuple[Held, ...]
    plan: Plan
    words: str


def closing(
    model: ModelSpec, machine: Machine, goal: Goal, now: Plan | None = None
) -> Closing | None:
    """The fewest programs whose end makes a better plan possible; None: none would.

    Args:
        model: From the catalog or a file.
        machine: Probed, with its holders.
        goal: What was asked for.
        now: The best plan as things are, None: nothing fits.
    """
    if goal.assume_idle:
        return None
    for held in _candidates(holding(machine)):
        found = Search(model, without(machine, *held), goal).top(1)
        if not found:
            continue
        then = found[0]
        gain = _gain(now if now is not None and now.fits else None, then)
        if gain is not None:
            it = "it" if len(held) == 1 else "them"
            whole = "; ".join(h.words for h in held)
            return Closing(held=held, plan=then, words=f"{whole}; with {it} closed {gain}")
    return None


def _candidates(held: tuple[Held, ...]) -> Iterator[tuple[Held, ...]]:
    for one in held[:MOST]:
        yield (one,)
    if len(held) > 1:
        yield held


def _gain(now: Plan | None, then: Plan) -> str | None:
    """What the later plan has that the present one has not."""
    quant = then.quant or then.model.file_type or "the file"
    if now is None:
        return f"{quant} fits at {then.context} tokens"
    if then.loss is not None and now.loss is not None and then.loss < now.loss:
        return (
            f"{quant} fits"
            if then.quant != now.quant
            else f"a cache of {then.config.kv_type_k} fits"
        )
    if then.loss == now.loss and then.context > now.context:
        return f"{then.context} tokens of context fit"
    before, after = now.tokens_per_second, then.tokens_per_second
    if before and after >= FASTER * before and (then.loss or 0) <= (now.loss or 0):
        return f"{quant} gives about {after:.2g} instead of {before:.2g} tokens per second"
    return None
