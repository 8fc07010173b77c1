"""GGUF keys of families with experts, and of multi-head latent attention.

Source: their classes in ``conversion/`` of ggml-org/llama.cpp.
"""

from __future__ import annotations

from .config import Config
from .keys_dense import deepstack, llama
from .keys_shared import Metadata, put, put_number, rotated, window

_NO_SCALING = "none"


def llama4(m: Metadata, c: Config) -> None:
    llama(m, c)
    m["feed_forward_length"] = c.integer("intermediate_size_mlp")
    m["expert_feed_forward_length"] = c.integer("intermediate_size")
    m["interleave_moe_layer_step"] = c.integer("interleave_moe_layer_step", default=1)
    kinds = c.listed("layer_types")
    if kinds is not None and all(k == "full_attention" for k in kinds):
        m["attention.sliding_window"] = 0


def experts(m: Metadata, c: Config) -> None:
    put(m, c, expert_feed_forward_length="moe_intermediate_size",
        expert_shared_feed_forward_length="shared_expert_intermediate_size")  # fmt: skip


def qwen3vlmoe(m: Metadata, c: Config) -> None:
    experts(m, c)
    deepstack(m, c)


def glm4moe(m: Metadata, c: Config) -> None:
    rotated(m, c, 0.5)
    put(m, c, expert_feed_forward_length="moe_intermediate_size",
        expert_shared_count="n_shared_experts",
        leading_dense_block_count="first_k_dense_replace")  # fmt: skip
    m["expert_gating_func"] = 2
    put_number(m, c, expert_weights_scale="routed_scaling_factor")
    if c.has("norm_topk_prob"):
        m["expert_weights_norm"] = c.flag("norm_topk_prob")


def deepseek(m: Metadata, c: Config) -> None:
    m["rope.dimension_count"] = c.head
    m["rope.scaling.type"] = _NO_SCALING
    m |= {
        "leading_dense_block_count": c.integer("first_k_dense_replace"),
        "expert_feed_forward_length": c.integer("moe_intermediate_size"),
        "expert_shared_count": c.integer("n_shared_experts"),
        "expert_weights_scale": 1.0,
    }


def latent(m: Metadata, c: Config) -> None:
    """Multi-head latent attention; the converter turns it into one head of K and V."""
    rotary, latent = c.integer("qk_rope_head_dim"), c.integer("kv_lora_rank", default=512)
    blocks = c.integer("num_hidden_layers")
    m.setdefault("attention.layer_norm_rms_epsilon", 1e-6)
    m |= {
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": latent,
        "attention.key_length": latent + rotary,
        "attention.value_length": latent,
        "attention.key_length_mla": c.integer("qk_nope_head_dim") + rotary,
        "attention.value_length_mla": c.integer("v_head_dim"),
        "rope.dimension_count": rotary,
        "leading_dense_block_count": c.integer(
            "first_k_dense_replace", default=0 if c.has("n_routed_experts") else blocks
        ),
        "expert_feed_forward_length": c.integer("moe_intermediate_size", "intermediate_size"),
        "expert_shared_count": c.integer("n_shared_experts", default=0),
    }
    put(m, c, attention__q_lora_rank="q_lora_rank")
    put_number(m, c, expert_weights_scale="routed_scaling_factor")
    if c.flag("norm_topk_prob"):
        m["expert_weights_norm"] = True
    if (scale := c.rope_number("mscale_all_dim")) is not None:
        m["rope.scaling.yarn_log_multiplier"] = 0.1 * scale


def indexed(m: Metadata, c: Config) -> None:
    latent(m, c)
    m |= {
        "attention.indexer.head_count": c.integer("index_n_heads"),
        "attention.indexer.key_length": c.integer("index_head_dim"),
        "attention.indexer.top_k": c.integer("index_topk"),
    }
    kinds = c.listed("indexer_types")
    if kinds is not None:
        m["attention.indexer.types"] = tuple(k == "full" for k in kinds)


def gpt_oss(m: Metadata, c: Config) -> None:
    window(m, c)
    m["expert_feed_forward_length"] = c.integer("intermediate_size")


def olmoe(m: Metadata, _: Config) -> None:
    m["attention.layer_norm_rms_epsilon"] = 1e-5


def minimax_m2(m: Metadata, c: Config) -> None:
    m["expert_feed_forward_length"] = c.integer("intermediate_size")
    m["rope.dimension_count"] = c.integer("rotary_dim")


def dots1(m: Metadata, c: Config) -> None:
    m |= {
        "leading_dense_block_count": c.integer("first_k_dense_replace"),
        "expert_shared_count": c.integer("n_shared_experts"),
        "expert_feed_forward_length": c.integer("moe_intermediate_size"),
        "expert_weights_norm": c.flag("norm_topk_prob"),
    }
    put_number(m, c, expert_weights_scale="routed_scaling_factor")
