"""``nemofit verify --log``: what an engine wrote about its memory, beside what was predicted."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import BinaryIO, cast

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.matching import compare_log, matching_config
from nemofit.engines.llama_cpp.memory import estimate_memory
from nemofit.engines.llama_cpp.server_log import ServerLog, parse_server_log
from nemofit.engines.llama_cpp.verify import KINDS, TOLERANCE
from nemofit.engines.vllm import verify as vllm_log
from nemofit.errors import DataError, NemofitError, UsageError
from nemofit.formats.load import load_model
from nemofit.units import GIB

from . import request, verified
from .answer import Answer
from .contract import Basis
from .options import Options
from .reports import EngineSource, VerifiedFigure

_LONGEST_LINE = 1 << 13
_MOST_BYTES = 1 << 28
_MOST_KEPT = 1 << 24
_MARKS = (
    b"buffer size", b"llama_", b"print_meta", b"print_info", b"load_tensors", b"using device",
    b"sched_reserve", b"breakdown", b"= ", b"msg=", b"GiB", b"Gi", b"vllm", b"allocate", b"rror",
    b"take", b"took", b"blocks:", b"tokens", b"version",
)  # fmt: skip
"""Every line that a reader of logs looks for holds one of these."""
MOST_LINES = 100_000
_NO, _UNREAD = 3, 5
_PARALLEL = re.compile(r"tensor_parallel_size'?[=:] ?(\d{1,3})\b")
_RANK = re.compile(r"Worker_TP\d{1,3}|VllmWorkerProcess pid=\d{1,9}")
_VLLM_RESOLUTION = GIB // 100


def answer(options: Options) -> Answer:
    """Compare a log with the plan that it is about.

    Raises:
        DataError: It cannot be read, or no engine's line about memory is in it.
    """
    lines = list(islice(lines_of(str(options.log)), MOST_LINES))
    is_vllm = any("vllm" in line.lower() or "gpu_worker" in line for line in lines)
    if not is_vllm:
        return from_llama_log(parse_server_log(lines), options, "log", _engine(lines))
    return _vllm(lines, options)


def from_llama_log(
    log: ServerLog, options: Options, source: verified.Source, engine: EngineSource
) -> Answer:
    """The comparison for one load of llama.cpp, from wherever its log came."""
    notes = [f"the engine says: {log.error}"] if log.error else []
    model, why = _model(log, options)
    if model is None:
        notes.append(str(why))
        found = tuple(_unpredicted(log))
        report = verified.report(source, engine, None, None, found, notes)
        return Answer(report, lambda: verified.view(report), _UNREAD)
    quant = request.goal_of(options).quant
    if quant is None and model.is_shape:
        quant = log.file_type
        if quant is None:
            raise UsageError("the log does not say the file type", "name it with --quant")
    imatrix = bool(options.imatrix)
    config = matching_config(model, tensor_types(model, quant, imatrix), log)
    memory = estimate_memory(model, quant, config, len(log.gpus), imatrix=imatrix)
    differences = compare_log(memory, log)
    notes += memory.notes
    if log.host.repacked:
        size = f"{log.host.repacked / (1 << 20):.2f} MiB"
        notes.append(f"{size} of the host's weights are kept a second time, in the CPU's layout")
    found = verified.figures(differences, memory.basis, log.resolution)
    report = verified.report(
        source, engine, model, quant or model.file_type, found, notes, config=config
    )
    return Answer(report, lambda: verified.view(report), 0 if report.verdict == "agrees" else _NO)


def _model(log: ServerLog, options: Options) -> tuple[ModelSpec | None, str | None]:
    """The model that was named, or the file that the log names where it lies here."""
    if options.model is not None:
        return request.model_of(options), None
    if log.path is None:
        return None, "the log does not name its model: nemofit verify MODEL --log FILE"
    if not os.path.isfile(log.path):
        return None, f"{log.path} is not here: name the model, nemofit verify MODEL --log FILE"
    try:
        return load_model(log.path), None
    except NemofitError as error:
        return None, error.message


def _unpredicted(log: ServerLog) -> Iterator[VerifiedFigure]:
    for name, b in [*log.gpus.items(), ("Host", log.host)]:
        sizes = b.weights, b.kv, b.compute + b.output
        yield from verified.alone(name, dict(zip(KINDS, sizes, strict=True)), log.resolution)


def _engine(lines: list[str]) -> EngineSource:
    """Whose log it is: Ollama's wraps llama.cpp's own lines."""
    ollama = any("ollama" in line or "source=sched.go" in line for line in lines[:20_000])
    return EngineSource(
        name="ollama" if ollama else "llama.cpp", version=None, program=None, devices=()
    )


def _vllm(lines: list[str], options: Options) -> Answer:
    log = vllm_log.parse_log(lines)
    engine = EngineSource(name="vllm", version=log.version, program=None, devices=())
    notes = [f"the engine says: {log.error}"] if log.error else []
    if options.model is None:
        what = f" ({log.model})" if log.model else ""
        notes.append(f"name the model{what} to compare: nemofit verify MODEL --log FILE")
        named = (("weights", log.loading), ("left for the cache", log.available))
        found = tuple(
            f
            for name, sizes in named
            for rank, n in enumerate(sizes)
            for f in verified.alone(f"rank {rank}", {name: n}, _VLLM_RESOLUTION)
        )
        report = verified.report("log", engine, None, None, found, notes)
        return Answer(report, lambda: verified.view(report), _UNREAD)
    from nemofit.engines.vllm import VllmConfig
    from nemofit.engines.vllm import estimate_memory as vllm_memory

    model = request.model_of(options)
    config = VllmConfig()
    knobs = {
        "max_model_len": log.max_model_len,
        "gpu_memory_utilization": log.utilization,
        "tensor_parallel": _ranks(lines),
    }
    config = config.replace(**{k: v for k, v in knobs.items() if v})
    machine = request.machine_of(options)
    gpus = machine.gpus[: config.ranks]
    if log.total:
        sizes = [*log.total, *log.total[-1:] * config.ranks]
        gpus = tuple(replace(g, total_bytes=n) for g, n in zip(gpus, sizes, strict=False))
    memory = vllm_memory(model, (options.quant or "bf16").lower(), config, gpus)
    figures = tuple(_of_vllm(c) for c in vllm_log.compare(memory, log))
    notes += memory.notes
    report = verified.report("log", engine, model, options.quant or "bf16", figures, notes)
    return Answer(report, lambda: verified.view(report), 0 if report.verdict == "agrees" else _NO)


def _ranks(lines: list[str]) -> int:
    """Ranks that share every layer: as configured, else as many as wrote into the log."""
    said = next((m for line in lines if (m := _PARALLEL.search(line))), None)
    if said is not None:
        return max(int(said[1]), 1)
    wrote = {m[0] for line in lines if (m := _RANK.search(line))}
    first_is_unnamed = any(name.startswith("V") for name in wrote)
    return max(len(wrote) + first_is_unnamed, 1)


def _of_vllm(c: vllm_log.Comparison) -> VerifiedFigure:
    """Only what vLLM computes by rule can agree or differ; what it measures is shown beside."""
    agrees = abs(c.difference) <= TOLERANCE if c.basis == "computed" else None
    resolution = _VLLM_RESOLUTION if c.unit == "bytes" else 1 if c.unit == "tokens" else 0.01
    return VerifiedFigure(
        device="per rank",
        kind=c.name,
        unit=c.unit,  # type: ignore[arg-type]
        predicted=c.predicted,
        engine=c.engine,
        resolution=resolution,
        agrees=agrees,
        basis=cast(Basis, c.basis),
    )


def lines_of(place: str) -> Iterator[str]:
    """The lines of a log that may matter, each cut to what is looked at.

    Raises:
        DataError: It cannot be read.
    """
    if place == "-":
        yield from _telling(sys.stdin.buffer) if sys.stdin else ()
        return
    try:
        mode = os.stat(place).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise DataError(f"{place!r:.200} is not a file", "name an engine's log")
        with open(place, "rb") as file:
            yield from _telling(file)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {place!r:.200}: {reason}", "check the path") from error


def _telling(file: BinaryIO) -> Iterator[str]:
    read = kept = 0
    while read < _MOST_BYTES and kept < _MOST_KEPT and (raw := file.readline(_LONGEST_LINE)):
        read += len(raw)
        if any(mark in raw for mark in _MARKS):
            kept += len(raw)
            yield raw.decode("utf-8", "replace")
