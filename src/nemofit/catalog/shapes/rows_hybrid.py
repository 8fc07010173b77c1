"""Models with recurrent blocks.

The rules are those of ggml-org/llama.cpp: ``src/models/<architecture>.cpp`` says what a file may
hold, ``conversion/`` what the converter writes.
"""

from __future__ import annotations

from . import feed_forward as ffn
from . import rules
from .attention import attention, latent_attention
from .feed_forward import experts, feed_forward, shared_experts
from .pieces import next_tokens, norm, unless, vector, when
from .recurrent import gated_delta_net, kimi_delta_attention, mamba, mamba2, short_convolution
from .roots import head, residual_blocks, residual_score
from .row import (
    ATTN_NORM,
    DENSE,
    FFN_NORM,
    HEAD_NORMS,
    POST_ATTN_NORM,
    ROOT_ALWAYS,
    ROOT_FACTORS,
    SAME_WIDTH,
    Row,
)

GATED_ATTENTION = attention(qkv_bias=False, out_bias=False, norms=True, gated=True)

NEMOTRON_H = Row(
    block=(
        ATTN_NORM,
        when("recurrent", mamba2()),
        when("kv_heads", attention()),
        when("nextn", POST_ATTN_NORM),
        when(
            "sparse",
            experts(
                inner=ffn.latent_width("moe_latent_size"),
                gate=False,
                router_bias=True,
            ),
            ffn.latent_projections("moe_latent_size", "ffn_latent"),
            shared_experts(ffn.shared_as_stated, gate=False),
        ),
        unless("sparse", when("ff", feed_forward(gate=False))),
        next_tokens(),
    ),
    sparse=rules.with_ff_and_experts,
    recurrent=rules.without_kv_heads_and_ff,
)

HYBRID_ROWS: dict[str, Row] = {
    "falcon-h1": Row(
        root=ROOT_FACTORS,
        block=(
            ATTN_NORM,
            mamba2(norm="ssm_norm"),
            attention(),
            # The converter maps this norm by its whole name, so it has no ".weight".
            vector("ffn_norm"),
            feed_forward(),
        ),
    ),
    "granitehybrid": Row(
        block=(
            ATTN_NORM,
            when("recurrent", mamba2()),
            unless("recurrent", attention()),
            FFN_NORM,
            when("sparse", SAME_WIDTH, shared_experts(ffn.shared_as_stated)),
            unless("sparse", feed_forward()),
        ),
        sparse=rules.if_experts,
        recurrent=rules.without_kv_heads,
    ),
    "jamba": Row(
        block=(
            ATTN_NORM,
            when("recurrent", mamba(norms=True)),
            unless("recurrent", attention()),
            FFN_NORM,
            when("sparse", SAME_WIDTH),
            DENSE,
        ),
        sparse=rules.by_period,
        recurrent=rules.without_kv_heads,
    ),
    "kimi-k3": Row(
        root=(head(output="always"), residual_score),
        block=(
            ATTN_NORM,
            norm("attn_res_score", given=residual_blocks),
            when("recurrent", kimi_delta_attention(full_rank_gate=True)),
            unless("recurrent", latent_attention(gate=True)),
            FFN_NORM,
            norm("ffn_res_score", given=residual_blocks),
            when(
                "sparse",
                experts(inner=ffn.latent_width("expert_latent_length"), router_bias=True),
                ffn.latent_projections("expert_latent_length", "ffn_routed", norm=True),
                shared_experts(ffn.at_least_one_shared),
            ),
            DENSE,
        ),
        sparse=rules.after_leading_dense,
        recurrent=rules.without_kv_heads,
    ),
    "kimi-linear": Row(
        root=ROOT_ALWAYS,
        block=(
            ATTN_NORM,
            when("recurrent", kimi_delta_attention(full_rank_gate=False)),
            unless("recurrent", latent_attention()),
            FFN_NORM,
            when("sparse", experts(router_bias=True), shared_experts(ffn.at_least_one_shared)),
            DENSE,
        ),
        sparse=rules.after_leading_dense,
        recurrent=rules.without_kv_heads,
    ),
    "lfm2": Row(
        root=(head(norm="token_embd_norm"),),
        block=(
            ATTN_NORM,
            when("recurrent", short_convolution),
            unless("recurrent", HEAD_NORMS),
            FFN_NORM,
            DENSE,
        ),
        recurrent=rules.without_kv_heads,
    ),
    "lfm2moe": Row(
        root=(head(norm="token_embd_norm"),),
        block=(
            ATTN_NORM,
            when("recurrent", short_convolution),
            unless("recurrent", HEAD_NORMS),
            FFN_NORM,
            when("sparse", experts(router_bias=True)),
            DENSE,
        ),
        sparse=rules.after_leading_dense,
        recurrent=rules.without_kv_heads,
    ),
    "mamba": Row(block=(ATTN_NORM, mamba()), recurrent=rules.always),
    "mamba2": Row(block=(ATTN_NORM, mamba2()), recurrent=rules.always),
    "nemotron_h": NEMOTRON_H,
    "nemotron_h_moe": NEMOTRON_H,
    "qwen35": Row(
        block=(
            ATTN_NORM,
            POST_ATTN_NORM,
            when("recurrent", gated_delta_net(fused_rates=False)),
            unless("recurrent", GATED_ATTENTION),
            DENSE,
            next_tokens(),
        ),
        recurrent=rules.between_full_attention,
    ),
    "qwen35moe": Row(
        block=(
            ATTN_NORM,
            POST_ATTN_NORM,
            when("recurrent", gated_delta_net(fused_rates=False)),
            unless("recurrent", GATED_ATTENTION),
            experts(),
            shared_experts(ffn.shared_or_dense, weighed=True),
            next_tokens(),
        ),
        sparse=rules.if_experts,
        recurrent=rules.between_full_attention,
    ),
    "qwen3next": Row(
        block=(
            ATTN_NORM,
            POST_ATTN_NORM,
            when("recurrent", gated_delta_net(fused_rates=True)),
            unless("recurrent", GATED_ATTENTION),
            experts(),
            shared_experts(ffn.shared_or_dense, weighed=True),
            next_tokens(),
        ),
        sparse=rules.if_experts,
        recurrent=rules.between_full_attention,
    ),
}
