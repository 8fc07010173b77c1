"""What does not fit, by how much, and the smallest change that would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from nemofit.errors import DoesNotFitError, UsageError
from nemofit.units import gib

from .goal import LEAST_CONTEXT, OFFLOAD_KNOBS, Goal
from .records import Plan
from .search import Search

_STEP = 256
"""llama.cpp rounds the context up to a multiple of this (llama-context.cpp)."""
_LEAST = 512


def refusal(search: Search) -> DoesNotFitError:
    """The error for a search that found nothing: both numbers, and the nearest thing that fits."""
    plan = nearest(search)
    return DoesNotFitError(shortfall(search, smallest(search)), describe(plan) if plan else None)


def too_slow(goal: Goal, fastest: Plan) -> DoesNotFitError:
    """The error where even the fastest plan misses the speed that was asked for."""
    reached = fastest.tokens_per_second
    return DoesNotFitError(
        f"no plan for {fastest.model.id} reaches {goal.min_tokens_per_second:g} tokens per second; "
        f"the fastest that fits makes {reached:.2g} ({fastest.title})",
        f"--min-tps {int(reached * 10) / 10:g}, or a smaller model",
    )


def smallest(search: Search) -> Plan:
    """What takes the least memory of all that was allowed, whether it fits or not."""
    quant, source = search.smallest_file()
    k, v = search.cache_types()[-1]
    return search.sizer.plan(quant, search.sizer.config(search.contexts()[0], k, v), source)


def shortfall(search: Search, plan: Plan) -> str:
    """One line with both numbers: what is needed, and what there is."""
    what = f"{plan.title} does not fit"
    if search.goal.offload_is_fixed and plan.shortfalls:
        parts = [
            f"{device.name or 'the host'} needs {gib(device.total_bytes)} of {gib(budget or 0)}"
            for device, budget in plan.shortfalls
        ]
        return f"{what}: " + ", ".join(parts)
    memory, room = plan.memory, search.room
    need = sum(d.total_bytes for d in memory.gpus) + memory.host.total_bytes
    offer = room.total
    if need <= offer:
        return f"{what}: it needs {gib(need)} of {gib(offer)}, but no split suits every device"
    return f"{what}: it needs {gib(need)}, and this machine offers {gib(offer)} ({room.text})"


def describe(plan: Plan) -> str:
    """A plan that fits, as the flags that lead to it."""
    config = plan.config
    flags = [f"--quant {plan.quant}"] if plan.quant else []
    flags.append(f"--context {config.context}")
    if (config.kv_type_k, config.kv_type_v) != ("f16", "f16"):
        pair = dict.fromkeys((config.kv_type_k, config.kv_type_v))
        flags.append("--kv-type " + ",".join(pair))
    total = sum(d.total_bytes for d in plan.memory.gpus) + plan.memory.host.total_bytes
    return f"{' '.join(flags)} {plan.words} ({gib(total)})"


def nearest(search: Search) -> Plan | None:
    """The plan that gives up least of what was asked; None where nothing at all would fit.

    What is given up, in this order and one at a time: the fixed offload, the fixed cache type,
    the context's length, the file type; at last all of them together.
    """
    for give_up in (_offload, _cache, _context, _quant, _everything):
        for goal in give_up(search):
            plan = _best(Search(search.model, search.machine, goal))
            if plan is not None:
                return plan
    return None


def _offload(search: Search) -> Iterator[Goal]:
    if search.goal.offload_is_fixed:
        yield _without(search.goal, *OFFLOAD_KNOBS)


def _cache(search: Search) -> Iterator[Goal]:
    if search.goal.knobs.keys() & {"kv_type_k", "kv_type_v"}:
        yield _without(search.goal, "kv_type_k", "kv_type_v")


def _quant(search: Search) -> Iterator[Goal]:
    if search.goal.quant is not None:
        yield replace(search.goal, quant=None, context=search.contexts()[0])


def _context(search: Search) -> Iterator[Goal]:
    longest = longest_context(search, search.contexts()[0])
    if longest is not None:
        yield replace(search.goal, context=longest)


def _everything(search: Search) -> Iterator[Goal]:
    names = (*OFFLOAD_KNOBS, "kv_type_k", "kv_type_v")
    goal = replace(_without(search.goal, *names), quant=None, context=_LEAST)
    free = Search(search.model, search.machine, goal)
    longest = longest_context(free, min(search.contexts()[0], LEAST_CONTEXT))
    if longest is not None:
        yield replace(goal, context=longest)


def longest_context(search: Search, most: int) -> int | None:
    """The longest context up to ``most`` tokens that fits, in llama.cpp's steps; None: none."""

    def fits(steps: int) -> bool:
        goal = replace(search.goal, context=steps * _STEP)
        return Search(search.model, search.machine, goal).any() is not None

    steps = _last(fits, _LEAST // _STEP, most // _STEP)
    return steps * _STEP if steps else None


def _last(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number of a range for which ``fits`` holds; 0: not even for the first."""
    if high < low or not fits(low):
        return 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _best(search: Search) -> Plan | None:
    try:
        return next(iter(search.top(1)), None)
    except UsageError:
        return None


def _without(goal: Goal, *names: str) -> Goal:
    return replace(goal, knobs={k: v for k, v in goal.knobs.items() if k not in names})
