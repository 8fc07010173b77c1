"""``nemofit recommend``: the plans for a model, or the best plan for every model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from nemofit.errors import UsageError
from nemofit.machine.records import Machine
from nemofit.planner.goal import Goal
from nemofit.planner.ranking import Ranking
from nemofit.planner.records import room_for

from .. import engines, records, request, views
from ..answer import Answer
from ..contract import EvidenceRecord, RankedPlan, RecommendReport
from ..environment import cache_directory, personal_directory, prepare
from ..options import Options
from ..output import Block, Column, Line, Table, Tone, talk

if TYPE_CHECKING:
    from nemofit.planner.use_cases import Row

_SHOWN_PLANS = 10
_SHOWN_MODELS = 20


def answer(options: Options) -> Answer:
    """Rank plans and make the report.

    Raises:
        NemofitError: As documented in :mod:`nemofit.errors`.
    """
    prepare(options.catalog)
    engine, limit = request.engine_of(options), request.limit_of(options)
    if options.use_case is not None:
        return _for_use(options, options.use_case, engine, limit)
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


def _for_use(options: Options, use_case: str, engine: str, limit: int | None) -> Answer:
    """Rank the catalog by published scores."""
    from nemofit.planner.use_cases import LONG_CONTEXT, by_use_case, check_use_case, reason_for

    use_case = check_use_case(use_case)
    if options.model is not None:
        raise UsageError("--use-case ranks models, and -m names one", "leave one of them out")
    machine, goal = request.machine_of(options), request.goal_of(options)
    if use_case == "long-context" and goal.context is None:
        goal = replace(goal, context=max(LONG_CONTEXT, goal.min_context or 0))
    ranking = across(options, machine, goal)
    rows = by_use_case(ranking.plans, use_case, goal.prefer)
    report = RecommendReport(
        scope="catalog",
        machine=records.machine_summary(room_for(machine, goal), machine),
        goal=records.goal_record(goal),
        plans=tuple(_for_use_record(n, row, engine) for n, row in enumerate(rows[:limit], 1)),
        reason=reason_for(rows, use_case),
        considered=ranking.considered,
        use_case=use_case,
    )
    return Answer(report, lambda: _view(report, limit))


def _for_use_record(n: int, row: Row, engine: str) -> RankedPlan:
    found, evidence = row.evidence, None
    if found is not None:
        evidence = EvidenceRecord(
            benchmark=found.score.benchmark,
            value=found.score.value,
            by=found.score.by,
            how=found.score.how,
            sources=found.score.sources,
            compared=found.compared,
            text=found.text,
        )
    return RankedPlan(
        rank=n,
        score=row.score,
        evidence=evidence,
        evidence_note=None if evidence else "no published score",
        variants=row.variants,
        **records.plan_fields(row.plan, engine),
    )


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
    rows = [_row(plan) for plan in report.plans[:shown]]
    caches = {row["kv"] for row in rows}
    columns = {
        "#": Column("#", right=True, rank=5),
        "model": Column("Model"),
        "quant": Column("Quant"),
        "context": Column("Context", right=True),
        "kv": Column("KV", rank=0 if len(caches) > 1 else 2),
        "layers": Column("GPU layers", right=True, rank=4),
        "gpu": Column("GPU GiB", right=True),
        "ram": Column("RAM GiB", right=True, rank=3 if gpus else 0),
        "loss": Column("Loss", rank=1 if across else 2),
        "evidence": Column("Published score"),
        "speed": Column("tokens/s", right=True),
        "score": Column("Score", right=True, rank=6),
        "verdict": Column("Fits", rank=2 if across else 1),
    }
    unwanted = {"layers", "gpu"} if not gpus else set()
    unwanted |= set() if across else {"model"}
    unwanted |= {"kv", "ram", "verdict"} if report.use_case else {"evidence"}
    keys = [key for key in columns if key not in unwanted]
    tones: list[Tone] = ["strong"]
    return Table(
        [columns[key] for key in keys],
        [[row[key] for key in keys] for row in rows],
        tones + ["plain"] * (len(rows) - 1),
    )


def _row(plan: RankedPlan) -> dict[str, str]:
    config, words = plan.config, plan.verdict_words.replace("the CPU", "CPU")
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
        "evidence": _evidence(plan),
        "speed": views.speed_text(plan.speed),
        "score": f"{plan.score:.2f}",
        "verdict": "on GPU" if words == "fits" else words.removeprefix("fits, "),
    }


def _evidence(plan: RankedPlan) -> str:
    found = plan.evidence
    if found is None:
        return plan.evidence_note or ""
    how = f", {found.how.split(',')[0]}" if found.how else ""
    text = f"{found.benchmark} {found.value:g}, {found.by}{how}"
    return text if found.compared else f"({text})"
