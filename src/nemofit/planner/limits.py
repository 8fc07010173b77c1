"""A goal's hard limits: what a plan breaks, and which of them contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nemofit.catalog.filetypes import weights_bytes
from nemofit.catalog.quality import GRADES, grade
from nemofit.errors import DoesNotFitError, UsageError
from nemofit.units import gib, rate

from .goal import QUALITIES, Goal
from .records import Plan

if TYPE_CHECKING:
    from .search import Search


def unmet(plan: Plan, goal: Goal) -> str | None:
    """The first limit that a plan breaks, in words with both numbers; None: none."""
    if not plan.fits:
        return "it does not fit"
    least = goal.min_tokens_per_second
    if least is not None and plan.tokens_per_second < least:
        return f"it makes about {rate(plan.tokens_per_second)} of {least:g} tokens per second"
    if goal.min_context is not None and plan.context < goal.min_context:
        return f"it has {plan.context} of {goal.min_context} tokens"
    if not goal.allows(plan.loss):
        return f"its loss is {plan.quality.grade or 'not known'}, not {goal.quality}"
    return None


def check_quality(search: Search) -> None:
    """Refuse a file type or cache type that is fixed and loses more than the limit allows.

    Raises:
        UsageError: Names both, and the nearest that agree.
    """
    goal = search.goal
    if goal.quality is None or (goal.quant is None and search.model.source == "catalog"):
        return
    for quant in search.quants():
        imatrix = goal.imatrix is not False
        k, v = search.cache_types()[0]
        found = search.sizer.quality(quant, imatrix, k, v)
        if found.loss is None or found.grade is None or goal.allows(found.loss):
            continue
        within = [word for word in QUALITIES if replace(goal, quality=word).allows(found.loss)]
        name = f"--quant {quant}" if quant else f"{search.model.id} ({search.model.file_type})"
        raise UsageError(
            f"{name} ({found.grade}, {found.loss:.3f} nats) and --quality {goal.quality} "
            f"(below {goal.most_loss:g}) contradict each other",
            " or ".join([*_within(search), *(f"--quality {word}" for word in within[:1])]),
        )


def _within(search: Search) -> list[str]:
    """The smallest file type that the limit allows, as a flag; the f16 cache if that is enough."""
    goal = search.goal
    plain = {**goal.knobs, "kv_type_k": "f16", "kv_type_v": "f16"}
    free = type(search)(search.model, search.machine, replace(goal, quant=None, knobs=plain))
    losses = {q: free.sizer.quality(q, True, "f16", "f16").loss for q in free.quants()}
    if goal.allows(losses.get(goal.quant)):
        return ["--kv-type f16"]
    sizes = {q: weights_bytes(free.model, q, True) for q in losses if goal.allows(losses[q])}
    return [f"--quant {min(sizes, key=lambda q: sizes[q])}"] if sizes else []


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: how it is typed, the goal without it, and what can be had instead of it.

    ``prefer`` is the preference whose first plans come nearest to it.
    """

    said: str
    without: Goal
    instead: Callable[[list[Plan]], str]
    prefer: str


def contradiction(search: Search) -> DoesNotFitError | None:
    """Of two or more limits that nothing meets together: two that conflict, and what would work.

    A limit takes part where plans appear without it. None: fewer than two do.
    """
    limits = list(limits_of(search.goal))
    if len(limits) < 2:
        return None
    guilty = []
    for limit in limits:
        goal = replace(limit.without, prefer=limit.prefer)
        plans = type(search)(search.model, search.machine, goal).top(1)
        if plans:
            guilty.append((limit, limit.instead(plans)))
        if len(guilty) == 2:
            break
    if len(guilty) < 2:
        return None
    (one, first), (other, second) = guilty
    return DoesNotFitError(
        f"no plan for {search.model.id} meets both {one.said} and {other.said} on this machine",
        f"with {other.said}: {first}; with {one.said}: {second}",
    )


def limits_of(goal: Goal) -> Iterator[Limit]:
    """Every hard limit of a goal."""
    if goal.min_tokens_per_second is not None:
        yield Limit(
            f"--min-tps {goal.min_tokens_per_second:g}",
            replace(goal, min_tokens_per_second=None),
            _speed,
            "speed",
        )
    if goal.quality is not None:
        yield Limit(f"--quality {goal.quality}", replace(goal, quality=None), _quality, "quality")
    if goal.min_context is not None:
        yield Limit(
            f"--min-context {goal.min_context}",
            replace(goal, min_context=None),
            lambda plans: f"--min-context {max(plan.context for plan in plans)}",
            "context",
        )
    if goal.max_vram_bytes is not None:
        yield Limit(
            f"--max-vram {gib(goal.max_vram_bytes)}".replace(" GiB", "GiB"),
            replace(goal, max_vram_bytes=None),
            _vram,
            "speed",
        )


def _speed(plans: list[Plan]) -> str:
    fastest = max(plan.tokens_per_second for plan in plans)
    return f"--min-tps {int(fastest * 10) / 10:g}"


def _quality(plans: list[Plan]) -> str:
    known = [plan.loss for plan in plans if plan.loss is not None]
    word = grade(min(known)) if known else GRADES[-1][1]
    return f"--quality {word}" if word in QUALITIES else "no --quality"


def _vram(plans: list[Plan]) -> str:
    most = min(max((d.total_bytes for d in plan.memory.gpus), default=0) for plan in plans)
    return f"--max-vram {-(-most // (1 << 30))}GiB"
