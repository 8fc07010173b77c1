"""One configuration: what the person fixed, the engine's defaults for the rest."""

from __future__ import annotations

from dataclasses import replace

from nemofit.catalog.model import ModelSpec
from nemofit.machine.records import Machine

from .goal import LEAST_CONTEXT, Goal
from .records import Plan
from .refusal import describe, nearest
from .search import Search
from .sources import source_of

_USUAL = "Q4_K_M"


def single(model: ModelSpec, machine: Machine, goal: Goal) -> tuple[Plan, str | None]:
    """Work out one plan, whether it fits or not.

    The context is the fixed one or 8192 tokens, the cache f16 unless fixed, the offload the
    largest that fits, the file type the best by the goal's preference. Where nothing fits, the plan
    is the one with everything on the GPUs, as Q4_K_M unless fixed.

    Returns:
        The plan, and the nearest thing that would fit where it does not.

    Raises:
        UsageError: The goal makes no sense for this model or machine.
    """
    trained = model.integer("context_length") or LEAST_CONTEXT
    knobs = {"kv_type_k": "f16", "kv_type_v": "f16", **goal.knobs}
    settled = replace(goal, context=goal.context or min(LEAST_CONTEXT, trained), knobs=knobs)
    search = Search(model, machine, settled)
    found = search.top(1)
    if found:
        return found[0], None
    quants = search.quants()
    quant = quants[0] if len(quants) == 1 else _USUAL if _USUAL in quants else quants[-1]
    [(k, v)] = search.cache_types()
    config = search.sizer.config(search.contexts()[0], k, v)
    plan = search.sizer.plan(quant, config, source_of(model, quant, goal.imatrix))
    fitting = nearest(Search(model, machine, replace(settled, quant=goal.quant or quant)))
    return plan, describe(fitting) if fitting else None
