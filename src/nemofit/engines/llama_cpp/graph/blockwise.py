"""Sparse attention by blocks of the context, which an indexer scores for each group of heads.

Drawn as for a prompt; one token per sequence takes another way, whose buffers are smaller.
Source: src/models/minimax-m3.cpp, llama-kv-cache-msa.cpp of llama.cpp 0c1e570.
"""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture
from nemofit.engines.llama_cpp.kv_cache import indexed_layers, pad

from . import ops
from .attention import rotate
from .context import Context
from .decoder import Decoder, draw
from .indexed import KeyCache
from .ops import T


class Blockwise(Decoder):
    """A decoder whose blocks behind the leading dense ones attend to parts of the context."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        m, s, n = ctx.model, ctx.shape, ctx.n_tokens
        self.width = m.integer("attention.indexer.key_length")
        self.index_heads = m.integer("attention.indexer.head_count")
        # without flash attention, and in a cache that sequences share, attention is dense
        possible = s.flash and (s.sequences == 1 or s.streams > 1)
        self.sparse = tuple(possible and chosen for chosen in indexed_layers(m))
        if not possible:
            return
        size = m.integer("attention.indexer.block_size")
        self.places = -(-pad(1) // size) * size
        self.parts = self.places // size
        self.chosen = min(m.integer("attention.indexer.top_k"), self.parts)
        self.index = KeyCache(ctx, s.cells, self.width)
        self.bias = ops.input_("F32", self.parts, n)
        self.hidden = ops.input_("F32", self.places, n)
        self.cell_of = ops.input_("I32", self.places, s.streams)
        self.part_of = ops.input_("I32", s.cells, s.streams)
        self.mask = ops.cast(self.full.mask, "F32")

    def attention(self, il: int, h: T) -> T:
        if not self.sparse[il]:
            return super().attention(il, h)
        ctx, full = self.ctx, self.full
        q, k, v = self.rotated_qkv(il, h)
        index_q = self._index(il, "q", h, self.index_heads)
        keys = self.index.keep(il, self._index(il, "k", h, 1))
        if full.k_rot is not None:
            q, k = rotate(q, full.k_rot), rotate(k, full.k_rot)
        if full.v_rot is not None:
            v = rotate(v, full.v_rot)
        read_k, read_v = full.store(il, q, k, v, "qkv")
        streams = ctx.shape.streams
        out = self._attend(index_q, keys, q, read_k, read_v)
        for _ in range(streams - 1):
            out = ops.concat(out, self._attend(index_q, keys, q, read_k, read_v), 1)
        if full.v_rot is not None:
            out = rotate(out, full.v_rot)
        return ops.mul_mat(ctx.must(il, "attn_output"), out)

    def _index(self, il: int, which: str, h: T, heads: int) -> T:
        ctx = self.ctx
        x = ops.mul_mat(ctx.must(il, f"indexer.{which}_proj"), h)
        x = ops.reshape(x, self.width, heads, ctx.n_tokens)
        x = ctx.norm(x, ctx.must(il, f"indexer.{which}_norm"), il=il)
        return ops.rope(x, self.pos)

    def _attend(self, index_q: T, keys: T, q: T, k: T, v: T) -> T:
        """One stream's attention: score the parts, hide the others, attend per group."""
        ctx, heads, parts = self.ctx, self.index_heads, self.parts
        n = ctx.n_tokens // ctx.shape.streams
        cells = keys.ne[2]
        index_q = ops.view(index_q, (self.width, heads, n), index_q.nb[1:3])
        keys = ops.view(keys, (self.width, cells), keys.nb[2:3])
        hidden = ops.view(self.hidden, (self.places, 1, n), (self.hidden.nb[1],) * 2)
        mask = ops.view(self.mask, (cells, n, 1), (self.mask.nb[1], self.mask.nb[3]))
        bias = ops.view(self.bias, (parts, 1, n), (self.bias.nb[1],) * 2)
        q = ops.view(q, (*q.ne[:2], n), q.nb[1:3])
        k = ops.view(k, (*k.ne[:3], 1), k.nb[1:])
        v = ops.view(v, (*v.ne[:3], 1), v.nb[1:])
        by_place = ops.get_rows(keys, ops.view(self.cell_of, (self.places,)))
        scores = ops.mul_mat(by_place, ops.reshape(index_q, self.width, heads * n))
        scores = ops.add_inplace(ops.reshape(scores, self.places, heads, n), hidden)
        scores = ops.add(ops.T("POOL_2D", "F32", (parts, heads, n, 1), (scores,)), bias)
        best = ops.top_k(scores, self.chosen)
        shown = self._shown(best, bias, n)
        shown = ops.get_rows(shown, ops.view(self.part_of, (cells,)))
        shown = ops.reshape(ops.cont(ops.transpose(shown)), cells, n, heads)
        shown = ops.add_inplace(shown, mask)
        shown = ops.cast(ops.reshape(shown, cells, n, 1, heads), "F16")
        return _grouped(q, ops.permute(k, 0, 3, 1, 2), ops.permute(v, 0, 3, 1, 2), shown)

    def _shown(self, best: T, bias: T, n: int) -> T:
        """Zero for the chosen parts, little for the others, [tokens x heads, parts]."""
        heads, parts = self.index_heads, self.parts
        low = ops.repeat(ops.cast(ops.scale(bias), "F16"), parts, heads, n)
        zero = ops.scale(ops.cast(best, "F32"))
        low = ops.set_rows(
            ops.reshape(low, 1, parts, heads * n),
            ops.reshape(zero, 1, self.chosen, heads * n),
            ops.reshape(best, self.chosen, heads * n),
        )
        low = ops.cont(ops.permute(ops.reshape(low, parts, heads, n), 0, 2, 1, 3))
        return ops.cont(ops.transpose(ops.reshape(low, parts, n * heads)))


def _grouped(q: T, k: T, v: T, mask: T) -> T:
    """Flash attention with a mask for each group of heads, the groups as sequences."""
    head, heads, n = q.ne[:3]
    groups = k.ne[3]
    q = ops.permute(ops.reshape(q, head, heads // groups, groups, n), 0, 2, 3, 1)
    out = ops.permute(ops.flash_attn_ext(q, k, v, mask), 0, 1, 3, 2)
    out = out if ops.is_contiguous(out) else ops.cont(out)
    return ops.reshape(out, head * heads, n)


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph into ``ctx.g``."""
    draw(Blockwise(ctx, row))
