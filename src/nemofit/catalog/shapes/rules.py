"""Which blocks of a model are sparse, recurrent or see a sliding window."""

from __future__ import annotations

from collections.abc import Callable

from .dims import Dims

Rule = Callable[[Dims], tuple[bool, ...]]


def never(d: Dims) -> tuple[bool, ...]:
    return (False,) * d.blocks


def always(d: Dims) -> tuple[bool, ...]:
    return (True,) * d.blocks


def if_experts(d: Dims) -> tuple[bool, ...]:
    """Every block, if the model has experts at all."""
    return (d.experts > 0,) * d.blocks


def after_leading_dense(d: Dims) -> tuple[bool, ...]:
    """Every block from ``leading_dense_block_count`` on, appended ones included."""
    dense = min(d.number("leading_dense_block_count", 0, 0), d.blocks)
    return (False,) * dense + (d.experts > 0,) * (d.blocks - dense)


def dense_at_both_ends(d: Dims) -> tuple[bool, ...]:
    """Every block from ``leading_dense_block_count`` on, but not the appended ones."""
    trunk = d.blocks - d.nextn
    return after_leading_dense(d)[:trunk] + (False,) * d.nextn


def interleaved(d: Dims) -> tuple[bool, ...]:
    """The last of every ``interleave_moe_layer_step`` blocks."""
    step = d.number("interleave_moe_layer_step")
    return tuple((i + 1) % step == 0 for i in range(d.blocks))


def every_n_from_second(d: Dims) -> tuple[bool, ...]:
    """The second of every ``moe_every_n_layers`` blocks."""
    n = d.number("moe_every_n_layers")
    return tuple(i % n == 1 for i in range(d.blocks))


def by_period(d: Dims) -> tuple[bool, ...]:
    """Every ``expert_layer_period`` blocks from ``expert_layer_offset`` on."""
    offset = d.number("expert_layer_offset", 1, 0)
    period = d.number("expert_layer_period", 2)
    return tuple(
        d.experts > 0 and i >= offset and (i - offset) % period == 0 for i in range(d.blocks)
    )


def without_kv_heads(d: Dims) -> tuple[bool, ...]:
    """Blocks whose ``attention.head_count_kv`` is 0."""
    return tuple(n == 0 for n in d.kv_heads)


def without_kv_heads_and_ff(d: Dims) -> tuple[bool, ...]:
    """Blocks with neither attention nor a feed-forward."""
    return tuple(n == 0 and ff == 0 for n, ff in zip(d.kv_heads, d.ff, strict=True))


def with_ff_and_experts(d: Dims) -> tuple[bool, ...]:
    """Blocks with a feed-forward, if the model has experts at all; appended ones included."""
    trunk = d.blocks - d.nextn
    return tuple(d.experts > 0 and (ff > 0 or i >= trunk) for i, ff in enumerate(d.ff))


def between_full_attention(d: Dims) -> tuple[bool, ...]:
    """``attention.recurrent_layers``, else all but the last of ``full_attention_interval``."""
    if d.has("attention.recurrent_layers"):
        return tuple(map(bool, d.listed("attention.recurrent_layers")))
    interval = d.number("full_attention_interval", 4)
    trunk = d.blocks - d.nextn
    return tuple(i < trunk and (i + 1) % interval != 0 for i in range(d.blocks))


def sliding_pattern(d: Dims) -> tuple[bool, ...]:
    """``attention.sliding_window_pattern``, one truth per block."""
    return tuple(map(bool, d.listed("attention.sliding_window_pattern")))


Mark = Callable[[Dims], tuple[int, ...]]


def no_mark(d: Dims) -> tuple[int, ...]:
    return (0,) * d.blocks


def not_first(d: Dims) -> tuple[int, ...]:
    """1 in every block but the first."""
    return (0,) + (1,) * (d.blocks - 1)


def full_indexer(d: Dims) -> tuple[int, ...]:
    """1 in blocks with an indexer of their own: all, or by ``attention.indexer.types``.

    The list is for the trunk only; appended blocks always have one.
    """
    types = d.metadata.get("attention.indexer.types")
    if not isinstance(types, (tuple, list)):
        return (1,) * d.blocks
    trunk = tuple(int(bool(t)) for t in types[: d.blocks - d.nextn])
    return trunk + (1,) * (d.blocks - len(trunk))


def without_own_kv(d: Dims) -> tuple[int, ...]:
    """1 in blocks that take K and V from another and whose own were left out of the checkpoint.

    These are the last ``attention.shared_kv_layers`` if the flag ``shared_kv_omitted`` is set, as
    in Google's quantization-aware Gemma 4 E2B and E4B; the other checkpoints keep them unused.
    """
    shared = d.number("attention.shared_kv_layers", 0, 0) if d.flag("shared_kv_omitted") else 0
    owners = max(d.blocks - shared, 0)
    return (0,) * owners + (1,) * (d.blocks - owners)


_HASHED = 1 << 16


def compression(d: Dims) -> tuple[int, ...]:
    """DeepSeek V4: each block's ``attention.compress_ratios``, and whether it routes by a table."""
    hashed = d.number("hash_layer_count", 0, 0)
    ratios = d.listed("attention.compress_ratios")
    return tuple(r + _HASHED * (i < hashed) for i, r in enumerate(ratios))


def split_compression(mark: int) -> tuple[int, bool]:
    """Undo ``compression``: ratio, and whether the block routes by a table."""
    return mark % _HASHED, mark >= _HASHED
