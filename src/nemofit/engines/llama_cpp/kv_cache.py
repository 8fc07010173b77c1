"""KV cache: which layers have one, how wide it is, and how many cells it holds.

Source: llama-context.cpp (constructor), llama-kv-cache.cpp, llama-kv-cache-iswa.cpp,
llama-hparams.cpp, llama.cpp 0c1e570.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from nemofit.catalog.ggml import row_bytes
from nemofit.catalog.model import ModelSpec

from .architectures import ROWS, Architecture
from .config import RunConfig
from .recurrent_state import state_bytes, states

_PAD = 256  # llama-context.cpp: GGML_PAD(cparams.n_ctx, 256)


def row_of(model: ModelSpec) -> Architecture | None:
    """The architecture's row, None where nobody has modelled it."""
    return ROWS.get(model.architecture)


def pad(n: int) -> int:
    """Round up to the multiple of cells that llama.cpp allocates."""
    return -(-n // _PAD) * _PAD


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells per stream for full and for window layers, and the number of streams."""

    full: int
    window: int
    streams: int


def cells(model: ModelSpec, config: RunConfig) -> Cells:
    """How many cells a configuration gives each stream.

    The context is a total over all sequences, rounded up to 256; a cache that is not unified
    divides it, again rounded up. A window layer needs only its window and a micro-batch.
    """
    total = pad(config.context)
    streams = 1 if config.kv_unified else config.parallel
    full = total if config.kv_unified else pad(total // config.parallel)
    window = window_width(model)
    if config.swa_full or not window:
        return Cells(full, full, streams)
    seen = window * (config.parallel if config.kv_unified else 1) + micro_batch(config)
    return Cells(full, pad(min(full, seen)), streams)


def window_width(model: ModelSpec) -> int:
    """Tokens that a window layer sees, 0 where the engine runs none of them with a window."""
    row = row_of(model)
    if row is None or row.window_period is None:
        return 0
    if row.window_blocks and model.integer("block_count") != row.window_blocks:
        return 0
    return model.integer("attention.sliding_window", row.window_default)


def micro_batch(config: RunConfig) -> int:
    """Tokens of a micro-batch: never more than the batch, nor than the context as it was asked."""
    return min(config.ubatch, config.batch, config.context)


@lru_cache(maxsize=64)
def _pattern(architecture: str, window: int, pattern: object, layers: int) -> tuple[bool, ...]:
    row = ROWS.get(architecture)
    if row is None or row.window_period is None or not window:
        return (False,) * layers
    if isinstance(pattern, tuple):
        return tuple(bool(x) for x in pattern[:layers])
    period = int(pattern) if isinstance(pattern, int) and pattern else row.window_period
    if period == 0:
        return (True,) * layers
    if row.window_dense_first:
        return tuple(i % period != 0 for i in range(layers))
    return tuple(i % period < period - 1 for i in range(layers))


def window_layers(model: ModelSpec) -> tuple[bool, ...]:
    """For each block, whether it attends to a sliding window only."""
    return _pattern(
        model.architecture,
        window_width(model),
        model.metadata.get("attention.sliding_window_pattern"),
        model.integer("block_count"),
    )


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's cache: widths of a K and a V row in elements, whether it is a window layer."""

    k_width: int
    v_width: int
    window: bool


def layer_caches(model: ModelSpec) -> tuple[LayerCache | None, ...]:
    """The cache of each block; None where a block has none: no attention, or a next-token block."""
    n = model.integer("block_count")
    loaded = n - model.integer("nextn_predict_layers")
    heads = model.per_layer("attention.head_count")
    kv = model.per_layer("attention.head_count_kv") if "attention.head_count_kv" in model.metadata else heads
    default = model.integer("embedding_length") // max(max(heads, default=1), 1)
    head_k = model.integer("attention.key_length", default)
    head_v = model.integer("attention.value_length", default)
    windows = window_layers(model)
    alone = [s is not None and s.alone for s in states(model)]
    return tuple(
        LayerCache(kv[i] * head_k, kv[i] * head_v, windows[i])
        if kv[i] and i < loaded and not alone[i]
        else None
        for i in range(n)
    )


def layer_bytes(model: ModelSpec, config: RunConfig) -> list[int]:
    """Bytes of each block's cache over all streams, and of its recurrent state."""
    c = cells(model, config)
    caches = layer_caches(model)
    widest = max((x.v_width for x in caches if x), default=0)
    out = state_bytes(model, config)
    for il, x in enumerate(caches):
        if x is None:
            continue
        n = (c.window if x.window else c.full) * c.streams
        v = x.v_width if config.flash_attention else widest
        out[il] += n * row_bytes(config.kv_type_k.upper(), x.k_width)
        out[il] += n * row_bytes(config.kv_type_v.upper(), v)
    return out
