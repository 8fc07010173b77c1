"""GGUF keys of families with recurrent layers.

Source: their classes in ``conversion/`` of ggml-org/llama.cpp.
"""

from __future__ import annotations

from nemofit.errors import DataError

from .config import Config
from .keys_dense import granite
from .keys_shared import Metadata, heads_of, put, put_number, rotated
from .keys_sparse import experts

_WHOLE_CONTEXT = 1 << 20  # conversion/granite.py: what hybrids without positions are given


def granite_hybrid(m: Metadata, c: Config) -> None:
    granite(m, c)
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


def delta_net(m: Metadata, c: Config) -> None:
    experts(m, c)
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


def qwen35(m: Metadata, c: Config) -> None:
    delta_net(m, c)
    m.setdefault("rope.dimension_sections", (11, 11, 10, 0))


EXPERT_LAYERS = {"E", "moe"}
_ATTENTION_LAYERS = {"*", "attention", "full_attention"}
_RECURRENT_LAYERS = {"mamba", "linear_attention"}


def layer_kinds(c: Config) -> list[str]:
    """What each layer of a Nemotron-H is, one letter or word each."""
    found = c.values.get("hybrid_override_pattern") or c.listed("layers_block_type")
    if not isinstance(found, (str, list)) or not all(isinstance(p, str) for p in found):
        raise DataError(
            f"{c.where} lacks hybrid_override_pattern, which says what each layer is",
            "download the file again",
        )
    return list(found)


def nemotron_hybrid(m: Metadata, c: Config) -> None:
    pattern = layer_kinds(c)
    sparse = bool(EXPERT_LAYERS & set(pattern))
    wide = EXPERT_LAYERS if sparse else {"-", "mlp"}
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
    m["rope.dimension_count"] = c.integer("attn_rotary_emb", default=0) or c.integer(
        "hidden_size"
    ) // max(c.integer("num_attention_heads"), 1)
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


def lfm2(m: Metadata, c: Config) -> None:
    kv, blocks = c.integer("num_key_value_heads"), c.integer("num_hidden_layers")
    kinds = c.listed("layer_types", blocks) or []
    m["attention.head_count_kv"] = tuple(0 if k == "conv" else kv for k in kinds)
    m["shortconv.l_cache"] = c.integer("conv_L_cache")


def lfm2moe(m: Metadata, c: Config) -> None:
    lfm2(m, c)
    put(m, c, expert_feed_forward_length="moe_intermediate_size",
        leading_dense_block_count="num_dense_layers")  # fmt: skip
    m["expert_gating_func"] = 2
