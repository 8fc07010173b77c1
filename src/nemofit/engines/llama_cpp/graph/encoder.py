"""The graph of an encoder: every token sees its whole batch, nothing is cached, no logits.

Source: src/models/bert.cpp, modern-bert.cpp, gemma-embedding.cpp, llama-graph.cpp (build_pooling,
build_dense_out), llama.cpp 0c1e570.
"""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture

from . import ops
from .context import Context
from .decoder import Decoder, draw
from .feed_forward import feed_forward
from .ops import T
from .pooling import MEAN, pool


class Encoder(Decoder):
    """An encoder whose blocks norm their inputs, as a decoder's do."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        weight = ctx.root("token_embd_norm")
        if weight is not None:
            bias = ctx.weights.get("token_embd_norm.bias")
            self.x = ctx.norm(self.embed(self.x), weight, bias, il=0, kind=row.norm)

    def embed(self, x: T) -> T:
        """What is added to the tokens' embedding: their kind, which is the first, and position."""
        ctx = self.ctx
        kinds, places = ctx.root("token_types"), ctx.root("position_embd")
        if kinds is not None:
            x = ops.add(x, ops.view(kinds, (ctx.n_embd,)))
        return x if places is None else ops.add(ops.get_rows(places, self.pos), x)

    def finish(self) -> None:
        ctx, x = self.ctx, self.x
        weight = ctx.root("output_norm")
        if weight is not None:
            x = ctx.norm(x, weight, kind=self.row.norm)
        x.is_output = True
        ctx.g.expand(x)
        pool(ctx, x, MEAN)


class Bert(Encoder):
    """An encoder whose blocks norm their results."""

    def block(self, il: int, last: bool) -> None:
        ctx, skip = self.ctx, self.x
        a = self.attention(il, skip)
        if last:
            a, skip = ops.get_rows(a, self.out_ids), ops.get_rows(skip, self.out_ids)
        a = self._norm(il, "attn_output_norm", ops.add(a, skip))
        if ctx.w(il, "attn_norm_2") is not None:
            a = self._norm(il, "attn_norm_2", ops.add(a, skip))
        y = feed_forward(ctx, self.row, il, a)
        self.x = self._norm(il, "layer_output_norm", ops.add(y, a))

    def attention(self, il: int, h: T) -> T:
        ctx = self.ctx
        head = self.sizes[il][0]
        p = ctx.qkv(il, h, self.heads[il], self.kv_heads[il], head, head)
        q, k = self._norm_whole(il, "attn_q_norm", p.q), self._norm_whole(il, "attn_k_norm", p.k)
        if self.rotates(il):
            q, k = ops.rope(q, self.pos), ops.rope(k, self.pos)
        return self.attend(il)(il, q, k, p.v)

    def _norm(self, il: int, name: str, x: T) -> T:
        return self.ctx.norm(x, self.ctx.must(il, name), self.ctx.b(il, name), il=il, kind="layer")

    def _norm_whole(self, il: int, name: str, x: T) -> T:
        """A norm over all heads at once, where the block has one."""
        if self.ctx.w(il, name) is None:
            return x
        flat = ops.reshape(x, x.ne[0] * x.ne[1], x.ne[2])
        return ops.reshape(self._norm(il, name, flat), *x.ne[:3])


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph of an encoder into ``ctx.g``."""
    draw(Encoder(ctx, row))


def build_bert(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph of one that norms its blocks' results."""
    draw(Bert(ctx, row))
