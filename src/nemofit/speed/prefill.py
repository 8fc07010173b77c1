"""Seconds for a prompt.

The prompt is worked through in micro-batches; each multiplies every weight with its tokens, so
arithmetic decides, and attention grows with what came before. Weights on the host either cross to
a GPU once per micro-batch (op offload) or are multiplied by the processor. Several GPUs work as a
pipeline once there are several micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .constants import CONSTANTS, Constants
from .decode import touched
from .families import Figures
from .work import HOST, Work

OP_OFFLOAD_TOKENS = 32
"""Least tokens of a micro-batch for op offload; GGML_OP_OFFLOAD_MIN_BATCH in ggml-cuda.cu."""


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
        pipeline: The GPUs work on successive micro-batches at the same time.
    """
    if tokens <= 0:
        return 0.0
    full, rest = divmod(tokens, ubatch)
    total = 0.0
    for count, size in ((full, ubatch), (1, rest)):
        if not count or not size:
            continue
        first = depth + (0 if size == ubatch else full * ubatch)
        middle = first + size * count / 2
        stages = [
            _stage(w, figures, size, middle, used, experts, op_offload, constants) for w in works
        ]
        if pipeline and len(stages) > 1:
            total += sum(stages) + (count - 1) * max(stages)
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
    constants: Constants,
) -> float:
    """Seconds of one device for one micro-batch of ``tokens`` at a mean depth."""
    f = figures[work.device]
    copied = 0.0
    if work.device == HOST and op_offload and 0 in figures and tokens >= OP_OFFLOAD_TOKENS:
        f = figures[0]
        copied = 1.0
    k = f.constants
    share = touched(used, experts, tokens)
    active = min(used / experts, 1.0) if experts else 1.0
    read = arithmetic = crossing = 0.0
    for group, part, work_part in ((work.dense, 1.0, 1.0), (work.experts, share, active)):
        for kind, weights in group.items():
            rate = k.matrix_16 if kind in ("F16", "BF16", "F32") else k.matrix
            read += weights.bytes * part / (f.bandwidth * k.read)
            crossing += copied * weights.bytes * part / (f.link * constants.link)
            arithmetic += 2.0 * weights.elements * work_part * tokens / (rate * f.clocks)
    attention = tokens * work.attention_flop(depth) / (k.attend * f.clocks)
    kernels = work.kernels * k.kernel_us * 1e-6
    return max(read, arithmetic) + crossing + attention + kernels
