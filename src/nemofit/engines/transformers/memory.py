"""What a model takes on each device when transformers runs it.

Weights and cache are computed; what a prompt takes beside them is a bound, labelled ``assumed``.

Source: huggingface/transformers 5.23.0, ``src/transformers/cache_utils.py`` (DynamicCache and its
sliding layers) and the attention of ``src/transformers/models``; bitsandbytes 0.50,
``functional.py`` and ``autograd/_functions.py`` (a 4-bit matrix is unpacked whole for a product of
more than one row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.engines.llama_cpp.kv_cache import window_layers, window_width
from nemofit.engines.llama_cpp.recurrent_state import states
from nemofit.units import MIB

from .config import TransformersConfig
from .parameters import decoder_layers, parameters
from .placement import CPU, DISK, TOWER, Device, Placement, linear_bytes, place, rotary_bytes

# A CUDA context and what the allocator does not give back: the largest context that is published
# for a card is 712 MiB (RTX PRO 6000, ggml-org/llama.cpp logs); assumed for every card.
CONTEXT_BYTES = 712 * MIB
_HIDDEN_COPIES = 4
_CHUNKED = frozenset({"llama4"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersMemory(Memory):
    """Bytes by device, with the placement they follow from.

    Attributes:
        placement: Where every module lies.
        disk_bytes: Weights that stay on disk and are read at every step.
    """

    placement: Placement
    disk_bytes: int = 0


def estimate_memory(
    model: ModelSpec,
    config: TransformersConfig | None = None,
    free: Sequence[int] = (),
    host_free: int = 0,
) -> TransformersMemory:
    """Place a model and account for every device.

    Args:
        model: The model.
        config: The configuration; None: its defaults.
        free: Bytes free on each GPU.
        host_free: Bytes of host memory that are available.

    Raises:
        UsageError: As for :func:`nemofit.engines.transformers.placement.place`.
    """
    config = config or TransformersConfig()
    usable = [max(n - CONTEXT_BYTES, 0) for n in free]
    placement = place(model, config, usable, host_free)
    layers = decoder_layers(model)
    device_of_layer = [placement.device_of[f"model.layers.{i}"] for i in range(layers)]
    weights = _weights(model, config, placement)
    cache: dict[Device, int] = {}
    for il, size in enumerate(cache_bytes(model, config)):
        # a cache lies where its layer is computed: of an offloaded one on the main device
        cache_on = _computing(device_of_layer[il], placement)
        cache[cache_on] = cache.get(cache_on, 0) + size
    step = step_bytes(model, config)
    streamed = max(
        (
            _layer_bytes(model, config, i)
            for i in range(layers)
            if device_of_layer[i] in (CPU, DISK)
        ),
        default=0,
    )
    main = _computing(CPU, placement)
    gpus = []
    for d in range(len(free)):
        busy = d in weights or d in cache
        gpus.append(
            DeviceMemory(
                weights_bytes=weights.get(d, 0),
                kv_bytes=cache.get(d, 0),
                compute_bytes=(step + (streamed if d == main else 0)) if busy else 0,
                overhead_bytes=CONTEXT_BYTES if busy else 0,
            )
        )
    return TransformersMemory(
        gpus=tuple(gpus),
        host=DeviceMemory(
            weights_bytes=weights.get(CPU, 0),
            kv_bytes=cache.get(CPU, 0),
            compute_bytes=step if main == CPU else 0,
        ),
        basis="assumed",
        notes=_notes(model, config, placement),
        placement=placement,
        disk_bytes=weights.get(DISK, 0),
    )


def cache_bytes(model: ModelSpec, config: TransformersConfig) -> tuple[int, ...]:
    """The cache of each layer once the whole context is in it, all sequences together.

    A layer with a window keeps one token less than the window. Latent attention is kept expanded,
    every head's K and V. A recurrent layer keeps its state in float32.
    """
    windows = window_layers(model)
    width = window_width(model)
    recurrent = states(model)
    kv = _kv_heads(model)
    out = []
    for il in range(decoder_layers(model)):
        state = recurrent[il]
        size = 0 if state is None else 4 * (state.convolution + state.recurrence) * config.batch
        if kv[il] and not (state and state.alone):
            tokens = config.context
            if windows[il] and model.architecture not in _CHUNKED:
                tokens = min(tokens, width - 1)
            per_token = _token_elements(model, kv[il], windows[il])
            size += config.batch * tokens * per_token * config.element_bytes
        out.append(size)
    return tuple(out)


def step_bytes(model: ModelSpec, config: TransformersConfig) -> int:
    """A bound on what processing the prompt takes on a device beside weights and cache."""
    tokens = config.batch * config.prompt_tokens
    hidden = model.integer("embedding_length")
    element = config.element_bytes
    heads = model.integer("attention.head_count")
    widest = max((_layer_width(model, il) for il in range(decoder_layers(model))), default=hidden)
    size = tokens * (widest + _HIDDEN_COPIES * hidden) * element
    if config.attention == "eager":  # scores of all pairs, in the model's type and in float32
        size += heads * config.batch * config.prompt_tokens**2 * (element + 4)
    if config.quantization == "bnb-4bit":
        linear = (p.elements for p in parameters(model) if p.kind == "linear")
        size += max(linear, default=0) * element
    grown = max(cache_bytes(model, config), default=0)  # old and new while it is extended
    logits = config.batch * model.integer("vocab_size") * (element + 4)
    return size + grown + logits


def _weights(
    model: ModelSpec, config: TransformersConfig, placement: Placement
) -> dict[Device, int]:
    out: dict[Device, int] = {}

    def add(name: str, size: int) -> None:
        device = placement.device_of[name]
        out[device] = out.get(device, 0) + size

    for il in range(decoder_layers(model)):
        add(f"model.layers.{il}", _layer_bytes(model, config, il))
    outside = [n for n in placement.device_of if ".layers." not in n]
    for p in parameters(model):
        if p.block is None:
            name = _module(p.name, outside)
            add(name, linear_bytes(p, config))
    for name in outside:
        if name.endswith("rotary_emb"):
            add(name, rotary_bytes(model))
        elif name.endswith(TOWER) and model.checkpoint is not None:
            add(name, model.checkpoint.tower_bytes)
    return out


def _module(tensor: str, outside: Sequence[str]) -> str:
    """The module outside the layers that holds a tensor."""
    if tensor.startswith("output."):
        return "lm_head"
    wanted = "norm" if tensor.startswith("output_norm") else "embed"
    return next((n for n in outside if wanted in n), outside[0])


def _layer_bytes(model: ModelSpec, config: TransformersConfig, il: int) -> int:
    return sum(linear_bytes(p, config) for p in parameters(model) if p.block == il)


def _computing(device: Device, placement: Placement) -> Device:
    """The device that computes what lies there: the first GPU for the host and the disk."""
    if device not in (CPU, DISK):
        return device
    gpus = [d for d in placement.limits if isinstance(d, int)]
    return gpus[0] if gpus else CPU


def _token_elements(model: ModelSpec, kv_heads: int, window: bool) -> int:
    """K and V of one token of one layer, in elements."""
    heads = max(model.integer("attention.head_count", 1), 1)
    if model.integer("attention.kv_lora_rank"):
        expanded = model.integer("attention.key_length_mla") + model.integer(
            "attention.value_length_mla"
        )
        return heads * expanded
    default = model.integer("embedding_length") // heads
    key = model.integer("attention.key_length", default)
    value = model.integer("attention.value_length", default)
    if window:
        key = model.integer("attention.key_length_swa", key)
        value = model.integer("attention.value_length_swa", value)
    return kv_heads * (key + value)


def _kv_heads(model: ModelSpec) -> tuple[int, ...]:
    if "attention.head_count_kv" in model.metadata:
        return model.per_layer("attention.head_count_kv")
    return model.per_layer("attention.head_count")


def _layer_width(model: ModelSpec, il: int) -> int:
    """Elements per token that a layer's widest part holds at once."""
    used = model.integer("expert_used_count")
    expert = model.per_layer("expert_feed_forward_length")[il] if used else 0
    routed = used * (3 * expert + model.integer("embedding_length"))
    heads = model.per_layer("attention.head_count")[il]
    head = model.integer("attention.key_length", model.integer("embedding_length") // max(heads, 1))
    return max(3 * model.per_layer("feed_forward_length")[il], routed, 3 * heads * head)


def _notes(model: ModelSpec, config: TransformersConfig, placement: Placement) -> tuple[str, ...]:
    notes = ["what a prompt takes beside weights and cache is a bound"]
    if placement.offloaded:
        notes.append(
            f"{len(placement.offloaded)} modules lie on the host or disk and are brought to the"
            " GPU at every step"
        )
    stored = model.checkpoint.quantization if model.checkpoint is not None else None
    if stored is not None and stored.method == "mxfp4":
        notes.append("without the package kernels the experts are unpacked to 16 bits: four times")
    if config.quantization != "none":
        notes.append("the 16-bit checkpoint is downloaded and quantized while it loads")
    return tuple(notes)
