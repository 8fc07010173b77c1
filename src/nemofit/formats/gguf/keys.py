"""GGUF metadata: value types, which key takes which type, and neutral values for missing keys.

Source: the loader of llama.cpp (``src/llama-model.cpp`` and ``load_arch_hparams`` in
``src/models/*.cpp``, 0.5.0), which refuses a key of another type and a file without a key that it
requires; and the constants of gguf-py (``gguf-py/gguf/constants.py``).
"""

from __future__ import annotations

from nemofit.catalog.model import ModelSpec, Value

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

ALIGNMENT = 32
"""Bytes; the default of ``general.alignment``."""

_MAX_BLOCKS, _MAX_EXPERTS = 512, 1024  # LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS

LIMITS: dict[str, tuple[int, int, int | None]] = {
    "block_count": (1, _MAX_BLOCKS, None),
    "embedding_length": (1, 1 << 31, None),
    "expert_count": (0, _MAX_EXPERTS, 0),
    "expert_used_count": (0, _MAX_EXPERTS, 0),
    "nextn_predict_layers": (0, _MAX_BLOCKS, 0),
}
"""Least, most and default of the counts that others are counted by; None: required.

Source: ``src/llama-hparams.h``.
"""

TEXTS = frozenset({"hidden_activation", "rope.scaling.type", "tensor_data_layout"})
"""Keys of an architecture whose value is a text."""

TOKEN_KINDS = "token_type_count"
"""The one key of a spec that a file holds under ``tokenizer.ggml.`` (BERT's segments)."""

UNPREFIXED = ("xielu.",)
"""Beginnings of an architecture's keys that a file holds without the architecture's name."""

PER_BLOCK = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        "expert_feed_forward_length",
        "expert_used_count",
        "feed_forward_length",
    }
)
"""Keys that hold one number for the model or one for each block, nothing between."""

_FLOATS = frozenset(
    {
        "activation.situ_beta",
        "activation.situ_linear_beta",
        "activation_sparsity_scale",
        "adapters.router_gain",
        "attention.clamp_kqv",
        "attention.compress_rope_freq_base",
        "attention.group_norm_epsilon",
        "attention.layer_norm_epsilon",
        "attention.layer_norm_rms_epsilon",
        "attention.max_alibi_bias",
        "attention.output_scale",
        "attention.scale",
        "attention.temperature_scale",
        "attention.value_scale",
        "attn_logit_softcapping",
        "embedding_scale",
        "expert_group_scale",
        "expert_weights_scale",
        "final_logit_softcapping",
        "hyper_connection.epsilon",
        "hyper_connection.magnitude",
        "kda.gate_lower_bound",
        "logit_scale",
        "residual_scale",
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scale_linear",
        "rope.scaling.alpha",
        "rope.scaling.attn_factor",
        "rope.scaling.factor",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_log_multiplier",
        "router_logit_softcapping",
        "swiglu_clamp_exp",
        "swiglu_clamp_shexp",
        "xielu.alpha_n",
        "xielu.alpha_p",
        "xielu.beta",
        "xielu.eps",
    }
)
_BOOLEANS = frozenset(
    {
        "attention.causal",
        "attention.indexer.kpool_select_tail",
        "expert_weights_norm",
        "hrm.prefix_lm",
        "kda.safe_gate",
        "norm_before_fc",
        "norm_before_residual",
        "rope.scaling.finetuned",
        "skip_loop_final_norm",
        "ssm.dt_b_c_rms",
        "swin_norm",
        "use_parallel_residual",
    }
)
_WIDE_ARRAYS = frozenset({"ple.head_offsets", "ple.head_vocab_sizes", "ple.layer_multipliers"})

_LAYER_NORM = frozenset(
    {
        "bert", "bloom", "codeshell", "cohere2", "command-r", "dbrx", "falcon", "gpt2", "gptneox",
        "jais", "jais2", "jina-bert-v2", "jina-bert-v3", "modern-bert", "mpt", "nemotron",
        "nemotron_h", "nemotron_h_moe", "nomic-bert", "nomic-bert-moe", "olmo", "orion", "phi2",
        "rwkv6", "rwkv7", "stablelm", "starcoder", "starcoder2",
    }
)  # fmt: skip

_NEUTRAL: dict[str, tuple[Value, frozenset[str]]] = {
    "activation.situ_beta": (1.0, frozenset({"kimi-k3"})),
    "activation.situ_linear_beta": (1.0, frozenset({"kimi-k3"})),
    "attention.clamp_kqv": (8.0, frozenset({"dbrx"})),
    "attention.compress_rope_freq_base": (160000.0, frozenset({"deepseek4"})),
    "attention.layer_norm_epsilon": (1e-5, _LAYER_NORM),
    "expert_gating_func": (
        2,  # sigmoid
        frozenset(
            {
                "bailingmoe2", "bailingmoe3", "deepseek32", "deepseek4", "dots3note", "exaone-moe",
                "kimi-k3", "kimi-linear", "lfm2moe", "minimax-m3",
            }
        ),
    ),
    "expert_group_scale": (0.05, frozenset({"grovemoe"})),
    "expert_weights_norm": (True, frozenset({"deepseek4"})),
    "expert_weights_scale": (1.0, frozenset({"deepseek4"})),
    "hyper_connection.epsilon": (1e-6, frozenset({"deepseek4", "glm5-next", "hy-v4"})),
    "hyper_connection.magnitude": (2.0, frozenset({"hy-v4"})),
    "hyper_connection.sinkhorn_iterations": (20, frozenset({"deepseek4", "glm5-next"})),
    "kda.gate_lower_bound": (-5.0, frozenset({"bailingmoe3"})),
    "logit_scale": (
        1.0,
        frozenset({"cohere2", "cohere2moe", "granite", "granitemoe", "muse-glimmer", "talkie"}),
    ),
    "residual_scale": (1.0, frozenset({"minimax-01"})),
    "rope.dimension_sections": (
        (11, 11, 10, 0),
        frozenset({"qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen4exp"}),
    ),
    "swiglu_clamp_exp": (0.0, frozenset({"deepseek4", "maple"})),
    "use_parallel_residual": (True, frozenset({"gptneox"})),
    "xielu.alpha_n": (0.8, frozenset({"apertus"})),
    "xielu.alpha_p": (0.8, frozenset({"apertus"})),
    "xielu.beta": (0.5, frozenset({"apertus"})),
    "xielu.eps": (-1e-6, frozenset({"apertus"})),
}  # fmt: skip


def value_type(key: str, value: Value) -> int:
    """Return the GGUF type that llama.cpp reads ``key`` as; of the elements, for a tuple."""
    sample = value[0] if isinstance(value, tuple) and value else value
    if key in _FLOATS:
        return F32
    if key in _BOOLEANS or isinstance(sample, bool):
        return BOOL
    if isinstance(value, tuple) and key in _WIDE_ARRAYS:
        return U64
    if isinstance(sample, float):
        return F32
    if isinstance(sample, str):
        return STRING
    numbers = [int(v) for v in value] if isinstance(value, tuple) else [int(value)]
    if min(numbers, default=0) < -(1 << 31) or max(numbers, default=0) >= 1 << 32:
        return I64
    return I32 if isinstance(value, tuple) or min(numbers) < 0 else U32


def file_metadata(model: ModelSpec) -> dict[str, Value]:
    """Return the architecture's keys as a loadable file must hold them.

    Keys that the loader requires and the spec lacks, none of which moves a byte of memory, get a
    neutral value. Flags of the catalog that GGUF does not know (``tied_embeddings``) stay out.
    """
    keys = {
        key: value
        for key, value in model.metadata.items()
        if key != TOKEN_KINDS and not _is_own_flag(key, value)
    }
    if model.architecture not in _LAYER_NORM:
        keys.setdefault("attention.layer_norm_rms_epsilon", 1e-5)
    for key, (value, architectures) in _NEUTRAL.items():
        if model.architecture in architectures:
            keys.setdefault(key, value)
    return keys


def _is_own_flag(key: str, value: Value) -> bool:
    """A yes or no that no loader asks for; a file says the same with the tensors it has."""
    return isinstance(value, bool) and key not in _BOOLEANS
