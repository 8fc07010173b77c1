"""The parameters of a Hugging Face checkpoint, as they follow from a model's GGUF-level shape.

Both engines that load such checkpoints work on this list. A GGUF file names and cuts a few tensors
differently, but each of its tensors is a known part of the checkpoint; :data:`ROLES` says which
part, what kind of module holds it and along which side tensor parallelism divides it.

Sources: the parallel layers of vllm-project/vllm 0.33.0 (``vllm/model_executor/models``,
``vllm/model_executor/layers/linear.py``), the modules of huggingface/transformers 5.23
(``src/transformers/models``), and ``conversion/`` of ggml-org/llama.cpp for the names.
"""

from __future__ import annotations

import re
from math import prod
from typing import Literal, NamedTuple

from nemofit.catalog.checkpoint import FLOATS, Checkpoint, StoredTensor
from nemofit.catalog.model import ModelSpec

Kind = Literal["vocabulary", "linear", "router", "experts", "vector"]
Split = Literal["outputs", "kv", "qkv", "inputs", "whole"]

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_SUFFIX = re.compile(r"(\.weight|\.bias)?$")


class Role(NamedTuple):
    """What a tensor is in the checkpoint.

    Attributes:
        kind: ``vocabulary`` (embedding, output matrix), ``linear`` (a layer that quantization
            takes), ``router`` (a layer that it leaves alone), ``experts`` (a stack of matrices),
            ``vector`` (norms, biases, scales and all else).
        split: Side that tensor parallelism divides: ``outputs``; ``kv``: outputs by KV heads, at
            least one head to a rank; ``qkv``: query outputs and KV outputs in one matrix;
            ``inputs``; ``whole``: every rank holds all of it.
    """

    kind: Kind
    split: Split


ROLES: dict[str, Role] = {
    "attn_q": Role("linear", "outputs"),
    "attn_k": Role("linear", "kv"),
    "attn_v": Role("linear", "kv"),
    "attn_qkv": Role("linear", "qkv"),
    "attn_gate": Role("linear", "outputs"),
    "attn_output": Role("linear", "inputs"),
    "attn_q_a": Role("linear", "whole"),
    "attn_q_b": Role("linear", "outputs"),
    "attn_kv_a_mqa": Role("linear", "whole"),
    "attn_kv_b": Role("linear", "outputs"),
    "attn_k_b": Role("linear", "outputs"),
    "attn_v_b": Role("linear", "outputs"),
    "attn_sinks": Role("vector", "outputs"),
    "ffn_gate": Role("linear", "outputs"),
    "ffn_up": Role("linear", "outputs"),
    "ffn_down": Role("linear", "inputs"),
    "ffn_gate_inp": Role("router", "whole"),
    "ffn_gate_inp_shexp": Role("router", "whole"),
    "ffn_gate_exps": Role("experts", "outputs"),
    "ffn_up_exps": Role("experts", "outputs"),
    "ffn_gate_up_exps": Role("experts", "outputs"),
    "ffn_down_exps": Role("experts", "inputs"),
    "ffn_gate_shexp": Role("linear", "outputs"),
    "ffn_up_shexp": Role("linear", "outputs"),
    "ffn_down_shexp": Role("linear", "inputs"),
    "ssm_in": Role("linear", "outputs"),
    "ssm_ba": Role("linear", "outputs"),
    "ssm_alpha": Role("linear", "outputs"),
    "ssm_beta": Role("linear", "outputs"),
    "ssm_out": Role("linear", "inputs"),
    "ssm_conv1d": Role("vector", "outputs"),
    "ssm_a": Role("vector", "outputs"),
    "ssm_d": Role("vector", "outputs"),
    "ssm_dt": Role("vector", "outputs"),
    "ssm_norm": Role("vector", "whole"),
}
"""By GGUF name without block and ``.weight``; what is not here is a ``vector``, kept whole."""

_WHOLE = Role("vector", "whole")
_VOCABULARY = Role("vocabulary", "outputs")
_FLOAT32 = ("exp_probs_b", "ssm_a")
_NO_ROTARY = frozenset({"nemotron_h", "nemotron_h_moe", "mamba2"})
_TWO_ROTARY = frozenset({"gemma3", "gemma4", "mimo2"})
_LATENT_HALVES = ("attn_k_b", "attn_v_b")
# Architectures whose router's weights both engines keep in float32 (vLLM: params_dtype of the
# model's gate; MiniMax-M2, Nemotron-H with experts, GLM 4.5).
_FLOAT32_ROUTERS = frozenset({"minimax-m2", "nemotron_h_moe", "glm4moe"})


class StoredPart(NamedTuple):
    """One stored tensor of a quantized parameter.

    Attributes:
        bytes: Its size.
        along: Sides of the matrix that it follows: ``both``, ``inputs``, ``outputs`` or ``none``.
    """

    bytes: int
    along: Literal["both", "inputs", "outputs", "none"]


class Parameter(NamedTuple):
    """One parameter of the checkpoint.

    Attributes:
        name: GGUF name of the tensor that it is.
        block: Decoder layer, None outside the layers.
        kind, split: See :class:`Role`.
        inputs, outputs: Sizes of one matrix; a vector has ``inputs`` 1.
        experts: Matrices in the stack, else 1.
        query_outputs: For ``qkv`` the part of the outputs that are queries.
        element_bytes: Bytes of one element before any quantization: 2, or 4 for what every
            checkpoint keeps in float32.
        stored: What a quantized checkpoint keeps for it, scales and all; empty where it is not
            quantized, or where there is no checkpoint yet.
    """

    name: str
    block: int | None
    kind: Kind
    split: Split
    inputs: int
    outputs: int
    experts: int = 1
    query_outputs: int = 0
    element_bytes: int = 2
    stored: tuple[StoredPart, ...] = ()

    @property
    def stored_bytes(self) -> int:
        return sum(part.bytes for part in self.stored)

    @property
    def elements(self) -> int:
        return self.inputs * self.outputs * self.experts

    @property
    def bytes(self) -> int:
        """Size without quantization."""
        return self.elements * self.element_bytes


def decoder_layers(model: ModelSpec) -> int:
    """Layers that take part in generating a token: next-token layers are not loaded."""
    return model.integer("block_count") - model.integer("nextn_predict_layers")


def parameters(model: ModelSpec) -> tuple[Parameter, ...]:
    """Every parameter that the engines load, in the checkpoint's order: embedding, layers, rest.

    Rotary frequency factors are a GGUF matter and next-token layers stay unused: both are left
    out, and so is the second copy of a tied embedding.
    """
    found: tuple[Parameter, ...] | None = model.memo.get("hf_parameters")
    if found is None:
        last = decoder_layers(model)
        mixers = {t.name.split(".")[1] for t in model.tensors if ".ssm_out." in t.name}
        out = []
        for tensor in model.tensors:
            m = _BLOCK.match(tensor.name)
            block = int(m.group(1)) if m else None
            if tensor.name.startswith("rope_") or (block is not None and block >= last):
                continue
            if tensor.name == "output.weight" and tied(model):
                continue
            name = m.group(2) if m else tensor.name
            if name == "attn_qkv.weight" and str(block) in mixers:
                name = "ssm_in.weight"  # of a linear-attention layer: nothing in it is a KV head
            out.append(_parameter(model, name, tensor.name, block, tensor.shape))
        if model.checkpoint is not None:
            out = [p._replace(stored=_stored(model, model.checkpoint, p)) for p in out]
        found = model.memo["hf_parameters"] = tuple(out)
    return found


def tied(model: ModelSpec) -> bool:
    """Whether the embedding also serves as the output matrix."""
    if model.checkpoint is not None:
        return model.checkpoint.tied
    return not any(t.name == "output.weight" for t in model.tensors)


def rotary_tables(model: ModelSpec) -> int:
    """Distinct rotary embeddings: none in some hybrids, two where windows have a base of theirs."""
    if model.architecture in _NO_ROTARY:
        return 0
    return 2 if model.architecture in _TWO_ROTARY else 1


def rotated_elements(model: ModelSpec) -> int:
    """Elements of one head that are rotated."""
    return model.integer(
        "rope.dimension_count", model.integer("attention.key_length", _head(model))
    )


def unknown_parts(model: ModelSpec) -> tuple[str, ...]:
    """Names of matrices in the layers that :data:`ROLES` does not list; usually none."""
    names = {
        _stem(p.name)
        for p in parameters(model)
        if p.block is not None and p.kind == "vector" and p.inputs > _LONGEST_SIDE_OF_A_VECTOR
        and _stem(p.name) not in ROLES
    }  # fmt: skip
    return tuple(sorted(names))


def _stored(model: ModelSpec, checkpoint: Checkpoint, p: Parameter) -> tuple[StoredPart, ...]:
    """What a quantized checkpoint keeps for a parameter; its share of what several are."""
    tensors = checkpoint.parts.get(p.name, ())
    if all(t.dtype in FLOATS for t in tensors):
        return ()
    elements: dict[str, int] | None = model.memo.get("elements")
    if elements is None:
        elements = model.memo["elements"] = {t.name: t.elements for t in model.tensors}
    out = []
    for t in tensors:
        whole = sum(elements[part] for part in t.parts)
        out.append(StoredPart(t.bytes * p.elements // whole, _along(t)))
    return tuple(out)


_ALONG_NONE = ("_shape", "quant_map", "bitsandbytes__nf4", "bitsandbytes__fp4", "weight_format")
_ALONG_BOTH = ("weight", "qweight", "weight_packed", "absmax", "nested_absmax")


def _along(t: StoredTensor) -> Literal["both", "inputs", "outputs", "none"]:
    """The sides of its matrix that a stored tensor follows, by the quantizers' conventions."""
    leaf = t.name.rpartition(".")[2]
    if prod(t.shape) <= 1 or leaf.endswith(_ALONG_NONE):
        return "none"
    if leaf.endswith("g_idx"):
        return "inputs"
    if leaf in _ALONG_BOTH or (len(t.shape) > 1 and t.shape[-1] > 1):
        return "both"
    return "outputs"


_LONGEST_SIDE_OF_A_VECTOR = 256  # norms per head are as long as a head


def _stem(name: str) -> str:
    m = _BLOCK.match(name)
    return _SUFFIX.sub("", m.group(2) if m else name, count=1)


def _parameter(
    model: ModelSpec, name: str, full_name: str, block: int | None, shape: tuple[int, ...]
) -> Parameter:
    stem = _SUFFIX.sub("", name, count=1)
    role = ROLES.get(stem, _WHOLE)
    if block is None:
        role = _VOCABULARY if name in ("token_embd.weight", "output.weight") else _WHOLE
    inputs, outputs, experts = _sides(stem, shape)
    kind, split = role
    if name.endswith(".bias") and kind in ("linear", "experts", "router"):
        kind = "vector"
        split = "whole" if split == "inputs" else split
    if stem == "ssm_norm" and len(shape) > 1:  # one norm over all groups of heads
        split = "outputs"
    if stem in ("attn_q_norm", "attn_k_norm"):
        split = _split_of_norm(model, stem, block, inputs * outputs)
    wide = stem in _FLOAT32 or (stem == "ffn_gate_inp" and model.architecture in _FLOAT32_ROUTERS)
    return Parameter(
        name=full_name,
        block=block,
        kind=kind,
        split=split,
        inputs=inputs,
        outputs=outputs,
        experts=experts,
        query_outputs=_query_outputs(model, block) if split == "qkv" else 0,
        element_bytes=4 if wide else 2,
    )


def _sides(stem: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Inputs, outputs and number of matrices of a tensor in ggml's order."""
    if len(shape) == 1:
        return 1, shape[0], 1
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if stem in _LATENT_HALVES:  # one matrix over all heads in the checkpoint
        latent = shape[1] if stem == "attn_k_b" else shape[0]
        return latent, shape[0] * shape[1] * shape[2] // latent, 1
    rest = 1
    for n in shape[2:]:
        rest *= n
    return shape[0], shape[1], rest


def _split_of_norm(model: ModelSpec, stem: str, block: int | None, elements: int) -> Split:
    """A norm over all heads at once is divided with them, one of a single head is not."""
    heads = _heads(model, block)[0 if stem == "attn_q_norm" else 1]
    if heads > 1 and elements == heads * model.integer("attention.key_length", _head(model)):
        return "outputs" if stem == "attn_q_norm" else "kv"
    return "whole"


def _query_outputs(model: ModelSpec, block: int | None) -> int:
    return _heads(model, block)[0] * model.integer("attention.key_length", _head(model))


def _head(model: ModelSpec) -> int:
    return model.integer("embedding_length") // max(model.integer("attention.head_count", 1), 1)


def _heads(model: ModelSpec, block: int | None) -> tuple[int, int]:
    """Query and KV heads of a layer."""
    heads = model.per_layer("attention.head_count")
    if "attention.head_count_kv" not in model.metadata:
        return heads[block or 0], heads[block or 0]
    return heads[block or 0], model.per_layer("attention.head_count_kv")[block or 0]
