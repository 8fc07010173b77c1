"""Kimi's decoders: delta attention among latent attention, and in K3 residuals across blocks.

Source: src/models/kimi-linear.cpp, kimi-k3.cpp, llama.cpp 0c1e570.
"""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture

from . import ops
from .context import Context
from .decoder import draw
from .feed_forward import feed_forward
from .hybrid import Hybrid
from .latent import Latent
from .ops import T


class LatentHybrid(Hybrid, Latent):
    """One decoder with recurrent blocks among blocks with latent attention while it is drawn.

    With residuals across blocks, every few blocks the stream is put aside and starts anew; each
    block and the output read a weighted sum of what lies aside and the stream.
    """

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        self.period = ctx.model.integer("attn_res.block_size")
        self.aside: T | None = None

    def rotate(self, il: int, x: T) -> T:
        return super().rotate(il, x) if self.rotates(il) else x

    def block(self, il: int, last: bool) -> None:
        if not self.period:
            super().block(il, last)
            return
        ctx, stream = self.ctx, self.x
        mixed = self._mix(stream, ctx.w(il, "attn_res_score"))
        restarts = il % self.period == 0
        if restarts:
            self._put_aside(stream)
        y = self.attention(il, ctx.norm(mixed, ctx.w(il, "attn_norm"), il=il))
        stream = y if restarts else ops.add(stream, y)
        mixed = self._mix(stream, ctx.w(il, "ffn_res_score"))
        h = ctx.norm(mixed, ctx.w(il, "ffn_norm"), il=il)
        self.x = ops.add(stream, feed_forward(ctx, self.row, il, h))

    def attention(self, il: int, h: T) -> T:
        gate = self.ctx.w(il, "attn_gate")
        if gate is None:
            return super().attention(il, h)
        self.projection = None
        out = super().attention(il, h)
        out = ops.mul(out, ops.unary(ops.mul_mat(gate, h)))
        return ops.mul_mat(self.ctx.must(il, "attn_output"), out)

    def finish(self) -> None:
        if self.period:
            self.x = self._mix(self.x, self.ctx.root("output_res_score"))
        super().finish()

    def _put_aside(self, x: T) -> None:
        one = ops.reshape(x, x.ne[0], 1, x.ne[1])
        self.aside = one if self.aside is None else ops.concat(self.aside, one, 1)

    def _mix(self, x: T, score: T | None) -> T:
        if self.aside is None:
            return x
        assert score is not None
        aside = self.aside
        count, n = aside.ne[1], self.ctx.n_tokens
        scores = ops.sum_rows(ops.mul(ops.rms_norm(aside), score))
        own = ops.sum_rows(ops.mul(ops.rms_norm(x), score))
        shares = ops.soft_max(ops.concat(ops.reshape(scores, count, n), own, 0))
        of_aside = ops.cont(ops.view(shares, (count, n), (shares.nb[1],)))
        of_own = ops.cont(ops.view(shares, (1, n), (shares.nb[1],)))
        return ops.add(ops.weighted_sum(aside, of_aside), ops.mul(x, of_own))


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph into ``ctx.g``."""
    draw(LatentHybrid(ctx, row))
