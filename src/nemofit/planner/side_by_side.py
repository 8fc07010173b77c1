"""Several models, or one at several file types, on the same machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from nemofit.catalog.model import ModelSpec
from nemofit.errors import DoesNotFitError
from nemofit.machine.records import Machine

from .goal import LEAST_CONTEXT, Goal
from .ranking import rank
from .records import Plan
from .single import single


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
    try:
        return Column(asked=asked, plan=rank(model, machine, goal, count=1).plans[0])
    except DoesNotFitError as error:
        plan, _ = single(model, machine, goal)
        return Column(asked=asked, plan=plan, reason=error.message)
