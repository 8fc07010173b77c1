"""The graph of a decoder: attention and feed-forward blocks one after another.

Covers Llama and its many relatives; what a block has (biases, norms of q and k, post-norms,
experts, shared experts, no attention at all) is read off its tensors, the rest off the row.
"""

from __future__ import annotations

from dataclasses import replace

from nemofit.engines.llama_cpp.architectures import Architecture
from nemofit.engines.llama_cpp.kv_cache import (
    head_sizes,
    keeps_keys_only,
    kv_heads,
    layer_caches,
    row_of,
    widest_v,
    window_layers,
)

from . import ops
from .attention import Attention, BatchAttention, CacheLayout
from .context import Context
from .feed_forward import feed_forward
from .ops import T
from .pooling import pool


class Decoder:
    """One decoder's graph while it is drawn."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        m = ctx.model
        self.ctx = ctx
        self.row = row
        self.heads = m.per_layer("attention.head_count")
        self.kv_heads = kv_heads(m)
        self.windows = window_layers(m)
        self.sizes = head_sizes(m)
        self.scales_residual = row.residual_scale or (
            row.residual_scale is None and m.number("residual_scale") != 0
        )
        x = self.embedding = ctx.input_embedding()
        if row.embedding_scale:
            x = ops.scale(x)
        elif row.embedding_scale is None and m.number("embedding_scale"):
            x = ops.scale(x)
            ctx.g.expand(x)
        self.x = x
        by_sections = row.positions_by_sections and "rope.dimension_sections" in m.metadata
        self.pos = ctx.input_positions(4 if by_sections else row.positions_per_token)
        self.deepstack = m.integer("n_deepstack_layers")
        tempered = row.temperature == "unrotated" or (
            row.temperature == "metadata" and m.number("attention.temperature_scale") != 0
        )
        self.temperature = ops.input_("F32", 1, 1, ctx.n_tokens) if tempered else None
        self.full, self.window = attention_inputs(ctx)
        self.out_ids = ctx.input_output_ids()

    def block(self, il: int, last: bool) -> None:
        """Draw one block; ``self.x`` is what it reads and then what it leaves."""
        ctx, row = self.ctx, self.row
        skip = self.x
        normed = self.attention_norm(il)
        a = self.attention(il, normed)
        rows = last and not (row.rows_at_end or row.rows_behind_norm)
        if rows:
            a, skip = ops.get_rows(a, self.out_ids), ops.get_rows(skip, self.out_ids)
        if row.parallel or self._reads_attention_norm(il):
            normed = ops.get_rows(normed, self.out_ids) if rows else normed
        if row.parallel:
            self.x = _parallel_sum(row.parallel, a, feed_forward(ctx, row, il, normed), skip)
            return
        if not self._has_feed_forward(il):
            return
        pre_norm, post_attention, post = self._norms(il)
        if post_attention is not None:
            a = ctx.norm(a, post_attention, il=il, kind=row.norm)
        if self.scales_residual:
            a = ops.scale(a)
        if self.mixes(il):
            a = ops.add(skip, a) if row.skip_first else ops.add(a, skip)
        residual = a
        if pre_norm is not None or row.plain_norm:
            h = ctx.norm(residual, pre_norm, ctx.b(il, "ffn_norm"), il=il, kind=row.norm)
        else:
            h = residual if post is not None else normed
        y = feed_forward(ctx, row, il, h)
        if post is not None:
            y = ctx.norm(y, post, il=il if row.post_norm_pinned else -1, kind=row.norm)
        if self.scales_residual:
            y = ops.scale(y)
        self.x = ops.add(residual, y) if row.residual_first else ops.add(y, residual)
        if il < self.deepstack:
            more = ops.view(self.embedding, self.embedding.ne[:2], self.embedding.nb[1:2])
            self.x = ops.add(self.x, more)

    def _norms(self, il: int) -> tuple[T | None, T | None, T | None]:
        """The feed-forward's norm, the attention's post-norm and the feed-forward's own.

        A post-attention norm without a feed-forward norm is the latter, unless the block norms
        results instead of inputs.
        """
        pre = self.ctx.w(il, "ffn_norm")
        after = self.ctx.w(il, "post_attention_norm")
        post = self.ctx.w(il, "post_ffw_norm")
        if pre is None and post is None:
            return after, None, None
        return pre, after, post

    def _reads_attention_norm(self, il: int) -> bool:
        return not self.row.plain_norm and self._norms(il) == (None, None, None)

    def _has_feed_forward(self, il: int) -> bool:
        ctx = self.ctx
        return ctx.w(il, "ffn_up") is not None or ctx.w(il, "ffn_gate_inp") is not None

    def mixes(self, il: int) -> bool:
        """Whether a block does anything across tokens."""
        return self.heads[il] > 0

    def attention_norm(self, il: int) -> T:
        ctx = self.ctx
        weight = ctx.w(il, "attn_norm")
        if self.row.plain_norm:
            return ctx.norm(self.x, None, kind=self.row.norm)
        if weight is None or not self.mixes(il):
            return self.x
        return ctx.norm(self.x, weight, ctx.b(il, "attn_norm"), il=il, kind=self.row.norm)

    def rotates(self, il: int) -> bool:
        row = self.row
        if row.no_rope_step and (il + 1) % row.no_rope_step == 0:
            return False
        if row.rope == "window":
            return self.windows[il] or self.window is None
        if row.rope == "window_or_leading":
            return self.windows[il] or il < self.ctx.model.integer("leading_dense_block_count")
        if row.rope == "finetuned":
            return bool(self.ctx.model.metadata.get("rope.scaling.finetuned", True))
        return row.rope == "all"

    def rope_factors(self, il: int) -> T | None:
        row = self.row
        factored = row.rope_factors and (row.window_factors or not self.windows[il])
        return self.ctx.rope_factors(il) if factored else None

    def attention(self, il: int, h: T) -> T:
        """Attention over the cache; a plain product where a block has no keys."""
        ctx, row = self.ctx, self.row
        if self.heads[il] == 0:
            return h
        if self.kv_heads[il] == 0:
            return ctx.linear(ctx.must(il, "attn_output"), h)
        second = ctx.w(il, "attn_norm_2")
        if second is not None:
            h = ctx.norm(self.x, second, ctx.b(il, "attn_norm_2"), il=il, kind=row.norm)
        q, k, v = self.rotated_qkv(il, h)
        gate = ctx.w(il, "attn_gate")
        out = self.attend(il)(
            il,
            q,
            k,
            v,
            sinks=ctx.w(il, "attn_sinks"),
            store_order="qvk" if self.window is None else "qkv",
            soft_cap=row.soft_cap,
            output="attn_output" if gate is None else None,
        )
        if gate is not None:
            out = self._gate_heads(il, out, ops.unary(ops.mul_mat(gate, h)))
        if ctx.model.number("attention.value_scale", 1.0) not in (0.0, 1.0):
            out = ops.scale(out)
        return out

    def rotated_qkv(self, il: int, h: T) -> tuple[T, T, T]:
        """Query, key and value as attention takes them."""
        ctx, row = self.ctx, self.row
        head_k, head_v = self.sizes[il]
        p = ctx.qkv(il, h, self.heads[il], self.kv_heads[il], head_k, head_v, flat=self._flat(il))
        q, k = p.q, p.k
        if row.qk_norm in ("before", "flat"):
            q, k = self._norm_qk(il, q, k, head_k)
        if self.rotates(il):
            factors = self.rope_factors(il)
            q, k = ops.rope(q, self.pos, factors), ops.rope(k, self.pos, factors)
            if row.qk_norm == "plain_after":
                q, k = ops.rms_norm(q), ops.rms_norm(k)
        elif row.temperature == "unrotated" and self.temperature is not None:
            q = ops.mul(q, self.temperature)
        if row.qk_norm == "after":
            q, k = self._norm_qk(il, q, k, head_k)
        if row.temperature == "metadata" and self.temperature is not None:
            q = ops.mul(q, self.temperature)
        if row.query_scale:
            q = ops.scale(q)
        return q, k, p.v

    def attend(self, il: int) -> Attention:
        """The attention input of a block."""
        return self.window if self.windows[il] and self.window is not None else self.full

    def _gate_heads(self, il: int, x: T, gates: T) -> T:
        """One factor per head on the attention's result, then the output projection."""
        heads, n = self.heads[il], self.ctx.n_tokens
        x = ops.reshape(x, x.ne[0] // heads, heads, n)
        x = ops.mul(x, ops.reshape(gates, 1, heads, n))
        return ops.mul_mat(self.ctx.must(il, "attn_output"), ops.reshape(x, x.ne[0] * heads, n))

    def _flat(self, il: int) -> bool:
        return self.row.qk_norm == "flat" and self.ctx.w(il, "attn_q_norm") is not None

    def _norm_qk(self, il: int, q: T, k: T, head: int) -> tuple[T, T]:
        ctx, row = self.ctx, self.row
        weight = ctx.w(il, "attn_q_norm")
        if weight is not None:
            q = ctx.norm(q, weight, ctx.b(il, "attn_q_norm"), il=il, kind=row.norm)
        weight = ctx.w(il, "attn_k_norm")
        if weight is not None:
            k = ctx.norm(k, weight, ctx.b(il, "attn_k_norm"), il=il, kind=row.norm)
        if self._flat(il):
            n = ctx.n_tokens
            q = ops.reshape(q, head, self.heads[il], n)
            k = ops.reshape(k, head, self.kv_heads[il], n)
        return q, k

    def finish(self) -> None:
        """The last norm, the product with the output matrix, and what follows it."""
        ctx, row, x = self.ctx, self.row, self.x
        if row.keeps_hidden:
            x.is_output = True
        if row.rows_at_end:
            x = ops.get_rows(x, self.out_ids)
        x = ctx.norm(x, ctx.root(row.last_norm), ctx.weights.get("output_norm.bias"), kind=row.norm)
        if row.rows_behind_norm:
            x.is_output = True
            x = ops.get_rows(x, self.out_ids)
        finish(ctx, row, x)


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph into ``ctx.g``."""
    draw(Decoder(ctx, resolve(ctx, row)))


def draw(d: Decoder) -> None:
    """Draw every block and what follows them."""
    layers = d.ctx.shape.layers
    for il in layers:
        d.block(il, il == layers[-1])
    d.finish()


def resolve(ctx: Context, row: Architecture) -> Architecture:
    """The row with the kind of norm settled."""
    if row.norm != "epsilon":
        return row
    m = ctx.model
    rms = m.number("attention.layer_norm_rms_epsilon") or not m.number(
        "attention.layer_norm_epsilon"
    )
    return replace(row, norm="rms" if rms else "layer")


def finish(ctx: Context, row: Architecture, x: T) -> None:
    """Logits from the last norm's result, which stays an output of its own."""
    x.is_output = True
    normed = x
    head = ctx.root("output") or ctx.root("token_embd.as_output")
    assert head is not None
    if row.logits == "scale_first":
        x = ops.scale(x)
    x = ctx.linear(head, x, ctx.weights.get("output.bias"))
    if row.logits == "scale" and ctx.model.number("logit_scale", 1.0):
        x = ops.scale(x)
    elif row.logits == "cap" and ctx.model.number("final_logit_softcapping"):
        x = ops.scale(ops.unary(ops.scale(x)))
    x.is_output = True
    ctx.g.expand(x)
    pool(ctx, normed)


def _parallel_sum(order: str, a: T, y: T, skip: T) -> T:
    if order == "ffn_residual_attention":
        return ops.add(ops.add(y, skip), a)
    if order == "attention_ffn_residual":
        return ops.add(ops.add(a, y), skip)
    return ops.add(ops.add(y, a), skip)


def attention_inputs(ctx: Context) -> tuple[Attention, Attention | None]:
    """The attention inputs: one for full layers, and one for window layers where there are any."""
    m, s = ctx.model, ctx.shape
    windows, sizes = window_layers(m), head_sizes(m)
    row = row_of(m)
    if row is not None and not row.cached:
        return BatchAttention(ctx), BatchAttention(ctx) if any(windows) else None
    cached = [il for il, cache in enumerate(layer_caches(m)) if cache is not None]
    keys_only = keeps_keys_only(m)

    def attention(window: bool, cells: int) -> Attention:
        mine = [sizes[il] for il in cached if windows[il] == window]
        k_head, v_head = _common(k for k, _ in mine), _common(v for _, v in mine)
        layout = CacheLayout(cells, k_head, 0 if keys_only else v_head, widest_v(m))
        return Attention(ctx, layout, with_v=not keys_only, rotate=not keys_only)

    full = attention(False, s.cells)
    if not any(windows):
        return full, None
    return full, attention(True, s.window_cells)


def _common(sizes: object) -> int:
    """The one size of all layers, -1 where they differ, 0 where there are none."""
    found = set(sizes)  # type: ignore[call-overload]
    return -1 if len(found) > 1 else found.pop() if found else 0
