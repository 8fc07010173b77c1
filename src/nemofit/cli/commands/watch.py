"""``nemofit watch``: memory of an engine over time, beside the plan."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from nemofit.errors import HardwareError, UsageError
from nemofit.planner.records import EnginePlan, Plan
from nemofit.planner.single import single
from nemofit.probe.processes import running
from nemofit.probe.usage import Sample, Sampler, sample_until
from nemofit.units import gib

from .. import chart, output, request, scratch
from ..answer import Answer
from ..contract import to_json
from ..environment import prepare
from ..options import Options
from ..output import Block, Column, Curve, Line, Table
from ..reports import WatchedDevice, WatchedGpu, WatchReport

_PROGRAMS = {
    "llama.cpp": ("llama-server", "llama-cli", "llama-bench", "llama"),
    "ollama": ("ollama",),
    "vllm": ("vllm", "VLLM::EngineCore"),
}
_MOST_LOOKS = 200_000
_MOST_SECONDS = 1e6
_WAIT_S = 0.1
_HOST, _MAPPED = "RAM allocated", "RAM mapped"


@dataclass(slots=True)
class Course:
    """All looks so far."""

    pid: int
    planned: dict[str, int]
    began: float = field(default_factory=time.monotonic)
    times: list[float] = field(default_factory=list)
    values: dict[str, list[int | None]] = field(default_factory=dict)

    def add(self, sample: Sample) -> WatchReport:
        """Keep a look and make its record."""
        at = round(time.monotonic() - self.began, 3)
        self.times.append(at)
        host = sample.host
        assert host is not None
        known = host.allocated is not None
        now: dict[str, int | None] = {
            f"GPU {i}": gpu.used_bytes for i, gpu in enumerate(sample.gpus)
        }
        now[_HOST if known else "RAM resident"] = host.allocated if known else host.resident
        if host.mapped is not None:
            now[_MAPPED] = host.mapped
        for name, value in now.items():
            self.values.setdefault(name, [None] * (len(self.times) - 1)).append(value)
        return WatchReport(
            kind="look",
            pid=self.pid,
            seconds=at,
            resident_bytes=host.resident,
            allocated_bytes=host.allocated,
            mapped_bytes=host.mapped,
            gpus=tuple(
                WatchedGpu(
                    name=gpu.name,
                    used_bytes=gpu.used_bytes,
                    whose="process" if gpu.whose == "process" else "card",
                )
                for gpu in sample.gpus
            ),
        )

    def peaks(self) -> tuple[WatchedDevice, ...]:
        """The most of every device."""
        return tuple(
            WatchedDevice(
                device=name,
                peak_bytes=max((v for v in values if v is not None), default=None),
                planned_bytes=self.planned.get(name),
            )
            for name, values in self.values.items()
        )

    def blocks(self) -> Iterable[Block]:
        """One line per device, for a terminal."""
        yield Line(f"process {self.pid}, {self.times[-1]:.0f} s; Ctrl-C ends", "quiet")
        width = max(map(len, self.values))
        for name, values in self.values.items():
            planned = self.planned.get(name)
            now = "?" if values[-1] is None else gib(values[-1])
            text = now if planned is None else f"{now} of {gib(planned)} planned"
            yield Curve(name.ljust(width), values, planned or 0, text)

    def series(self) -> list[chart.Series]:
        """The same for a picture."""
        return [
            chart.Series(
                name,
                [(at, n) for at, n in zip(self.times, values, strict=True) if n is not None],
                self.planned.get(name),
            )
            for name, values in self.values.items()
        ]


def answer(options: Options) -> Answer:
    """Look at a process until it ends, the time is over, or Ctrl-C.

    Raises:
        HardwareError: No such process runs.
    """
    prepare(options.catalog)
    seconds = _number("--seconds", options.seconds, math.inf)
    interval = _number("--interval", options.interval, 0.5)
    planned, notes = _planned(options)
    picture = None if options.svg is None else _writable(options.svg)
    course, ended = None, "asked"
    try:
        with scratch.ending_like_ctrl_c():
            pid = _pid(options.target, seconds)
            course = Course(pid, planned)
            ended = _follow(course, seconds, interval, options.json, notes)
    except KeyboardInterrupt:
        if course is None:
            raise
    if course is None or not course.times:
        raise HardwareError("the process ended before it was looked at", "start watch first")
    if picture is not None:
        _draw(picture, course)
        notes.append(f"drawn into {picture}")
    report = WatchReport(
        kind="summary",
        pid=course.pid,
        seconds=course.times[-1],
        peaks=course.peaks(),
        looks=len(course.times),
        ended="process" if ended == "process" else "time" if ended == "time" else "asked",
        notes=tuple(notes),
    )
    return Answer(report, lambda: _view(report))


def _follow(
    course: Course, seconds: float, interval: float, as_json: bool, notes: list[str]
) -> str:
    sampler = Sampler(course.pid)
    notes += sampler.notes
    over = False
    course.began = time.monotonic()

    def wait() -> bool:
        nonlocal over
        over = time.monotonic() - course.began + interval > seconds
        if not over and len(course.times) < _MOST_LOOKS:
            time.sleep(interval)
        return over or len(course.times) >= _MOST_LOOKS

    try:
        with output.Live() as live:

            def seen(sample: Sample) -> None:
                look = course.add(sample)
                if as_json:
                    output.write_json_line(to_json(look))
                else:
                    live.show(course.blocks)

            sample_until(sampler, wait, seen)
    finally:
        sampler.close()
    return "time" if over else "process"


def _planned(options: Options) -> tuple[dict[str, int], list[str]]:
    """The plan's bytes by device; empty without a model."""
    if options.model is None:
        return {}, []
    plan, _ = single(
        request.model_of(options), request.machine_of(options), request.goal_of(options)
    )
    return planned_bytes(plan), []


def planned_bytes(plan: EnginePlan) -> dict[str, int]:
    """A plan's bytes by the names that are looked at."""
    out = {f"GPU {i}": gpu.total_bytes for i, gpu in enumerate(plan.memory.gpus)}
    host, mapped = plan.memory.host, isinstance(plan, Plan) and plan.config.mmap
    out[_HOST] = host.total_bytes - (host.weights_bytes if mapped else 0)
    out["RAM resident"] = host.total_bytes
    if mapped:
        out[_MAPPED] = host.weights_bytes
    return out


def _pid(target: str | None, seconds: float) -> int:
    """The process that is meant; an engine that does not run yet is waited for.

    Raises:
        UsageError: No engine of that name.
        HardwareError: No such process, or none came in time.
    """
    if target is not None and target.isdecimal():
        pid = int(target[:9])
        if not _exists(pid):
            raise HardwareError(f"no process {pid} runs here", "see: nemofit watch llama.cpp")
        return pid
    if target is not None and target not in _PROGRAMS:
        raise UsageError(
            f"{target!r:.60} is neither the number of a process nor an engine",
            "a number, or one of: " + ", ".join(_PROGRAMS),
        )
    engines = [target] if target is not None else list(_PROGRAMS)
    names = [name for engine in engines for name in _PROGRAMS[engine]]
    until = time.monotonic() + seconds
    said = False
    while True:
        found = running(names)
        if found:
            return found[-1].pid if target != "ollama" else found[0].pid
        if target is None:
            raise HardwareError(
                "no engine runs here", "name one to wait for: nemofit watch llama.cpp"
            )
        if time.monotonic() > until:
            raise HardwareError(f"{target} did not start within {seconds:g} s", "start it")
        if not said:
            output.talk(f"note: waiting for {target} to start")
            said = True
        time.sleep(_WAIT_S)


def _exists(pid: int) -> bool:
    import psutil

    return pid > 0 and bool(psutil.pid_exists(pid))


def _writable(path: str) -> str:
    """Refuse a place that cannot be written before an hour of watching."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UsageError(f"{path!r:.200} cannot be written", "name a file in a directory of yours")
    return path


def _draw(path: str, course: Course) -> None:
    text = chart.draw(course.series(), f"Memory of process {course.pid}")
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HardwareError(
            f"cannot write {path}: {error.strerror or error}", "name another file"
        ) from error


def _number(flag: str, text: str | None, usual: float) -> float:
    if text is None:
        return usual
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0.01 <= found <= _MOST_SECONDS:
        raise UsageError(
            f"{flag} {text!r:.40} is not a number of seconds from 0.01 up",
            f"write for example {flag} 5",
        )
    return found


def _view(report: WatchReport) -> Iterable[Block]:
    words = {"process": "the process ended", "time": "the time is over", "asked": "as asked"}
    yield Line(
        f"process {report.pid}: {report.looks} looks in {report.seconds:.1f} s; "
        f"{words[report.ended or 'asked']}",
        "strong",
    )
    yield Line()
    columns = [Column("Device"), Column("Peak", right=True), Column("Planned", right=True)]
    rows = [
        [
            d.device,
            "?" if d.peak_bytes is None else gib(d.peak_bytes),
            "" if d.planned_bytes is None else gib(d.planned_bytes),
        ]
        for d in report.peaks
    ]
    yield Table(columns, rows)
    for note in report.notes:
        yield Line(f"note: {note}", "quiet")
