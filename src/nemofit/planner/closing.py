"""What would run if a program that holds GPU memory were closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nemofit.catalog.model import ModelSpec
from nemofit.machine.holders import Held, holding, without
from nemofit.machine.records import Machine
from nemofit.units import rate

from .goal import Goal
from .records import Plan
from .search import Search

MOST: Final = 3
"""Programs that are tried each by itself, the largest first, where closing all would help."""
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
    held = () if goal.assume_idle else holding(machine)
    if not held:
        return None
    now = now if now is not None and now.fits else None
    together = _without(model, machine, goal, now, held)
    if together is None or len(held) == 1:
        return together
    alone = (_without(model, machine, goal, now, (one,)) for one in held[:MOST])
    return next((found for found in alone if found is not None), together)


def _without(
    model: ModelSpec, machine: Machine, goal: Goal, now: Plan | None, held: tuple[Held, ...]
) -> Closing | None:
    """What closing just these would bring, None: nothing."""
    plans = Search(model, without(machine, *held), goal).top(1)
    gain = _gain(now, plans[0]) if plans else None
    if gain is None:
        return None
    it = "it" if len(held) == 1 else "them"
    holders = "; ".join(h.words for h in held)
    return Closing(held=held, plan=plans[0], words=f"{holders}; with {it} closed {gain}")


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
        return f"{quant} gives about {rate(after)} instead of {rate(before)} tokens per second"
    return None
