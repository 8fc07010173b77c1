"""``nemofit probe``: the hardware alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from nemofit.errors import UsageError
from nemofit.machine import describe
from nemofit.machine.holders import holding
from nemofit.machine.records import FoundEngine, Gpu, Host, Machine
from nemofit.units import gib

from .. import output, profiles, request
from ..answer import Answer
from ..environment import prepare
from ..options import Options
from ..output import Block, Column, Command, Line, Table, Tone
from ..reports import ProbeReport


def answer(options: Options) -> Answer:
    """Read the machine, or the description, and report it.

    Raises:
        UsageError: ``--measure`` of another machine, or a bad name to save it under.
        HardwareError: The bandwidth cannot be measured.
    """
    prepare(options.catalog)
    if options.save is not None:
        profiles.path_of(options.save, options.catalog)
    machine = request.machine_of(options)
    engines = None
    if options.measure:
        if options.machine is not None:
            raise UsageError("--measure measures this machine, not another", "leave out --machine")
        machine = _measured(machine)
    if options.machine is None:
        from nemofit.probe import find_engines

        engines = find_engines(ask_versions=True, ask_servers=True)
    report = ProbeReport(
        source=machine.source,
        host=machine.host,
        gpus=machine.gpus,
        hidden_gpus=machine.hidden_gpus,
        driver=machine.driver,
        cuda_version=machine.cuda_version,
        notes=machine.notes,
        engines=engines,
        engines_note=None if engines is not None else "another machine: its engines are not known",
        description=describe(machine),
    )
    if options.save is not None:
        path = profiles.save(options.save, asdict(report), options.catalog)
        output.talk(f"saved as {path}; use it with --machine {options.save}")
    return Answer(report, lambda: _view(machine, engines))


def _measured(machine: Machine) -> Machine:
    """Measure, keep it for this machine, and show it."""
    from datetime import date

    from nemofit.probe.bandwidth import measure
    from nemofit.probe.site import this_site

    output.talk("measuring the memory: less than two seconds")
    host = machine.host
    found = measure(this_site(), host.physical_cores, host.ram_available_bytes)
    profiles.keep_bandwidth(host, found.gb_s, found.threads, date.today().isoformat())
    return profiles.with_measured(machine)


def _view(machine: Machine, engines: tuple[FoundEngine, ...] | None) -> Iterable[Block]:
    yield Table([Column("Host"), Column("")], [list(row) for row in host_rows(machine)])
    if machine.gpus:
        yield Line()
        yield _gpus(machine.gpus)
    if engines:
        yield Line()
        yield _engines(engines)
    for held in holding(machine):
        yield Line(held.words)
    for gpu in machine.hidden_gpus:
        why = f": {gpu.notes[-1]}" if gpu.notes else ""
        yield Line(f"hidden: {gpu.name}{why}", "quiet")
    for note in (*machine.notes, *machine.host.notes):
        yield Line(f"note: {note}", "quiet")
    for note, places in _gpu_notes(machine.gpus).items():
        yield Line(f"note: GPU {', '.join(places)}: {note}", "quiet")
    for engine in engines or ():
        for said in (engine.version_note, *engine.notes):
            if said:
                yield Line(f"note: {engine.id}: {said}", "quiet")
    yield Line()
    yield Line("in words, for --machine:", "quiet")
    yield Command(describe(machine))


def _gpu_notes(gpus: tuple[Gpu, ...]) -> dict[str, list[str]]:
    """What there is to say about cards, once for all that it is true of."""
    found: dict[str, list[str]] = {}
    for i, gpu in enumerate(gpus):
        for note in gpu.notes:
            found.setdefault(note, []).append(str(i))
    return found


def host_rows(machine: Machine) -> list[tuple[str, str]]:
    """What the host is, line by line."""
    host = machine.host
    rows = [("system", _system(host)), ("CPU", _cpu(host)), ("RAM", _ram(host))]
    if host.ram_bandwidth_gb_s is not None:
        basis = f" ({host.ram_bandwidth_basis})" if host.ram_bandwidth_basis else ""
        rows.append(("RAM bandwidth", f"{host.ram_bandwidth_gb_s:.0f} GB/s{basis}"))
    if machine.driver:
        cuda = f", CUDA {machine.cuda_version}" if machine.cuda_version else ""
        rows.append(("NVIDIA driver", f"{machine.driver}{cuda}"))
    return rows


def _system(host: Host) -> str:
    place = f", in {host.container}" if host.container else ", in WSL" if host.wsl else ""
    return f"{host.os} {host.os_version or ''}".strip() + place


def _cpu(host: Host) -> str:
    cores = f", {host.physical_cores} cores" if host.physical_cores else ""
    return (host.cpu or "unknown") + cores


def _ram(host: Host) -> str:
    if host.ram_total_bytes is None:
        return "unknown"
    free = host.ram_available_bytes
    left = f", {gib(free)} available" if free is not None else ""
    return gib(host.ram_total_bytes) + left + _modules(host)


def _modules(host: Host) -> str:
    """ ", DDR5-5600 x2", as far as it is known."""
    if host.ram_type is None or host.ram_speed_mt_s is None:
        return ""
    channels = f" x{host.ram_channels}" if host.ram_channels else ""
    return f", {host.ram_type}-{host.ram_speed_mt_s}{channels}"


def _gpus(gpus: tuple[Gpu, ...]) -> Table:
    columns = [
        Column("GPU", right=True),
        Column("Name"),
        Column("Memory", right=True),
        Column("Free", right=True),
        Column("GB/s", right=True, rank=1),
        Column("Architecture", rank=2),
        Column("Backend", rank=3),
    ]
    rows = [
        [
            str(i),
            gpu.name,
            _size(gpu.total_bytes),
            gpu.error or _size(gpu.free_bytes),
            "?" if gpu.bandwidth_gb_s is None else f"{gpu.bandwidth_gb_s:.0f}",
            gpu.architecture or "?",
            gpu.backend,
        ]
        for i, gpu in enumerate(gpus)
    ]
    tones: list[Tone] = ["bad" if gpu.error else "plain" for gpu in gpus]
    return Table(columns, rows, tones)


def _engines(engines: tuple[FoundEngine, ...]) -> Table:
    columns = [
        Column("Engine"),
        Column("Version"),
        Column("Where", rank=1),
        Column("Server"),
    ]
    rows = [[e.id, e.version or "?", e.path or "?", e.server or "none"] for e in engines]
    return Table(columns, rows)


def _size(n: int | None) -> str:
    return "?" if n is None else gib(n)
