"""From a checkpoint's tensor names to the GGUF tensors that they become.

One table serves all families: a module's name has few meanings, and which of them holds is seen by
the tensors that the architecture has. Scales, zero points and other companions of a quantized
matrix belong to the tensor that the matrix is.

Source: ``gguf-py/gguf/tensor_mapping.py`` and ``conversion/`` of ggml-org/llama.cpp; the names of
companions are those of the quantizers that huggingface/transformers and vllm-project/vllm load.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from nemofit.catalog.model import Tensor

Meanings = tuple[tuple[str, ...], ...]

_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d{1,6})\.(.+)")
_EXPERT = re.compile(r"(^|\.)experts\.\d+\.")
_STACK = re.compile(r"(\.experts\.(?:gate_up_proj|down_proj))_(blocks|scales|bias)$")
# What the converter passes over: conversion/base.py (filter_tensors).
_OTHERS = re.compile(
    r"^(?:model\.)?(?:mlp1?\d*\.|vit\.|vpm\.|siglip2\.|conformer\.|merger\.|resampler\."
    r"|sound_|speech_|aligner\.)"
    r"|visual\.|vision\.|audio\.|talker\.|token2wav\.|code2wav\.|vision_|audio_|projector\."
    r"|pre_mm_projector_norm|image_newline|view_seperator|patch_embed|patch_merge"
    r"|model\.connector\."
)
_UNUSED = re.compile(
    r"rotary_emb\.(?:inv_freq|cos_cached|sin_cached)$|\.attention\.(?:masked_)?bias$"
)
_CACHE_SCALE = re.compile(r"\.(?:[kqv]|[kqv]_proj|attn)\.?_?(?:[kqv]_scale|[kqv]_zero_point)$")

LAYER_MEANINGS: Final[Mapping[str, Meanings]] = {
    "input_layernorm": (("attn_norm",),),
    "post_attention_layernorm": (("post_attention_norm",), ("ffn_norm",)),
    "post_self_attn_layernorm": (("post_attention_norm",),),
    "pre_feedforward_layernorm": (("ffn_norm",),),
    "post_feedforward_layernorm": (("post_ffw_norm",),),
    "post_mlp_layernorm": (("post_ffw_norm",),),
    "pre_mlp_layernorm": (("ffn_norm",),),
    "ffn_norm": (("ffn_norm",),),
    "operator_norm": (("attn_norm",),),
    "norm": (("attn_norm",),),
    "ln_attn": (("attn_norm_2",),),
    "ln_mlp": (("attn_norm",),),
    "ln_1": (("attn_norm",),),
    # attention
    "self_attn.q_proj": (("attn_q",),),
    "self_attn.k_proj": (("attn_k",),),
    "self_attn.v_proj": (("attn_v",),),
    "self_attn.o_proj": (("attn_output",),),
    "self_attn.out_proj": (("attn_output",),),
    "self_attn.dense": (("attn_output",),),
    "self_attn.qkv_proj": (("attn_qkv",), ("attn_q", "attn_k", "attn_v")),
    "self_attn.q_norm": (("attn_q_norm",),),
    "self_attn.k_norm": (("attn_k_norm",),),
    "self_attn.query_layernorm": (("attn_q_norm",),),
    "self_attn.key_layernorm": (("attn_k_norm",),),
    "self_attn.q_layernorm": (("attn_q_norm",),),
    "self_attn.k_layernorm": (("attn_k_norm",),),
    "self_attn.q_layernorm.norms": (("attn_q_norm",),),
    "self_attn.k_layernorm.norms": (("attn_k_norm",),),
    "self_attn.sinks": (("attn_sinks",),),
    "self_attn.q_a_proj": (("attn_q_a",),),
    "self_attn.q_a_layernorm": (("attn_q_a_norm",),),
    "self_attn.q_b_proj": (("attn_q_b",),),
    "self_attn.kv_a_proj_with_mqa": (("attn_kv_a_mqa",),),
    "self_attn.kv_a_layernorm": (("attn_kv_a_norm",),),
    "self_attn.kv_b_proj": (("attn_k_b", "attn_v_b"),),
    "self_attn.indexer.k_norm": (("indexer.k_norm",),),
    "self_attn.indexer.weights_proj": (("indexer.proj",),),
    "self_attn.indexer.wk": (("indexer.attn_k",),),
    "self_attn.indexer.wq_b": (("indexer.attn_q_b",),),
    "self_attention.query_key_value": (("attn_qkv",),),
    "self_attention.dense": (("attn_output",),),
    # feed-forward
    "mlp.gate_proj": (("ffn_gate",),),
    "mlp.up_proj": (("ffn_up",),),
    "mlp.down_proj": (("ffn_down",),),
    "mlp.gate_up_proj": (("ffn_up",),),
    "mlp.c_fc": (("ffn_up",),),
    "mlp.c_proj": (("ffn_down",),),
    "mlp.fc1": (("ffn_up",),),
    "mlp.fc2": (("ffn_down",),),
    "mlp.dense_h_to_4h": (("ffn_up",),),
    "mlp.dense_4h_to_h": (("ffn_down",),),
    "feed_forward.gate_proj": (("ffn_gate",),),
    "feed_forward.up_proj": (("ffn_up",),),
    "feed_forward.down_proj": (("ffn_down",),),
    "feed_forward.w1": (("ffn_gate",),),
    "feed_forward.w3": (("ffn_up",),),
    "feed_forward.w2": (("ffn_down",),),
    "shared_mlp.input_linear": (("ffn_gate_shexp", "ffn_up_shexp"), ("ffn_gate", "ffn_up")),
    "shared_mlp.output_linear": (("ffn_down_shexp",), ("ffn_down",)),
    # experts
    "mlp.gate": (("ffn_gate_inp",),),
    "mlp.router": (("ffn_gate_inp",),),
    "mlp.gate.e_score_correction_bias": (("exp_probs_b",),),
    "mlp.experts.gate_proj": (("ffn_gate_exps",),),
    "mlp.experts.up_proj": (("ffn_up_exps",),),
    "mlp.experts.down_proj": (("ffn_down_exps",),),
    "mlp.experts.gate_up_proj": (("ffn_gate_up_exps",), ("ffn_gate_exps", "ffn_up_exps")),
    "mlp.shared_expert_gate": (("ffn_gate_inp_shexp",),),
    "block_sparse_moe.gate": (("ffn_gate_inp",),),
    "block_sparse_moe.router.layer": (("ffn_gate_inp",),),
    "block_sparse_moe.e_score_correction_bias": (("exp_probs_b",),),
    "block_sparse_moe.experts.w1": (("ffn_gate_exps",),),
    "block_sparse_moe.experts.w3": (("ffn_up_exps",),),
    "block_sparse_moe.experts.w2": (("ffn_down_exps",),),
    "block_sparse_moe.input_linear": (("ffn_gate_exps", "ffn_up_exps"),),
    "block_sparse_moe.output_linear": (("ffn_down_exps",),),
    "feed_forward.router": (("ffn_gate_inp",),),
    "feed_forward.gate": (("ffn_gate_inp",),),
    "feed_forward.expert_bias": (("exp_probs_b",),),
    "feed_forward.experts.gate_up_proj": (("ffn_gate_exps", "ffn_up_exps"),),
    "feed_forward.experts.down_proj": (("ffn_down_exps",),),
    "feed_forward.experts.w1": (("ffn_gate_exps",),),
    "feed_forward.experts.w3": (("ffn_up_exps",),),
    "feed_forward.experts.w2": (("ffn_down_exps",),),
    # recurrent layers
    "linear_attn.in_proj_qkvz": (("attn_qkv", "attn_gate"),),
    "linear_attn.in_proj_qkv": (("attn_qkv",),),
    "linear_attn.in_proj_z": (("attn_gate",),),
    "linear_attn.in_proj_ba": (("ssm_ba",),),
    "linear_attn.in_proj_b": (("ssm_beta",),),
    "linear_attn.in_proj_a": (("ssm_alpha",),),
    "conv.conv": (("shortconv.conv",),),
    "conv.in_proj": (("shortconv.in_proj",),),
    "conv.out_proj": (("shortconv.out_proj",),),
    # Nemotron-H's one mixer for all kinds of layers
    "mixer.q_proj": (("attn_q",),),
    "mixer.k_proj": (("attn_k",),),
    "mixer.v_proj": (("attn_v",),),
    "mixer.o_proj": (("attn_output",),),
    "mixer.up_proj": (("ffn_up",),),
    "mixer.down_proj": (("ffn_down",),),
    "mixer.gate": (("ffn_gate_inp",),),
    "mixer.gate.e_score_correction_bias": (("exp_probs_b",),),
    "mixer.experts.up_proj": (("ffn_up_exps",),),
    "mixer.experts.down_proj": (("ffn_down_exps",),),
    "mixer.shared_experts.up_proj": (("ffn_up_shexp",),),
    "mixer.shared_experts.down_proj": (("ffn_down_shexp",),),
    "mixer.fc1_latent_proj": (("ffn_latent_down",),),
    "mixer.fc2_latent_proj": (("ffn_latent_up",),),
    # next tokens
    "eh_proj": (("nextn.eh_proj",),),
    "enorm": (("nextn.enorm",),),
    "hnorm": (("nextn.hnorm",),),
    "embed_tokens": (("nextn.embed_tokens",),),
    "shared_head.norm": (("nextn.shared_head_norm",),),
    "shared_head.head": (("nextn.shared_head_head",),),
    **{
        f"{mixer}.{name}": ((part,),)
        for mixer in ("linear_attn", "mixer", "mamba")
        for name, part in (
            ("in_proj", "ssm_in"), ("conv1d", "ssm_conv1d"), ("dt_bias", "ssm_dt"),
            ("A_log", "ssm_a"), ("D", "ssm_d"), ("norm", "ssm_norm"), ("out_proj", "ssm_out"),
        )
    },
    **{
        f"{block}.{shared}.{name}_proj": ((f"ffn_{name}_shexp",),)
        for block in ("mlp", "feed_forward")
        for shared in ("shared_expert", "shared_experts")
        for name in ("gate", "up", "down")
    },
}  # fmt: skip
"""By the module's name in its layer without an expert's number; the first meaning that is there."""

ROOT_MEANINGS: Final[Mapping[str, Meanings]] = {
    "embed_tokens": (("token_embd",),),
    "embeddings": (("token_embd",),),
    "word_embeddings": (("token_embd",),),
    "wte": (("token_embd",),),
    "norm": (("output_norm",), ("token_embd_norm",)),
    "final_layernorm": (("output_norm",),),
    "embedding_norm": (("token_embd_norm",),),
    "norm_f": (("output_norm",),),
    "ln_f": (("output_norm",),),
    "lm_head": (("output",),),
    "output": (("output",),),
}
_OF_ARCHITECTURE: Final[Mapping[str, Mapping[str, Meanings]]] = {
    "glm4": {"post_attention_layernorm": (("ffn_norm",),)},
}
_PREDICTED = {"fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm",
              "norm": "shared_head.norm"}  # fmt: skip
# conversion/nemotron.py: the second layer's own norms
_FOLDED = {"norm.weight": "post_attention_layernorm.weight",
           "final_layernorm.weight": "shared_head.norm.weight"}  # fmt: skip


class Place(NamedTuple):
    """Where a name says that a tensor is.

    Attributes:
        layer: Number of the layer, None outside the layers.
        module: Name within the layer, or without the model's prefixes, with what follows it.
    """

    layer: int | None
    module: str


def place_of(name: str, layers: int, architecture: str = "") -> Place | None:
    """The place of a tensor in the language model; None for a vision tower and the like.

    Args:
        name: As in the file.
        layers: Layers of the model; next-token layers under a name of their own come after them.
        architecture: GGUF architecture; Nemotron-H's two next-token layers become one block.
    """
    if _OTHERS.search(name) or _UNUSED.search(name):
        return None
    own = name.removeprefix("model.")
    if own.startswith("mtp."):
        parts = own.split(".")
        if parts[1] != "layers" and parts[1] in _PREDICTED:
            return Place(layers, ".".join((_PREDICTED[parts[1]], *parts[2:])))
    found = _LAYER.search(name)
    if found is None:
        return Place(None, name)
    if own.startswith("mtp.") and architecture == "nemotron_h_moe":
        module = found.group(2)
        if found.group(1) == "1":
            module = _FOLDED.get(module, module)
        return Place(layers, module)
    number = int(found.group(1)) + (layers if own.startswith("mtp.") else 0)
    return Place(number, found.group(2))


class NameMap:
    """The tensors of one model by their places in a checkpoint.

    Args:
        architecture: GGUF architecture.
        tensors: The tensors of its GGUF file.
    """

    def __init__(self, architecture: str, tensors: Iterable[Tensor]) -> None:
        self._own = _OF_ARCHITECTURE.get(architecture, {})
        self._names: dict[tuple[int | None, str], dict[str, str]] = {}
        for t in tensors:
            layer, stem = _layer_of(t.name)
            for suffix in (".weight", ".bias", ".scale"):
                if stem.endswith(suffix):
                    stem = stem.removesuffix(suffix)
                    break
            else:
                suffix = ""
            self._names.setdefault((layer, stem), {})[suffix] = t.name

    def parts(self, place: Place) -> tuple[str, ...]:
        """GGUF names of the tensors at a place; none where the table does not know it."""
        module = _STACK.sub(r"\1.\2", "." + _EXPERT.sub(r"\1experts.", place.module))[1:]
        table = ROOT_MEANINGS if place.layer is None else LAYER_MEANINGS
        words = module.split(".")
        if place.layer is None:
            words = words[next((i for i, w in enumerate(words) if w in table), 0) :]
        for n in range(len(words), 0, -1):
            stem = ".".join(words[:n])
            meanings = self._own.get(stem) or table.get(stem)
            if meanings is None:
                continue
            bias = stem.endswith("bias") or words[n:] == ["bias"] or words[-1].endswith("_bias")
            for meaning in meanings:
                if found := self._found(place.layer, meaning, bias):
                    return found
            return ()
        return ()

    def _found(self, layer: int | None, meaning: tuple[str, ...], bias: bool) -> tuple[str, ...]:
        out = []
        for stem in meaning:
            names = self._names.get((layer, stem), {})
            name = names.get(".bias") if bias else names.get(".weight") or names.get("")
            if name is None:
                return ()
            out.append(name)
        return tuple(out)


def is_cache_scale(name: str) -> bool:
    """Whether a tensor scales a quantized KV cache, which is no weight."""
    return _CACHE_SCALE.search(name) is not None


def _layer_of(name: str) -> tuple[int | None, str]:
    if not name.startswith("blk."):
        return None, name
    _, number, stem = name.split(".", 2)
    return int(number), stem
