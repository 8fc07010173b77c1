"""The graph of a decoder: attention and feed-forward blocks one after another.

Covers Llama and its many relatives; what a block has (biases, norms of q and k, post-norms,
experts, shared experts) is read off its tensors, the rest off the architecture's row.
"""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture
from nemofit.engines.llama_cpp.kv_cache import window_layers

from . import ops
from .attention import Attention, CacheLayout, head_sizes
from .context import Context
from .ops import T


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph into ``ctx.g``."""
    m, s = ctx.model, ctx.shape
    heads = m.per_layer("attention.head_count")
    kv_heads = m.per_layer("attention.head_count_kv", heads[0])
    windows = window_layers(m)
    x = ctx.input_embedding()
    if row.embedding_scale:
        x = ops.scale(x)
    pos = ctx.input_positions()
    full, window = inputs(ctx)
    out_ids = ctx.input_output_ids()
    last = s.layers[-1]
    for il in s.layers:
        skip = x
        factors = ctx.rope_factors(il)
        h = ctx.norm(x, ctx.must(il, "attn_norm"), ctx.b(il, "attn_norm"), il=il, kind=row.norm)
        head_k, head_v = head_sizes(ctx, il)
        p = ctx.qkv(il, h, heads[il], kv_heads[il], head_k, head_v)
        q, k = p.q, p.k
        q_norm, k_norm = ctx.w(il, "attn_q_norm"), ctx.w(il, "attn_k_norm")
        if q_norm is not None:
            q = ctx.norm(q, q_norm, il=il, kind=row.norm)
        q = ops.rope(q, pos, factors)
        if k_norm is not None:
            k = ctx.norm(k, k_norm, il=il, kind=row.norm)
        k = ops.rope(k, pos, factors)
        if row.query_scale:
            q = ops.scale(q)
        attention = window if windows[il] and window is not None else full
        order = "qvk" if window is None else "qkv"
        a = attention(il, q, k, p.v, store_order=order, soft_cap=row.soft_cap)
        if il == last:
            a, skip = ops.get_rows(a, out_ids), ops.get_rows(skip, out_ids)
        post = ctx.w(il, "post_attention_norm")
        if post is not None:
            a = ctx.norm(a, post, il=il, kind=row.norm)
        residual = ops.add(a, skip)
        y = feed_forward(ctx, row, il, residual)
        post = ctx.w(il, "post_ffw_norm")
        if post is not None:
            y = ctx.norm(y, post, il=-1, kind=row.norm)
        x = ops.add(y, residual)
    finish(ctx, row, x)


def inputs(ctx: Context) -> tuple[Attention, Attention | None]:
    """The attention inputs: one for full layers, and one for window layers where there are any."""
    m, s = ctx.model, ctx.shape
    sizes = [head_sizes(ctx, il) for il in range(m.integer("block_count"))]
    kv = m.per_layer("attention.head_count_kv", m.integer("attention.head_count"))
    k_heads, v_heads = {a for a, _ in sizes}, {b for _, b in sizes}
    k_head = k_heads.pop() if len(k_heads) == 1 else -1
    v_head = v_heads.pop() if len(v_heads) == 1 else -1
    widest = max(n * size[1] for n, size in zip(kv, sizes, strict=True))
    full = Attention(ctx, CacheLayout(s.cells, k_head, v_head, widest))
    if not any(window_layers(m)):
        return full, None
    return full, Attention(ctx, CacheLayout(s.window_cells, k_head, v_head, widest))


def feed_forward(ctx: Context, row: Architecture, il: int, residual: T) -> T:
    """Norm and feed-forward of one block, dense or a mixture of experts."""
    m = ctx.model
    h = ctx.norm(residual, ctx.must(il, "ffn_norm", "post_attention_norm"), ctx.b(il, "ffn_norm"), il=il, kind=row.norm)
    if ctx.w(il, "ffn_gate_inp") is None:
        return ctx.feed_forward(il, h, row.activation)
    return ctx.experts(
        il,
        h,
        used=m.integer("expert_used_count"),
        activation=row.activation,
        gating=row.gating,
        normalize=row.normalize_experts,
        scaled=m.number("expert_weights_scale") not in (0.0, 1.0),
    )


def finish(ctx: Context, row: Architecture, x: T) -> None:
    """The last norm, the product with the output matrix, and what follows it."""
    norm = ctx.root("output_norm")
    x = ctx.norm(x, norm, ctx.weights.get("output_norm.bias"), kind=row.norm)
    x.is_output = True
    head = ctx.root("output") or ctx.root("token_embd.as_output")
    assert head is not None
    x = ctx.linear(head, x, ctx.weights.get("output.bias"))
    if row.logit_scale == "scale":
        x = ops.scale(x)
    elif row.logit_scale == "cap" and ctx.model.metadata.get("final_logit_softcapping"):
        x = ops.scale(ops.unary(ops.scale(x)))
    x.is_output = True
    ctx.g.expand(x)
