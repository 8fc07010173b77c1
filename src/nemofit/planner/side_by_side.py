"""Several models, or one at several file types, on the same machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from nemofit.catalog.model import ModelSpec
from nemofit.errors import UsageError
from nemofit.machine.records import Machine

from .goal import LEAST_CONTEXT, Goal
from .limits import check_quality
from .records import Plan
from .refusal import closest, shortfall, too_slow
from .search import Search


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One of those that are compared.

    Attributes:
        asked: As the person named it.
        plan: The best plan; where none will do, one that comes near.
        reason: Why none will do, None: the plan does.
    """

    asked: str
    plan: Plan
    reason: str | None = None


def compare(
    asked: Iterable[tuple[str, ModelSpec, str | None]], machine: Machine, goal: Goal
) -> list[Column]:
    """The best plan of each, at the same context: the fixed one or 8192 tokens.

    Args:
        asked: What the person typed, the model, and its file type where they named one.

    Raises:
        UsageError: The goal makes no sense for this machine.
    """
    return [_column(text, model, machine, _for(model, quant, goal)) for text, model, quant in asked]


def _for(model: ModelSpec, quant: str | None, goal: Goal) -> Goal:
    trained = model.integer("context_length") or LEAST_CONTEXT
    context = goal.context or max(min(LEAST_CONTEXT, trained), goal.min_context or 0)
    return replace(goal, context=context, quant=quant or goal.quant)


def _column(asked: str, model: ModelSpec, machine: Machine, goal: Goal) -> Column:
    search = Search(model, machine, goal)
    try:
        check_quality(search)
    except UsageError as error:
        return Column(asked=asked, plan=closest(search), reason=error.message)
    found = search.top(1)
    if found:
        return Column(asked=asked, plan=found[0])
    fastest = search.fastest() if goal.min_tokens_per_second else None
    if fastest is not None:
        return Column(asked=asked, plan=fastest, reason=too_slow(goal, fastest))
    plan = closest(search)
    return Column(asked=asked, plan=plan, reason=shortfall(search, plan))
