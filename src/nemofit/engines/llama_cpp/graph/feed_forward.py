"""The feed-forward of a block: dense, or experts with or without a shared one."""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture

from . import ops
from .context import Context
from .ops import T

# llama-hparams.h: llama_expert_gating_func_type
_GATING = {1: "softmax", 2: "sigmoid", 3: "softmax_weight", 4: "sqrt_softplus"}


def feed_forward(ctx: Context, row: Architecture, il: int, h: T) -> T:
    """Draw one block's feed-forward on its normed input."""
    if ctx.w(il, "ffn_gate_inp") is None:
        return ctx.feed_forward(il, h, row.activation)
    routed = experts(ctx, row, il, h)
    if ctx.w(il, "ffn_up_shexp") is None:
        return routed
    shared = ctx.feed_forward(il, h, row.activation, suffix="_shexp")
    gate = ctx.w(il, "ffn_gate_inp_shexp")
    if gate is not None:
        shared = _gate_shared(ctx, row, gate, h, shared)
    return ops.add(routed, shared)


def _gate_shared(ctx: Context, row: Architecture, gate: T, h: T, shared: T) -> T:
    scores = ops.mul_mat(gate, h)
    if row.shared_gate == "silu_ratio":
        return ops.mul(shared, ops.div(ops.unary(scores), scores))
    return ops.mul(shared, ops.unary(scores))


def experts(ctx: Context, row: Architecture, il: int, h: T) -> T:
    """The routed experts of a block."""
    m = ctx.model
    gating = _GATING.get(m.integer("expert_gating_func"), row.gating)
    normalize = row.normalize_experts
    if normalize is None:
        normalize = bool(m.metadata.get("expert_weights_norm", False))
    return ctx.experts(
        il,
        h,
        used=m.per_layer("expert_used_count")[il],
        activation=row.activation,
        gating=gating,
        normalize=normalize,
        scaled=m.number("expert_weights_scale") not in (0.0, 1.0),
        weight_first=row.weight_first,
        groups=(m.integer("expert_group_count"), m.integer("expert_group_used_count")),
    )
