"""``nemofit plan``: one configuration, every byte accounted for."""

from __future__ import annotations

from collections.abc import Iterable

from nemofit.errors import UsageError
from nemofit.planner.explain import explain
from nemofit.planner.records import EnginePlan, Plan

from .. import beside, engines, records, request, views
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
    machine = request.machine_of(options)
    alone: EnginePlan
    if engine == "llama.cpp":
        found, alone = beside.single(options, machine)
    else:
        beside.refuse(options, engine)
        found = engines.single(options, engine, machine)
        alone = found.plan
    plan = found.plan
    steps: tuple[Step, ...] = ()
    if options.explain:
        if not isinstance(plan, Plan) or not isinstance(alone, Plan):
            raise UsageError(
                f"the arithmetic of {engine} is not written out",
                "leave --explain out: the account of each device is in the answer",
            )
        steps = tuple(
            Step(device=s.device, kind=s.kind, text=s.text, bytes=s.bytes, source=s.source)
            for s in (*explain(alone), *beside.steps_of(plan))
        )
    report = PlanReport(
        **records.plan_fields(plan, engine),
        companions=beside.records_of(plan) if isinstance(plan, Plan) else (),
        explanation=steps if options.explain else None,
        nearest=found.nearest,
        misses=found.misses,
        changes=records.change_records(found.changes),
    )
    return Answer(report, lambda: _view(report), 0 if found.misses is None else _NO)


def _view(report: PlanReport) -> Iterable[Block]:
    quant = report.quant
    yield Line(
        f"{report.model.name}, {quant.id} ({quant.bits_per_weight:.2f} bits per weight), "
        f"{views.context_of(report.config)} tokens, KV {views.kv_of(report.config)}",
        "strong",
    )
    yield Line()
    yield views.memory_table(report)
    yield Line()
    yield views.bars(report)
    yield Line()
    for companion in report.companions:
        yield Line(beside.line_of(companion))
    yield from views.account(report)
    if report.explanation is not None:
        yield from _explained(report.explanation)
        yield Line()
    yield views.verdict_line(report)
    if report.misses and report.verdict == "fits":
        yield Line(f"misses a limit: {report.misses}", "bad")
    yield from views.changed(report.changes, report.nearest)
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
