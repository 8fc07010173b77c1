"""An upper bound on the compute buffers of a graph that nobody has modelled.

Every result of a block is counted as if all of its neighbours in time were alive with it, so the
figure is never below the engine's for blocks built of matrix products; it is labelled "assumed".
"""

from __future__ import annotations

from nemofit.catalog.ggml import row_bytes
from nemofit.catalog.model import ModelSpec

from .compute import copies, outputs
from .config import RunConfig
from .kv_cache import Cells, cells, is_causal, layer_caches, micro_batch
from .layers import BLOCK

_F32 = 4
_RESIDUAL_ROWS = 8  # activations of the model's width alive at once, in the engine's widest stage
_WIDE_ROWS = 7  # results of the widest product alive at once: gate, up, their product, copies
_HALVED = ("metal", "sycl")  # attention works on half-precision copies whatever the cache holds
_PARTS = 32 * 32  # Metal's partial results: queries and threadgroups, per head


def bound_bytes(
    model: ModelSpec, config: RunConfig, units: tuple[int, ...], n_gpus: int
) -> tuple[list[int], int]:
    """Compute buffers in bytes that the engine will not exceed: per GPU, and the host's."""
    tokens = micro_batch(config, is_causal(model))
    tokens = -(-tokens // config.parallel) * config.parallel
    c = cells(model, config)
    n_copies = copies(config, n_gpus, -1 not in units)
    width = model.integer("embedding_length")
    used = max(1, *model.per_layer("expert_used_count"), 1)
    wide = max(
        (
            t.shape[1] * (used if len(t.shape) > 2 else 1)
            for t in model.tensors
            if BLOCK.match(t.name) and len(t.shape) >= 2
        ),
        default=width,
    )
    looked_up = max((t.shape[0] for t in model.tensors if "token_embd" in t.name), default=width)
    mask = (
        tokens * c.full * (2 if config.flash_attention else _F32) * (2 if c.window != c.full else 1)
    )
    inputs = mask + 2 * _F32 * tokens * (width + looked_up)
    block = _F32 * tokens * (_RESIDUAL_ROWS * width * used + _WIDE_ROWS * wide)
    logits = 2 * _F32 * outputs(model, config, tokens) * (model.integer("vocab_size") + width)
    biggest = 0
    if n_gpus and config.op_offload and (-1 in units or config.cpu_moe_layers):
        biggest = max((t.elements for t in model.tensors), default=0) * 2
    attention = _attention(model, config, c, tokens, wide, n_copies)
    total = n_copies * inputs + attention + block + logits
    return [total + biggest] * n_gpus, total


def _attention(
    model: ModelSpec, config: RunConfig, c: Cells, tokens: int, wide: int, n_copies: int
) -> int:
    """Scores where they are computed apart; else copies of one layer's cache, and scratch space."""
    heads = max(1, *model.per_layer("attention.head_count"), 1)
    caches = [x for x in layer_caches(model) if x is not None]
    k = max((x.k_width for x in caches), default=0)
    v = max((x.v_width for x in caches), default=0)
    rows = c.full * c.streams
    type_k, type_v = config.kv_type_k.upper(), config.kv_type_v.upper()
    # a kernel that a backend lacks runs on the host, and what it reads and writes moves there
    size = (1 + n_copies) * rows * (row_bytes(type_k, k) + row_bytes(type_v, v))
    if not config.flash_attention:
        alive = 4 if config.backend == "vulkan" else 2  # it multiplies a quantized K on the host
        return size + alive * (1 + n_copies) * _F32 * tokens * c.full * heads
    if config.backend in _HALVED or {type_k, type_v} != {"F16"}:
        size += 2 * rows * (k + v)
    if config.backend == "metal":
        size += _F32 * _PARTS * c.streams * (wide + 2 * heads)
    return size
