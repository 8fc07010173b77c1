"""Decoders whose blocks carry a recurrent state, alone or among blocks with attention.

What a block is made of is read off its tensors. Source: src/models/mamba.cpp, nemotron-h.cpp,
falcon-h1.cpp, granite-hybrid.cpp, jamba.cpp, lfm2.cpp, qwen3next.cpp, qwen35.cpp, of llama.cpp
0c1e570.
"""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture

from . import ops
from .context import Context
from .decoder import Decoder, draw
from .delta_net import gated_delta_net, kimi_delta_attention
from .feed_forward import feed_forward
from .ops import T
from .recurrent import RecurrentState, mamba, mamba2, short_convolution


class Hybrid(Decoder):
    """One decoder with recurrent blocks while it is drawn."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        self.state = RecurrentState(ctx)
        if self.window is not None:
            # build_inp_mem_hybrid_iswa makes no rotations for quantized caches
            self.window.k_rot = self.window.v_rot = None

    def block(self, il: int, last: bool) -> None:
        ctx = self.ctx
        own = self.state.widths[il]
        if own is not None and not own.alone and ctx.w(il, "ssm_in") is not None:
            self._side_by_side(il, last)
        elif ctx.w(il, "ffn_norm") is None and ctx.w(il, "post_attention_norm") is None:
            self._single_part(il, last)
        else:
            super().block(il, last)

    def mixes(self, il: int) -> bool:  # noqa: ARG002
        return True

    def attention(self, il: int, h: T) -> T:
        """The block's mixer, whatever it is."""
        ctx, state = self.ctx, self.state
        if ctx.w(il, "shortconv.conv") is not None:
            return short_convolution(ctx, state, il, h)
        if ctx.w(il, "ssm_f_a") is not None:
            return kimi_delta_attention(ctx, state, il, h)
        if ctx.w(il, "ssm_ba") is not None or ctx.w(il, "ssm_alpha") is not None:
            return gated_delta_net(ctx, state, il, h)
        if ctx.w(il, "ssm_x") is not None:
            return mamba(ctx, state, il, h)
        if ctx.w(il, "ssm_in") is not None:
            return mamba2(ctx, state, il, h)
        head, q = self.sizes[il][0], ctx.w(il, "attn_q")
        if q is not None and q.ne[1] == 2 * head * self.heads[il]:
            return self._gated_attention(il, h, head)
        return super().attention(il, h)

    def _gated_attention(self, il: int, h: T, head: int) -> T:
        """Attention whose query projection also makes a gate for its result."""
        ctx, heads, n = self.ctx, self.heads[il], self.ctx.n_tokens
        q = ops.mul_mat(ctx.must(il, "attn_q"), h)
        k, v = (
            ops.reshape(ops.mul_mat(ctx.must(il, name), h), head, self.kv_heads[il], n)
            for name in ("attn_k", "attn_v")
        )
        step = ops.row_size(q.type, 2 * head)
        own, gate = (ops.view(q, (head, heads, n), (step, step * heads)) for _ in range(2))
        q, k = self._norm_qk(il, own, k, head)
        q, k = ops.rope(q, self.pos), ops.rope(k, self.pos)
        out = self.full(il, q, k, v, output=None)
        out = ops.mul(out, ops.unary(ops.cont(gate, head * heads, n)))
        return ops.mul_mat(ctx.must(il, "attn_output"), out)

    def _single_part(self, il: int, last: bool) -> None:
        """A block that is a mixer or a feed-forward, not both."""
        ctx, row, skip = self.ctx, self.row, self.x
        h = ctx.norm(skip, ctx.w(il, "attn_norm"), il=il)
        y = feed_forward(ctx, row, il, h) if self._has_feed_forward(il) else self.attention(il, h)
        if last and not row.rows_behind_norm:
            y, skip = ops.get_rows(y, self.out_ids), ops.get_rows(skip, self.out_ids)
        self.x = ops.add(y, skip)

    def _side_by_side(self, il: int, last: bool) -> None:
        """Attention and a state space on the same input, then a feed-forward."""
        ctx, row, x = self.ctx, self.row, self.x
        norm = ctx.w(il, "attn_norm")
        a = super().attention(il, ctx.norm(x, norm, il=il))
        s = mamba2(ctx, self.state, il, ctx.norm(x, norm, il=il))
        x = ops.add(ops.add(a, s), x)
        if last:
            x = ops.get_rows(x, self.out_ids)
        h = ctx.norm(x, ctx.weights.get(f"blk.{il}.ffn_norm"), il=il)
        self.x = ops.add(feed_forward(ctx, row, il, h), x)


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph into ``ctx.g``."""
    draw(Hybrid(ctx, row))
