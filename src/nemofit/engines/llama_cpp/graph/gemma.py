"""The graphs of Gemma 3n and Gemma 4: caches shared by blocks, an embedding of its own per block.

Source: src/models/gemma4.cpp, gemma3n.cpp of llama.cpp 0c1e570.
"""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture
from nemofit.engines.llama_cpp.kv_cache import cache_sources

from . import ops
from .context import Context
from .decoder import Decoder, draw, finish
from .ops import T


class Gemma(Decoder):
    """What the two have in common."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        self.sources = cache_sources(ctx.model)
        self.per_block = self._per_block_inputs()

    def _per_block_inputs(self) -> T | None:
        """Each token's own vector for each block, [width, tokens, blocks]."""
        ctx, n = self.ctx, self.ctx.n_tokens
        table, projection = ctx.root("per_layer_token_embd"), ctx.root("per_layer_model_proj")
        norm = ctx.root("per_layer_proj_norm")
        if table is None or projection is None or norm is None:
            return None
        width = norm.ne[0]
        blocks = table.ne[0] // width
        own = ops.get_rows(table, ops.input_("I32", n))
        own = ops.scale(ops.reshape(own, width, blocks, n))
        ctx.g.expand(own)
        projected = ops.scale(ops.mul_mat(projection, self.x))
        projected = ctx.norm(ops.reshape(projected, width, blocks, n), norm)
        return ops.cont(ops.permute(ops.scale(ops.add(projected, own)), 0, 2, 1, 3))

    def attention(self, il: int, h: T) -> T:
        ctx = self.ctx
        head = self.sizes[il][0]
        fused = ctx.w(il, "attn_qkv")
        if fused is not None:
            fused = ops.mul_mat(fused, h)
        factors = self.rope_factors(il)

        def project(name: str, heads: int) -> T:
            weight = ctx.w(il, name)
            if fused is not None:
                y = ops.cont(ops.view(fused, (head * heads, ctx.n_tokens), fused.nb[1:2]))
            else:
                assert weight is not None
                y = ops.mul_mat(weight, h)
            return ops.reshape(y, head, heads, ctx.n_tokens)

        q = ctx.norm(project("attn_q", self.heads[il]), ctx.w(il, "attn_q_norm"), il=il)
        q = ops.rope(q, self.pos, factors)
        if self.sources[il] != il:
            return self.attend(il)(il, q, None, None, cache_of=self.sources[il])
        k = project("attn_k", self.kv_heads[il])
        has_v = fused is not None or ctx.w(il, "attn_v") is not None
        v = project("attn_v", self.kv_heads[il]) if has_v else ops.reshape(k.src[0], *k.ne[:3])
        k = ctx.norm(k, ctx.w(il, "attn_k_norm"), il=il)
        v = ops.rms_norm(v)
        return self.attend(il)(il, q, ops.rope(k, self.pos, factors), v, store_order="qkv")

    def own_input(self, il: int, x: T) -> T:
        """What the block's own embedding of each token adds."""
        ctx = self.ctx
        y = ops.unary(ops.mul_mat(ctx.must(il, "inp_gate"), x))
        assert self.per_block is not None
        y = ops.mul(y, part(self.per_block))
        y = ops.mul_mat(ctx.must(il, "proj"), y)
        return ctx.norm(y, ctx.must(il, "post_norm"), il=il)


def part(x: T) -> T:
    """One slice along the third dimension."""
    return ops.view(x, x.ne[:2], (ops.row_size(x.type, x.ne[0]),))


class Gemma4(Gemma):
    """Blocks with a feed-forward, and in some models with experts beside it."""

    def block(self, il: int, last: bool) -> None:  # noqa: ARG002
        ctx = self.ctx
        a = self.attention(il, self.attention_norm(il))
        a = ops.add(ctx.norm(a, ctx.w(il, "post_attention_norm"), il=il), self.x)
        y = self.ctx.feed_forward(il, ctx.norm(a, ctx.w(il, "ffn_norm"), il=il), "gelu")
        if ctx.w(il, "ffn_gate_inp") is not None:
            y = ctx.norm(y, ctx.w(il, "post_ffw_norm_1"), il=il)
            y = ops.add(y, self._experts(il, a))
        x = ops.add(ctx.norm(y, ctx.w(il, "post_ffw_norm")), a)
        if self.per_block is not None:
            x = ops.add(x, self.own_input(il, x))
        scale = ctx.w(il, "layer_output_scale")
        self.x = x if scale is None else ops.mul(x, scale)

    def _experts(self, il: int, a: T) -> T:
        """Experts on a norm of their own, routed by another one with a scale per channel."""
        ctx = self.ctx
        h = ctx.norm(a, ctx.w(il, "pre_ffw_norm_2"), il=il)
        routed = ops.scale(ops.rms_norm(a))
        scale = ctx.weights.get(f"blk.{il}.ffn_gate_inp.scale")
        assert scale is not None
        logits = ops.mul_mat(ctx.must(il, "ffn_gate_inp"), ops.mul(routed, scale))
        used = ctx.model.per_layer("expert_used_count")[il]
        y = ctx.experts(il, h, used=used, activation="gelu", normalize=True, logits=logits)
        return ctx.norm(y, ctx.w(il, "post_ffw_norm_2"), il=il)


class Gemma3n(Gemma):
    """Several streams, of which one passes through the block and the others are predicted."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        projection = ctx.root("altup_proj")
        assert projection is not None
        self.streams = projection.ne[2] + 1
        target = _magnitude(self.x)
        more = ops.mul_mat(projection, ops.repeat(self.x, *self.x.ne[:2], projection.ne[2]))
        more = ops.div(ops.mul(more, target), _magnitude(more))
        self.x = ops.concat(self.x, more, 2)

    def block(self, il: int, last: bool) -> None:  # noqa: ARG002
        ctx = self.ctx
        predicted = self._predict(il, self.x)
        active = part(predicted)
        h = ctx.norm(active, ctx.w(il, "attn_norm"), il=il)
        low = ops.mul_mat(ctx.must(il, "laurel_r"), ops.mul_mat(ctx.must(il, "laurel_l"), h))
        low = ops.add(ctx.norm(low, ctx.w(il, "laurel_post_norm"), il=il), h)
        a = ctx.norm(self.attention(il, h), ctx.w(il, "post_attention_norm"), il=il)
        a = ops.scale(ops.add(ops.add(a, active), low))
        y = self._feed_forward(il, ctx.norm(a, ctx.w(il, "ffn_norm"), il=il))
        y = ops.add(ctx.norm(y, ctx.w(il, "post_ffw_norm")), a)
        corrected = self._correct(il, predicted, y)
        first = self.own_input(il, ops.mul(part(corrected), ctx.must(il, "altup_correct_scale")))
        self.x = ops.concat(part(corrected), ops.add(self._others(corrected), first), 2)

    def _others(self, x: T) -> T:
        row = ops.row_size(x.type, x.ne[0])
        return ops.view(x, (*x.ne[:2], self.streams - 1), (row, row * x.ne[1]))

    def _feed_forward(self, il: int, h: T) -> T:
        ctx = self.ctx
        up = ops.mul_mat(ctx.must(il, "ffn_up"), h)
        gate = ops.mul_mat(ctx.must(il, "ffn_gate"), h)
        if il < self.row.sparse_blocks:
            gate = _largest(gate)
        return ops.mul_mat(ctx.must(il, "ffn_down"), ops.mul(up, ops.unary(gate)))

    def _modalities(self, il: int, x: T) -> T:
        ctx = self.ctx
        x = ops.scale(ctx.norm(x, ctx.w(il, "altup_router_norm"), il=il))
        return ops.unary(ops.mul_mat(ctx.must(il, "altup_router"), x))

    def _predict(self, il: int, x: T) -> T:
        n = self.streams
        factors = ops.mul_mat(
            self.ctx.must(il, "altup_predict_coef"), self._modalities(il, part(x))
        )
        factors = ops.reshape(factors, n, n, self.ctx.n_tokens)
        y = ops.mul_mat(ops.cont(ops.permute(x, 1, 2, 0, 3)), factors)
        return ops.add(ops.cont(ops.permute(y, 0, 2, 1, 3)), x)

    def _correct(self, il: int, predicted: T, y: T) -> T:
        n = self.ctx.n_tokens
        modalities = self._modalities(il, y)
        news = ops.sub(y, part(predicted))
        factors = ops.scale(ops.mul_mat(self.ctx.must(il, "altup_correct_coef"), modalities))
        factors = ops.cont(ops.transpose(factors), 1, n, self.streams)
        news = ops.repeat(news, *news.ne[:2], self.streams)
        return ops.add(ops.mul(news, factors), predicted)

    def finish(self) -> None:
        ctx, x = self.ctx, self.x
        back = ctx.root("altup_unembd_proj")
        assert back is not None
        target = _magnitude(part(x))
        others = ops.mul_mat(back, self._others(x))
        others = ops.div(ops.mul(others, target), _magnitude(others))
        merged = part(x)
        for _ in range(self.streams - 1):
            merged = ops.add(merged, part(others))
        x = ops.get_rows(ops.scale(merged), self.out_ids)
        finish(ctx, self.row, ctx.norm(x, ctx.root("output_norm")))


def _magnitude(x: T) -> T:
    return ops.like("SQRT", ops.sum_rows(ops.like("SQR", x)))


def _largest(x: T) -> T:
    """Zero what lies below a cut that only the largest activations exceed."""
    mean = ops.T("MEAN", x.type, (1, *x.ne[1:]), (x,))
    spread = ops.like("SQR", ops.sub(x, mean))
    spread = ops.like("SQRT", ops.scale(ops.sum_rows(spread)))
    return ops.unary(ops.sub(x, ops.add(mean, ops.scale(spread))))


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph of a Gemma 4 into ``ctx.g``."""
    draw(Gemma4(ctx, row))


def build_3n(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph of a Gemma 3n into ``ctx.g``."""
    draw(Gemma3n(ctx, row))
