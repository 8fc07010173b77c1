"""A log of llama.cpp, or of Ollama, which runs it: what was really allocated, and with what knobs.

The lines are those of ``load_tensors``, ``llama_context``, ``llama_kv_cache`` and ``sched_reserve``
(src/llama-*.cpp), which llama-server prints from ``-lv 4`` on and older builds always, and the
table of ``common_memory_breakdown_print`` (common/fit.cpp) at the end of a run. Buffers are printed
to 0.01 MiB. Ollama's engine of 2025 printed its own lines (ml/device.go), to 0.1 of a unit.

A log may hold several loads: the one with the most weights counts, not the draft model beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from nemofit.catalog.ggml import file_types
from nemofit.errors import DataError
from nemofit.units import GIB, KIB, MIB

from .verify import Row

LONGEST_LINE = 4000  # characters looked at
MOST_LINES = 2_000_000
_MOST_DEVICES = 64
PRINTED = MIB // 100
"""Bytes to which buffers are printed."""

_NAME = r"([A-Za-z][\w.]{0,30}(?:\[[^\]\s]{1,80}\])?)"
_SIZE = r"(\d{1,9}\.\d{1,4}) MiB"
_BUFFER = re.compile(
    rf"{_NAME} {{1,40}}(?:(model|KV|RS|output|compute) )?buffer size {{1,8}}= {{1,20}}{_SIZE}"
)
_OLLAMA = re.compile(
    r'msg="(model weights|kv cache|compute graph)".{0,80}? (?:device|buffer|buffer_type)=(\S{1,40})'
    r' size="(\d{1,6}(?:\.\d{1,3})?) ([KMG]i)?B"'
)
_OLLAMA_KINDS = {"model weights": "model", "kv cache": "KV", "compute graph": "compute"}
_UNITS = {"": 1, "Ki": KIB, "Mi": MIB, "Gi": GIB}
_BREAKDOWN = re.compile(
    r"\|   - ([^|(]{1,60}?) *(?:\([^|]{0,120}\))? *\|.{0,60}?"
    r"(\d{1,9}) = +(\d{1,9}) \+ +(\d{1,9}) \+ +(\d{1,9})"
)
_LOAD = re.compile(
    r"loaded meta data with \d{1,6} key-value pairs.{0,60}? from (.{1,500}?) \(version"
)
_USING = re.compile(r"using device (\S{1,40}) \(([^)]{0,120})\)")
_OFFLOADED = re.compile(r"offloaded (\d{1,5})/(\d{1,5}) layers to GPU")
_KNOB = re.compile(
    r"(?:llama_context|llama_new_context_with_model): (\w{1,24}) {0,24}= {1,4}(\S{1,24})"
)
_CACHE = re.compile(r"K \((\w{1,8})\): .{1,40}V \((\w{1,8})\):")
_AUTO = re.compile(r"Flash Attention was auto, set to (enabled|disabled)")
_TYPE = re.compile(r"(?:print_info: file type|llm_load_print_meta: model ftype) {1,20}= (.{1,60})")
_COPIES = re.compile(r"(?:sched copies = |n_copies=)(\d)")
_VERSION = re.compile(
    r"(?:^|: )(?:build|version): (\d{1,6} \([0-9a-f]{4,40}\)|\d+\.\d+\S* \(build .{1,60}?\))"
)
_FAILED = re.compile(
    r"((?:unable to allocate|failed to allocate|error loading model|cudaMalloc failed"
    r"|out of memory).{0,200})"
)


@dataclass(slots=True)
class Buffers:
    """Bytes on one device, by kind. ``repacked``: copies of host weights in a CPU's own layout."""

    weights: int = 0
    kv: int = 0
    compute: int = 0
    output: int = 0
    repacked: int = 0


@dataclass(slots=True)
class ServerLog:
    """One load.

    Attributes:
        path: Model file, as the engine was given it.
        file_type: llama.cpp's name of the file type, None: not printed.
        knobs: What ``llama_context`` printed, by its own names.
        kv_types: Types of K and V.
        offloaded: Layers on the GPUs, and of how many.
        gpus, host: Buffers; GPUs in the engine's order, by its names.
        rows: The breakdown at the end of the run, to whole MiB; the host last.
        copies: Pipeline copies.
        resolution: Bytes to which the buffers were printed.
        version: Of the build.
        error: The first line that says why it failed.
    """

    path: str | None = None
    file_type: str | None = None
    knobs: dict[str, str] = field(default_factory=dict)
    kv_types: tuple[str, str] | None = None
    offloaded: tuple[int, int] | None = None
    gpus: dict[str, Buffers] = field(default_factory=dict)
    host: Buffers = field(default_factory=Buffers)
    rows: tuple[Row, ...] = ()
    copies: int | None = None
    resolution: int = PRINTED
    version: str | None = None
    error: str | None = None

    @property
    def weights(self) -> int:
        return self.host.weights + sum(b.weights for b in self.gpus.values())

    def number(self, name: str) -> int | None:
        """A knob that is a whole number."""
        text = self.knobs.get(name, "")
        return int(text) if text.isdecimal() else None


def parse_server_log(lines: Iterable[str]) -> ServerLog:
    """Read a log.

    Args:
        lines: Its lines.

    Raises:
        DataError: None of them is one that llama.cpp prints about its memory.
    """
    reader = _Reader()
    for number, line in enumerate(lines):
        if number >= MOST_LINES:
            break
        reader.read(line[:LONGEST_LINE])
    found = max(reader.loads, key=lambda load: load.weights)
    if not (found.weights or found.gpus or found.host.compute or reader.rows or found.error):
        raise DataError(
            "no line of the log is one that llama.cpp prints about its memory",
            "start llama-server with -lv 4, which prints its buffers, and give its whole output",
        )
    _order(found, reader.order)
    found.rows = _whole(reader.rows)
    found.version = reader.version
    return found


class _Reader:
    """Collects what the lines say, a new record for every load."""

    def __init__(self) -> None:
        self.loads = [ServerLog()]
        self.rows: list[Row] = []
        self.order: list[tuple[str, str]] = []
        self.version: str | None = None

    def read(self, line: str) -> None:
        load = self.loads[-1]
        if "buffer size" in line:
            if found := _BUFFER.search(line):
                self._buffer(load, found[1], found[2] or "model", round(float(found[3]) * MIB))
        elif "msg=" in line and (found := _OLLAMA.search(line)):
            size = round(float(found[3]) * _UNITS[found[4] or ""])
            load.resolution = max(load.resolution, _UNITS[found[4] or ""] // 10)
            self._buffer(load, found[2], _OLLAMA_KINDS[found[1]], size, repeats=True)
        elif found := _LOAD.search(line):
            if len(self.loads) < _MOST_DEVICES:
                self.loads.append(ServerLog(path=found[1]))
        else:
            self._rest(load, line)

    def _rest(self, load: ServerLog, line: str) -> None:
        if found := _BREAKDOWN.search(line):
            _, *sizes = found.groups()
            model, context, compute = (int(n) * MIB for n in sizes[1:])
            if len(self.rows) < _MOST_DEVICES:
                self.rows.append(Row(found[1], model, context, compute))
        elif found := _KNOB.search(line):
            load.knobs.setdefault(found[1], found[2])
        elif found := _CACHE.search(line):
            load.kv_types = load.kv_types or (found[1].lower(), found[2].lower())
        elif found := _OFFLOADED.search(line):
            load.offloaded = int(found[1]), int(found[2])
        elif (found := _USING.search(line)) and len(self.order) < _MOST_DEVICES:
            if (found[1], found[2]) not in self.order:
                self.order.append((found[1], found[2]))
        elif found := _TYPE.search(line):
            load.file_type = file_type_of(found[1])
        elif found := _AUTO.search(line):
            load.knobs["flash_attn"] = found[1]
        if found := _COPIES.search(line):
            load.copies = int(found[1])
        if self.version is None and (found := _VERSION.search(line)):
            self.version = found[1]
        if load.error is None and (found := _FAILED.search(line)):
            load.error = found[1].strip()

    @staticmethod
    def _buffer(load: ServerLog, raw: str, kind: str, size: int, *, repeats: bool = False) -> None:
        """Add a buffer to its device; ``repeats``: the line is printed again at every attempt."""
        name, _, rest = raw.partition("_")
        is_host = name == "CPU" or rest == "Host"
        if not is_host:
            name = raw if "[" in raw else name
            if name not in load.gpus and len(load.gpus) >= _MOST_DEVICES:
                return
        buffers = load.host if is_host else load.gpus.setdefault(name, Buffers())
        if kind == "model":
            if rest == "REPACK":
                buffers.repacked += size
            else:
                buffers.weights = size if repeats else buffers.weights + size
        elif kind in ("KV", "RS"):
            buffers.kv = size if repeats else buffers.kv + size
        elif kind == "output":
            buffers.output = size
        else:
            buffers.compute = size  # a second reservation replaces the first


def _order(load: ServerLog, order: list[tuple[str, str]]) -> None:
    """Put the GPUs into the engine's order, and give those behind RPC their own names."""
    names = {f"RPC0[{where}]": name for name, where in order}
    places = {name: place for place, (name, _) in enumerate(order)}
    renamed = [(names.get(raw, raw), buffers) for raw, buffers in load.gpus.items()]
    renamed.sort(key=lambda pair: (places.get(pair[0], len(places)), pair[0]))
    load.gpus = dict(renamed)


def _whole(rows: list[Row]) -> tuple[Row, ...]:
    """The last breakdown that was printed: its rows end with the host's."""
    ends = [i for i, row in enumerate(rows) if row.device == "Host"]
    if not ends:
        return ()
    first = ends[-2] + 1 if len(ends) > 1 else 0
    return tuple(rows[first : ends[-1] + 1])


def file_type_of(printed: str) -> str | None:
    """llama.cpp's name of a file type that it describes: "Q4_K - Medium" is Q4_K_M."""
    text = printed.replace("(guessed)", "").strip()
    base, _, rest = text.partition(" - ")
    base = base.removeprefix("all ").replace(" MoE", "_MOE").replace(" ", "_").upper()
    known = file_types()
    for candidate in (f"{base}_{rest[:1].upper()}", base, f"{base.removesuffix('_MIX')[:-1]}M"):
        if candidate in known:
            return candidate
    return None
