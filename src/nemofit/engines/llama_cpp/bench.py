"""llama-bench: how to ask it, and how to read what it prints with ``-o json`` or ``-o jsonl``.

Fields as tools/llama-bench/llama-bench.cpp of llama.cpp writes them; builds of 2025 wrote
``use_mmap`` and a truth value for ``flash_attn`` where those of today write a number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nemofit.errors import DataError

from .config import KV_TYPES, RunConfig
from .server_log import file_type_of

PROGRAM = "llama-bench"
_MOST_ROWS = 1000
_ALL = (1 << 16) - 1
_PROGRESS = re.compile(r"benchmark (\d{1,4})/(\d{1,4}): (warmup|prompt|generation|starting)[^\n]*")
_RUN = re.compile(r"run (\d{1,4})/(\d{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One line of its table.

    Attributes:
        build: "b7000 (abcdef0)".
        cpu, gpus: As it names the processor and the cards; no card: "".
        path: Model file.
        file_type: llama.cpp's name of it, None: not known.
        parameters, size_bytes: Of the model.
        config: The knobs that matter for speed.
        on_gpu: It had a GPU to put layers on.
        prompt, generated, depth: Tokens; one of the first two is 0 in a plain test.
        speed, deviation: Tokens per second.
        date: ISO 8601.
    """

    build: str
    cpu: str
    gpus: str
    path: str
    file_type: str | None
    parameters: int
    size_bytes: int
    config: RunConfig
    on_gpu: bool
    prompt: int
    generated: int
    depth: int
    speed: float
    deviation: float
    date: str


def arguments(path: str, config: RunConfig, gpus: int, repetitions: int) -> list[str]:
    """The arguments that measure a model: a prompt of 512 tokens, then 128 generated."""
    args = ["-m", path, "-p", "512", "-n", "128", "-r", str(repetitions)]
    args += ["-ngl", "0" if not gpus else str(min(config.gpu_layers or _ALL, 999))]
    args += ["-fa", "on" if config.flash_attention else "off"]
    args += ["-ctk", config.kv_type_k, "-ctv", config.kv_type_v, "-ub", str(config.ubatch)]
    if not gpus:
        args += ["-dev", "none"]
    if config.tensor_split and gpus > 1:
        args += ["-ts", "/".join(f"{x:g}" for x in config.tensor_split)]
    if config.cpu_moe_layers:
        args += ["-ncmoe", str(config.cpu_moe_layers)]
    return [*args, "-o", "jsonl", "--progress"]


def progress(line: str) -> float | None:
    """How far it is, from 0 to 1, by a line that ``--progress`` prints; None: another line."""
    found = _PROGRESS.search(line)
    if found is None:
        return None
    number, of = int(found[1]), max(int(found[2]), 1)
    run = _RUN.search(found[0])
    inside = (int(run[1]) - 0.5) / max(int(run[2]), 1) if run else 0.0
    return min((number - 1 + inside) / of, 1.0)


def parse_bench(text: str) -> tuple[BenchRow, ...]:
    """Read what it printed.

    Raises:
        DataError: It is no such output, ends in the middle, or is of another kind of build.
    """
    rows = tuple(_row(i, entry) for i, entry in enumerate(_entries(text), 1))
    if not rows:
        raise DataError("the output of llama-bench holds no test", "run it with -o json")
    return rows


def _entries(text: str) -> Iterator[dict[str, Any]]:
    stripped = text.strip()
    documents: Iterable[Any]
    try:
        if stripped.startswith("["):
            documents = json.loads(stripped)
        else:
            documents = [json.loads(line) for line in stripped.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        cut = stripped.startswith(("[", "{"))
        raise DataError(
            "the output of llama-bench ends in the middle" if cut else "this is not its output",
            "run it to its end" if cut else "run llama-bench -m MODEL -o json > FILE",
        ) from None
    for place, entry in enumerate(documents):
        if place >= _MOST_ROWS:
            return
        if not isinstance(entry, dict):
            raise DataError("this is not the output of llama-bench", "run it with -o json")
        yield entry


def _row(number: int, e: dict[str, Any]) -> BenchRow:
    missing = [name for name in _NEEDED if name not in e]
    if missing:
        raise DataError(
            f"test {number} lacks {', '.join(missing[:3])}: another build of llama-bench wrote it",
            "run the llama-bench of a build since 2025 with -o json",
        )
    speed = e["avg_ts"]
    counts = {name: e.get(name, 0) for name in ("n_prompt", "n_gen", "n_depth")}
    sound = (
        isinstance(speed, (int, float))
        and math.isfinite(speed)
        and 0 < speed < 1e9
        and all(isinstance(n, int) and 0 <= n < 1 << 24 for n in counts.values())
        and all(
            isinstance(e[n], int) and 0 < e[n] < 1 << 60 for n in ("model_size", "model_n_params")
        )
    )
    if not sound:
        raise DataError(
            f"test {number} has no believable figures: {speed!r:.40} tokens per second",
            "run llama-bench again",
        )
    layers = e.get("n_gpu_layers", -1)
    backends = str(e.get("backends", ""))
    on_gpu = backends.strip(" ,") not in ("", "CPU", "BLAS", "CPU,BLAS", "BLAS,CPU", "RPC")
    on_gpu = on_gpu and layers != 0 and e.get("devices") != "none"
    return BenchRow(
        build=f"b{e.get('build_number', '?')} ({str(e.get('build_commit', '?'))[:12]})",
        cpu=str(e.get("cpu_info", ""))[:200],
        gpus=str(e.get("gpu_info", ""))[:1000],
        path=str(e["model_filename"])[:4096],
        file_type=_file_type(str(e.get("model_type", ""))),
        parameters=e["model_n_params"],
        size_bytes=e["model_size"],
        config=_config(e, layers if on_gpu else 0, on_gpu),
        on_gpu=on_gpu,
        prompt=counts["n_prompt"],
        generated=counts["n_gen"],
        depth=counts["n_depth"],
        speed=float(speed),
        deviation=float(e["stddev_ts"]) if isinstance(e.get("stddev_ts"), (int, float)) else 0.0,
        date=str(e.get("test_time", ""))[:40],
    )


_NEEDED = ("model_filename", "model_size", "model_n_params", "avg_ts", "n_prompt", "n_gen")


def _config(e: dict[str, Any], layers: object, on_gpu: bool) -> RunConfig:
    knobs: dict[str, Any] = {"repack": True, "program": PROGRAM}
    for name, ours, most in (
        ("n_ubatch", "ubatch", 1 << 20),
        ("n_batch", "batch", 1 << 20),
        ("n_cpu_moe", "cpu_moe_layers", 1 << 16),
    ):
        value = e.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < most:
            knobs[ours] = value
    for name, ours in (("type_k", "kv_type_k"), ("type_v", "kv_type_v")):
        if e.get(name) in KV_TYPES:
            knobs[ours] = e[name]
    flash = e.get("flash_attn", True)
    knobs["flash_attention"] = flash not in (0, False) or knobs.get("kv_type_v", "f16") != "f16"
    if not on_gpu:
        return RunConfig(**knobs, backend="cpu", gpu_layers=0, op_offload=False)
    if isinstance(layers, int) and layers >= 0:
        knobs["gpu_layers"] = min(layers, _ALL)
    split = _split(str(e.get("tensor_split", "")))
    if split:
        knobs["tensor_split"] = split
    return RunConfig(**knobs)


def _split(text: str) -> tuple[float, ...] | None:
    try:
        found = tuple(float(x) for x in text.split("/")[:64])
    except ValueError:
        return None
    while found and found[-1] == 0:
        found = found[:-1]
    return found if len(found) > 1 and all(x >= 0 for x in found) else None


def _file_type(model_type: str) -> str | None:
    """ "llama 1B Q4_K - Medium": the file type follows the architecture and the size."""
    words = model_type.split(" ")
    for first in range(1, len(words)):
        found = file_type_of(" ".join(words[first:]))
        if found is not None:
            return found
    return None


def same_model(rows: Sequence[BenchRow]) -> bool:
    """Whether all tests are of one file."""
    return len({(row.path, row.parameters, row.size_bytes) for row in rows}) == 1
