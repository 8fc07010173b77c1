"""Tiny checkpoints of every family, made by the real transformers and saved by it.

The names, shapes and configurations are the library's own; only the sizes are small. ``python -m
benchmarks.engines.hf_tiny DIR`` writes them all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Fields = dict[str, Any]

DENSE: Fields = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
LATENT: Fields = {
    **DENSE, "num_key_value_heads": 4, "kv_lora_rank": 24, "q_lora_rank": 20,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 2,
    "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "num_hidden_layers": 4,
}  # fmt: skip
DELTA: Fields = {
    **DENSE, "num_hidden_layers": 4, "head_dim": 32, "linear_num_value_heads": 4,
    "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
        "rope_theta": 10000.0, "beta_fast": 32.0, "beta_slow": 1.0}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 128,
          "rope_theta": 500000.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}  # fmt: skip
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [1.0] * 8,
        "short_factor": [1.0] * 8, "original_max_position_embeddings": 128}  # fmt: skip
MOE: Fields = {"num_local_experts": 4, "num_experts_per_tok": 2}

TINY: dict[str, tuple[str, Fields]] = {
    "llama": ("llama", {**DENSE, "rope_parameters": LLAMA3}),
    "llama-bias": ("llama", {**DENSE, "attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "llama-tied": ("llama", {**DENSE, "tie_word_embeddings": True}),
    "mistral": ("mistral", {**DENSE, "head_dim": 32}),
    "ministral3": (
        "ministral3",
        {**DENSE, "rope_parameters": {**YARN, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}},
    ),
    "mixtral": ("mixtral", {**DENSE, **MOE}),
    "arcee": ("arcee", DENSE),
    "smollm3": ("smollm3", DENSE),
    "llama4": (
        "llama4_text",
        {**DENSE, **MOE, "num_experts_per_tok": 1, "intermediate_size_mlp": 128,
         "interleave_moe_layer_step": 2, "head_dim": 16, "num_hidden_layers": 4},
    ),
    "qwen2": ("qwen2", DENSE),
    "qwen2-moe": (
        "qwen2_moe",
        {**DENSE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
         "shared_expert_intermediate_size": 40, "decoder_sparse_step": 1},
    ),
    "qwen3": ("qwen3", {**DENSE, "head_dim": 24}),
    "qwen3-moe": (
        "qwen3_moe",
        {**DENSE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
         "head_dim": 24, "decoder_sparse_step": 1},
    ),
    "qwen3-next": ("qwen3_next", DELTA),
    "qwen3.5": ("qwen3_5_text", DELTA),
    "qwen3.5-moe": ("qwen3_5_moe_text", DELTA),
    "gemma": ("gemma", {**DENSE, "head_dim": 24}),
    "gemma2": ("gemma2", {**DENSE, "head_dim": 24, "num_hidden_layers": 4}),
    "gemma3": ("gemma3_text", {**DENSE, "head_dim": 24, "num_hidden_layers": 7}),
    "phi": ("phi", {**DENSE, "num_key_value_heads": 4, "intermediate_size": 256}),
    "phi3": ("phi3", {**DENSE, "rope_parameters": LONG, "original_max_position_embeddings": 128}),
    "phimoe": ("phimoe", {**DENSE, **MOE, "rope_parameters": {**LONG, "short_mscale": 1.0,
               "long_mscale": 1.0}, "original_max_position_embeddings": 128,
               "attention_bias": True, "lm_head_bias": True}),
    "glm4": ("glm4", {**DENSE, "head_dim": 16, "attention_bias": True}),
    "glm4-moe": (
        "glm4_moe",
        {**DENSE, "head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 24, "n_shared_experts": 1, "first_k_dense_replace": 1,
         "use_qk_norm": True, "attention_bias": True, "num_hidden_layers": 4,
         "num_nextn_predict_layers": 0},
    ),
    "glm4-moe-lite": ("glm4_moe_lite", LATENT),
    "deepseek-v2": ("deepseek_v2", {**LATENT, "topk_method": "greedy", "q_lora_rank": None}),
    "deepseek-v3": ("deepseek_v3", {**LATENT, "rope_parameters": {**YARN, "mscale_all_dim": 1.0}}),
    "deepseek-v3.2": ("deepseek_v32", {**LATENT, "index_n_heads": 4, "index_head_dim": 16,
                      "index_topk": 32}),
    "glm-dsa": ("glm_moe_dsa", {**LATENT, "index_n_heads": 4, "index_head_dim": 16,
                "index_topk": 32}),
    "gpt-oss": ("gpt_oss", {**DENSE, **MOE, "head_dim": 16, "sliding_window": 64,
                "rope_parameters": YARN, "num_hidden_layers": 4}),
    "nemotron": ("nemotron", {**DENSE, "partial_rotary_factor": 0.5}),
    "nemotron-h": (
        "nemotron_h",
        {**DENSE, "hybrid_override_pattern": "M-M*-", "num_hidden_layers": 5, "head_dim": 16,
         "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2,
         "conv_kernel": 4, "use_conv_bias": True},
    ),
    "nemotron-h-moe": (
        "nemotron_h",
        {**DENSE, "hybrid_override_pattern": "MEM*E", "num_hidden_layers": 5, "head_dim": 16,
         "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2,
         "conv_kernel": 4, "use_conv_bias": True, "n_routed_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 40,
         "n_shared_experts": 1, "num_nextn_predict_layers": 0},
    ),
    "command-r": ("cohere", DENSE),
    "command-r7b": ("cohere2", {**DENSE, "rotary_pct": 1.0, "sliding_window": 64,
                    "num_hidden_layers": 4}),
    "granite": ("granite", DENSE),
    "granite-moe": ("granitemoe", {**DENSE, **MOE}),
    "granite-moe-shared": ("granitemoeshared", {**DENSE, **MOE, "shared_intermediate_size": 40}),
    "granite-hybrid": (
        "granitemoehybrid",
        {**DENSE, **MOE, "shared_intermediate_size": 40, "mamba_n_heads": 8, "mamba_d_head": 16,
         "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2,
         "layer_types": ["mamba", "attention", "mamba"]},
    ),
    "olmo": ("olmo", {**DENSE, "num_key_value_heads": 4}),
    "olmo2": ("olmo2", {**DENSE, "num_key_value_heads": 4}),
    "olmo3": ("olmo3", {**DENSE, "num_hidden_layers": 4, "sliding_window": 64}),
    "olmoe": ("olmoe", {**DENSE, "num_experts": 4, "num_experts_per_tok": 2,
              "num_key_value_heads": 4}),
    "starcoder2": ("starcoder2", {**DENSE, "use_bias": True}),
    "falcon": ("falcon", {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 3,
               "num_attention_heads": 4, "multi_query": True, "parallel_attn": True, "bias": False,
               "new_decoder_architecture": False, "alibi": False}),
    "falcon-new": ("falcon", {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 3,
                   "num_attention_heads": 4, "num_kv_heads": 2, "new_decoder_architecture": True,
                   "bias": False, "alibi": False}),
    "stablelm": ("stablelm", {**DENSE, "use_qkv_bias": True}),
    "exaone4": ("exaone4", {**DENSE, "sliding_window": 64, "sliding_window_pattern": 4,
                "num_hidden_layers": 4, "rope_parameters": LLAMA3}),
    "seed-oss": ("seed_oss", {**DENSE, "head_dim": 16}),
    "ernie4.5": ("ernie4_5", {**DENSE, "head_dim": 16}),
    "minimax-m2": ("minimax_m2", {**DENSE, **MOE, "head_dim": 16, "rotary_dim": 8}),
    "lfm2": ("lfm2", {**DENSE, "conv_L_cache": 3, "block_auto_adjust_ff_dim": False,
             "layer_types": ["conv", "full_attention", "conv"]}),
    "lfm2-moe": ("lfm2_moe", {**DENSE, "num_experts": 4, "num_experts_per_tok": 2,
                 "moe_intermediate_size": 24, "num_dense_layers": 1, "conv_L_cache": 3,
                 "layer_types": ["conv", "full_attention", "conv"]}),
    "dots1": ("dots1", {**DENSE, "num_key_value_heads": 4, "n_routed_experts": 4,
              "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1,
              "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "head_dim": 16}),
}  # fmt: skip
"""By a short name: the library's model type and the fields of its configuration."""


EDITS: dict[str, Fields] = {
    "falcon": {"num_kv_heads": None},
    "granite-hybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "nemotron-h": {
        "hybrid_override_pattern": "M-M*-", "layers_block_type": None, "n_routed_experts": None,
        "num_hidden_layers": 5,
        "num_experts_per_tok": None, "n_group": None, "topk_group": None,
        "norm_topk_prob": None, "routed_scaling_factor": None,
    },
    "phimoe": {"architectures": ["PhiMoEForCausalLM"]},
}  # fmt: skip
"""Fields as published repositories have them, where the library saves them in words of its own."""


def save(name: str, directory: Path) -> Path:
    """Write one of the tiny checkpoints.

    Returns:
        Its directory.
    """
    import torch
    import transformers

    kind, fields = TINY[name]
    config = transformers.AutoConfig.for_model(kind, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    target = directory / name
    model.save_pretrained(target, max_shard_size="100KB")
    path = target / "config.json"
    edits = EDITS.get(name, {})
    edited = json.loads(path.read_text()) | edits
    path.write_text(json.dumps({k: v for k, v in edited.items() if edits.get(k, 0) is not None}))
    return target


if __name__ == "__main__":
    for each in TINY:
        print(save(each, Path(sys.argv[1])))
