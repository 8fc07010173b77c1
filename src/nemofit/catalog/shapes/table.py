"""One row per architecture: which pieces its files hold, and in which blocks.

The rules are those of ggml-org/llama.cpp: ``src/models/<architecture>.cpp`` says what a file may
hold, ``conversion/`` what the converter writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import feed_forward as ffn
from . import rules
from .attention import (
    attention,
    attention_or_linear,
    block_indexer,
    compressed_attention,
    head_gate,
    hyper_connections,
    indexer,
    latent_attention,
    shared_kv_attention,
    sinks,
)
from .dims import Dims, Layer
from .feed_forward import experts, feed_forward, shared_experts
from .gemma import layer_input, streams
from .pieces import Piece, Root, next_tokens, norm, unless, vector, when
from .recurrent import gated_delta_net, kimi_delta_attention, mamba, mamba2, short_convolution
from .roots import (
    dense_outputs,
    encoder,
    head,
    hyper_connection_head,
    long_rope_factors,
    per_layer_embedding,
    residual_blocks,
    residual_score,
    rope_factors,
    rope_factors_of_head,
    stream_projections,
)
from .rules import Mark, Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How an architecture's files are made up.

    Attributes:
        root: Tensors outside the blocks.
        block: The pieces of a block, in order.
        sparse, recurrent, sliding: Which blocks have experts, a recurrent mixer, a window.
        mark: What else differs between blocks.
    """

    root: tuple[Root, ...] = (head(),)
    block: tuple[Piece, ...]
    sparse: Rule = rules.never
    recurrent: Rule = rules.never
    sliding: Rule = rules.never
    mark: Mark = rules.no_mark

    def layers(self, d: Dims) -> list[Layer]:
        """Describe each block of a model."""
        nextn = (False,) * (d.blocks - d.nextn) + (True,) * d.nextn
        per_block = (
            d.heads, d.kv_heads, d.ff, d.expert_ff,
            self.sparse(d), self.recurrent(d), self.sliding(d), nextn, self.mark(d),
        )  # fmt: skip
        return [Layer(*values) for values in zip(*per_block, strict=True)]


ATTN_NORM = norm("attn_norm")
FFN_NORM = norm("ffn_norm")
POST_ATTN_NORM = norm("post_attention_norm")
POST_FFN_NORM = norm("post_ffw_norm")
ATTN_NORM_BIAS = norm("attn_norm", bias=True)
FFN_NORM_BIAS = norm("ffn_norm", bias=True)
ENCODER_NORMS = norm("attn_output_norm", bias=True), norm("layer_output_norm", bias=True)

ROOT_FACTORS = (head(), rope_factors)
ROOT_ALWAYS = (head(output="always"),)
ROOT_TIED = (head(output="never"),)
ROOT_BIASES = head(output="always", norm_bias=True, output_bias=True)

HEAD_NORMS = attention(norms=True)
GATED_ATTENTION = attention(qkv_bias=False, out_bias=False, norms=True, gated=True)
DENSE = unless("sparse", feed_forward(bias=False))
DENSE_OR_BIAS = unless("sparse", feed_forward())
SAME_WIDTH = experts(ffn.dense_width)
BALANCED = experts(router_bias=ffn.sigmoid_router)

LLAMA = Row(
    root=(head(), rope_factors, long_rope_factors),
    block=(
        ATTN_NORM,
        attention(),
        FFN_NORM,
        when("sparse", SAME_WIDTH, shared_experts(ffn.shared_as_stated)),
        DENSE_OR_BIAS,
    ),
    sparse=rules.if_experts,
)
QWEN2 = Row(
    block=(ATTN_NORM, attention(qkv_bias=True), FFN_NORM, DENSE),
)
QWEN3 = Row(block=(ATTN_NORM, HEAD_NORMS, FFN_NORM, DENSE))
QWEN3_MOE = Row(
    block=(ATTN_NORM, HEAD_NORMS, FFN_NORM, experts()),
    sparse=rules.if_experts,
)
GEMMA3 = Row(
    root=(head(), dense_outputs),
    block=(ATTN_NORM, HEAD_NORMS, POST_ATTN_NORM, FFN_NORM, DENSE, POST_FFN_NORM),
)
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
HUNYUAN = Row(block=(ATTN_NORM, HEAD_NORMS, FFN_NORM, DENSE))
ERNIE = Row(
    block=(
        ATTN_NORM,
        attention(),
        FFN_NORM,
        when("sparse", BALANCED, shared_experts(ffn.shared_as_stated)),
        DENSE,
    ),
    sparse=rules.after_leading_dense,
)

ROWS: dict[str, Row] = {
    "apertus": Row(
        root=(head(output="always"), rope_factors),
        block=(ATTN_NORM, HEAD_NORMS, FFN_NORM, feed_forward(gate=False, bias=False)),
    ),
    "arcee": Row(
        root=ROOT_FACTORS,
        block=(ATTN_NORM, attention(), FFN_NORM, feed_forward(gate=False, bias=False)),
    ),
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
    "bert": Row(
        root=(encoder(positions=True),),
        block=(
            attention(qkv_bias=True, out_bias=True),
            ENCODER_NORMS[0],
            feed_forward(gate=False, bias=True),
            ENCODER_NORMS[1],
        ),
    ),
    "cohere2": Row(root=ROOT_TIED, block=(ATTN_NORM, attention(), DENSE)),
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
    "ernie4_5": ERNIE,
    "ernie4_5-moe": ERNIE,
    "exaone": Row(root=ROOT_FACTORS, block=(ATTN_NORM, attention(), FFN_NORM, DENSE)),
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
    "glm-dsa": SPARSE_LATENT,
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
    "granite": LLAMA,
    "granitehybrid": Row(
        block=(
            ATTN_NORM,
            when("recurrent", mamba2()),
            unless("recurrent", attention()),
            FFN_NORM,
            when("sparse", SAME_WIDTH, shared_experts(ffn.shared_as_stated)),
            DENSE_OR_BIAS,
        ),
        sparse=rules.if_experts,
        recurrent=rules.without_kv_heads,
    ),
    "granitemoe": LLAMA,
    "hunyuan-dense": HUNYUAN,
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
    "hunyuan_vl": HUNYUAN,
    "internlm2": Row(root=ROOT_ALWAYS, block=(ATTN_NORM, attention(), FFN_NORM, DENSE)),
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
    "jina-bert-v2": Row(
        root=(encoder(),),
        block=(
            attention(qkv_bias=True, out_bias=True),
            ENCODER_NORMS[0],
            feed_forward(gate=False, up_factor=2, bias=False, down_bias=True),
            ENCODER_NORMS[1],
        ),
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
    "llama": LLAMA,
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
    "mamba": Row(block=(ATTN_NORM, mamba()), recurrent=rules.always),
    "mamba2": Row(block=(ATTN_NORM, mamba2()), recurrent=rules.always),
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
    "minicpm": LLAMA,
    "minicpm3": Row(
        root=(head(), long_rope_factors),
        block=(ATTN_NORM, latent_attention(split=False), FFN_NORM, DENSE),
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
    "mistral3": LLAMA,
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
    "modern-bert": Row(
        root=(encoder(norm_bias=False, output_norm=True),),
        block=(
            when("mark", ATTN_NORM),
            attention(qkv_bias=False, out_bias=False, fused=True),
            FFN_NORM,
            feed_forward(gate=False, up_factor=2, bias=False),
        ),
        mark=rules.not_first,
    ),
    "nemotron": Row(
        root=(head(output="always", norm_bias=True),),
        block=(ATTN_NORM_BIAS, attention(), FFN_NORM_BIAS, feed_forward(gate=False)),
    ),
    "nemotron_h": NEMOTRON_H,
    "nemotron_h_moe": NEMOTRON_H,
    "nomic-bert": Row(
        root=(encoder(),),
        block=(
            attention(qkv_bias=False, out_bias=False, fused=True),
            ENCODER_NORMS[0],
            feed_forward(bias=False),
            ENCODER_NORMS[1],
        ),
    ),
    "nomic-bert-moe": Row(
        root=(encoder(),),
        block=(
            attention(qkv_bias=True, out_bias=True, fused=True),
            ENCODER_NORMS[0],
            when("sparse", experts(ffn.dense_width, gate=False)),
            unless("sparse", feed_forward(gate=False, bias=True)),
            ENCODER_NORMS[1],
        ),
        sparse=rules.every_n_from_second,
    ),
    "olmo": Row(root=(head(norm=None),), block=(attention(), DENSE)),
    "olmo2": Row(
        root=ROOT_ALWAYS,
        block=(attention(norms=True, norm_over="all"), POST_ATTN_NORM, DENSE, POST_FFN_NORM),
    ),
    "olmoe": Row(
        root=ROOT_ALWAYS,
        block=(ATTN_NORM, attention(norms=True, norm_over="all"), FFN_NORM, SAME_WIDTH),
        sparse=rules.if_experts,
    ),
    "phi2": Row(
        root=(ROOT_BIASES,),
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
    "phimoe": Row(
        root=(ROOT_BIASES, long_rope_factors),
        block=(
            ATTN_NORM_BIAS,
            attention(qkv_bias=True, out_bias=True),
            FFN_NORM_BIAS,
            SAME_WIDTH,
        ),
        sparse=rules.if_experts,
    ),
    "qwen2": QWEN2,
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
    "qwen2vl": QWEN2,
    "qwen3": QWEN3,
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
    "qwen3moe": QWEN3_MOE,
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
    "qwen3vl": QWEN3,
    "qwen3vlmoe": QWEN3_MOE,
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
