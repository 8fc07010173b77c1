"""Seconds per generated token.

A step reads every weight once, whatever the number of streams, and each stream's cache. Reading
and the arithmetic that unpacks the weights overlap; launching kernels does not. Devices work one
after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .constants import CONSTANTS, Constants
from .families import Figures
from .work import HOST, Weights, Work


@dataclass(frozen=True, slots=True)
class Part:
    """Seconds of one step by what they are spent on."""

    device: int
    weights: float
    cache: float
    kernels: float
    hops: float = 0.0

    @property
    def seconds(self) -> float:
        return self.weights + self.cache + self.kernels + self.hops


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
    """
    share = touched(used, experts, streams)
    out = []
    for i, work in enumerate(works):
        f = figures[work.device]
        k = f.constants
        rate = f.bandwidth * k.read
        read = unpack = 0.0
        for group, part, speed in ((work.dense, 1.0, 1.0), (work.experts, share, k.gather)):
            for kind, weights in group.items():
                read += weights.bytes * part / (rate * speed)
                unpack += _clocks(kind, weights, constants) * part / speed
        arithmetic = unpack * k.unpack * streams / f.clocks
        p = constants.overlap
        cache = streams * (work.cache_bytes(depth) + work.state) / rate
        hops = (i > 0) * constants.hop_us * 1e-6
        out.append(
            Part(
                work.device,
                (read**p + arithmetic**p) ** (1 / p),
                cache,
                work.kernels * k.kernel_us * 1e-6,
                hops + (i == 0) * constants.token_us * 1e-6,
            )
        )
    return tuple(out)


def _clocks(kind: str, weights: Weights, constants: Constants) -> float:
    extra = constants.clocks_per_weight.get(kind, 0.0)
    return weights.bytes * constants.clocks_per_byte + weights.elements * extra


def limit(parts: Sequence[Part]) -> str:
    """The largest part of a step, in words with its share of the time."""
    total = sum(p.seconds for p in parts) or 1.0
    shares: dict[str, float] = {}
    for p in parts:
        where = "host memory" if p.device == HOST else "GPU memory"
        for text, seconds in (
            (f"reads weights from {where}", p.weights),
            (f"reads the KV cache from {where}", p.cache),
            ("launches kernels" if p.device != HOST else "starts operations", p.kernels),
            ("waits between devices", p.hops),
        ):
            shares[text] = shares.get(text, 0.0) + seconds
    text, seconds = max(shares.items(), key=lambda kv: kv[1])
    return f"{100 * seconds / total:.0f} % of the time {text}"
