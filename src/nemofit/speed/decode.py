"""Seconds per generated token.

A step reads every weight once, whatever the number of streams, and each stream's cache. Reading
and the arithmetic that unpacks the weights overlap; launching operations does not. Devices work
one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .constants import CONSTANTS, Constants
from .families import Figures
from .work import HOST, Weights, Work

MATRIX_VECTOR_TOKENS = 8
"""Most tokens that matrix-vector kernels take; MMVQ_MAX_BATCH_SIZE in ggml-cuda/mmvq.cuh."""

UNKNOWN_CLOCKS = 0.02
UNKNOWN_CPU_CLOCKS = 0.15
"""For a tensor type that no measurement covers: those of Q4_K and of IQ4_XS, rounded up."""


@dataclass(frozen=True, slots=True)
class Part:
    """Seconds of one device in one step, by what they are spent on."""

    device: int
    weights: float
    arithmetic: float
    cache: float
    kernels: float
    link: float
    hops: float

    @property
    def seconds(self) -> float:
        return self.weights + self.arithmetic + self.cache + self.kernels + self.link + self.hops


def touched(used: int, experts: int, tokens: int) -> float:
    """Fraction of the routed experts that ``tokens`` tokens use, if they choose independently."""
    if experts <= 0:
        return 1.0
    return float(1.0 - (1.0 - min(used, experts) / experts) ** tokens)


def step(
    works: Sequence[Work],
    figures: Mapping[int, Figures],
    *,
    used: int = 0,
    experts: int = 0,
    depth: float = 0.0,
    streams: int = 1,
    constants: Constants = CONSTANTS,
) -> tuple[Part, ...]:
    """Seconds of one step of all streams, per device.

    Args:
        works: What each device does.
        figures: What each device can do.
        used, experts: Routed experts per token, and in all.
        depth: Tokens already in each stream's cache.
        streams: Streams decoded together.
        constants: Another set, for calibrating.
    """
    share = touched(used, experts, streams)
    active = streams * min(used / experts, 1.0) if experts else float(streams)
    graphless = streams > 1 or sum(w.device != HOST for w in works) > 1
    return tuple(
        _host(w, figures[HOST], i > 0, share, active, depth, streams, constants)
        if w.device == HOST
        else _gpu(w, figures[w.device], i > 0, share, active, depth, streams, graphless, constants)
        for i, w in enumerate(works)
    )


def _gpu(
    work: Work,
    f: Figures,
    follows: bool,
    share: float,
    active: float,
    depth: float,
    streams: int,
    graphless: bool,
    c: Constants,
) -> Part:
    matrix = streams > MATRIX_VECTOR_TOKENS
    rate = f.bandwidth * (c.batch_read if matrix else 1.0)
    read = clocks = products = 0.0
    for kind, weights in work.dense.items():
        read += weights.bytes / rate
        clocks += _clocks(kind, weights, c) * (1 + c.column * (streams - 1))
        products += weights.elements * streams
    for kind, weights in work.experts.items():
        read += weights.bytes * share / (f.bandwidth * f.gather)
        clocks += _clocks(kind, weights, c) * (share + c.column * (active - share))
        products += weights.elements * active
    arithmetic = 2.0 * products / f.matrix if matrix else clocks / (f.clocks * f.unpack)
    weights_s, arithmetic_s = _overlapped(read, arithmetic, c.overlap)
    linked = work.linked_bytes(depth)
    reading = (work.cache_bytes(depth) - linked) / (f.bandwidth * f.cache)
    flop = work.attention_flop(depth) / (f.attend * c.vector)
    cache = streams * sum(_overlapped(reading, flop, c.overlap))
    cache += work.state / f.bandwidth * (1 / c.state + (streams - 1) / c.state_more)
    return Part(
        work.device,
        weights_s,
        arithmetic_s,
        cache,
        work.kernels * f.kernel * (f.graphless if graphless else 1.0),
        streams * linked / f.link,
        (c.hop_us if follows else c.token_us) * 1e-6,
    )


def _host(
    work: Work,
    f: Figures,
    follows: bool,
    share: float,
    active: float,
    depth: float,
    streams: int,
    c: Constants,
) -> Part:
    read = clocks = 0.0
    for kind, weights in work.dense.items():
        read += weights.bytes / f.bandwidth
        clocks += weights.elements * streams * c.cpu_clocks.get(kind, UNKNOWN_CPU_CLOCKS)
    for kind, weights in work.experts.items():
        read += weights.bytes * share / (f.bandwidth * f.gather)
        clocks += weights.elements * active * c.cpu_clocks.get(kind, UNKNOWN_CPU_CLOCKS)
    weights_s, arithmetic_s = _overlapped(read, clocks / f.clocks, c.overlap)
    reading = work.cache_bytes(depth) / (f.bandwidth * f.cache)
    cache = streams * sum(_overlapped(reading, work.attention_flop(depth) / f.attend, c.overlap))
    cache += work.state / f.bandwidth * (1 / c.state + (streams - 1) / c.state_more)
    hops = (c.hop_us if follows else c.token_us) + 2 * work.visits * c.hop_us
    kernels = work.kernels * f.kernel
    return Part(HOST, weights_s, arithmetic_s, cache, kernels, 0.0, hops * 1e-6)


def _overlapped(read: float, arithmetic: float, p: float) -> tuple[float, float]:
    """Seconds of two things that overlap, split: what is read, and what arithmetic adds."""
    top = max(read, arithmetic)
    if top <= 0.0:
        return 0.0, 0.0
    both = top * ((read / top) ** p + (arithmetic / top) ** p) ** (1 / p)
    return read, both - read


def _clocks(kind: str, weights: Weights, c: Constants) -> float:
    extra = c.clocks_per_weight.get(kind, UNKNOWN_CLOCKS)
    return weights.bytes * c.clocks_per_byte + weights.elements * extra


def limit(parts: Sequence[Part]) -> str:
    """What takes most of a step, in words with its share of the time."""
    shares: dict[str, float] = {}
    for p in parts:
        host = p.device == HOST
        memory = "host memory" if host else "GPU memory"
        for text, seconds in (
            (f"reads weights from {memory}", p.weights),
            (f"unpacks weights on the {'processor' if host else 'GPU'}", p.arithmetic),
            (f"reads the KV cache from {memory}", p.cache),
            ("starts operations", p.kernels),
            ("moves the KV cache over PCIe", p.link),
            ("waits between devices", p.hops),
        ):
            shares[text] = shares.get(text, 0.0) + seconds
    text, seconds = max(shares.items(), key=lambda kv: kv[1])
    return f"{100 * seconds / (sum(shares.values()) or 1.0):.0f} % of the time {text}"
