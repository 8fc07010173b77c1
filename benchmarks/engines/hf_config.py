"""A model's ``config.json`` on Hugging Face, from the shape that nemofit knows.

The oracles build the real engine's own modules from it, so that the engine's code decides how a
model is split, and nemofit's answer is held against that.
"""

from __future__ import annotations

from collections.abc import Callable

from nemofit.catalog.model import ModelSpec

Config = dict[str, object]


def config_of(model: ModelSpec) -> Config:
    """The configuration of a model.

    Raises:
        KeyError: The architecture is not among those that the oracles build.
    """
    m = model
    blocks = m.integer("block_count") - m.integer("nextn_predict_layers")
    heads = m.integer("attention.head_count")
    config: Config = {
        "vocab_size": m.integer("vocab_size"),
        "hidden_size": m.integer("embedding_length"),
        "intermediate_size": m.integer("feed_forward_length"),
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": m.integer("attention.head_count_kv", heads),
        "max_position_embeddings": m.integer("context_length"),
        "rope_theta": m.number("rope.freq_base", 10000.0),
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": bool(m.metadata.get("tied_embeddings")),
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    if "attention.key_length" in m.metadata:
        config["head_dim"] = m.integer("attention.key_length")
    config |= _FAMILIES[m.architecture](m)
    return config


def _named(model_type: str, name: str, **more: object) -> Callable[[ModelSpec], Config]:
    return lambda _: {"model_type": model_type, "architectures": [name], **more}


def _llama(m: ModelSpec) -> Config:
    if not m.integer("expert_count"):
        return {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    return {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": m.integer("expert_count"),
        "num_experts_per_tok": m.integer("expert_used_count"),
        "sliding_window": None,
    }


def _experts(m: ModelSpec, **more: object) -> Config:
    return {
        "num_experts": m.integer("expert_count"),
        "num_experts_per_tok": m.integer("expert_used_count"),
        "moe_intermediate_size": m.integer("expert_feed_forward_length"),
        "norm_topk_prob": True,
        **more,
    }


def _qwen3moe(m: ModelSpec) -> Config:
    return _experts(
        m,
        model_type="qwen3_moe",
        architectures=["Qwen3MoeForCausalLM"],
        decoder_sparse_step=1,
        mlp_only_layers=[],
    )


def _gemma2(m: ModelSpec) -> Config:
    return {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "sliding_window": m.integer("attention.sliding_window"),
        "query_pre_attn_scalar": 256,
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _gemma3(m: ModelSpec) -> Config:
    return {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "sliding_window": m.integer("attention.sliding_window"),
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": 256,
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _phi3(m: ModelSpec) -> Config:
    config: Config = {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "original_max_position_embeddings": m.integer("rope.scaling.original_context_length"),
        "sliding_window": None,
    }
    if m.metadata.get("rope_factors_long_short"):
        half = m.integer("rope.dimension_count") // 2
        config["rope_scaling"] = {
            "type": "longrope",
            "long_factor": [1.0] * half,
            "short_factor": [1.0] * half,
        }
    return config


def _gpt_oss(m: ModelSpec) -> Config:
    blocks = m.integer("block_count")
    return {
        "model_type": "gpt_oss",
        "architectures": ["GptOssForCausalLM"],
        "num_local_experts": m.integer("expert_count"),
        "num_experts_per_tok": m.integer("expert_used_count"),
        "sliding_window": m.integer("attention.sliding_window"),
        "layer_types": ["sliding_attention", "full_attention"] * (blocks // 2),
        "attention_bias": True,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    }


def _deepseek2(m: ModelSpec) -> Config:
    version = 3 if m.integer("attention.q_lora_rank") else 2
    rot = m.integer("rope.dimension_count")
    return {
        "model_type": f"deepseek_v{version}",
        "architectures": [f"DeepseekV{version}ForCausalLM"],
        "head_dim": rot,
        "num_key_value_heads": m.integer("attention.head_count"),
        "q_lora_rank": m.integer("attention.q_lora_rank") or None,
        "kv_lora_rank": m.integer("attention.kv_lora_rank"),
        "qk_nope_head_dim": m.integer("attention.key_length_mla") - rot,
        "qk_rope_head_dim": rot,
        "v_head_dim": m.integer("attention.value_length_mla"),
        "n_routed_experts": m.integer("expert_count"),
        "num_experts_per_tok": m.integer("expert_used_count"),
        "moe_intermediate_size": m.integer("expert_feed_forward_length"),
        "n_shared_experts": m.integer("expert_shared_count"),
        "first_k_dense_replace": m.integer("leading_dense_block_count"),
        "moe_layer_freq": 1,
        "n_group": m.integer("expert_group_count", 1),
        "topk_group": m.integer("expert_group_used_count", 1),
        "topk_method": "noaux_tc" if version == 3 else "greedy",
        "scoring_func": "sigmoid" if version == 3 else "softmax",
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": version == 3,
        "hidden_act": "silu",
        "rope_scaling": {
            "type": "yarn",
            "factor": 40.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "beta_fast": 32,
            "beta_slow": 1,
            "original_max_position_embeddings": 4096,
        },
    }


def _glm4moe(m: ModelSpec) -> Config:
    return {
        "model_type": "glm4_moe",
        "architectures": ["Glm4MoeForCausalLM"],
        "n_routed_experts": m.integer("expert_count"),
        "num_experts_per_tok": m.integer("expert_used_count"),
        "moe_intermediate_size": m.integer("expert_feed_forward_length"),
        "n_shared_experts": m.integer("expert_shared_count"),
        "first_k_dense_replace": m.integer("leading_dense_block_count"),
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
        "attention_bias": bool(m.metadata.get("attention_bias")),
        "use_qk_norm": bool(m.metadata.get("attention_qk_norm")),
        "partial_rotary_factor": 0.5,
        "hidden_act": "silu",
    }


def _minimax_m2(m: ModelSpec) -> Config:
    return {
        "model_type": "minimax_m2",
        "architectures": ["MiniMaxM2ForCausalLM"],
        "num_local_experts": m.integer("expert_count"),
        "num_experts_per_tok": m.integer("expert_used_count"),
        "rotary_dim": m.integer("rope.dimension_count"),
        "use_qk_norm": True,
        "qk_norm_type": "per_layer",
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
        "hidden_act": "silu",
    }


def _qwen3next(m: ModelSpec) -> Config:
    return _experts(
        m,
        model_type="qwen3_next",
        architectures=["Qwen3NextForCausalLM"],
        shared_expert_intermediate_size=m.integer("expert_shared_feed_forward_length"),
        decoder_sparse_step=1,
        mlp_only_layers=[],
        full_attention_interval=4,
        partial_rotary_factor=0.25,
        linear_conv_kernel_dim=m.integer("ssm.conv_kernel"),
        linear_key_head_dim=m.integer("ssm.state_size"),
        linear_value_head_dim=m.integer("ssm.inner_size") // m.integer("ssm.time_step_rank"),
        linear_num_key_heads=m.integer("ssm.group_count"),
        linear_num_value_heads=m.integer("ssm.time_step_rank"),
        hidden_act="silu",
    )


def _nemotron_h(m: ModelSpec) -> Config:
    kv = m.per_layer("attention.head_count_kv")
    ff = m.per_layer("feed_forward_length")
    sparse = m.integer("expert_count") > 0
    pattern = "".join(
        "*" if k else ("E" if sparse else "-") if f else "M" for k, f in zip(kv, ff, strict=True)
    )
    config: Config = {
        "model_type": "nemotron_h",
        "architectures": ["NemotronHForCausalLM"],
        "hybrid_override_pattern": pattern,
        "num_attention_heads": m.integer("attention.head_count"),
        "mamba_num_heads": m.integer("ssm.time_step_rank"),
        "mamba_head_dim": m.integer("ssm.inner_size") // m.integer("ssm.time_step_rank"),
        "ssm_state_size": m.integer("ssm.state_size"),
        "n_groups": m.integer("ssm.group_count"),
        "conv_kernel": m.integer("ssm.conv_kernel"),
        "chunk_size": 128,
        "use_conv_bias": True,
        "use_bias": False,
        "mlp_bias": False,
        "attention_bias": False,
        "mamba_proj_bias": False,
        "mlp_hidden_act": "relu2",
        "mamba_hidden_act": "silu",
        "layer_norm_epsilon": 1e-5,
    }
    if sparse:
        config |= {
            "n_routed_experts": m.integer("expert_count"),
            "num_experts_per_tok": m.integer("expert_used_count"),
            "moe_intermediate_size": m.integer("expert_feed_forward_length"),
            "moe_shared_expert_intermediate_size": m.integer("expert_shared_feed_forward_length"),
            "n_shared_experts": 1,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
        }
    return config


_FAMILIES: dict[str, Callable[[ModelSpec], Config]] = {
    "llama": _llama,
    "qwen2": _named("qwen2", "Qwen2ForCausalLM", use_sliding_window=False),
    "qwen3": _named("qwen3", "Qwen3ForCausalLM", attention_bias=False),
    "qwen3moe": _qwen3moe,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "gpt-oss": _gpt_oss,
    "deepseek2": _deepseek2,
    "glm4moe": _glm4moe,
    "minimax-m2": _minimax_m2,
    "qwen3next": _qwen3next,
    "nemotron_h": _nemotron_h,
    "nemotron_h_moe": _nemotron_h,
    "command-r": _named(
        "cohere", "CohereForCausalLM", layer_norm_eps=1e-5, logit_scale=0.0625, use_qk_norm=False
    ),
    "olmo2": _named("olmo2", "Olmo2ForCausalLM", attention_bias=False),
    "granite": _named(
        "granite",
        "GraniteForCausalLM",
        attention_multiplier=1.0,
        embedding_multiplier=1.0,
        residual_multiplier=1.0,
        logits_scaling=1.0,
        attention_bias=False,
        mlp_bias=False,
    ),
    "nemotron": _named(
        "nemotron", "NemotronForCausalLM", norm_eps=1e-5, partial_rotary_factor=0.5,
        hidden_act="relu2",
    ),
    "smollm3": _named("smollm3", "SmolLM3ForCausalLM", use_sliding_window=False),
}  # fmt: skip
