"""``nemofit recommend``: the plans for a model, or the best plan for every model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nemofit.machine.records import Machine
from nemofit.planner.goal import Goal
from nemofit.planner.ranking import Ranking, rank
from nemofit.planner.records import room_of

from .. import records, request, views
from ..answer import Answer
from ..contract import RankedPlan, RecommendReport
from ..environment import cache_directory, personal_directory, prepare
from ..options import Options
from ..output import Block, Column, Line, Table, Tone, talk

_SHOWN_PLANS = 10
_SHOWN_MODELS = 20


def answer(options: Options) -> Answer:
    """Rank plans and make the report.

    Raises:
        NemofitError: As documented in :mod:`nemofit.errors`.
    """
    prepare(options.catalog)
    engine, limit = request.engine_of(options), request.limit_of(options)
    goal = request.goal_of(options)
    if options.model is None:
        machine = request.machine_of(options)
        ranking = across(options, machine, goal)
    else:
        model = request.model_of(options)
        machine = request.machine_of(options)
        ranking = rank(model, machine, goal)
    report = RecommendReport(
        scope="catalog" if options.model is None else "model",
        machine=records.machine_summary(
            room_of(machine, goal.reserve_bytes, goal.assume_idle), machine
        ),
        goal=records.goal_record(goal),
        plans=_ranked(ranking, engine, limit),
        reason=ranking.reason,
        considered=ranking.considered,
    )
    return Answer(report, lambda: _view(report, limit))


def across(options: Options, machine: Machine, goal: Goal) -> Ranking:
    """Rank the whole catalog, with what was worked out before at hand."""
    from nemofit.planner.across import rank_catalog
    from nemofit.planner.footprints import use_directories

    use_directories(cache_directory(), personal_directory(options.catalog))
    return rank_catalog(machine, goal, prepare=lambda what: talk(f"note: {what}"))


def _ranked(ranking: Ranking, engine: str, limit: int | None) -> tuple[RankedPlan, ...]:
    return tuple(
        RankedPlan(rank=n, score=plan.score, **records.plan_fields(plan, engine))
        for n, plan in enumerate(ranking.plans[:limit], 1)
    )


def _view(report: RecommendReport, limit: int | None) -> Iterable[Block]:
    best = report.plans[0]
    across = report.scope == "catalog"
    shown = limit or (_SHOWN_MODELS if across else _SHOWN_PLANS)
    what = "All models" if across else best.model.name
    yield Line(f"{what} on {views.machine_line(report.machine)}", "strong")
    yield Line()
    yield _table(report.plans[:shown], across)
    hidden = len(report.plans) - shown
    if hidden > 0:
        yield Line(f"{hidden} more: --limit {len(report.plans)}", "quiet")
    yield Line()
    yield Line(report.reason)
    yield Line()
    yield views.bars(best)
    yield from views.ending(best)


def _table(plans: Sequence[RankedPlan], across: bool) -> Table:
    first = Column("Model") if across else Column("Quant")
    second = [Column("Quant")] if across else []
    columns = [
        Column("#", right=True, rank=5),
        first,
        *second,
        Column("Context", right=True),
        Column("KV", rank=2),
        Column("GPU layers", right=True, rank=4),
        Column("GPU GiB", right=True),
        Column("RAM GiB", right=True, rank=3),
        Column("Loss", rank=1),
        Column("tokens/s", right=True),
        Column("Score", right=True, rank=6),
        Column("Verdict", rank=1),
    ]
    tones: list[Tone] = ["strong", *(["plain"] * (len(plans) - 1))]  # type: ignore[list-item]
    return Table(columns, [_row(plan, across) for plan in plans], tones)


def _row(plan: RankedPlan, across: bool) -> list[str]:
    config = plan.config
    gpu = sum(device.total_bytes for device in plan.memory.gpus)
    names = [plan.model.id, plan.quant.id] if across else [plan.quant.id]
    return [
        str(plan.rank),
        *names,
        views.tokens(config.context),
        views.kv_text(config.kv_type_k, config.kv_type_v),
        str(config.gpu_layers),
        f"{gpu / (1 << 30):.1f}",
        f"{plan.memory.host.total_bytes / (1 << 30):.1f}",
        plan.quality.grade or "?",
        views.speed_text(plan.speed),
        f"{plan.score:.2f}",
        plan.verdict_words,
    ]
