"""The feed-forward of a block: dense, or experts with or without a shared one."""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture

from . import ops
from .context import Context
from .ops import T

# llama-hparams.h: llama_expert_gating_func_type
_LEAST_LIMIT = 1e-6  # llama-graph.cpp: build_ffn, build_moe_ffn
_GATING = {1: "softmax", 2: "sigmoid", 3: "softmax_weight", 4: "sqrt_softplus"}


def feed_forward(ctx: Context, row: Architecture, il: int, h: T) -> T:
    """Draw one block's feed-forward on its normed input."""
    if ctx.w(il, "ffn_gate_inp") is None:
        return dense(ctx, row, il, h)
    routed = _latent_experts(ctx, row, il, h)
    if ctx.w(il, "ffn_up_shexp") is None:
        return routed
    shared = dense(ctx, row, il, h, suffix="_shexp")
    gate = ctx.w(il, "ffn_gate_inp_shexp")
    if gate is not None:
        shared = _gate_shared(row, gate, h, shared)
    both = ops.add(routed, shared)
    return ops.scale(both) if row.shared_halved else both


def dense(ctx: Context, row: Architecture, il: int, h: T, *, suffix: str = "") -> T:
    """A dense feed-forward, or the shared expert of a sparse one."""
    return ctx.feed_forward(il, h, _activation(ctx, row, il, "shexp"), suffix=suffix)


def _activation(ctx: Context, row: Architecture, il: int, which: str) -> str:
    limits = ctx.model.metadata.get(f"swiglu_clamp_{which}", 0)
    limit = limits[il] if isinstance(limits, tuple) else limits
    clamped = row.activation == "silu" and float(limit) > _LEAST_LIMIT and not row.clamps_fused
    return "silu_clamped" if clamped else row.activation


def _latent_experts(ctx: Context, row: Architecture, il: int, h: T) -> T:
    """The routed experts, between two projections where they work on shorter vectors."""
    down = ctx.w(il, "ffn_latent_down") or ctx.w(il, "ffn_routed_down")
    if down is None:
        return experts(ctx, row, il, h)
    logits = ops.mul_mat(ctx.must(il, "ffn_gate_inp"), h)
    y = experts(ctx, row, il, ops.mul_mat(down, h), logits)
    norm = ctx.w(il, "ffn_routed_norm")
    if norm is not None:
        y = ctx.norm(y, norm, il=il)
    return ops.mul_mat(ctx.must(il, "ffn_latent_up", "ffn_routed_up"), y)


def _gate_shared(row: Architecture, gate: T, h: T, shared: T) -> T:
    scores = ops.mul_mat(gate, h)
    if row.shared_gate == "silu_ratio":
        return ops.mul(shared, ops.div(ops.unary(scores), scores))
    return ops.mul(shared, ops.unary(scores))


def experts(
    ctx: Context,
    row: Architecture,
    il: int,
    h: T,
    logits: T | None = None,
    *,
    chosen: T | None = None,
) -> T:
    """The routed experts of a block.

    Args:
        logits: The router's scores; None: it reads what the experts read.
        chosen: The experts of each token, where something else than the scores decides.
    """
    m = ctx.model
    gating = _GATING.get(m.integer("expert_gating_func"), row.gating)
    normalize = row.normalize_experts
    if normalize is None:
        normalize = bool(m.metadata.get("expert_weights_norm", False))
    return ctx.experts(
        il,
        h,
        used=m.per_layer("expert_used_count")[il],
        activation=_activation(ctx, row, il, "exp"),
        gating=gating,
        normalize=normalize,
        scaled=m.number("expert_weights_scale") not in (0.0, 1.0),
        weight_first=row.weight_first,
        groups=(m.integer("expert_group_count"), m.integer("expert_group_used_count")),
        logits=logits,
        chosen=chosen,
        precise=row.precise_experts,
    )
