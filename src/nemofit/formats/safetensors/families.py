"""From a checkpoint's configuration to the GGUF metadata of the same model.

A family is a class that a configuration names. What it adds to the shared keys is a function of
its own; flags that GGUF does not know (biases, tied embeddings) are read off the tensors' names.

Source: the classes of ``conversion/`` in ggml-org/llama.cpp that are registered for the names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from nemofit.errors import DataError

from .base import (
    Metadata,
    heads_of,
    pattern_of_windows,
    put,
    put_number,
    rotated,
    scaled_frequencies,
    shared_keys,
    window,
)
from .config import Config

Keys = Callable[[Metadata, Config], None]
_NO_SCALING = "none"
_WHOLE_CONTEXT = 1 << 20  # conversion/granite.py: what hybrids without positions are given


class Family(NamedTuple):
    """One row of the table.

    Attributes:
        architecture: GGUF ``general.architecture``.
        keys: Adds the family's own keys.
        next_tokens: Appended next-token layers become blocks of the GGUF file; otherwise the
            converter leaves them out.
    """

    architecture: str
    keys: Keys
    next_tokens: bool = False


def family_of(c: Config) -> Family | None:
    """The row of a configuration, None where its class is not known."""
    name, kind = c.family, c.values.get("model_type")
    if name in ("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM") and kind == "mistral4":
        return Family("mistral4", _latent)
    if name == "NemotronHForCausalLM" and _EXPERT_LAYERS & set(_pattern(c)):
        return Family("nemotron_h_moe", _nemotron_hybrid)
    return FAMILIES.get(name)


def metadata_of(c: Config, family: Family) -> Metadata:
    """The GGUF keys of the architecture, without flags of the tensors.

    Raises:
        DataError: A key is missing or makes no sense.
    """
    m = shared_keys(c)
    family.keys(m, c)
    return m


def known_families() -> Collection[str]:
    """Classes whose GGUF shape is known, sorted."""
    return sorted(FAMILIES)


def _nothing(_: Metadata, __: Config) -> None:
    """The shared keys are all."""


def _plain(m: Metadata, c: Config) -> None:
    m["rope.dimension_count"] = c.head
    scaled_frequencies(m, c)


def _llama(m: Metadata, c: Config) -> None:
    """Llama and Mistral, whose configurations always come with a head's length."""
    heads_of(m, c.head)
    _plain(m, c)


def _mistral3(m: Metadata, c: Config) -> None:
    _llama(m, c)
    if c.values.get("model_type") == "ministral3":
        for key, name in (
            ("rope.scaling.yarn_log_multiplier", "mscale_all_dim"),
            ("attention.temperature_scale", "llama_4_scaling_beta"),
        ):
            if (value := c.rope_number(name)) is not None:
                m[key] = value


def _llama4(m: Metadata, c: Config) -> None:
    _llama(m, c)
    m["feed_forward_length"] = c.integer("intermediate_size_mlp")
    m["expert_feed_forward_length"] = c.integer("intermediate_size")
    m["interleave_moe_layer_step"] = c.integer("interleave_moe_layer_step", default=1)
    kinds = c.listed("layer_types")
    if kinds is not None and all(k == "full_attention" for k in kinds):
        m["attention.sliding_window"] = 0


def _granite(m: Metadata, c: Config) -> None:
    m.pop("attention.key_length", None)
    m.pop("attention.value_length", None)
    hidden, heads = c.integer("hidden_size"), max(c.integer("num_attention_heads"), 1)
    m["rope.dimension_count"] = hidden // heads
    scaled_frequencies(m, c)
    put_number(
        m, c, attention__scale="attention_multiplier", embedding_scale="embedding_multiplier",
        residual_scale="residual_multiplier", logit_scale="logits_scaling",
    )  # fmt: skip
    put(m, c, expert_shared_feed_forward_length="shared_intermediate_size")


def _granite_hybrid(m: Metadata, c: Config) -> None:
    _granite(m, c)
    blocks = c.integer("num_hidden_layers")
    kinds = c.listed("layer_types", blocks)
    if kinds is None:
        kinds = c.listed("layers_block_type", blocks) or []
    inner = c.integer("mamba_n_heads") * c.integer("mamba_d_head")
    m |= {
        "ssm.conv_kernel": c.integer("mamba_d_conv"),
        "ssm.state_size": c.integer("mamba_d_state"),
        "ssm.group_count": c.integer("mamba_n_groups"),
        "ssm.inner_size": inner,
        "ssm.time_step_rank": c.integer("mamba_n_heads"),
        "attention.head_count_kv": tuple(
            c.integer("num_key_value_heads") if k in _ATTENTION_LAYERS else 0 for k in kinds
        ),
    }
    has_recurrent = any(k in _RECURRENT_LAYERS for k in kinds)
    m["rope.scaling.finetuned"] = not has_recurrent
    if has_recurrent:
        m["context_length"] = _WHOLE_CONTEXT
    if not c.integer("num_local_experts", default=0):
        m["feed_forward_length"] = c.integer("shared_intermediate_size", "intermediate_size")
        m.pop("expert_shared_feed_forward_length", None)


def _experts(m: Metadata, c: Config) -> None:
    put(m, c, expert_feed_forward_length="moe_intermediate_size",
        expert_shared_feed_forward_length="shared_expert_intermediate_size")  # fmt: skip


def _deepstack(m: Metadata, c: Config) -> None:
    layers = c.inside("vision_config").get("deepstack_visual_indexes")
    m["n_deepstack_layers"] = len(layers) if isinstance(layers, list) else 0


def _qwen3vlmoe(m: Metadata, c: Config) -> None:
    _experts(m, c)
    _deepstack(m, c)


def _delta_net(m: Metadata, c: Config) -> None:
    _experts(m, c)
    heads = c.integer("linear_num_value_heads")
    interval = c.integer("full_attention_interval", default=4) or 4
    blocks = c.integer("num_hidden_layers")
    kinds = c.listed("layer_types", blocks)
    m |= {
        "ssm.conv_kernel": c.integer("linear_conv_kernel_dim"),
        "ssm.state_size": c.integer("linear_key_head_dim"),
        "ssm.group_count": c.integer("linear_num_key_heads"),
        "ssm.time_step_rank": heads,
        "ssm.inner_size": c.integer("linear_value_head_dim") * heads,
        "attention.recurrent_layers": tuple(
            (i + 1) % interval != 0 if kinds is None else kinds[i] == "linear_attention"
            for i in range(min(blocks, 512))
        ),
        "full_attention_interval": interval,
    }
    rotated(m, c, 0.25)


def _qwen35(m: Metadata, c: Config) -> None:
    _delta_net(m, c)
    m.setdefault("rope.dimension_sections", (11, 11, 10, 0))


def _gemma(m: Metadata, c: Config) -> None:
    heads_of(m, c.integer("head_dim"))
    m.pop("rope.freq_base", None)


def _gemma2(m: Metadata, c: Config) -> None:
    _gemma(m, c)
    put_number(
        m, c, attn_logit_softcapping="attn_logit_softcapping",
        final_logit_softcapping="final_logit_softcapping",
    )  # fmt: skip
    window(m, c)


def _gemma3(m: Metadata, c: Config) -> None:
    """Several of its sizes are left to the library's defaults in published configurations."""
    heads_of(m, c.integer("head_dim", default=256))
    m.setdefault("context_length", 131072)
    m.setdefault("attention.layer_norm_rms_epsilon", 1e-6)
    m.setdefault("rope.freq_base", 1_000_000.0)
    m.setdefault("rope.freq_base_swa", 10_000.0)
    put_number(m, c, final_logit_softcapping="final_logit_softcapping")
    if c.values.get("sliding_window_pattern") != 1:
        window(m, c)


def _phi2(m: Metadata, c: Config) -> None:
    m["attention.head_count_kv"] = m["attention.head_count"]
    m["feed_forward_length"] = 4 * c.integer("hidden_size", "n_embd")
    m.pop("rope.freq_base", None)
    rotated(m, c)


def _phi3(m: Metadata, c: Config) -> None:
    m.pop("attention.key_length", None)
    m.pop("attention.value_length", None)
    original = c.rope_number("original_max_position_embeddings")
    m["rope.scaling.original_context_length"] = int(
        original or c.integer("max_position_embeddings")
    )
    m.pop("rope.scaling.type", None)
    share = c.rope_number("partial_rotary_factor")
    hidden, heads = c.integer("hidden_size"), max(c.integer("num_attention_heads"), 1)
    m["rope.dimension_count"] = int((1.0 if share is None else share) * hidden) // heads
    m["attention.sliding_window"] = c.integer("sliding_window", default=0)
    if c.rope.get("long_factor"):
        m["rope_factors_long_short"] = True


def _glm4(m: Metadata, c: Config) -> None:
    rotated(m, c, 0.5)


def _glm4moe(m: Metadata, c: Config) -> None:
    rotated(m, c, 0.5)
    put(m, c, expert_feed_forward_length="moe_intermediate_size",
        expert_shared_count="n_shared_experts",
        leading_dense_block_count="first_k_dense_replace")  # fmt: skip
    m["expert_gating_func"] = 2
    put_number(m, c, expert_weights_scale="routed_scaling_factor")
    if c.has("norm_topk_prob"):
        m["expert_weights_norm"] = c.flag("norm_topk_prob")


def _deepseek(m: Metadata, c: Config) -> None:
    m["rope.dimension_count"] = c.head
    m["rope.scaling.type"] = _NO_SCALING
    m |= {
        "leading_dense_block_count": c.integer("first_k_dense_replace"),
        "expert_feed_forward_length": c.integer("moe_intermediate_size"),
        "expert_shared_count": c.integer("n_shared_experts"),
        "expert_weights_scale": 1.0,
    }


def _latent(m: Metadata, c: Config) -> None:
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


def _indexed(m: Metadata, c: Config) -> None:
    _latent(m, c)
    m |= {
        "attention.indexer.head_count": c.integer("index_n_heads"),
        "attention.indexer.key_length": c.integer("index_head_dim"),
        "attention.indexer.top_k": c.integer("index_topk"),
    }
    kinds = c.listed("indexer_types")
    if kinds is not None:
        m["attention.indexer.types"] = tuple(k == "full" for k in kinds)


def _gpt_oss(m: Metadata, c: Config) -> None:
    window(m, c)
    m["expert_feed_forward_length"] = c.integer("intermediate_size")


def _nemotron(m: Metadata, c: Config) -> None:
    if (epsilon := c.number("layer_norm_eps", "layer_norm_epsilon", "norm_eps")) is not None:
        m["attention.layer_norm_epsilon"] = epsilon
    share = c.rope_number("partial_rotary_factor")
    hidden, heads = c.integer("hidden_size"), max(c.integer("num_attention_heads"), 1)
    m["rope.dimension_count"] = int((0.5 if share is None else share) * hidden) // heads
    factor = c.number("factor") or c.rope_number("factor")
    m["rope.scaling.type"] = _NO_SCALING if factor is None else "linear"
    if factor is not None:
        m["rope.scaling.factor"] = factor


_EXPERT_LAYERS = {"E", "moe"}
_ATTENTION_LAYERS = {"*", "attention", "full_attention"}
_RECURRENT_LAYERS = {"mamba", "linear_attention"}


def _pattern(c: Config) -> list[str]:
    """What each layer of a Nemotron-H is, one letter or word each."""
    found = c.values.get("hybrid_override_pattern") or c.listed("layers_block_type")
    if not isinstance(found, (str, list)) or not all(isinstance(p, str) for p in found):
        raise DataError(
            f"{c.where} lacks hybrid_override_pattern, which says what each layer is",
            "download the file again",
        )
    return list(found)


def _nemotron_hybrid(m: Metadata, c: Config) -> None:
    pattern = _pattern(c)
    sparse = bool(_EXPERT_LAYERS & set(pattern))
    wide = _EXPERT_LAYERS if sparse else {"-", "mlp"}
    heads = c.integer("mamba_num_heads")
    ff = c.integer("moe_intermediate_size") if sparse else c.integer("intermediate_size")
    kv = c.integer("num_key_value_heads")
    m |= {
        "block_count": len(pattern),
        "attention.head_count_kv": tuple(kv if p in _ATTENTION_LAYERS else 0 for p in pattern),
        "feed_forward_length": tuple(ff if p in wide else 0 for p in pattern),
        "ssm.conv_kernel": c.integer("conv_kernel"),
        "ssm.state_size": c.integer("ssm_state_size"),
        "ssm.group_count": c.integer("n_groups"),
        "ssm.inner_size": c.integer("mamba_head_dim") * heads,
        "ssm.time_step_rank": heads,
        "context_length": _WHOLE_CONTEXT,
        "rope.scaling.finetuned": False,
    }
    heads_of(m, c.integer("head_dim", "attention_head_dim"))
    if rotary := c.integer("attn_rotary_emb", default=0):
        m["rope.dimension_count"] = rotary
    if sparse:
        put(m, c, expert_feed_forward_length="moe_intermediate_size",
            expert_shared_feed_forward_length="moe_shared_expert_intermediate_size",
            expert_shared_count="n_shared_experts", moe_latent_size="moe_latent_size",
        )  # fmt: skip
        m["expert_weights_norm"] = c.flag("norm_topk_prob")
        put_number(m, c, expert_weights_scale="routed_scaling_factor")
    else:  # the library fills in sizes of experts that the model does not have
        for key in ("expert_count", "expert_used_count", "expert_group_count",
                    "expert_group_used_count"):  # fmt: skip
            m.pop(key, None)


def _command_r(m: Metadata, c: Config) -> None:
    put(m, c, context_length="model_max_length")
    put_number(m, c, logit_scale="logit_scale")
    m["rope.scaling.type"] = _NO_SCALING


def _cohere2(m: Metadata, c: Config) -> None:
    put_number(m, c, logit_scale="logit_scale")
    window(m, c)
    share = c.number("rotary_pct")
    m["rope.dimension_count"] = int((1.0 if share is None else share) * c.head)
    m["rope.scaling.type"] = _NO_SCALING


def _olmo(m: Metadata, c: Config) -> None:
    m["attention.layer_norm_epsilon"] = 1e-5
    put_number(m, c, attention__clamp_kqv="clip_qkv")


def _olmo2(m: Metadata, c: Config) -> None:
    if not c.has("sliding_window"):
        return
    window(m, c)
    blocks = c.integer("num_hidden_layers")
    m["attention.sliding_window_pattern"] = tuple((i + 1) % 4 != 0 for i in range(min(blocks, 512)))
    pattern_of_windows(m, c)


def _olmoe(m: Metadata, _: Config) -> None:
    m["attention.layer_norm_rms_epsilon"] = 1e-5


def _exaone4(m: Metadata, c: Config) -> None:
    scaled_frequencies(m, c)
    if not c.has("sliding_window"):
        return
    window(m, c)
    blocks = c.integer("num_hidden_layers")
    each = c.values.get("sliding_window_pattern")
    if isinstance(each, str) and each:
        m["attention.sliding_window_pattern"] = tuple(
            each[i % len(each)] == "L" for i in range(min(blocks, 512))
        )
    elif type(each) is int and each > 0:
        m["attention.sliding_window_pattern"] = tuple(
            (i + 1) % each != 0 for i in range(min(blocks, 512))
        )
    pattern_of_windows(m, c)


def _falcon(m: Metadata, c: Config) -> None:
    hidden, heads = c.integer("hidden_size"), c.integer("num_attention_heads", "n_head")
    kv = c.integer("num_kv_heads", "n_head_kv", default=1)
    if c.flag("multi_query") and not c.flag("new_decoder_architecture"):
        kv = 1
    m |= {
        "context_length": 2048,  # the configuration does not say it
        "feed_forward_length": 4 * hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
        "tensor_data_layout": "jploski",
    }
    m.pop("rope.freq_base", None)


def _stablelm(m: Metadata, c: Config) -> None:
    rotated(m, c, 0.25)
    m.pop("rope.freq_base", None)
    m["use_parallel_residual"] = c.flag("use_parallel_residual", True)


def _minimax_m2(m: Metadata, c: Config) -> None:
    m["expert_feed_forward_length"] = c.integer("intermediate_size")
    m["rope.dimension_count"] = c.integer("rotary_dim")


def _lfm2(m: Metadata, c: Config) -> None:
    kv, blocks = c.integer("num_key_value_heads"), c.integer("num_hidden_layers")
    kinds = c.listed("layer_types", blocks) or []
    m["attention.head_count_kv"] = tuple(0 if k == "conv" else kv for k in kinds)
    m["shortconv.l_cache"] = c.integer("conv_L_cache")


def _lfm2moe(m: Metadata, c: Config) -> None:
    _lfm2(m, c)
    put(m, c, expert_feed_forward_length="moe_intermediate_size",
        leading_dense_block_count="num_dense_layers")  # fmt: skip
    m["expert_gating_func"] = 2


def _dots1(m: Metadata, c: Config) -> None:
    m |= {
        "leading_dense_block_count": c.integer("first_k_dense_replace"),
        "expert_shared_count": c.integer("n_shared_experts"),
        "expert_feed_forward_length": c.integer("moe_intermediate_size"),
        "expert_weights_norm": c.flag("norm_topk_prob"),
    }
    put_number(m, c, expert_weights_scale="routed_scaling_factor")


_LLAMA = Family("llama", _llama)
_QWEN2 = Family("qwen2", _nothing)
_QWEN2VL = Family("qwen2vl", _nothing)
_GEMMA3 = Family("gemma3", _gemma3)
_MISTRAL3 = Family("mistral3", _mistral3)
_LATENT = Family("deepseek2", _latent)
_LLAMA4 = Family("llama4", _llama4)
_GRANITE_MOE = Family("granitemoe", _granite)
_PHI_MOE = Family("phimoe", _phi3)
_QWEN35 = Family("qwen35", _qwen35, next_tokens=True)
_QWEN35_MOE = Family("qwen35moe", _qwen35, next_tokens=True)

FAMILIES: dict[str, Family] = {
    "ArceeForCausalLM": Family("arcee", _llama),
    "Cohere2ForCausalLM": Family("cohere2", _cohere2),
    "CohereForCausalLM": Family("command-r", _command_r),
    "DeepseekForCausalLM": Family("deepseek", _deepseek),
    "DeepseekV2ForCausalLM": _LATENT,
    "DeepseekV32ForCausalLM": Family("deepseek32", _indexed, next_tokens=True),
    "DeepseekV3ForCausalLM": _LATENT,
    "Dots1ForCausalLM": Family("dots1", _dots1),
    "Ernie4_5ForCausalLM": Family("ernie4_5", _nothing),
    "Exaone4ForCausalLM": Family("exaone4", _exaone4),
    "FalconForCausalLM": Family("falcon", _falcon),
    "Gemma2ForCausalLM": Family("gemma2", _gemma2),
    "Gemma3ForCausalLM": _GEMMA3,
    "Gemma3ForConditionalGeneration": _GEMMA3,
    "GemmaForCausalLM": Family("gemma", _gemma),
    "Glm4ForCausalLM": Family("glm4", _glm4),
    "Glm4MoeForCausalLM": Family("glm4moe", _glm4moe, next_tokens=True),
    "Glm4MoeLiteForCausalLM": Family("deepseek2", _latent, next_tokens=True),
    "Glm4vMoeForConditionalGeneration": Family("glm4moe", _glm4moe, next_tokens=True),
    "GlmMoeDsaForCausalLM": Family("glm-dsa", _indexed, next_tokens=True),
    "GptOssForCausalLM": Family("gpt-oss", _gpt_oss),
    "GraniteForCausalLM": Family("granite", _granite),
    "GraniteMoeForCausalLM": _GRANITE_MOE,
    "GraniteMoeHybridForCausalLM": Family("granitehybrid", _granite_hybrid),
    "GraniteMoeSharedForCausalLM": _GRANITE_MOE,
    "KimiK25ForConditionalGeneration": _LATENT,
    "KimiVLForConditionalGeneration": _LATENT,
    "Lfm2ForCausalLM": Family("lfm2", _lfm2),
    "Lfm2MoeForCausalLM": Family("lfm2moe", _lfm2moe),
    "Llama4ForCausalLM": _LLAMA4,
    "Llama4ForConditionalGeneration": _LLAMA4,
    "LlamaForCausalLM": _LLAMA,
    "MiniMaxM2ForCausalLM": Family("minimax-m2", _minimax_m2),
    "Ministral3ForCausalLM": _MISTRAL3,
    "Mistral3ForConditionalGeneration": _MISTRAL3,
    "MistralForCausalLM": _LLAMA,
    "MixtralForCausalLM": Family("llama", _plain),
    "NemotronForCausalLM": Family("nemotron", _nemotron),
    "NemotronHForCausalLM": Family("nemotron_h", _nemotron_hybrid),
    "Olmo2ForCausalLM": Family("olmo2", _olmo2),
    "Olmo3ForCausalLM": Family("olmo2", _olmo2),
    "OlmoForCausalLM": Family("olmo", _olmo),
    "OlmoeForCausalLM": Family("olmoe", _olmoe),
    "Phi3ForCausalLM": Family("phi3", _phi3),
    "PhiForCausalLM": Family("phi2", _phi2),
    "PhiMoEForCausalLM": _PHI_MOE,
    "PhimoeForCausalLM": _PHI_MOE,
    "Qwen2ForCausalLM": _QWEN2,
    "Qwen2MoeForCausalLM": Family("qwen2moe", _experts),
    "Qwen2VLForConditionalGeneration": _QWEN2VL,
    "Qwen2_5_VLForConditionalGeneration": _QWEN2VL,
    "Qwen3ForCausalLM": Family("qwen3", _nothing),
    "Qwen3MoeForCausalLM": Family("qwen3moe", _experts),
    "Qwen3NextForCausalLM": Family("qwen3next", _delta_net, next_tokens=True),
    "Qwen3VLForConditionalGeneration": Family("qwen3vl", _deepstack),
    "Qwen3VLMoeForConditionalGeneration": Family("qwen3vlmoe", _qwen3vlmoe),
    "Qwen3_5ForCausalLM": _QWEN35,
    "Qwen3_5ForConditionalGeneration": _QWEN35,
    "Qwen3_5MoeForCausalLM": _QWEN35_MOE,
    "Qwen3_5MoeForConditionalGeneration": _QWEN35_MOE,
    "SeedOssForCausalLM": Family("seed_oss", _nothing),
    "SmolLM3ForCausalLM": Family("smollm3", _plain),
    "StableLmForCausalLM": Family("stablelm", _stablelm),
    "Starcoder2ForCausalLM": Family("starcoder2", _nothing),
}
