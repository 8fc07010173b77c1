"""One configuration: what the person fixed, the engine's defaults for the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nemofit.catalog.model import ModelSpec
from nemofit.machine.records import Machine

from .goal import LEAST_CONTEXT, Goal
from .limits import check_quality
from .records import Plan
from .refusal import closest
from .search import Search

if TYPE_CHECKING:
    from .changes import Change


def single(model: ModelSpec, machine: Machine, goal: Goal) -> tuple[Plan, tuple[Change, ...]]:
    """Work out one plan, whether it does or not.

    The context is the fixed one or 8192 tokens, the cache f16 unless fixed, the offload the
    largest that fits, the file type the best by the goal's preference. Where nothing fits, the plan
    is the one that comes nearest; where nothing is fast enough, the fastest.

    Returns:
        The plan, and what would have to change where it misses.

    Raises:
        UsageError: The goal makes no sense for this model or machine.
    """
    search, plan = attempt(model, machine, goal)
    if plan is not None:
        return plan, ()
    from .changes import changes

    fastest = search.fastest() if goal.min_tokens_per_second else None
    plan = fastest or closest(search)
    return plan, changes(search, plan)


def attempt(model: ModelSpec, machine: Machine, goal: Goal) -> tuple[Search, Plan | None]:
    """The search that :func:`single` makes, and its plan; None: nothing does."""
    trained = model.integer("context_length") or LEAST_CONTEXT
    knobs = {"kv_type_k": "f16", "kv_type_v": "f16", **goal.knobs}
    context = goal.context or max(min(LEAST_CONTEXT, trained), goal.min_context or 0)
    search = Search(model, machine, replace(goal, context=context, knobs=knobs))
    check_quality(search)
    return search, next(iter(search.top(1)), None)
