"""Seconds for a prompt.

The prompt is worked through in micro-batches; each multiplies every weight with its tokens, so
arithmetic decides, and attention grows with what came before. Weights on the host either cross to
a GPU once per micro-batch (op offload) or are multiplied by the processor. Several GPUs work as a
pipeline once there are several micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .constants import CONSTANTS, Constants
from .decode import UNKNOWN_CPU_CLOCKS, touched
from .families import Figures
from .work import HOST, Work

OP_OFFLOAD_TOKENS = 32
"""Least tokens of a micro-batch for op offload; GGML_OP_OFFLOAD_MIN_BATCH in ggml-cuda.cu."""

_WIDE = frozenset(("F32", "F16", "BF16"))


def prompt_seconds(
    works: Sequence[Work],
    figures: Mapping[int, Figures],
    *,
    tokens: int,
    ubatch: int,
    used: int = 0,
    experts: int = 0,
    depth: float = 0.0,
    op_offload: bool = True,
    flash: bool = True,
    pipeline: bool = False,
    constants: Constants = CONSTANTS,
) -> float:
    """Seconds for ``tokens`` prompt tokens after ``depth`` earlier ones.

    Args:
        works: What each device does for a token.
        figures: What each device can do.
        tokens, ubatch: Prompt length and micro-batch.
        used, experts: Routed experts per token, and in all.
        depth: Tokens already in the cache.
        op_offload: Host weights may be multiplied on GPU 0.
        flash: Flash attention.
        pipeline: The GPUs work on successive micro-batches at the same time.
        constants: Another set, for calibrating.
    """
    full, rest = divmod(tokens, ubatch)
    total = 0.0
    for count, size, first in ((full, ubatch, depth), (1, rest, depth + full * ubatch)):
        if not count or not size:
            continue
        middle = first + size * count / 2
        stages = [
            _stage(w, figures, size, middle, used, experts, op_offload, flash, constants)
            for w in works
        ]
        if pipeline and len(stages) > 1:
            ideal = sum(stages) + (count - 1) * max(stages)
            total += min(ideal / constants.pipeline, count * sum(stages))
        else:
            total += count * sum(stages)
    return total


def _stage(
    work: Work,
    figures: Mapping[int, Figures],
    tokens: int,
    depth: float,
    used: int,
    experts: int,
    op_offload: bool,
    flash: bool,
    c: Constants,
) -> float:
    """Seconds of one device for one micro-batch of ``tokens`` at a mean depth."""
    f = figures[work.device]
    offloaded = work.device == HOST and op_offload and 0 in figures and tokens >= OP_OFFLOAD_TOKENS
    flop = tokens * work.attention_flop(depth)
    attention = flop / f.attend
    if not flash:
        attention = flop / f.matrix_16 + flop * c.plain_bytes / f.bandwidth
    scan = work.state / 2 * tokens / (f.bandwidth * c.scan)
    kernels = work.kernels * f.kernel * f.graphless
    hops = 2 * work.visits * c.hop_us * 1e-6 if work.device == HOST else 0.0
    extra = attention + scan + kernels + hops
    share = touched(used, experts, tokens)
    active = tokens * min(used / experts, 1.0) if experts else float(tokens)
    if work.device == HOST and not offloaded:
        return _on_processor(work, f, tokens, active, share, c) + extra
    g = figures[0] if offloaded else f
    seconds = _on_gpu(work, g, tokens, active, share, c) + extra
    crossing = work.linked_bytes(depth)
    if offloaded:
        crossing += sum(w.bytes for w in work.dense.values())
        crossing += share * sum(w.bytes for w in work.experts.values())
    return seconds + crossing / g.link


def _on_gpu(
    work: Work, f: Figures, tokens: int, active: float, share: float, c: Constants
) -> float:
    """Seconds of the matrix products: ``active`` tokens' worth for each routed expert."""
    fill = tokens / (tokens + c.half_ubatch)
    expert_fill = fill * active / (active + f.tile)
    read = arithmetic = 0.0
    for kind, w in work.dense.items():
        read += w.bytes / f.bandwidth
        rate = f.matrix_16 if kind in _WIDE else f.matrix
        arithmetic += 2.0 * w.elements * tokens / (rate * fill)
    for kind, w in work.experts.items():
        read += w.bytes * share / f.bandwidth
        rate = f.matrix_16 * c.experts_16 if kind in _WIDE else f.matrix
        arithmetic += 2.0 * w.elements * active / (rate * expert_fill)
    p = c.prefill_overlap
    return float((read**p + arithmetic**p) ** (1 / p))


def _on_processor(
    work: Work, f: Figures, tokens: int, active: float, share: float, c: Constants
) -> float:
    read = clocks = 0.0
    for kind, w in work.dense.items():
        read += w.bytes / f.bandwidth
        clocks += w.elements * tokens * c.cpu_clocks.get(kind, UNKNOWN_CPU_CLOCKS)
    for kind, w in work.experts.items():
        read += w.bytes * share / f.bandwidth
        clocks += w.elements * active * c.cpu_clocks.get(kind, UNKNOWN_CPU_CLOCKS)
    return max(read, clocks / f.clocks)
