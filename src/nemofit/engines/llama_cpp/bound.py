"""An upper bound on the compute buffers of a graph that nobody has modelled.

Every result of a block is counted as if all of its neighbours in time were alive with it, so the
figure is never below the engine's for blocks built of matrix products; it is labelled "assumed".
"""

from __future__ import annotations

from nemofit.catalog.model import ModelSpec

from .compute import copies, outputs
from .config import RunConfig
from .kv_cache import cells, is_causal, micro_batch
from .layers import BLOCK

_F32 = 4
_RESIDUAL_ROWS = 8  # activations of the model's width alive at once, in the engine's widest stage
_WIDE_ROWS = 4  # results of the widest product alive at once: gate, up, their product, a copy


def bound_bytes(
    model: ModelSpec, config: RunConfig, units: tuple[int, ...], n_gpus: int
) -> tuple[list[int], int]:
    """Compute buffers in bytes that the engine will not exceed: per GPU, and the host's."""
    tokens = micro_batch(config, is_causal(model))
    tokens = -(-tokens // config.parallel) * config.parallel
    c = cells(model, config)
    n_copies = copies(config, n_gpus, -1 not in units)
    width = model.integer("embedding_length")
    used = max(1, model.integer("expert_used_count"))
    wide = max(
        (
            t.shape[1] * (used if len(t.shape) > 2 else 1)
            for t in model.tensors
            if BLOCK.match(t.name) and len(t.shape) >= 2
        ),
        default=width,
    )
    heads = model.integer("attention.head_count", 1)
    mask = tokens * c.full * (2 if config.flash_attention else _F32) * (2 if c.window != c.full else 1)
    scores = 0 if config.flash_attention else 2 * _F32 * tokens * c.full * heads
    cache = 0
    if config.kv_type_k not in ("f16", "f32") or config.kv_type_v not in ("f16", "f32"):
        cache = 4 * c.full * c.streams * width
    block = _F32 * tokens * (_RESIDUAL_ROWS * width * used + _WIDE_ROWS * wide)
    logits = 2 * _F32 * outputs(model, config, tokens) * (model.integer("vocab_size") + width)
    biggest = 0
    if n_gpus and config.op_offload and (-1 in units or config.cpu_moe_layers):
        biggest = max((t.elements for t in model.tensors), default=0) * 2
    total = n_copies * (mask + 2 * _F32 * tokens * width) + scores + cache + block + logits
    return [total + biggest] * n_gpus, total
