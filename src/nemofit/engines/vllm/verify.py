"""What vLLM says of itself when it starts, read from its log, beside what was predicted.

The lines of releases from 0.6 to 0.33 are understood. A log of several ranks repeats them; sizes
are then kept for every rank that printed one. vLLM prints GiB with two decimals (and calls them GB
in older releases), so a size read here is within 0.005 GiB of the engine's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nemofit.errors import DataError
from nemofit.units import GIB

from .memory import VllmMemory

_LONGEST_LINE = 4000  # characters looked at: the engine prints its whole configuration in one
_MOST_RANKS = 1024
_NUMBER = r"(-?\d{1,7}(?:\.\d{1,6})?)"
_COUNT = r"(\d{1,3}(?:,\d{3}){1,5}|\d{1,15})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupLog:
    """Sizes in bytes, one per rank that printed it; empty or None where the log has no such line.

    Attributes:
        version: vLLM's.
        model: Repository or directory it was started with.
        loading: "Model loading took": weights.
        total, free: Memory of the card, and what was free of it at start-up.
        requested: Total x utilization.
        utilization: ``--gpu-memory-utilization``.
        available: "Available KV cache memory".
        activation: "peak activation"; since 0.21 with the estimate of CUDA graphs.
        non_torch: Memory outside torch, in releases that print it apart from weights.
        consumed: Weights and what is outside torch, in releases that print them together.
        graphs: What CUDA graphs took in the end.
        graphs_estimate: What was set aside for them.
        kv_tokens: "GPU KV cache size"; in older releases GPU blocks x 16.
        max_concurrency, max_model_len: "Maximum concurrency for N tokens per request".
        needed: Cache for one request, where vLLM refused to start.
        estimated_max_model_len: What it says would fit, where it refused.
        error: The first line of its refusal.
    """

    version: str | None = None
    model: str | None = None
    loading: tuple[int, ...] = ()
    total: tuple[int, ...] = ()
    free: tuple[int, ...] = ()
    requested: tuple[int, ...] = ()
    utilization: float | None = None
    available: tuple[int, ...] = ()
    activation: tuple[int, ...] = ()
    non_torch: tuple[int, ...] = ()
    consumed: tuple[int, ...] = ()
    graphs: tuple[int, ...] = ()
    graphs_estimate: tuple[int, ...] = ()
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    max_model_len: int | None = None
    needed: int | None = None
    estimated_max_model_len: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure: what was predicted and what the engine printed, in the same unit.

    Attributes:
        name: What it is.
        predicted, engine: Bytes, tokens or requests.
        unit: ``bytes``, ``tokens`` or ``requests``.
        basis: Of the prediction: ``computed`` or ``assumed``.
    """

    name: str
    predicted: float
    engine: float
    unit: str
    basis: str

    @property
    def difference(self) -> float:
        """Prediction over the engine's figure, less 1; infinite where the engine has 0."""
        if self.engine == 0:
            return 0.0 if self.predicted == 0 else float("inf")
        return self.predicted / self.engine - 1


def _sizes(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(p.replace("SIZE", _NUMBER + r"\s?Gi?B")) for p in patterns)


_SIZES = {
    "loading": _sizes(
        r"Model loading took SIZE", r"Loading model weights took SIZE", r"model weights take SIZE"
    ),
    "total": _sizes(
        r"total_gpu_memory[= ]\(?SIZE", r"Free memory on device [^(]{0,40}\([\d.]{1,12}/SIZE\)"
    ),
    "free": (re.compile(rf"Free memory on device [^(]{{0,40}}\({_NUMBER}/"),),
    "requested": _sizes(
        r"gpu_memory_utilization \([\d.]{1,8}\) = SIZE",
        r"Desired GPU memory utilization is \([\d.]{1,8}, SIZE",
    ),
    "available": _sizes(
        r"Available KV cache memory: SIZE", r"reserved for KV Cache is SIZE",
        r"kv_cache_size=SIZE",
    ),
    "activation": _sizes(
        r"PyTorch activation peak memory takes SIZE", r"SIZE for peak activation"
    ),
    "non_torch": _sizes(
        r"non_torch_memory takes SIZE", r"SIZE for non-torch memory", r"non_torch_memory=SIZE"
    ),
    "consumed": _sizes(r"SIZE for consumed memory"),
    "graphs": _sizes(r"Graph capturing finished in \d{1,6} secs, took SIZE"),
    "graphs_estimate": _sizes(r"Estimated CUDA graph memory: SIZE"),
}  # fmt: skip
_VERSION = re.compile(r"(?:\bversion |\(v|API server version )(\d{1,3}\.\d{1,3}[\w.+]{0,30})")
_MODEL = re.compile(r"'model(?:_tag)?': '([^']{1,300})'|\bmodel='([^']{1,300})'")
_UTILIZATION = re.compile(
    r"(?:gpu_memory_utilization(?: \(|=)|GPU memory utilization is \()([01]?\.\d{1,6}|1)\b"
)
_TOKENS = re.compile(rf"KV cache size: {_COUNT} tokens")
_BLOCKS = re.compile(rf"(?:GPU|CUDA|cuda) blocks: {_COUNT}")
_CONCURRENCY = re.compile(
    rf"Maximum concurrency for {_COUNT} tokens per request: (\d{{1,9}}\.\d{{1,4}})x"
)
_NEEDED = re.compile(rf"\({_NUMBER} GiB KV cache is needed")
_ESTIMATED = re.compile(r"estimated maximum model length is (\d{1,12})")
_ERROR = re.compile(
    r"ValueError: ((?:No available memory|To serve at least one|The model's max seq len|Free memory"
    r" on device|Total number of attention heads)[^\n]{0,600})"
)
_OLD_BLOCK = 16


def parse_log(lines: str | Iterable[str]) -> StartupLog:
    """Read a start-up log.

    Args:
        lines: The text, or its lines (an open file).

    Raises:
        DataError: None of the lines is one that vLLM prints about memory.
    """
    sizes: dict[str, list[int]] = {name: [] for name in _SIZES}
    found: dict[str, str] = {}
    for raw in lines.splitlines() if isinstance(lines, str) else lines:
        line = raw[:_LONGEST_LINE]
        for name, patterns in _SIZES.items():
            _collect(sizes[name], patterns, line)
        for name, pattern in _ONCE.items():
            if name not in found and (m := pattern.search(line)):
                found[name] = next(g for g in m.groups() if g is not None)
                if name == "max_model_len":
                    found["max_concurrency"] = m.group(2)
    if not any(sizes.values()) and not found.keys() & {"kv_tokens", "blocks", "error"}:
        raise DataError(
            "no line of the log is one that vLLM prints about its memory",
            "give the output of `vllm serve` from its start, with logging at INFO or DEBUG",
        )
    return _record(sizes, found)


_ONCE = {
    "version": _VERSION,
    "model": _MODEL,
    "utilization": _UTILIZATION,
    "kv_tokens": _TOKENS,
    "blocks": _BLOCKS,
    "max_model_len": _CONCURRENCY,
    "needed": _NEEDED,
    "estimated": _ESTIMATED,
    "error": _ERROR,
}


def _collect(into: list[int], patterns: Iterable[re.Pattern[str]], line: str) -> None:
    for pattern in patterns:
        m = pattern.search(line)
        if m is not None:
            if len(into) < _MOST_RANKS:
                into.append(round(float(m.group(1)) * GIB))
            return


def _record(sizes: dict[str, list[int]], found: dict[str, str]) -> StartupLog:
    def count(name: str) -> int | None:
        return int(found[name].replace(",", "")) if name in found else None

    blocks = count("blocks")
    tokens = count("kv_tokens")
    return StartupLog(
        **{name: tuple(values) for name, values in sizes.items()},
        version=found.get("version"),
        model=found.get("model"),
        utilization=float(found["utilization"]) if "utilization" in found else None,
        kv_tokens=blocks * _OLD_BLOCK if tokens is None and blocks is not None else tokens,
        max_concurrency=float(found["max_concurrency"]) if "max_concurrency" in found else None,
        max_model_len=count("max_model_len"),
        needed=round(float(found["needed"]) * GIB) if "needed" in found else None,
        estimated_max_model_len=count("estimated"),
        error=found.get("error"),
    )


def compare(memory: VllmMemory, log: StartupLog) -> tuple[Comparison, ...]:
    """Predicted against printed, for every figure that both have.

    Of sizes that several ranks printed, the largest is taken, and the smallest of what is left for
    the cache: these decide.
    """
    account = {line.name: -line.bytes for line in memory.lines[0]}
    bound = account["activations"] + account.get("CUDA graphs", 0)
    out = []
    for name, predicted, engine, unit, basis in (
        ("requested", max(memory.requested_bytes), log.requested, "bytes", "computed"),
        ("weights", max(_weights(memory)), log.loading, "bytes", "computed"),
        ("activations", bound, log.activation, "bytes", "assumed"),
    ):
        if engine:
            out.append(Comparison(name, predicted, max(engine), unit, basis))
    if log.available:
        left = min(memory.available_bytes)
        out.append(Comparison("left for the cache", left, min(log.available), "bytes", "assumed"))
    if log.kv_tokens is not None:
        out.append(Comparison("cache", memory.kv_tokens, log.kv_tokens, "tokens", "assumed"))
    if log.max_concurrency is not None:
        printed = log.max_concurrency
        out.append(
            Comparison("concurrency", memory.max_concurrency, printed, "requests", "assumed")
        )
    if log.needed is not None:
        out.append(Comparison("one request", memory.request_bytes, log.needed, "bytes", "computed"))
    return tuple(out)


def _weights(memory: VllmMemory) -> list[int]:
    return [-line.bytes for stage in memory.lines for line in stage if line.name == "weights"]
