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
from .compressed_cache import compressed_bytes, ratios
from .config import RunConfig
from .recurrent_state import state_bytes, states

_LONG_INDEXED = 1 << 20  # glm-dsa.cpp: is_pre_5_2, tokens of trained context
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
    row = row_of(model)
    apart = row is not None and row.streams_apart
    streams = config.parallel if apart or not config.kv_unified else 1
    full = total if config.kv_unified else pad(total // config.parallel)
    window = window_width(model)
    if config.swa_full or not window:
        return Cells(full, full, streams)
    seen = window * (config.parallel if config.kv_unified and not apart else 1) + micro_batch(
        config, is_causal(model)
    )
    return Cells(full, pad(min(full, seen)), streams)


def window_width(model: ModelSpec) -> int:
    """Tokens that a window layer sees, 0 where the engine runs none of them with a window."""
    row = row_of(model)
    if row is None or row.window_period is None:
        return 0
    if row.window_blocks and model.integer("block_count") != row.window_blocks:
        return 0
    return model.integer("attention.sliding_window", row.window_default)


def micro_batch(config: RunConfig, causal: bool = True) -> int:
    """Tokens of a micro-batch: never more than the batch, nor than the context as it was asked.

    Args:
        causal: Without it the cells of all streams limit the micro-batch instead.
    """
    limit = config.context
    if not causal:
        limit = pad(limit)
        if not config.kv_unified:
            limit = pad(limit // config.parallel) * config.parallel
    return min(config.ubatch, config.batch, limit)


def pools(model: ModelSpec, config: RunConfig) -> bool:
    """Whether the engine runs for embeddings: a server of a model that was made for them."""
    row = row_of(model)
    encodes = row is not None and not row.cached
    return config.program == "llama-server" and (encodes or model.integer("pooling_type") > 0)


def is_causal(model: ModelSpec) -> bool:
    """Whether tokens see earlier ones only."""
    row = row_of(model)
    if row is not None and row.causal is not None:
        return row.causal
    return bool(model.metadata.get("attention.causal", True))


@lru_cache(maxsize=64)
def _pattern(
    architecture: str, window: int, pattern: object, layers: int, loaded: int
) -> tuple[bool, ...]:
    row = ROWS.get(architecture)
    if row is None or row.window_period is None or not window:
        return (False,) * layers
    if isinstance(pattern, tuple):
        return tuple(bool(x) for x in (*pattern, *(False,) * layers)[:layers])
    period = int(pattern) if isinstance(pattern, int) and pattern else row.window_period
    if period == 0:
        found = [True] * loaded
    elif row.window_dense_first:
        found = [i % period != 0 for i in range(loaded)]
    else:
        found = [i % period < period - 1 for i in range(loaded)]
    return (*found, *(False,) * (layers - loaded))


def window_layers(model: ModelSpec) -> tuple[bool, ...]:
    """For each block, whether it attends to a sliding window only."""
    return _pattern(
        model.architecture,
        window_width(model),
        model.metadata.get("attention.sliding_window_pattern"),
        model.integer("block_count"),
        model.integer("block_count") - model.integer("nextn_predict_layers"),
    )


def is_latent(model: ModelSpec) -> bool:
    """Whether only a compressed K is cached, of which V is a part (MLA with absorption).

    The matrix that expands it is then split in two; older files have it whole.
    """
    found: bool | None = model.memo.get("is_latent")
    if found is None:
        keys = ("attention.key_length_mla", "attention.value_length_mla")
        found = model.memo["is_latent"] = all(model.integer(k) for k in keys) and not any(
            t.name.endswith(".attn_kv_b.weight") for t in model.tensors
        )
    return found


def keeps_keys_only(model: ModelSpec) -> bool:
    """Whether only K is cached, because V is a part of it."""
    row = row_of(model)
    return is_latent(model) or (row is not None and row.keys_only)


def kv_heads(model: ModelSpec) -> tuple[int, ...]:
    """Key and value heads of each block."""
    named = "attention.head_count_kv" in model.metadata
    return model.per_layer("attention.head_count_kv" if named else "attention.head_count")


def head_sizes(model: ModelSpec) -> tuple[tuple[int, int], ...]:
    """Width of one key and of one value head of each block."""
    found: tuple[tuple[int, int], ...] | None = model.memo.get("head_sizes")
    if found is None:
        heads = model.per_layer("attention.head_count")
        default = model.integer("embedding_length") // heads[0] if heads and heads[0] else 0
        k = model.integer("attention.key_length", default)
        v = model.integer("attention.value_length", default)
        window = (
            model.integer("attention.key_length_swa", k),
            model.integer("attention.value_length_swa", v),
        )
        found = tuple(window if w else (k, v) for w in window_layers(model))
        model.memo["head_sizes"] = found
    return found


def cache_sources(model: ModelSpec) -> tuple[int, ...]:
    """For each block, the block whose cache it reads: itself, unless caches are shared."""
    n = model.integer("block_count")
    row = row_of(model)
    own = (row.own_caches if row else 0) or n - model.integer("attention.shared_kv_layers")
    windows = window_layers(model)
    return tuple(il if il < own else own - (2 if windows[il] else 1) for il in range(n))


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's cache: widths of a K and a V row in elements, whether it is a window layer."""

    k_width: int
    v_width: int
    window: bool


def layer_caches(model: ModelSpec) -> tuple[LayerCache | None, ...]:
    """The cache of each block; None where a block has none of its own.

    A cache shared with another block, a next-token block, an encoder; no attention in a model that
    has recurrent blocks. Elsewhere a block without attention has a cache without heads, which is
    not empty: transposed values are as wide as the widest block's.
    """
    n = model.integer("block_count")
    row = row_of(model)
    if row is not None and not row.cached:
        return (None,) * n
    loaded = n - model.integer("nextn_predict_layers")
    heads = kv_heads(model)
    windows = window_layers(model)
    sources = cache_sources(model)
    sizes = head_sizes(model)
    keys_only = keeps_keys_only(model)
    alone = [s is not None and s.alone for s in states(model)]
    out: list[LayerCache | None] = []
    for il in range(n):
        bare = not heads[il] and any(states(model))
        if bare or il >= loaded or sources[il] != il or alone[il]:
            out.append(None)
            continue
        k, v = sizes[il]
        out.append(LayerCache(heads[il] * k, 0 if keys_only else heads[il] * v, windows[il]))
    return tuple(out)


def indexed_layers(model: ModelSpec) -> tuple[bool, ...]:
    """For each block, whether it has an indexer of its own with a cache.

    Where the metadata does not say, models with a very long context have one in every fourth block,
    and the blocks between use its choice.
    """
    n = model.integer("block_count")
    loaded = n - model.integer("nextn_predict_layers")
    row = row_of(model)
    if row is None or not row.indexer:
        return (False,) * n
    if row.indexer == "both":
        return tuple(model.integer("leading_dense_block_count") <= il < loaded for il in range(n))
    types = model.metadata.get("attention.indexer.types")
    if isinstance(types, tuple):
        return tuple(il < loaded and il < len(types) and bool(types[il]) for il in range(n))
    every_fourth = types is None and model.integer("context_length") >= _LONG_INDEXED
    return tuple(il < loaded and (not every_fourth or il < 2 or il % 4 == 2) for il in range(n))


def indexer_widths(model: ModelSpec) -> tuple[int, int]:
    """Elements of one K and one V row of an indexer's cache."""
    row = row_of(model)
    if row is None or not row.indexer:
        return 0, 0
    v = head_sizes(model)[0][1] if row.indexer == "both" else 0
    return model.integer("attention.indexer.key_length"), v


def widest_v(model: ModelSpec) -> int:
    """Elements of the widest V row of any block, which transposed caches are padded to."""
    if keeps_keys_only(model):
        return 0
    sizes = zip(kv_heads(model), head_sizes(model), strict=True)
    return max((heads * v for heads, (_, v) in sizes), default=0)


def layer_bytes(model: ModelSpec, config: RunConfig) -> list[int]:
    """Bytes of each block's cache over all streams, and of its recurrent state."""
    c = cells(model, config)
    caches = layer_caches(model)
    widest = widest_v(model)
    out = state_bytes(model, config)
    if any(ratios(model)):
        type_k = config.kv_type_k.upper()
        compressed = compressed_bytes(model, type_k, c.full, c.streams)
        out = [a + b for a, b in zip(out, compressed, strict=True)]
    indexed, (index_k, index_v) = indexed_layers(model), indexer_widths(model)
    for il, x in enumerate(caches):
        if indexed[il]:
            n = c.full * c.streams
            out[il] += n * row_bytes(config.kv_type_k.upper(), index_k)
            out[il] += n * row_bytes(config.kv_type_v.upper(), index_v)
        if x is None:
            continue
        n = (c.window if x.window else c.full) * c.streams
        v = x.v_width if config.flash_attention else widest
        out[il] += n * row_bytes(config.kv_type_k.upper(), x.k_width)
        out[il] += n * row_bytes(config.kv_type_v.upper(), v)
    return out
