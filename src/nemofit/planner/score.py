"""How plans are ranked: one formula, one table of weights.

A plan has three merits, each between 0 and 1 and each half satisfied at a stated point:

    quality  Q = h / (h + loss)      loss: expected KL divergence in nats, h = 0.05
    speed    S = s / (s + 10)        s: generated tokens per second
    context  C = n / (n + 8192)      n: tokens of context

and its score is ``Q^a * S^b * C^c`` with the exponents of the preference. A product, not a sum: a
plan that is hopeless in one merit is not saved by another. Every exponent is above zero, so no plan
is first that another one matches in all three merits and beats in one.

A file whose loss is heavy is the last resort: its score counts a thousandth, so that it leads only
where nothing else will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from nemofit.catalog.quality import bound_of

HALF_LOSS = 0.05
"""Nats; between the published losses of Q4_K_M (0.03) and Q3_K_M (0.08 to 0.10) on Llama 3 8B."""
HALF_SPEED = 10.0
"""Tokens per second, about the pace of reading."""
HALF_CONTEXT = 8192
"""Tokens."""
SAME_SPEED = 0.98
"""Speeds within 2 % of each other count as equal: no estimate tells them apart."""
HEAVY_LOSS = bound_of("noticeable")
"""Nats from which on a loss is heavy."""
LAST_RESORT = 1e-3
"""What the score of a heavy loss is multiplied by."""

WEIGHTS: dict[str, tuple[float, float, float]] = {
    "balanced": (0.40, 0.40, 0.20),
    "quality": (0.80, 0.15, 0.05),
    "speed": (0.15, 0.80, 0.05),
    "context": (0.20, 0.20, 0.60),
}
"""Exponents of quality, speed and context; they sum to 1."""


class Merits(Protocol):
    """What ranking looks at; None where it is not known."""

    @property
    def loss(self) -> float | None: ...
    @property
    def tokens_per_second(self) -> float: ...
    @property
    def context(self) -> int: ...


M = TypeVar("M", bound=Merits)


def score(plan: Merits, prefer: str) -> float:
    """The score of a plan under a preference."""
    return merit(plan.loss, plan.tokens_per_second, plan.context, prefer)


def merit(loss: float | None, tokens_per_second: float, context: int, prefer: str) -> float:
    """The same from the three figures; an unknown loss counts as the half point."""
    a, b, c = WEIGHTS[prefer]
    quality = HALF_LOSS / (HALF_LOSS + (HALF_LOSS if loss is None else loss))
    speed = tokens_per_second / (tokens_per_second + HALF_SPEED)
    found = quality**a * speed**b * (context / (context + HALF_CONTEXT)) ** c
    return float(found * LAST_RESORT if is_heavy(loss) else found)


def is_heavy(loss: float | None) -> bool:
    """Whether a loss is too heavy to be recommended beside anything else."""
    return loss is not None and loss >= HEAVY_LOSS


def frontier(plans: Sequence[M]) -> list[M]:
    """Drop every plan that another one matches in all three merits.

    Of plans that are equal in all three the first stays.
    """
    kept: list[M] = []
    for plan in sorted(plans, key=_merits, reverse=True):
        if not covered(plan, kept):
            kept.append(plan)
    return kept


def covered(plan: Merits, others: Iterable[Merits]) -> bool:
    """Whether one of the others matches a plan in all three merits."""
    merits = _merits(plan)
    return any(_covers(_merits(other), merits) for other in others)


def ranked(plans: Iterable[M], prefer: str) -> list[M]:
    """Order plans by score, best first."""
    return sorted(plans, key=lambda plan: score(plan, prefer), reverse=True)


def _merits(plan: Merits) -> tuple[float, int, float]:
    loss = HALF_LOSS if plan.loss is None else plan.loss
    return (-loss, plan.context, plan.tokens_per_second)


def _covers(one: tuple[float, int, float], other: tuple[float, int, float]) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one[2] >= other[2] * SAME_SPEED
