"""GGUF keys of families with one feed-forward per layer.

Source: their classes in ``conversion/`` of ggml-org/llama.cpp.
"""

from __future__ import annotations

from .config import Config
from .keys_shared import (
    Metadata,
    heads_of,
    pattern_of_windows,
    put,
    put_number,
    rotated,
    scaled_frequencies,
    window,
)

_NO_SCALING = "none"


def nothing(_: Metadata, __: Config) -> None:
    """The shared keys are all."""


def plain(m: Metadata, c: Config) -> None:
    m["rope.dimension_count"] = c.head
    scaled_frequencies(m, c)


def llama(m: Metadata, c: Config) -> None:
    """Llama and Mistral, whose configurations always come with a head's length."""
    heads_of(m, c.head)
    plain(m, c)


def mistral3(m: Metadata, c: Config) -> None:
    llama(m, c)
    if c.values.get("model_type") == "ministral3":
        for key, name in (
            ("rope.scaling.yarn_log_multiplier", "mscale_all_dim"),
            ("attention.temperature_scale", "llama_4_scaling_beta"),
        ):
            if (value := c.rope_number(name)) is not None:
                m[key] = value


def granite(m: Metadata, c: Config) -> None:
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


def deepstack(m: Metadata, c: Config) -> None:
    layers = c.inside("vision_config").get("deepstack_visual_indexes")
    m["n_deepstack_layers"] = len(layers) if isinstance(layers, list) else 0


def gemma(m: Metadata, c: Config) -> None:
    heads_of(m, c.integer("head_dim"))
    m.pop("rope.freq_base", None)


def gemma2(m: Metadata, c: Config) -> None:
    gemma(m, c)
    put_number(
        m, c, attn_logit_softcapping="attn_logit_softcapping",
        final_logit_softcapping="final_logit_softcapping",
    )  # fmt: skip
    window(m, c)


def gemma3(m: Metadata, c: Config) -> None:
    """Several of its sizes are left to the library's defaults in published configurations."""
    heads_of(m, c.integer("head_dim", default=256))
    m.setdefault("context_length", 131072)
    m.setdefault("attention.layer_norm_rms_epsilon", 1e-6)
    m.setdefault("rope.freq_base", 1_000_000.0)
    m.setdefault("rope.freq_base_swa", 10_000.0)
    put_number(m, c, final_logit_softcapping="final_logit_softcapping")
    if c.values.get("sliding_window_pattern") != 1:
        window(m, c)


def phi2(m: Metadata, c: Config) -> None:
    m["attention.head_count_kv"] = m["attention.head_count"]
    m["feed_forward_length"] = 4 * c.integer("hidden_size", "n_embd")
    m.pop("rope.freq_base", None)
    rotated(m, c)


def phi3(m: Metadata, c: Config) -> None:
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


def glm4(m: Metadata, c: Config) -> None:
    rotated(m, c, 0.5)


def nemotron(m: Metadata, c: Config) -> None:
    if (epsilon := c.number("layer_norm_eps", "layer_norm_epsilon", "norm_eps")) is not None:
        m["attention.layer_norm_epsilon"] = epsilon
    share = c.rope_number("partial_rotary_factor")
    hidden, heads = c.integer("hidden_size"), max(c.integer("num_attention_heads"), 1)
    m["rope.dimension_count"] = int((0.5 if share is None else share) * hidden) // heads
    factor = c.number("factor") or c.rope_number("factor")
    m["rope.scaling.type"] = _NO_SCALING if factor is None else "linear"
    if factor is not None:
        m["rope.scaling.factor"] = factor


def command_r(m: Metadata, c: Config) -> None:
    put(m, c, context_length="model_max_length")
    put_number(m, c, logit_scale="logit_scale")
    m["rope.scaling.type"] = _NO_SCALING


def cohere2(m: Metadata, c: Config) -> None:
    put_number(m, c, logit_scale="logit_scale")
    window(m, c)
    share = c.number("rotary_pct")
    m["rope.dimension_count"] = int((1.0 if share is None else share) * c.head)
    m["rope.scaling.type"] = _NO_SCALING


def olmo(m: Metadata, c: Config) -> None:
    m["attention.layer_norm_epsilon"] = 1e-5
    put_number(m, c, attention__clamp_kqv="clip_qkv")


def olmo2(m: Metadata, c: Config) -> None:
    if not c.has("sliding_window"):
        return
    window(m, c)
    blocks = c.integer("num_hidden_layers")
    m["attention.sliding_window_pattern"] = tuple((i + 1) % 4 != 0 for i in range(min(blocks, 512)))
    pattern_of_windows(m, c)


def exaone4(m: Metadata, c: Config) -> None:
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


def falcon(m: Metadata, c: Config) -> None:
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


def stablelm(m: Metadata, c: Config) -> None:
    rotated(m, c, 0.25)
    m.pop("rope.freq_base", None)
    m["use_parallel_residual"] = c.flag("use_parallel_residual", True)
