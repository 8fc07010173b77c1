"""What a projector and a LoRA adapter take beside the model.

Weights are exact: tensors in a buffer of their own, each aligned. Compute buffers are upper bounds,
since the graphs of projectors are not replayed. Sources in llama.cpp: ``tools/mtmd/clip.cpp``
(alloc of ctx_data, warmup, reserve_compute_meta), ``src/llama-adapter.cpp`` (a LoRA tensor lies
where the tensor lies that it adapts), ``src/llama-graph.cpp`` (build_lora_mm).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from nemofit.catalog.ggml import ggml_types
from nemofit.catalog.model import ModelSpec, Tensor, Value
from nemofit.engines.base import DeviceMemory
from nemofit.errors import DataError

from .config import RunConfig
from .placement import HOST, place, tensor_sizes

_F32 = 4
_HALVES = re.compile(r"\.lora_[ab]$")

_SIDES: dict[str, tuple[int | None, int]] = {
    "gemma3": (None, 4),
    "gemma4uv": (16, 3),
    "gemma4v": (16, 3),
    "glm4v": (46, 2),
    "glm5v": (46, 2),
    "idefics3": (None, 1),
    "internvl": (None, 1),
    "kimivl": (16, 2),
    "llama4": (None, 1),
    "mlp": (None, 1),
    "nemotron_v2_vl": (None, 1),
    "minimax_m3": (16, 2),
    "phi4": (16, 1),
    "pixtral": (16, 1),
    "qwen2.5vl_merger": (46, 2),
    "qwen2vl_merger": (46, 2),
    "qwen3vl_merger": (46, 2),
    "youtuvl": (16, 2),
}
"""By projector type: tokens along each side of the image that buffers are first made for (None:
``clip.vision.image_size`` says the pixels), and patches along each side of a token where the file
does not say (``load_hparams`` in clip.cpp)."""
_WINDOWED = ("qwen2.5vl_merger", "youtuvl")
"""Encoders with a mask of every position against every other."""
_SOUND = 3000
"""Frames of thirty seconds of sound, and no fewer than the positions of its encoder."""


def projector_memory(
    tensors: Sequence[Tensor], values: Mapping[str, Value], config: RunConfig, on_gpu: bool
) -> tuple[DeviceMemory, bool]:
    """Bytes of a projector on the device that it runs on: the first GPU, or the host.

    Returns:
        The bytes, and whether the projector is of a type whose image size is known.
    """
    whole = ModelSpec(id="projector", architecture="clip", metadata={}, tensors=tuple(tensors))
    gpu, host = tensor_sizes(whole, _types(tensors), config.backend)
    type_ = values.get("clip.vision.projector_type") or values.get("clip.projector_type")
    flash = config.flash_attention
    compute = _image_bytes(tensors, values, str(type_), flash)
    compute += _sound_bytes(tensors, values, flash)
    memory = DeviceMemory(weights_bytes=sum(gpu if on_gpu else host), compute_bytes=compute)
    return memory, type_ in _SIDES


def _image_bytes(
    tensors: Sequence[Tensor], values: Mapping[str, Value], type_: str, flash_attention: bool
) -> int:
    """The most that a graph over one image holds, at the size that it is first made for."""
    prefix = "clip.vision."
    if not _number(values, prefix + "embedding_length"):
        return 0
    patch = max(_number(values, prefix + "patch_size"), 1)
    tokens, merge = _SIDES.get(type_, (None, 1))
    said = (prefix + "spatial_merge_size", prefix + "projector.scale_factor")
    merge = next((n for n in (_number(values, key) for key in said) if n), merge)
    side = _number(values, prefix + "image_size") if tokens is None else tokens * merge * patch
    positions = (side // patch) ** 2
    most = _encoder(tensors, values, prefix, positions, flash_attention)
    if type_ in _WINDOWED:
        most += positions * positions * (_F32 + 2)
    if tokens is not None:  # the image, and what becomes of it, may outlast the encoder's layers
        most += _F32 * (
            3 * side * side + 2 * tokens * tokens * _number(values, prefix + "projection_dim")
        )
    return most


def _sound_bytes(
    tensors: Sequence[Tensor], values: Mapping[str, Value], flash_attention: bool
) -> int:
    prefix = "clip.audio."
    if not _number(values, prefix + "embedding_length"):
        return 0
    mel = max(_number(values, prefix + "num_mel_bins"), 128)
    most = _encoder(tensors, values, prefix, _SOUND, flash_attention)
    return most + 4 * _F32 * mel * _SOUND


def _encoder(
    tensors: Sequence[Tensor],
    values: Mapping[str, Value],
    prefix: str,
    positions: int,
    flash_attention: bool,
) -> int:
    """The larger of what attention holds at a time and what the feed-forward does.

    Six rows as wide as the embedding, and without flash attention every position's scores against
    every other; or three rows and the hidden one, four and three hidden ones with a gate.
    """
    width = _number(values, prefix + "embedding_length")
    wide = _number(values, prefix + "feed_forward_length")
    heads = _number(values, prefix + "attention.head_count")
    is_gated = any(".ffn_gate." in t.name for t in tensors)
    scores = 0 if flash_attention else heads * positions
    hidden = 4 * width + 3 * wide if is_gated else 3 * width + wide
    return _F32 * positions * max(6 * width + scores, hidden)


def _number(values: Mapping[str, Value], key: str) -> int:
    value = values.get(key)
    return min(value, _MOST) if type(value) is int and value > 0 else 0


_MOST = 1 << 16
"""No size of an encoder is larger; keeps products of a stranger's numbers small."""


def adapter_memory(
    model: ModelSpec,
    adapter: Sequence[Tensor],
    config: RunConfig,
    split: Sequence[float],
    tokens: int,
) -> tuple[tuple[DeviceMemory, ...], DeviceMemory]:
    """Bytes of a LoRA adapter on each GPU and on the host, for a placement of its model.

    Args:
        adapter: Pairs named after the model's tensors, ``.lora_a`` and ``.lora_b``.
        split: One entry per GPU.
        tokens: Of a micro-batch.

    Raises:
        DataError: It adapts tensors that the model does not have.
    """
    names = {t.name: i for i, t in enumerate(model.tensors)}
    placed = place(model, config, split) if split else None
    whole = ModelSpec(id="adapter", architecture="lora", metadata={}, tensors=tuple(adapter))
    gpu, host = tensor_sizes(whole, _types(adapter), config.backend)
    results: Counter[str] = Counter()
    for tensor in adapter:
        results[_HALVES.sub("", tensor.name)] += tensor.shape[1] if len(tensor.shape) > 1 else 0
    weights, most = [0] * (len(split) + 1), 0
    for i, tensor in enumerate(adapter):
        base = _HALVES.sub("", tensor.name)
        if base not in names:
            raise DataError(
                f"the adapter changes {base!r:.80}, which {model.id} does not have",
                "name an adapter that was made for this model",
            )
        device = placed.device_of[names[base]] if placed else HOST
        at = HOST if device is None else device
        weights[at] += host[i] if at == HOST else gpu[i]
        # one product of each half at a time, the second as wide as the tensor's result; sums at a
        # border between devices may be made on either
        most = max(most, _F32 * tokens * results[base])
    *gpus, host_weights = (
        DeviceMemory(weights_bytes=w, compute_bytes=most if w or at < len(split) else 0)
        for at, w in enumerate(weights)
    )
    return tuple(gpus), host_weights


def _types(tensors: Sequence[Tensor]) -> list[str]:
    known = ggml_types()
    unknown = next((t for t in tensors if t.type not in known), None)
    if unknown is not None:
        raise DataError(
            f"the size of {unknown.name!r:.80} ({unknown.type}) is not known", "update nemofit"
        )
    return [tensor.type or "" for tensor in tensors]
