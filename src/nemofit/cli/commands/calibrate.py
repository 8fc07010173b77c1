"""``nemofit calibrate``: measure this machine, and estimate from that."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp import bench
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import DataError, HardwareError, UsageError
from nemofit.machine.records import Machine
from nemofit.planner.goal import Goal
from nemofit.planner.single import single
from nemofit.probe import probe_machine
from nemofit.speed import measured as speeds
from nemofit.speed.calibrate import Measured, calibrate, estimated
from nemofit.units import rate

from .. import calibration, output, request, served_speed
from ..answer import Answer
from ..calibration import Taken
from ..environment import calibration_file, prepare
from ..options import Options
from ..output import Block, Column, Line, Table
from ..programs import ask, llama_program
from ..reports import CalibrateReport, CorrectedDevice, MeasuredSpeed

_SECONDS = 4 * 3600.0
_MOST_BYTES = 1 << 24
_SLOW = 0.5
_SAME_SIZE = 0.005
"""Parts by which the parameters of the named model may differ from those that were measured."""


def answer(options: Options) -> Answer:
    """Measure, or take what was measured, and keep it.

    Raises:
        UsageError: What to do is not said, or it was measured on other hardware.
        HardwareError: There is no llama-bench, or it fails.
    """
    prepare(options.catalog)
    ways = [options.from_file is not None, options.running or options.url is not None]
    ways += [options.show, options.forget]
    if sum(ways) > 1:
        raise UsageError(
            "--from, --running, --show and --forget ask different things", "give one of them"
        )
    path = calibration_file()
    if options.forget:
        return _forget(path)
    if options.show:
        return _show(path)
    machine = probe_machine()
    if options.from_file is not None:
        taken = _from_file(options, machine)
    elif options.running or options.url is not None:
        taken = served_speed.ask(options, machine, _now())
    elif options.model is not None:
        taken = _benched(options, machine)
    else:
        raise UsageError(
            "what to measure is not said",
            "name a .gguf file on this disk, or give --from FILE or --running",
        )
    return _keep(path, machine, taken)


def _keep(path: Path, machine: Machine, taken: Taken) -> Answer:
    earlier: tuple[calibration.Kept, ...] = ()
    notes = list(taken.notes)
    if path.exists():
        try:
            before, earlier = calibration.read(path)
            if before.host != speeds.host_key(machine.host):
                notes.append("what was measured on other hardware is replaced")
                earlier = ()
        except DataError as error:
            notes.append(f"{error.message}: replaced")
    new = [
        calibration.kept(m, taken.ref, taken.model, taken.engine, estimated(machine, m))
        for m in taken.measured
    ]
    replaced = {_place(k) for k in new}
    measured, still, gone = calibration.again(
        tuple(k for k in earlier if _place(k) not in replaced)
    )
    found = calibrate(machine, [*measured, *taken.measured])
    kept = (*still, *new)
    calibration.write(path, found, kept)
    speeds.use(found)
    for key, c in found.devices.items():
        if min(c.read, c.arithmetic) < _SLOW:
            notes.append(f"{key} reaches less than half of what is usual: did something else run?")
    report = _report(path, found, kept, True, [*notes, *gone])
    return Answer(report, lambda: _view(report))


def _place(k: calibration.Kept) -> tuple[object, ...]:
    """What makes a measurement the same one, taken again."""
    knobs = (k.config["gpu_layers"], k.config["backend"], k.config["cpu_moe_layers"])
    return k.model, k.quant, k.phase, k.tokens, k.depth, *knobs


def _benched(options: Options, machine: Machine) -> Taken:
    """Run llama-bench on a file that lies here."""
    model = request.model_of(options)
    if model.source == "catalog" or not os.path.isfile(model.source):
        raise UsageError(
            f"{options.model!r:.200} is no file on this disk, and nothing is downloaded to measure",
            "name a .gguf file that you have: nemofit list models --local",
        )
    if options.quant is not None:
        raise UsageError("a file is measured as it is", "leave --quant out")
    goal = Goal(context=1024, knobs=request.goal_of(options).knobs)
    plan, _ = single(model, machine, goal)
    gpus = len(plan.memory.gpus)
    repetitions = request.whole("--repetitions", options.repetitions or "3", 1)
    command = llama_program(bench.PROGRAM, options.program)
    flags = bench.arguments(model.source, plan.config, gpus, repetitions)
    bar = output.Progress(f"llama-bench {Path(model.source).name}")

    def told(line: str) -> None:
        share = bench.progress(line)
        if share is not None:
            bar.at(share)

    try:
        done = ask([*command, *flags], _SECONDS, told)
    finally:
        bar.end()
    if done.code != 0:
        end = f"signal {-done.code}" if done.code < 0 else f"exit code {done.code}"
        last = next((line for line in reversed(done.err.splitlines()) if line.strip()), "nothing")
        raise HardwareError(
            f"llama-bench ended with {end}: {last.strip():.200}",
            "update llama.cpp, or name another build with --program",
        )
    return _taken(bench.parse_bench(done.out), model, None, machine, options)


def _from_file(options: Options, machine: Machine) -> Taken:
    """What somebody had llama-bench write, on this machine."""
    rows = bench.parse_bench(_text(str(options.from_file)))
    if not bench.same_model(rows):
        raise UsageError("the file holds tests of several models", "give one model's at a time")
    first = rows[0]
    if options.model is None and not os.path.isfile(first.path):
        raise UsageError(
            f"the model that was measured is not here: {first.path:.200}",
            "name it: nemofit calibrate MODEL --from FILE",
        )
    model = request.model_of(Options(model=options.model or first.path))
    quant = request.goal_of(options).quant
    if quant is None and model.source == "catalog":
        quant = first.file_type
        if quant is None:
            raise UsageError("the file does not say the file type", "name it with --quant")
    return _taken(rows, model, quant, machine, options)


def _taken(
    rows: Sequence[bench.BenchRow],
    model: ModelSpec,
    quant: str | None,
    machine: Machine,
    options: Options,
) -> Taken:
    _same_hardware(rows[0], machine)
    if abs(rows[0].parameters / model.parameters - 1) > _SAME_SIZE:
        raise UsageError(
            f"{rows[0].parameters} parameters were measured, {model.id} has {model.parameters}",
            "name the model that was measured",
        )
    notes, measured = [], []
    for row in rows:
        if bool(row.prompt) == bool(row.generated):
            notes.append("a test of prompt and generation together says nothing of either")
            continue
        measured.append(
            Measured(
                model=model,
                quant=quant,
                config=_on(row.config, machine),
                phase="prefill" if row.prompt else "decode",
                tokens=row.prompt or row.generated,
                depth=row.depth,
                speed=row.speed,
                date=row.date or _now(),
            )
        )
    if not measured:
        raise DataError(
            "no test of prompts or of generation alone", "run llama-bench -p 512 -n 128"
        )
    if machine.gpus and not rows[0].on_gpu:
        notes.append("no GPU took part: this measures the processor")
    ref = options.model or rows[0].path
    ref = os.path.abspath(ref) if os.path.isfile(ref) else ref
    return Taken(
        tuple(measured), ref, model, f"llama.cpp {rows[0].build}", tuple(dict.fromkeys(notes))
    )


def _on(config: RunConfig, machine: Machine) -> RunConfig:
    """The knobs with this machine's backend."""
    if config.backend == "cpu" or not machine.gpus:
        return config
    return config.replace(backend=machine.gpus[0].backend)


def _same_hardware(row: bench.BenchRow, machine: Machine) -> None:
    """Refuse what was measured elsewhere.

    Raises:
        UsageError: The processor, or the cards, are others.
    """
    here, there = machine.host.cpu or "", row.cpu
    if here and there and _plain(here) not in _plain(there) and _plain(there) not in _plain(here):
        raise UsageError(f"it was measured on {there}, this is {here}", "measure on this machine")
    if row.on_gpu:
        names = [gpu.name for gpu in machine.gpus]
        if not names or not any(_plain(name) in _plain(row.gpus) for name in names):
            raise UsageError(
                f"it was measured on {row.gpus:.200}, here is {', '.join(names) or 'no GPU'}",
                "measure on this machine",
            )


def _plain(name: str) -> str:
    return "".join(name.lower().replace("(r)", "").replace("(tm)", "").split())


def _text(place: str) -> str:
    try:
        if place == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES + 1) if sys.stdin else b""
        else:
            with open(place, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {place!r:.200}: {reason}", "check the path") from error
    if len(data) > _MOST_BYTES:
        raise DataError(
            f"{place!r:.200} is larger than any output of llama-bench", "check the path"
        )
    return data.decode("utf-8", "replace")


def _show(path: Path) -> Answer:
    if not path.exists():
        report = _report(path, None, (), False, ["nothing was measured here yet"])
        return Answer(report, lambda: _view(report))
    found, kept = calibration.read(path)
    speeds.use(found)
    why = speeds.mismatch(probe_machine())
    report = _report(path, found, kept, why is None, [why] if why else [])
    return Answer(report, lambda: _view(report))


def _forget(path: Path) -> Answer:
    there = path.exists()
    path.unlink(missing_ok=True)
    speeds.use(None)
    said = f"{path} is removed" if there else "nothing was measured here"
    report = _report(path, None, (), False, [said])
    return Answer(report, lambda: _view(report))


def _report(
    path: Path,
    found: speeds.Calibration | None,
    kept: Sequence[calibration.Kept],
    in_use: bool,
    notes: Sequence[str],
) -> CalibrateReport:
    return CalibrateReport(
        file=str(path),
        host=found.host if found else None,
        in_use=in_use,
        devices=tuple(
            CorrectedDevice(device=key, read=c.read, arithmetic=c.arithmetic, overhead=c.overhead)
            for key, c in (found.devices.items() if found else ())
        ),
        measured=tuple(
            MeasuredSpeed(
                model=k.model,
                quant=k.quant,
                phase="decode" if k.phase == "decode" else "prefill",
                tokens=k.tokens,
                depth=k.depth,
                tokens_per_second=k.speed,
                expected_tokens_per_second=k.expected,
                engine=k.engine,
                date=k.date,
            )
            for k in kept
        ),
        notes=tuple(notes),
    )


def _view(report: CalibrateReport) -> Iterable[Block]:
    if report.measured:
        right = ("Tokens", "At depth", "tokens/s", "Expected")
        columns = [Column("Model"), Column("Test"), *(Column(t, right=True) for t in right)]
        rows = [
            [
                " ".join(filter(None, (m.model, m.quant))),
                "generated" if m.phase == "decode" else "prompt",
                str(m.tokens),
                str(m.depth),
                rate(m.tokens_per_second),
                rate(m.expected_tokens_per_second) if m.expected_tokens_per_second else "?",
            ]
            for m in report.measured
        ]
        yield Table(columns, rows)
        yield Line()
    for d in report.devices:
        where = report.host if d.device == "host" else d.device
        yield Line(
            f"{where}: {_percent(d.read)} of the bandwidth expected of it, "
            f"{_percent(d.arithmetic)} of the arithmetic, {_percent(d.overhead)} of the time beside"
        )
    for note in report.notes:
        yield Line(f"note: {note}", "quiet")
    if report.in_use:
        yield Line(
            f"From now on estimates for this machine start from it; kept in {report.file}", "good"
        )


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _percent(factor: float) -> str:
    return f"{100 * factor:.0f} %"
