"""Decoders with experts.

The rules are those of ggml-org/llama.cpp: ``src/models/<architecture>.cpp`` says what a file may
hold, ``conversion/`` what the converter writes.
"""

from __future__ import annotations

from . import feed_forward as ffn
from . import rules
from .attention import (
    attention,
    block_indexer,
    compressed_attention,
    head_gate,
    hyper_connections,
    indexer,
    latent_attention,
    sinks,
)
from .feed_forward import experts, shared_experts
from .pieces import next_tokens, when
from .roots import (
    head,
    hyper_connection_head,
    long_rope_factors,
    rope_factors,
    rope_factors_of_head,
)
from .row import (
    ATTN_NORM,
    ATTN_NORM_BIAS,
    BALANCED,
    DENSE,
    FFN_NORM,
    FFN_NORM_BIAS,
    HEAD_NORMS,
    POST_ATTN_NORM,
    ROOT_ALWAYS,
    ROOT_BIASES,
    ROOT_FACTORS,
    SAME_WIDTH,
    Row,
)

QWEN3_MOE = Row(
    block=(ATTN_NORM, HEAD_NORMS, FFN_NORM, experts()),
    sparse=rules.if_experts,
)
LATENT = Row(
    block=(
        ATTN_NORM,
        latent_attention(),
        FFN_NORM,
        when("sparse", BALANCED, shared_experts(ffn.shared_by_count)),
        DENSE,
        next_tokens(),
    ),
    sparse=rules.after_leading_dense,
)
SPARSE_LATENT = Row(
    block=(
        ATTN_NORM,
        latent_attention(),
        when("mark", indexer),
        FFN_NORM,
        when("sparse", experts(router_bias=True), shared_experts(ffn.shared_by_count)),
        DENSE,
        next_tokens(),
    ),
    sparse=rules.after_leading_dense,
    mark=rules.full_indexer,
)

SPARSE_ROWS: dict[str, Row] = {
    "bailingmoe": Row(
        root=ROOT_ALWAYS,
        block=(ATTN_NORM, attention(), FFN_NORM, experts(), shared_experts(ffn.shared_by_count)),
        sparse=rules.if_experts,
    ),
    "bailingmoe2": Row(
        root=ROOT_ALWAYS,
        block=(
            ATTN_NORM,
            attention(norms=True, fused=True),
            FFN_NORM,
            when("sparse", BALANCED, shared_experts(ffn.several_shared_or_expert)),
            DENSE,
            next_tokens(head_norm=False, out_norm=True),
        ),
        sparse=rules.after_leading_dense,
    ),
    "cohere2moe": Row(
        block=(
            ATTN_NORM,
            attention(),
            when("sparse", experts(), shared_experts(ffn.shared_or_by_count)),
            DENSE,
            next_tokens(),
        ),
        sparse=rules.after_leading_dense,
    ),
    "deepseek": Row(
        block=(
            ATTN_NORM,
            attention(),
            FFN_NORM,
            when("sparse", experts(), shared_experts(ffn.shared_by_count)),
            DENSE,
        ),
        sparse=rules.after_leading_dense,
    ),
    "deepseek2": LATENT,
    "deepseek32": SPARSE_LATENT,
    "deepseek4": Row(
        root=(head(output="always"), hyper_connection_head),
        block=(
            ATTN_NORM,
            compressed_attention,
            hyper_connections,
            FFN_NORM,
            ffn.hashed_experts,
            shared_experts(ffn.shared_by_count),
            next_tokens(),
        ),
        sparse=rules.always,
        mark=rules.compression,
    ),
    "dots1": Row(
        root=ROOT_ALWAYS,
        block=(
            ATTN_NORM,
            HEAD_NORMS,
            FFN_NORM,
            when("sparse", BALANCED, shared_experts(ffn.shared_by_count)),
            DENSE,
        ),
        sparse=rules.after_leading_dense,
    ),
    "ernie4_5-moe": Row(
        block=(
            ATTN_NORM,
            attention(),
            FFN_NORM,
            when("sparse", BALANCED, shared_experts(ffn.shared_as_stated)),
            DENSE,
        ),
        sparse=rules.after_leading_dense,
    ),
    "exaone-moe": Row(
        root=(head(output="always"), rope_factors),
        block=(
            ATTN_NORM,
            HEAD_NORMS,
            FFN_NORM,
            when("sparse", BALANCED, shared_experts(ffn.shared_or_expert)),
            DENSE,
            next_tokens(),
        ),
        sparse=rules.dense_at_both_ends,
    ),
    "glm-dsa": SPARSE_LATENT,
    "glm4moe": Row(
        block=(
            ATTN_NORM,
            attention(norms="attention_qk_norm"),
            POST_ATTN_NORM,
            when("sparse", experts(router_bias=True), shared_experts(ffn.shared_by_count)),
            DENSE,
            next_tokens(),
        ),
        sparse=rules.after_leading_dense,
    ),
    "gpt-oss": Row(
        root=ROOT_ALWAYS,
        block=(
            ATTN_NORM,
            attention(qkv_bias=True, out_bias=True, sinks=True),
            POST_ATTN_NORM,
            experts(biases=True),
        ),
        sparse=rules.if_experts,
    ),
    "hunyuan-moe": Row(
        block=(
            ATTN_NORM,
            HEAD_NORMS,
            FFN_NORM,
            SAME_WIDTH,
            shared_experts(ffn.shared_or_dense),
        ),
        sparse=rules.if_experts,
    ),
    "llama4": Row(
        root=ROOT_FACTORS,
        block=(
            ATTN_NORM,
            attention(),
            FFN_NORM,
            when("sparse", experts(), shared_experts(ffn.expert_width)),
            DENSE,
        ),
        sparse=rules.interleaved,
    ),
    "mimo2": Row(
        root=ROOT_ALWAYS,
        block=(
            ATTN_NORM,
            attention(),
            when("sliding", sinks),
            FFN_NORM,
            when("sparse", experts(router_bias=True)),
            DENSE,
            next_tokens(head_norm=False, out_norm=True),
        ),
        sparse=rules.dense_at_both_ends,
        sliding=rules.sliding_pattern,
    ),
    "minimax-m2": Row(
        root=ROOT_ALWAYS,
        block=(
            ATTN_NORM,
            attention(norms=True, norm_over="all"),
            FFN_NORM,
            experts(ffn.dense_width, router_bias=True),
        ),
        sparse=rules.if_experts,
    ),
    "minimax-m3": Row(
        root=ROOT_ALWAYS,
        block=(
            ATTN_NORM,
            HEAD_NORMS,
            FFN_NORM,
            when(
                "sparse",
                experts(router_bias=True),
                shared_experts(ffn.shared_by_count),
                block_indexer,
            ),
            DENSE,
        ),
        sparse=rules.after_leading_dense,
    ),
    "mistral4": Row(
        block=(
            ATTN_NORM,
            latent_attention(),
            FFN_NORM,
            when(
                "sparse",
                experts(fused=True, router_bias=ffn.sigmoid_router),
                shared_experts(ffn.shared_by_count),
            ),
            DENSE,
        ),
        sparse=rules.after_leading_dense,
    ),
    "olmoe": Row(
        root=ROOT_ALWAYS,
        block=(ATTN_NORM, attention(norms=True, norm_over="all"), FFN_NORM, SAME_WIDTH),
        sparse=rules.if_experts,
    ),
    "phimoe": Row(
        root=(*ROOT_BIASES, long_rope_factors),
        block=(
            ATTN_NORM_BIAS,
            attention(qkv_bias=True, out_bias=True),
            FFN_NORM_BIAS,
            SAME_WIDTH,
        ),
        sparse=rules.if_experts,
    ),
    "qwen2moe": Row(
        root=ROOT_ALWAYS,
        block=(
            ATTN_NORM,
            attention(qkv_bias=True),
            FFN_NORM,
            experts(),
            shared_experts(ffn.shared_or_dense, weighed=True),
        ),
        sparse=rules.if_experts,
    ),
    "qwen3moe": QWEN3_MOE,
    "qwen3vlmoe": QWEN3_MOE,
    "step35": Row(
        root=(head(output="always"), rope_factors_of_head("rope_factors")),
        block=(
            ATTN_NORM,
            HEAD_NORMS,
            head_gate,
            FFN_NORM,
            when("sparse", experts(router_bias=True), shared_experts(ffn.shared_as_stated)),
            DENSE,
            next_tokens(),
        ),
        sparse=rules.dense_at_both_ends,
    ),
}
