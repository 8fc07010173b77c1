"""What does not fit or is too slow: by how much, and what would have to change."""

from __future__ import annotations

from dataclasses import replace

from nemofit.errors import DoesNotFitError
from nemofit.units import gib, rate

from .changes import changes
from .goal import Goal
from .limits import contradiction
from .records import Plan
from .search import Search
from .sizing import Sizer


def refusal(search: Search) -> DoesNotFitError:
    """The error for a search that found nothing: both numbers, and what would have to change."""
    fastest = search.fastest() if search.goal.min_tokens_per_second else None
    base = fastest or closest(search)
    error = contradiction(search)
    found = changes(search, base)
    hints = tuple(change.text for change in found)
    if error is not None:
        return DoesNotFitError(error.message, error.hint, changes=found)
    if fastest is not None:
        reached = f"--min-tps {int(fastest.tokens_per_second * 10) / 10:g}"
        hint = f"{reached}, or {hints[0]}" if hints else f"{reached}, or a smaller model"
        return DoesNotFitError(too_slow(search.goal, fastest), hint, changes=found)
    return DoesNotFitError(shortfall(search, base), hints[0] if hints else None, changes=found)


def too_slow(goal: Goal, fastest: Plan) -> str:
    """One line where even the fastest plan misses the speed that was asked for."""
    reached = fastest.tokens_per_second
    return (
        f"no plan for {fastest.model.id} reaches {goal.min_tokens_per_second:g} tokens per second; "
        f"the fastest that fits makes {rate(reached)} ({fastest.title})"
    )


def closest(search: Search) -> Plan:
    """What takes the least memory of all that was allowed, placed so that least is missing.

    Where the offload is open, the cards take what they can and the rest is counted against the
    host, as if it had room for it.
    """
    quant, source = search.smallest_file()
    k, v = search.cache_types()[-1]
    config = search.sizer.config(search.contexts()[0], k, v)
    if search.goal.offload_is_fixed:
        return search.sizer.plan(quant, config, source)
    room = search.room
    endless = replace(room, budgets=replace(room.budgets, host=None))
    placed = Sizer(search.model, endless, search.goal, search.sizer).best(quant, config, source)
    if placed is None:
        return search.sizer.plan(quant, config, source, room.without_gpus())
    return replace(placed, room=room if placed.memory.gpus else room.without_gpus())


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
