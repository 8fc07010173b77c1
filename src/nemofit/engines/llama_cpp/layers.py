"""Blocks that are alike: what tells one block's graph from another's, and how few stand for all.

The peak of a graph is reached inside a few neighbouring blocks and repeats with them, so a long
run of equal blocks (or of equal groups of blocks) is replayed as a short one. The tests compare
short and whole graphs.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from math import gcd

from nemofit.catalog.model import ModelSpec

from .compressed_cache import ratios
from .kv_cache import cache_sources, indexed_layers, row_of, window_layers

BLOCK = re.compile(r"blk\.(\d+)\.(.*)")
_KEEP_SINGLE = 4  # blocks kept of a run of equal ones
_KEEP_GROUPS = 3  # groups kept of a run of equal groups
_LONGEST_GROUP = 16
_SHORT_ENOUGH = 12
# With recurrent states the free space of a buffer takes longer to settle, and then changes from
# block to block in turns of two or three.
_KEEP_SINGLE_STATES = 8
_KEEP_GROUPS_STATES = 4
_SHORT_ENOUGH_STATES = 24
_TURN = 6  # where results lie in a buffer comes back after one, two or three blocks
_PER_LAYER = (
    "attention.head_count", "attention.head_count_kv", "feed_forward_length", "expert_used_count",
    "swiglu_clamp_exp", "swiglu_clamp_shexp",
)  # fmt: skip


def loaded_blocks(model: ModelSpec) -> int:
    """Blocks that take part in the graph: next-token ones are left out."""
    return model.integer("block_count") - model.integer("nextn_predict_layers")


def block_tensors(model: ModelSpec) -> tuple[tuple[int, ...], ...]:
    """Indices into ``model.tensors`` of each block's tensors."""
    found: tuple[tuple[int, ...], ...] | None = model.memo.get("block_tensors")
    if found is None:
        blocks: list[list[int]] = [[] for _ in range(model.integer("block_count"))]
        for i, t in enumerate(model.tensors):
            m = BLOCK.match(t.name)
            if m is not None and int(m.group(1)) < len(blocks):
                blocks[int(m.group(1))].append(i)
        found = model.memo["block_tensors"] = tuple(tuple(b) for b in blocks)
    return found


def kinds(model: ModelSpec) -> tuple[int, ...]:
    """A small number per loaded block; equal ones have equal tensors and equal attention."""
    found: tuple[int, ...] | None = model.memo.get("kinds")
    if found is None:
        ids: dict[Hashable, int] = {}
        windows = window_layers(model)
        sources = cache_sources(model)
        indexed = indexed_layers(model)
        compressed = ratios(model)
        deepstack = model.integer("n_deepstack_layers")
        apart = model.integer("attn_res.block_size")
        row = row_of(model)
        sparse = row.sparse_blocks if row else 0
        step = row.no_rope_step if row else 0
        lists = (model.metadata.get(k) for k in _PER_LAYER)
        per_layer = [values for values in lists if isinstance(values, tuple)]
        out = []
        for il, indices in enumerate(block_tensors(model)[: loaded_blocks(model)]):
            skip = len(f"blk.{il}.")
            tensors = tuple((model.tensors[i].name[skip:], model.tensors[i].shape) for i in indices)
            kind = (
                tensors,
                windows[il],
                tuple(v[il] for v in per_layer if il < len(v)),
                sources[il] if sources.count(sources[il]) > 1 else None,
                il != sources[il],
                il < deepstack,
                indexed[il],
                compressed[il],
                (il // apart, il % apart == 0) if apart else None,
                il < sparse,
                step > 0 and (il + 1) % step == 0,
            )
            out.append(ids.setdefault(kind, len(ids)))
        found = model.memo["kinds"] = tuple(out)
    return found


def shorten(signature: Sequence[Hashable], *, recurrent: bool = False) -> tuple[int, ...]:
    """Indices of the blocks that stand for all of them, in order.

    Args:
        signature: What decides each block's part of the graph.
        recurrent: There are blocks with a recurrent state.
    """
    kept = list(range(len(signature)))
    if recurrent:
        for period in range(1, _LONGEST_GROUP + 1):
            keep = _KEEP_SINGLE_STATES if period == 1 else _KEEP_GROUPS_STATES
            kept = _drop_repeats([signature[i] for i in kept], kept, period, keep, _TURN)
            if len(kept) <= _SHORT_ENOUGH_STATES:
                break
        return tuple(kept)
    for period in range(1, _LONGEST_GROUP + 1):
        keep = _KEEP_SINGLE if period == 1 else _KEEP_GROUPS
        turn = _TURN // gcd(_TURN, period)
        kept = _drop_repeats([signature[i] for i in kept], kept, period, keep, turn)
        if len(kept) <= _SHORT_ENOUGH:
            break
    return tuple(kept)


def _drop_repeats(
    sig: list[Hashable], kept: list[int], period: int, keep: int, turn: int
) -> list[int]:
    """Shorten runs of equal groups to ``keep`` groups, dropping multiples of ``turn``."""
    out: list[int] = []
    i, n = 0, len(sig)
    while i < n:
        end = i + period
        while end < n and sig[end] == sig[end - period]:
            end += 1
        groups = (end - i) // period
        dropped = max(groups - keep, 0) // turn * turn
        if dropped:
            tail = end - i - (groups - 1) * period
            out += kept[i : i + (groups - dropped - 1) * period]
            out += kept[end - tail : end]
            i = end
        else:
            out.append(kept[i])
            i += 1
    return out
