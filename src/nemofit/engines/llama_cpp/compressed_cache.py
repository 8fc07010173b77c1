"""The caches of a model that compresses rows of keys: which blocks, how wide, how many cells.

Beside a cache for a window, a block keeps one row for every few tokens, the state of the rows that
are not yet finished in F32, and both again for the indexer where there is one.
Source: llama-kv-cache-dsv4.cpp of llama.cpp 0c1e570.
"""

from __future__ import annotations

from nemofit.catalog.ggml import row_bytes
from nemofit.catalog.model import ModelSpec

INDEXED_RATIO = 4  # DSV4_CSA_RATIO; the other, 128, has no indexer and no overlap
_PAD = 256
_F32 = 4


def ratios(model: ModelSpec) -> tuple[int, ...]:
    """How many tokens each block compresses to one row; 0: it compresses none."""
    n = model.integer("block_count")
    values = model.metadata.get("attention.compress_ratios")
    if not isinstance(values, tuple):
        return (0,) * n
    loaded = n - model.integer("nextn_predict_layers")
    return tuple(int(values[il]) if il < loaded and il < len(values) else 0 for il in range(n))


def cells_of(cells: int, ratio: int) -> int:
    """Cells of a compressed cache beside one of so many."""
    return -(-max(1, -(-cells // ratio)) // _PAD) * _PAD


def compressed_bytes(model: ModelSpec, type_k: str, cells: int, streams: int) -> list[int]:
    """Bytes of each block's compressed caches and states over all streams.

    Args:
        type_k: ggml type of the cache.
        cells: Of a full cache, per stream.
    """
    key = model.integer("attention.key_length")
    index = model.integer("attention.indexer.key_length")
    out = []
    for ratio in ratios(model):
        if not ratio:
            out.append(0)
            continue
        indexed = ratio == INDEXED_RATIO
        factor = 2 if indexed else 1
        size = 0
        for width in (key, index) if indexed else (key,):
            size += cells_of(cells, ratio) * row_bytes(type_k, width)
            size += 2 * _F32 * factor * width * factor * ratio
        out.append(size * streams)
    return out
