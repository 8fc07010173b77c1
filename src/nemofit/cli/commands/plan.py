"""``nemofit plan``: one configuration, every byte accounted for."""

from __future__ import annotations

from collections.abc import Iterable

from nemofit.planner.explain import explain
from nemofit.planner.limits import unmet
from nemofit.planner.single import single

from .. import records, request, views
from ..answer import Answer
from ..contract import PlanReport, Step
from ..environment import prepare
from ..options import Options
from ..output import Block, Column, Line, Table

_NO = 3


def answer(options: Options) -> Answer:
    """Account for one configuration; exit code 3 where it does not fit."""
    prepare(options.catalog)
    engine = request.engine_of(options)
    goal = request.goal_of(options)
    model = request.model_of(options)
    plan, changes = single(model, request.machine_of(options), goal)
    misses = unmet(plan, goal)
    steps = tuple(
        Step(device=s.device, kind=s.kind, text=s.text, bytes=s.bytes, source=s.source)
        for s in (explain(plan) if options.explain else ())
    )
    report = PlanReport(
        **records.plan_fields(plan, engine),
        explanation=steps if options.explain else None,
        nearest=changes[0].text if changes else None,
        misses=misses,
        changes=records.change_records(changes),
    )
    return Answer(report, lambda: _view(report), 0 if misses is None else _NO)


def _view(report: PlanReport) -> Iterable[Block]:
    config, quant = report.config, report.quant
    yield Line(
        f"{report.model.name}, {quant.id} ({quant.bits_per_weight:.2f} bits per weight), "
        f"{config.context} tokens, KV {views.kv_text(config.kv_type_k, config.kv_type_v)}",
        "strong",
    )
    yield Line()
    yield views.memory_table(report)
    yield Line()
    yield views.bars(report)
    yield Line()
    if report.explanation is not None:
        yield from _explained(report.explanation)
        yield Line()
    yield views.verdict_line(report)
    if report.misses and report.verdict == "fits":
        yield Line(f"misses a limit: {report.misses}", "bad")
    yield from views.changed(report.changes)
    yield from views.facts(report)
    for note in report.memory.notes:
        yield Line(f"note: {note}", "quiet")
    yield from views.ending(report)


def _explained(steps: Iterable[Step]) -> Iterable[Block]:
    columns = [Column("Where"), Column("What"), Column("Bytes", right=True), Column("How")]
    yield Table(columns, [[s.device, s.kind, f"{s.bytes:,}", s.text] for s in steps])
    yield Line()
    yield Line("Sources", "strong")
    for kind, source in dict.fromkeys((s.kind, s.source) for s in steps):
        yield Line(f"{kind}: {source}", "quiet")
