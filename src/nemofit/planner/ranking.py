"""The plans for a model on a machine, best first, and one sentence why the first is first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemofit.catalog.model import ModelSpec
from nemofit.machine.records import Machine
from nemofit.units import article, gib, rate

from .goal import Goal
from .records import EnginePlan, Plan
from .score import is_heavy

PLANS = 20
"""Plans that are worked out unless more are asked for."""
SLOW = 1.0
"""Tokens per second below which nobody reads along."""
_NOTABLE_RAM = 0.1
"""Share of the GPU memory from which a plan's RAM is named beside it."""
NEGLIGIBLE = 0.005
"""Nats; a difference like that of Q6_K and Q8_0 on Llama 3 8B is not worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Plans, best first.

    Attributes:
        plans: None of them is matched by another in quality, speed and context.
        considered: Configurations that were sized.
        reason: Why the first plan is first, in one sentence.
        models: Models that were looked at.
    """

    plans: list[Plan]
    considered: int
    reason: str
    models: int = 1


def recommend(model: ModelSpec, machine: Machine, goal: Goal | None = None) -> list[Plan]:
    """Rank every configuration of a model that fits a machine.

    File types, offload, cache types and context lengths are searched; what the goal fixes is kept.

    Args:
        model: From the catalog or a file.
        machine: Probed or described.
        goal: What to prefer and what is fixed; None: a balance, at least 8192 tokens.

    Returns:
        At least one plan, best first; dominated ones are left out.

    Raises:
        DoesNotFitError: Nothing fits or nothing is fast enough; carries both numbers and the
            nearest thing that would fit.
        UsageError: The goal makes no sense for this model or machine.
    """
    return rank(model, machine, goal or Goal()).plans


def rank(model: ModelSpec, machine: Machine, goal: Goal, count: int = PLANS) -> Ranking:
    """The best ``count`` plans with the reason; arguments and errors as for :func:`recommend`."""
    from .limits import check_quality
    from .refusal import refusal
    from .search import Search

    search = Search(model, machine, goal)
    check_quality(search)
    plans = search.top(count)
    if not plans:
        raise refusal(search)
    return Ranking(plans=plans, considered=search.considered, reason=reason(plans))


def reason(plans: Sequence[Plan]) -> str:
    """Why the first plan is first: what it offers, and what the next better file would cost."""
    best = plans[0]
    warning = caution(best)
    return _praise(best, plans) + (f" But {warning}." if warning else "")


def caution(plan: EnginePlan) -> str | None:
    """Why even the best plan is a poor one; None: it is not."""
    faults = []
    if plan.speed is not None and plan.tokens_per_second < SLOW:
        faults.append("it is too slow to read along")
    if is_heavy(plan.loss):
        faults.append("its quality loss is heavy")
    if not faults:
        return None
    return f"{' and '.join(faults)}: a smaller model suits this machine better (nemofit recommend)"


def _praise(best: Plan, plans: Sequence[Plan]) -> str:
    used = sum(device.total_bytes for device in best.memory.gpus)
    host = best.memory.host.total_bytes
    amounts = [f"{gib(used)} of GPU memory"] * bool(used)
    amounts += [f"{gib(host)} of RAM"] * (not used or host >= _NOTABLE_RAM * used)
    where = " and ".join(amounts)
    speed = f"about {rate(best.tokens_per_second)} tokens per second" if best.speed else "a fit"
    quant = best.quant or best.model.file_type or "this file"
    said = f"{quant} at {best.config.context} tokens gives {speed} in {where}"
    better = [p for p in plans if (p.loss or 0) < (best.loss or 0) - NEGLIGIBLE]
    if not better:
        return f"{said}, and nothing that fits has a markedly smaller quality loss."
    other = max(better, key=lambda p: p.tokens_per_second)
    cache = other.config.kv_type_k
    return (
        f"{said}; less quality loss would mean {other.quant or 'the same file'} with "
        f"{article(cache)} {cache} cache at {other.config.context} tokens and about "
        f"{rate(other.tokens_per_second)} tokens per second."
    )
