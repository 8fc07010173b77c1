"""Decoders with one feed-forward per block, and those of llama's make.

The rules are those of ggml-org/llama.cpp: ``src/models/<architecture>.cpp`` says what a file may
hold, ``conversion/`` what the converter writes.
"""

from __future__ import annotations

from . import feed_forward as ffn
from . import rules
from .attention import attention, attention_or_linear, latent_attention, shared_kv_attention
from .feed_forward import feed_forward, shared_experts
from .gemma import layer_input, streams
from .pieces import next_tokens, norm, unless, vector, when
from .roots import (
    dense_outputs,
    head,
    long_rope_factors,
    per_layer_embedding,
    rope_factors,
    rope_factors_of_head,
    stream_projections,
)
from .row import (
    ATTN_NORM,
    ATTN_NORM_BIAS,
    DENSE,
    FFN_NORM,
    FFN_NORM_BIAS,
    HEAD_NORMS,
    POST_ATTN_NORM,
    POST_FFN_NORM,
    ROOT_ALWAYS,
    ROOT_BIASES,
    ROOT_FACTORS,
    ROOT_TIED,
    SAME_WIDTH,
    Row,
)

LLAMA = Row(
    root=(head(), rope_factors, long_rope_factors),
    block=(
        ATTN_NORM,
        attention(),
        FFN_NORM,
        when("sparse", SAME_WIDTH, shared_experts(ffn.shared_as_stated)),
        unless("sparse", feed_forward()),
    ),
    sparse=rules.if_experts,
)
QWEN2 = Row(
    block=(ATTN_NORM, attention(qkv_bias=True), FFN_NORM, DENSE),
)
QWEN3 = Row(block=(ATTN_NORM, HEAD_NORMS, FFN_NORM, DENSE))
GEMMA3 = Row(
    root=(head(), dense_outputs),
    block=(ATTN_NORM, HEAD_NORMS, POST_ATTN_NORM, FFN_NORM, DENSE, POST_FFN_NORM),
)

DENSE_ROWS: dict[str, Row] = {
    "apertus": Row(
        root=(head(output="always"), rope_factors),
        block=(ATTN_NORM, HEAD_NORMS, FFN_NORM, feed_forward(gate=False, bias=False)),
    ),
    "arcee": Row(
        root=ROOT_FACTORS,
        block=(ATTN_NORM, attention(), FFN_NORM, feed_forward(gate=False, bias=False)),
    ),
    "cohere2": Row(root=ROOT_TIED, block=(ATTN_NORM, attention(), DENSE)),
    "command-r": Row(
        root=ROOT_TIED,
        # Command R+ is the one with 64 blocks, and llama.cpp tells it by that.
        block=(
            ATTN_NORM,
            attention(norms=lambda d: d.blocks >= 64, norm_over="heads"),
            DENSE,
        ),
    ),
    "deci": Row(
        root=ROOT_FACTORS,
        block=(attention_or_linear, when("ff", FFN_NORM, feed_forward())),
    ),
    "ernie4_5": Row(block=(ATTN_NORM, attention(), FFN_NORM, DENSE)),
    "exaone": Row(root=ROOT_FACTORS, block=(ATTN_NORM, attention(), FFN_NORM, DENSE)),
    "exaone4": Row(
        root=ROOT_FACTORS,
        block=(HEAD_NORMS, POST_ATTN_NORM, DENSE, POST_FFN_NORM, next_tokens()),
    ),
    "falcon": Row(
        root=(head(norm_bias=True),),
        block=(
            ATTN_NORM_BIAS,
            norm("attn_norm_2", bias=True, given="attention_norm_2"),
            attention(qkv_bias=False, out_bias=False, fused=True),
            feed_forward(gate=False, bias=False),
        ),
    ),
    "gemma": Row(root=ROOT_TIED, block=(ATTN_NORM, attention(), FFN_NORM, DENSE)),
    "gemma-embedding": GEMMA3,
    "gemma2": Row(
        root=ROOT_TIED,
        block=(ATTN_NORM, attention(), POST_ATTN_NORM, FFN_NORM, DENSE, POST_FFN_NORM),
    ),
    "gemma3": GEMMA3,
    "gemma3n": Row(
        root=(head(), per_layer_embedding, stream_projections),
        block=(
            ATTN_NORM,
            HEAD_NORMS,
            POST_ATTN_NORM,
            FFN_NORM,
            DENSE,
            POST_FFN_NORM,
            layer_input,
            streams,
        ),
    ),
    "gemma4": Row(
        root=(head(), per_layer_embedding, rope_factors_of_head(True)),
        block=(
            ATTN_NORM,
            shared_kv_attention,
            POST_ATTN_NORM,
            vector("layer_output_scale.weight", size=1),
            FFN_NORM,
            feed_forward(bias=False),
            POST_FFN_NORM,
            ffn.gemma_experts,
            layer_input,
        ),
        sparse=rules.if_experts,
        sliding=rules.sliding_pattern,
        mark=rules.without_own_kv,
    ),
    "glm4": Row(
        block=(
            ATTN_NORM,
            attention(),
            POST_ATTN_NORM,
            FFN_NORM,
            feed_forward(gate=False, up_factor=2, bias=False),
            POST_FFN_NORM,
            next_tokens(),
        ),
    ),
    "granite": LLAMA,
    "granitemoe": LLAMA,
    "hunyuan-dense": QWEN3,
    "hunyuan_vl": QWEN3,
    "internlm2": Row(root=ROOT_ALWAYS, block=(ATTN_NORM, attention(), FFN_NORM, DENSE)),
    "llama": LLAMA,
    "minicpm": LLAMA,
    "minicpm3": Row(
        root=(head(), long_rope_factors),
        block=(ATTN_NORM, latent_attention(split=False), FFN_NORM, DENSE),
    ),
    "mistral3": LLAMA,
    "nemotron": Row(
        root=(head(output="always", norm_bias=True),),
        block=(ATTN_NORM_BIAS, attention(), FFN_NORM_BIAS, feed_forward(gate=False)),
    ),
    "olmo": Row(root=(head(norm=None),), block=(attention(), DENSE)),
    "olmo2": Row(
        root=ROOT_ALWAYS,
        block=(attention(norms=True, norm_over="all"), POST_ATTN_NORM, DENSE, POST_FFN_NORM),
    ),
    "phi2": Row(
        root=ROOT_BIASES,
        block=(
            ATTN_NORM_BIAS,
            attention(qkv_bias=True, out_bias=True),
            feed_forward(gate=False, bias=True),
        ),
    ),
    "phi3": Row(
        root=(head(), long_rope_factors),
        block=(
            ATTN_NORM,
            attention(fused=True),
            FFN_NORM,
            feed_forward(gate=False, up_factor=2, bias=False),
        ),
    ),
    "qwen2": QWEN2,
    "qwen2vl": QWEN2,
    "qwen3": QWEN3,
    "qwen3vl": QWEN3,
    "seed_oss": Row(block=(ATTN_NORM, attention(), POST_ATTN_NORM, DENSE)),
    "smollm3": Row(block=(ATTN_NORM, attention(), FFN_NORM, DENSE)),
    "stablelm": Row(
        root=(head(output="always", norm_bias=True),),
        block=(
            ATTN_NORM_BIAS,
            attention(norms="attention_qk_norm", norm_over="heads"),
            norm("ffn_norm", bias=True, given=lambda d: not d.flag("use_parallel_residual")),
            DENSE,
        ),
    ),
    "starcoder2": Row(
        root=(head(norm_bias=True),),
        block=(
            ATTN_NORM_BIAS,
            attention(qkv_bias=True, out_bias=True),
            FFN_NORM_BIAS,
            feed_forward(gate=False, bias=True),
        ),
    ),
}
