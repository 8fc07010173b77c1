"""The GGUF keys that most families share, from a checkpoint's configuration.

Source: ``TextModel.set_gguf_parameters`` in ggml-org/llama.cpp ``conversion/base.py``.
"""

from __future__ import annotations

from nemofit.catalog.model import Value

from .config import Config

Metadata = dict[str, Value]

_WIDTHS = ("prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size",
           "n_inner", "hidden_dim")  # fmt: skip
_POSITIONS = ("max_position_embeddings", "n_ctx", "n_positions", "max_length",
              "max_sequence_length", "model_max_length")  # fmt: skip
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_USED = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts")
_SCORES = ("score_function", "scoring_func", "score_func", "moe_router_activation",
           "moe_router_activation_func", "expert_selection_fn")  # fmt: skip
_GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}  # LLAMA_EXPERT_GATING_FUNC_TYPE_*


def shared_keys(c: Config) -> Metadata:
    """What the converter writes for every family."""
    heads = c.integer("num_attention_heads", "n_head", "n_heads")
    listed = len(c.listed("layers_block_type") or ())
    m: Metadata = {
        "block_count": c.integer(
            "num_hidden_layers", "n_layers", "n_layer", "num_layers", default=listed or None
        ),
        "vocab_size": c.integer("vocab_size"),
        "embedding_length": c.integer("hidden_size", "n_embd", "dim"),
        "attention.head_count": heads,
        "attention.head_count_kv": c.integer("num_key_value_heads", "n_kv_heads", default=heads),
    }
    _put(m, c, "context_length", *_POSITIONS)
    _put(m, c, "feed_forward_length", *_WIDTHS)
    if c.values.get("is_causal") is False:
        m["attention.causal"] = False
    _rotary(m, c)
    for key, names in (
        ("attention.layer_norm_rms_epsilon", ("rms_norm_eps", "norm_eps")),
        ("attention.layer_norm_epsilon", ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")),
    ):
        if (value := c.number(*names)) is not None:
            m[key] = value
    _put(m, c, "expert_count", *_EXPERTS)
    _put(m, c, "expert_used_count", *_USED)
    _put(m, c, "expert_group_count", "n_group")
    _put(m, c, "expert_group_used_count", "topk_group")
    if gating := _GATING.get(c.text(*_SCORES)):
        m["expert_gating_func"] = gating
    if c.has("head_dim"):
        heads_of(m, c.integer("head_dim"))
    return m


def heads_of(m: Metadata, length: int) -> None:
    """Length of a head of K and of V."""
    m["attention.key_length"] = m["attention.value_length"] = length


def put(m: Metadata, c: Config, **keys: str) -> None:
    """Whole numbers under the configuration's keys, where they are there; dots as ``__``."""
    for key, name in keys.items():
        _put(m, c, key.replace("__", "."), name)


def put_number(m: Metadata, c: Config, **keys: str) -> None:
    """The same for numbers with a fraction."""
    for key, name in keys.items():
        if (value := c.number(name)) is not None:
            m[key.replace("__", ".")] = value


def rotated(m: Metadata, c: Config, default: float = 1.0) -> None:
    """The part of a head that is rotated."""
    share = c.rope_number("partial_rotary_factor")
    m["rope.dimension_count"] = int(c.head * (default if share is None else share))


def scaled_frequencies(m: Metadata, c: Config) -> None:
    """Llama 3.1's frequency factors, which the converter writes as a tensor."""
    if c.rope_kind == "llama3":
        m["rope_factors"] = True


def window(m: Metadata, c: Config) -> None:
    """A sliding window, where the configuration states one."""
    put(m, c, attention__sliding_window="sliding_window")


def pattern_of_windows(m: Metadata, c: Config) -> None:
    """Which layers see a window only, where the configuration lists it."""
    kinds = c.listed("layer_types")
    if kinds is not None:
        m["attention.sliding_window_pattern"] = tuple(k == "sliding_attention" for k in kinds)


def _put(m: Metadata, c: Config, key: str, *names: str) -> None:
    if any(c.has(n) for n in names):
        m[key] = c.integer(*names)


def _rotary(m: Metadata, c: Config) -> None:
    factor = c.rope_number("factor")
    if c.rope_kind in ("linear", "yarn") and factor is not None:
        m["rope.scaling.type"] = c.rope_kind
        m["rope.scaling.factor"] = factor
    if c.rope_kind == "yarn" and factor is not None:
        original = c.rope_number("original_max_position_embeddings")
        if original is not None:
            m["rope.scaling.original_context_length"] = int(original)
        for key, name in (
            ("yarn_ext_factor", "extrapolation_factor"),
            ("yarn_attn_factor", "attention_factor"),
            ("yarn_beta_fast", "beta_fast"),
            ("yarn_beta_slow", "beta_slow"),
        ):
            if (value := c.rope_number(name)) is not None:
                m[f"rope.scaling.{key}"] = value
    if c.rope_kind in ("su", "longrope"):
        m["rope.scaling.type"] = "longrope"
    if isinstance(sections := c.rope.get("mrope_section"), list):
        whole = [n for n in sections if type(n) is int][:4]
        m["rope.dimension_sections"] = tuple(whole + [0] * (4 - len(whole)))
    if (theta := c.rope_number("rope_theta")) is not None:
        m["rope.freq_base"] = theta
    if isinstance(c.sliding_theta, (int, float)):
        m["rope.freq_base_swa"] = float(c.sliding_theta)
