"""``nemofit recommend``: the plans for a model, or the best plan for every model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nemofit.errors import UsageError
from nemofit.machine.records import Machine
from nemofit.planner.goal import Goal
from nemofit.planner.ranking import Ranking
from nemofit.planner.records import room_for

from .. import engines, records, request, views
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
    machine = request.machine_of(options)
    ranking: engines.Ranked
    if options.model is None:
        ranking = across(options, machine, request.goal_of(options))
    else:
        ranking = engines.ranking(options, engine, machine)
    report = RecommendReport(
        scope="catalog" if options.model is None else "model",
        machine=records.machine_summary(
            room_for(machine, request.limits_of(options, engine)), machine
        ),
        goal=request.goal_record(options, engine),
        plans=_ranked(ranking, engine, limit),
        reason=ranking.reason,
        considered=ranking.considered,
    )
    return Answer(report, lambda: _view(report, limit))


def across(options: Options, machine: Machine, goal: Goal) -> Ranking:
    """Rank the whole catalog, with what was worked out before at hand."""
    engine = request.engine_of(options)
    if engine in engines.CHECKPOINT_ENGINES:
        raise UsageError(f"the catalog is not ranked for {engine}", "name a model")
    goal = replace(goal, engine=engine)
    from nemofit.planner.across import rank_catalog
    from nemofit.planner.footprints import use_directories

    use_directories(cache_directory(), personal_directory(options.catalog))
    return rank_catalog(machine, goal, prepare=lambda what: talk(f"note: {what}"))


def _ranked(ranking: engines.Ranked, engine: str, limit: int | None) -> tuple[RankedPlan, ...]:
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
    yield _table(report, shown)
    hidden = len(report.plans) - shown
    if hidden > 0:
        yield Line(f"{hidden} more: --limit {len(report.plans)}", "quiet")
    yield Line()
    yield Line(report.reason)
    yield Line()
    yield views.bars(best)
    yield from views.ending(best)


def _table(report: RecommendReport, shown: int) -> Table:
    across, gpus = report.scope == "catalog", bool(report.machine.gpus)
    columns = {
        "#": Column("#", right=True, rank=5),
        "model": Column("Model"),
        "quant": Column("Quant"),
        "context": Column("Context", right=True),
        "kv": Column("KV", rank=2),
        "layers": Column("GPU layers", right=True, rank=4),
        "gpu": Column("GPU GiB", right=True),
        "ram": Column("RAM GiB", right=True, rank=3 if gpus else 0),
        "loss": Column("Loss", rank=1),
        "speed": Column("tokens/s", right=True),
        "score": Column("Score", right=True, rank=6),
        "verdict": Column("Verdict", rank=2 if across else 1),
    }
    unwanted = {"layers", "gpu"} if not gpus else set()
    unwanted |= set() if across else {"model"}
    keys = [key for key in columns if key not in unwanted]
    rows = [_row(plan) for plan in report.plans[:shown]]
    tones: list[Tone] = ["strong"]
    return Table(
        [columns[key] for key in keys],
        [[row[key] for key in keys] for row in rows],
        tones + ["plain"] * (len(rows) - 1),
    )


def _row(plan: RankedPlan) -> dict[str, str]:
    config = plan.config
    gpu = sum(device.total_bytes for device in plan.memory.gpus)
    return {
        "#": str(plan.rank),
        "model": plan.model.id,
        "quant": plan.quant.id,
        "context": views.tokens(views.context_of(config)),
        "kv": views.kv_of(config),
        "layers": views.split_of(config),
        "gpu": f"{gpu / (1 << 30):.1f}",
        "ram": f"{plan.memory.host.total_bytes / (1 << 30):.1f}",
        "loss": plan.quality.grade or "?",
        "speed": views.speed_text(plan.speed),
        "score": f"{plan.score:.2f}",
        "verdict": plan.verdict_words,
    }
