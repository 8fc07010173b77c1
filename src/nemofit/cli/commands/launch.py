"""``nemofit launch``: the best plan as something that runs; stdout is the artifact alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nemofit.errors import DoesNotFitError, UsageError
from nemofit.machine.records import Machine
from nemofit.planner.downloads import Download, download_of
from nemofit.planner.launching import Artifact, Order, check_format, formats, make
from nemofit.planner.records import EnginePlan
from nemofit.units import gib

from .. import engines, output, records, request, running, views
from ..answer import Answer
from ..contract import PlanRecord
from ..environment import cache_directory, prepare
from ..options import Options
from ..reports import DownloadRecord, LaunchReport

_HIGHEST_PORT = 65535
_SCRIPTS = {"script": "/bin/sh"}


def answer(options: Options) -> Answer:
    """Plan, and write what runs it.

    Raises:
        DoesNotFitError: Nothing fits, or the disk is too small.
        UsageError: The engine has no such format.
        HardwareError: The installed engine cannot be asked, or is too old.
    """
    prepare(options.catalog)
    engine = request.engine_of(options)
    if options.run:
        running.check(options, engine)
    format = options.format or formats(engine)[0]
    check_format(engine, format)
    port = _port(options.port)
    machine = request.machine_of(options)
    plan = engines.best(options, engine, machine)
    if not plan.fits:
        raise DoesNotFitError(f"{plan.title} does not fit", f"nemofit plan {options.model}")
    download = _download(options, plan, machine)
    path, known = engines.installed(engine, options.program, machine, cache_directory())
    order = Order(
        plan=plan,
        machine=machine,
        format=format,
        program=_program(options, engine),
        port=port,
        path=path,
        known=known,
        folder=Path.cwd(),
        directory=_asked(options),
        comments=tuple(_comments(download)),
    )
    artifact = make(order)
    report = LaunchReport(
        engine=engine,
        format=format,
        program=artifact.program,
        arguments=artifact.arguments,
        environment=dict(artifact.variables),
        artifact=artifact.text,
        download=_record(download),
        notes=artifact.notes,
        plan=PlanRecord(**records.plan_fields(plan, engine)),
    )
    if options.run:
        return _ran(artifact, order, tuple(_told(report.plan, download)))
    told = (*_told(report.plan, download), *artifact.notes)
    return Answer(report, None, notes=told, artifact=artifact.text)


def _program(options: Options, engine: str) -> str | None:
    """The program's name; None: the engine's usual one."""
    if options.program is None or engine != "llama.cpp":
        return options.program
    return engines.program_of(options.program)[0]


def _ran(artifact: Artifact, order: Order, told: tuple[str, ...]) -> Answer:
    """Show, then run until it ends."""
    for note in (*told, *artifact.notes):
        output.talk(f"note: {note}")
    output.write_artifact(artifact.text)
    running.run(artifact, order)
    return Answer(None, None, artifact="")


def _asked(options: Options) -> Path | None:
    return Path(options.directory).expanduser() if options.directory else None


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 5 or not 0 < int(text) <= _HIGHEST_PORT:
        raise UsageError(f"--port {text!r:.40} is not a port", "write for example --port 8080")
    return int(text)


def _download(options: Options, plan: EnginePlan, machine: Machine) -> Download | None:
    """What there is to fetch.

    Raises:
        DoesNotFitError: The disk is too small.
    """
    place = _asked(options)
    if place is None and machine.source == "probe":
        place = engines.download_directory(plan.engine)
    download = download_of(plan, place)
    if download is not None and download.short_bytes:
        raise DoesNotFitError(
            f"{download.what} needs {gib(download.missing_bytes)} more in {download.directory}, "
            f"which has {gib(download.free_bytes or 0)} free",
            "--directory DIR keeps it elsewhere",
        )
    return download


def _told(plan: PlanRecord, download: Download | None) -> Iterator[str]:
    """What a person reads beside the artifact."""
    devices = ", ".join(
        f"{name} {gib(d.total_bytes)}"
        + (f" of {gib(d.budget_bytes)}" if d.budget_bytes is not None else "")
        for name, d in views.devices(plan)
        if d.total_bytes
    )
    yield f"{plan.model.name}, {plan.quant.id}, {plan.verdict_words}: {devices}"
    if plan.speed is not None:
        yield f"speed: {views.speed_words(plan.speed)}"
    yield from plan.notes
    if plan.model.licence:
        yield f"licence: {plan.model.licence}"
    if download is not None:
        yield from _about(download)


def _about(download: Download) -> Iterator[str]:
    """Licence conditions before sizes: who cannot accept them need not read on."""
    if download.conditions:
        yield f"conditions: {download.conditions}"
    if download.gated:
        yield (
            f"accept the licence at https://huggingface.co/{download.what} first; "
            "then: hf auth login, or set HF_TOKEN"
        )
    where = "" if download.directory is None else f" in {download.directory}"
    free = "" if download.free_bytes is None else f", {gib(download.free_bytes)} free"
    if download.present_bytes >= download.bytes > 0:
        yield f"{download.what} is there already{where}"
        return
    yield f"download: {download.what}, {gib(download.missing_bytes)}{where}{free}"
    if download.present_bytes or download.partial_bytes:
        there = download.present_bytes + download.partial_bytes
        yield f"{gib(there)} of {gib(download.bytes)} are there; the engine goes on from there"


def _comments(download: Download | None) -> Iterator[str]:
    """What belongs into a file that somebody else may read later."""
    if download is None:
        return
    yield f"downloads {download.what}, {gib(download.bytes)}"
    if download.licence:
        yield f"licence: {download.licence}"
    if download.conditions:
        yield download.conditions
    if download.gated:
        yield f"accept the licence at https://huggingface.co/{download.what} first; set HF_TOKEN"


def _record(download: Download | None) -> DownloadRecord | None:
    if download is None:
        return None
    return DownloadRecord(
        what=download.what,
        bytes=download.bytes,
        present_bytes=download.present_bytes,
        partial_bytes=download.partial_bytes,
        missing_bytes=download.missing_bytes,
        directory=None if download.directory is None else str(download.directory),
        free_bytes=download.free_bytes,
        licence=download.licence,
        conditions=download.conditions,
        gated=download.gated,
    )
