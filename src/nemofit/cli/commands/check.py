"""``nemofit check``: this machine against a model or against the catalog, item by item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from nemofit.errors import DoesNotFitError, HardwareError
from nemofit.machine.records import Machine
from nemofit.planner.downloads import size_of
from nemofit.planner.ranking import caution
from nemofit.planner.records import EnginePlan, Plan, Room, room_for
from nemofit.planner.sources import usual_type
from nemofit.units import gib

from .. import engines, records, request, views
from ..answer import Answer
from ..contract import PlanRecord
from ..environment import prepare
from ..options import Options
from ..output import Block, Column, Line, Table, Tone
from ..reports import CheckItem, CheckReport
from . import probe
from .recommend import across

_NO = 3


def answer(options: Options) -> Answer:
    """Check; exit code 3 for a definite no.

    Raises:
        HardwareError: It does not fit what could be read, but something could not be read.
    """
    prepare(options.catalog)
    engine = request.engine_of(options)
    if options.model is None:
        return _catalog(options)
    chosen = options.quant or options.quality or options.prefer
    if not chosen and engine not in engines.CHECKPOINT_ENGINES:
        options = replace(options, quant=usual_type(request.model_of(options)))
    machine = request.machine_of(options)
    room = room_for(machine, request.limits_of(options, engine))
    found, refused = _found(options, engine, machine)
    plan, changes = found.plan, found.changes
    if not plan.fits:
        _demand_readable(machine)
    items = (
        *_about(machine),
        *_held(options, engine, machine, None if refused else plan),
        *_memory(plan, room),
        _disk(options, machine, plan, engine),
    )
    record = PlanRecord(**records.plan_fields(plan, engine))
    if refused is None and plan.fits and options.engine and record.command is None:
        refused = f"no command for {engine}: {record.command_note}"
    fits = plan.fits and refused is None and all(item.status != "short" for item in items)
    words = plan.words if fits else refused or _no(plan, items)
    report = CheckReport(
        machine=records.machine_summary(room, machine),
        items=items,
        verdict="fits" if fits else "does-not-fit",
        verdict_words=words,
        plan=record,
        nearest=found.nearest,
        caution=caution(plan) if fits else None,
        fitting_models=None,
        catalog_models=None,
        changes=records.change_records(changes),
    )
    return Answer(report, lambda: _view(report), 0 if fits else _NO)


def _found(options: Options, engine: str, machine: Machine) -> tuple[engines.Found, str | None]:
    """The best plan, or the one that comes nearest; why it will not do."""
    if engine in engines.CHECKPOINT_ENGINES:
        try:
            return engines.Found(plan=engines.best(options, engine, machine)), None
        except DoesNotFitError as error:
            found = engines.single(options, engine, machine)
            return found, error.message if found.plan.fits else None
    from nemofit.planner.limits import check_quality, contradiction
    from nemofit.planner.search import Search

    goal = engines.file_goal(options, engine, machine)
    search = Search(request.model_of(options), machine, goal)
    check_quality(search)
    if search.top(1):
        return engines.Found(plan=engines.best(options, engine, machine)), None
    found = engines.single(options, engine, machine)
    contradicted = contradiction(search)
    misses = found.misses if found.plan.fits else None
    return found, contradicted.message if contradicted else misses


def _no(plan: EnginePlan, items: Iterable[CheckItem]) -> str:
    short = [f"{item.item} is short by {gib(item.short_bytes or 0)}" for item in items
             if item.status == "short"]  # fmt: skip
    return "does not fit: " + ", ".join(short) if short else plan.words


def _catalog(options: Options) -> Answer:
    goal = request.goal_of(options)
    machine = request.machine_of(options)
    room = room_for(machine, goal)
    engine = request.engine_of(options)
    try:
        ranking = across(options, machine, goal)
    except DoesNotFitError as error:
        _demand_readable(machine)
        plan, fitting, words, known = None, 0, error.message, None
    else:
        best = ranking.plans[0]
        plan = PlanRecord(**records.plan_fields(best, engine))
        fitting, known = len(ranking.plans), ranking.models
        words = ranking.reason
    report = CheckReport(
        machine=records.machine_summary(room, machine),
        items=tuple(_about(machine)),
        verdict="fits" if fitting else "does-not-fit",
        verdict_words=words,
        plan=plan,
        nearest=None,
        fitting_models=fitting,
        catalog_models=known,
    )
    return Answer(report, lambda: _view(report), 0 if fitting else _NO)


def _demand_readable(machine: Machine) -> None:
    """A no is definite only where everything could be read."""
    broken = [gpu for gpu in machine.gpus if gpu.error]
    if broken:
        raise HardwareError(
            f"{broken[0].name} could not be read: {broken[0].error}",
            "mend the driver, or describe the machine with --machine",
        )
    if machine.host.ram_total_bytes is None and machine.source == "probe":
        raise HardwareError(
            "the host's memory could not be read", "describe the machine with --machine"
        )


def _about(machine: Machine) -> Iterator[CheckItem]:
    for item, have in probe.host_rows(machine):
        if item in ("system", "CPU", "NVIDIA driver"):
            known = "unknown" not in have
            if known or machine.source == "probe":  # a description says what it says
                yield CheckItem(item=item, have=have, status="ok" if known else "unknown")
    for i, gpu in enumerate(machine.gpus):
        if gpu.error:
            yield CheckItem(item=f"GPU {i}", have=gpu.name, status="unknown", note=gpu.error)


def _held(
    options: Options, engine: str, machine: Machine, plan: EnginePlan | None
) -> Iterator[CheckItem]:
    """Programs that hold GPU memory, and what would fit without them."""
    from nemofit.machine.holders import holding

    held = holding(machine)
    if not held:
        return
    from nemofit.planner.closing import closing

    found = None
    if engine not in engines.CHECKPOINT_ENGINES:
        assert plan is None or isinstance(plan, Plan)
        found = closing(request.model_of(options), machine, request.goal_of(options), plan)
    yield CheckItem(
        item="GPU memory in use",
        have=", ".join(h.words for h in held[:3]),
        status="ok",
        note=found.words if found else None,
    )


def _memory(plan: EnginePlan, room: Room) -> Iterator[CheckItem]:
    for i, (device, offer) in enumerate(zip(plan.memory.gpus, plan.room.budgets.gpus, strict=True)):
        yield _item(f"GPU {i} memory", device.name, offer, device.total_bytes)
    need = plan.memory.host.total_bytes
    drawn = sum(
        device.total_bytes
        for device, shared in zip(plan.memory.gpus, plan.room.budgets.shared, strict=True)
        if shared
    )
    host = room.budgets.host
    if host is None:
        yield CheckItem(
            item="RAM",
            have="unknown",
            status="unknown",
            need_bytes=need + drawn,
            note="host memory is not known and was not checked",
        )
    else:
        yield _item("RAM", "", host, need + drawn)


def _item(item: str, name: str, have: int, need: int) -> CheckItem:
    text = f"{name}, {gib(have)} to use" if name else f"{gib(have)} to use"
    short = max(0, need - have)
    return CheckItem(
        item=item,
        have=text,
        status="short" if short else "ok",
        have_bytes=have,
        need_bytes=need,
        short_bytes=short or None,
    )


def _disk(options: Options, machine: Machine, plan: EnginePlan, engine: str) -> CheckItem:
    """Free space where the file would go; nothing to check where it is already there."""
    need = size_of(plan)
    origin = plan.model.origin
    is_here = not plan.model.is_shape and (origin is None or origin.path is not None)
    if is_here and plan.quant in (None, plan.model.file_type):
        return CheckItem(item="disk", have=f"{plan.model.source} is there", status="ok")
    if machine.source != "probe" and options.directory is None:
        return CheckItem(
            item="disk",
            have="not checked",
            status="unknown",
            need_bytes=need,
            note="the machine is another one; --directory checks a place on this one",
        )
    place = Path(options.directory).expanduser() if options.directory else None
    place = place or engines.download_directory(engine)
    from nemofit.probe import disk_free

    return _item("disk", str(place), disk_free(place), need)


def _view(report: CheckReport) -> Iterable[Block]:
    columns = [
        Column("Check"),
        Column("Here"),
        Column("Needed", right=True),
        Column("Result"),
    ]
    rows, tones = [], list[Tone]()
    for item in report.items:
        result = item.status
        if item.short_bytes:
            result = f"short by {gib(item.short_bytes)}"  # type: ignore[assignment]
        need = "" if item.need_bytes is None else gib(item.need_bytes)
        if item.need_bytes == 0 and item.item.startswith("GPU"):
            result, need = "not used", ""  # type: ignore[assignment]
        rows.append([item.item, item.have, need, result])
        tones.append("bad" if item.status == "short" else "plain")
    if rows:
        yield Table(columns, rows, tones)
    for item in report.items:
        if item.note:
            yield Line(f"note: {item.item}: {item.note}", "quiet")
    if rows:
        yield Line()
    yield Line(report.verdict_words, "good" if report.verdict == "fits" else "bad")
    if report.caution:
        yield Line(f"but {report.caution}", "bad")
    yield from views.changed(report.changes)
    if report.plan is not None and report.verdict == "fits":
        yield Line()
        yield views.bars(report.plan)
        yield from views.facts(report.plan)
        yield from views.ending(report.plan)
