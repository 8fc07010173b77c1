"""What a token costs: bytes, operations and kernels per device, from tensors and a placement.

The records here are plain numbers; :mod:`.decode` and :mod:`.prefill` turn them into seconds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nemofit.catalog.ggml import ggml_type, tensor_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig

HOST = -1

_BLOCK = re.compile(r"blk\.(\d+)\.")
_ROWS_ONLY = ("token_embd.", "per_layer_token_embd.", "position_embd.", "token_types.")
"""Of these a token reads one row."""

_RECURRENT = {"ssm_conv1d.weight", "shortconv.conv.weight"}


@dataclass(slots=True)
class Weights:
    """Weights of one tensor type: bytes and elements."""

    bytes: int = 0
    elements: int = 0


@dataclass(slots=True)
class Work:
    """What one device does for a token. Every field adds up over blocks.

    Attributes:
        device: -1 for the host, otherwise the GPU's index.
        dense: Weights that every token reads, by tensor type.
        experts: Routed experts, all of them, by tensor type.
        kernels: Operations launched for one step.
        blocks: Blocks that live here.
        visits: Blocks that live elsewhere and whose experts are here.
        cache_row: Bytes of KV cache per earlier token (full attention).
        cache_windows: The same for sliding-window blocks, by window in tokens.
        cache_linked: Of these, what lies on the host although the block does not, by window; 0
            stands for full attention.
        state: Bytes of recurrent state read and written per stream and token.
        attention: FLOP per token and earlier token (full attention).
        attention_windows: The same for sliding-window blocks, by window.
    """

    device: int
    dense: dict[str, Weights] = field(default_factory=lambda: defaultdict(Weights))
    experts: dict[str, Weights] = field(default_factory=lambda: defaultdict(Weights))
    kernels: int = 0
    blocks: int = 0
    visits: int = 0
    cache_row: float = 0.0
    cache_windows: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    cache_linked: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    state: float = 0.0
    attention: float = 0.0
    attention_windows: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def cache_bytes(self, depth: float) -> float:
        """Bytes of KV cache that one token at ``depth`` reads."""
        return self.cache_row * depth + sum(
            row * min(depth, window) for window, row in self.cache_windows.items()
        )

    def linked_bytes(self, depth: float) -> float:
        """The part of them that crosses from the host."""
        return sum(row * min(depth, window or depth) for window, row in self.cache_linked.items())

    def attention_flop(self, depth: float) -> float:
        """Operations of the attention of one token at ``depth``."""
        return self.attention * depth + sum(
            flop * min(depth, window) for window, flop in self.attention_windows.items()
        )


def work_of(
    model: ModelSpec,
    types: Sequence[str],
    device_of: Sequence[int | None],
    units: Sequence[int],
    config: RunConfig,
) -> tuple[Work, ...]:
    """Add up what each device does for one token.

    Args:
        model: The model's tensors and metadata.
        types: ggml type of each tensor, in the order of ``model.tensors``.
        device_of: Device of each tensor, -1 for the host, None: not loaded.
        units: Device of each block, and of the output as the last one.
        config: For the cache's types and place.

    Returns:
        One record per device that does anything, GPUs in order, the host last.
    """
    shares: dict[int, Work] = {}

    def share(device: int) -> Work:
        if device not in shares:
            shares[device] = Work(device)
        return shares[device]

    main = model.integer("block_count") - model.integer("nextn_predict_layers")
    tied = all(t.name != "output.weight" for t in model.tensors)
    names: dict[int, set[str]] = defaultdict(set)
    away: dict[int, int] = {}
    sizes: dict[tuple[str, tuple[int, ...]], tuple[int, int]] = {}
    parts = _parts(model)
    for tensor, part, kind, device in zip(model.tensors, parts, types, device_of, strict=True):
        if device is None:
            continue
        il, suffix, is_expert = part
        if il is not None:
            if il >= main:
                continue
            names[il].add(suffix)
            if is_expert and device != units[il]:
                away[il] = device
        elif tensor.name.startswith(_ROWS_ONLY):
            if not (tied and tensor.name == "token_embd.weight"):
                continue
            device = units[-1]
        one = share(device)
        weights = (one.experts if is_expert else one.dense)[kind]
        size = sizes.get((kind, tensor.shape))
        if size is None:
            size = tensor_bytes(kind, tensor.shape), tensor.elements
            sizes[kind, tensor.shape] = size
        weights.bytes += size[0]
        weights.elements += size[1]
        one.kernels += 1
    for il, device in away.items():
        if device != units[il]:
            share(device).visits += 1
    mixers = _mixers(model, names)
    for il in range(main):
        one = share(units[il])
        one.blocks += 1
        one.kernels += _PER_BLOCK + _PER_MOE * ("ffn_gate_inp.weight" in names[il])
        _add_mixer(one, mixers[il], config)
    return tuple(shares[d] for d in sorted(shares, key=lambda d: (d == HOST, d)))


def _parts(model: ModelSpec) -> list[tuple[int | None, str, bool]]:
    """Of each tensor its block, its name there, and whether it is of routed experts."""
    found: list[tuple[int | None, str, bool]] | None = model.memo.get("work_parts")
    if found is None:
        found = model.memo["work_parts"] = []
        for tensor in model.tensors:
            block = _BLOCK.match(tensor.name)
            il, suffix = (int(block[1]), tensor.name[block.end() :]) if block else (None, "")
            found.append((il, suffix, "_exps." in tensor.name))
    return found


_PER_ATTENTION = 6
"""Operations of attention that have no weight: rope (2), writing K and V (2), attention and its
combination over the cache (2)."""

_PER_RECURRENT = 12
"""The same of a recurrent mixer: splitting, convolution, gates, norms, the scan itself."""

_PER_BLOCK = 3
"""The same of every block: activation, residual sum, quantizing the activations."""

_PER_MOE = 6
"""The same of routing: softmax, top-k, gathering and scaling weights, summing the experts."""


@dataclass(frozen=True, slots=True)
class _Mixer:
    """How a block mixes tokens: elements of a K and a V row, the window or 0, operations per
    earlier token, elements of recurrent state."""

    k: int = 0
    v: int = 0
    window: int = 0
    flop: float = 0.0
    state: int = 0


def _mixers(model: ModelSpec, names: Mapping[int, set[str]]) -> list[_Mixer]:
    """The mixer of each block, told by the tensors it has."""
    heads = model.per_layer("attention.head_count")
    kv_heads = (
        model.per_layer("attention.head_count_kv")
        if "attention.head_count_kv" in model.metadata
        else heads
    )
    windows = _windows(model)
    rank = model.integer("attention.kv_lora_rank")
    out = []
    for il, n_heads in enumerate(heads):
        tensors = names.get(il, set())
        window = windows[il]
        if tensors & _RECURRENT:
            out.append(_Mixer(state=_state_elements(model)))
        elif "attn_kv_a_mqa.weight" in tensors:
            row = rank + model.integer("rope.dimension_count")
            out.append(_Mixer(row, 0, window, 2.0 * n_heads * (row + rank)))
        elif any(t.startswith("attn_q") for t in tensors):
            k, v = _head_sizes(model, n_heads, bool(window))
            flop = 2.0 * n_heads * (k + v)
            out.append(_Mixer(kv_heads[il] * k, kv_heads[il] * v, window, flop))
        else:
            out.append(_Mixer())
    return out


def _windows(model: ModelSpec) -> list[int]:
    """The window of each block, 0: it sees everything.

    An architecture that the engine's memory rules do not cover is taken as its file describes it.
    """
    from nemofit.engines.llama_cpp.kv_cache import row_of, window_layers, window_width

    sliding: Sequence[object] = window_layers(model)
    width = window_width(model)
    if row_of(model) is None:
        width = model.integer("attention.sliding_window")
        pattern = model.metadata.get("attention.sliding_window_pattern")
        sliding = pattern if isinstance(pattern, tuple) else ()
    blocks = range(model.integer("block_count"))
    return [width if il < len(sliding) and sliding[il] else 0 for il in blocks]


def _head_sizes(model: ModelSpec, heads: int, sliding: bool) -> tuple[int, int]:
    head = model.integer("embedding_length") // max(heads, 1)
    k = model.integer("attention.key_length", head)
    v = model.integer("attention.value_length", head)
    if sliding:
        k = model.integer("attention.key_length_swa", k)
        v = model.integer("attention.value_length_swa", v)
    return k, v


def _add_mixer(one: Work, mixer: _Mixer, config: RunConfig) -> None:
    one.state += 2 * 4 * mixer.state
    one.kernels += _PER_RECURRENT * (mixer.state > 0) + _PER_ATTENTION * (mixer.flop > 0)
    row = mixer.k * _element_bytes(config.kv_type_k) + mixer.v * _element_bytes(config.kv_type_v)
    if mixer.window:
        one.cache_windows[mixer.window] += row
        one.attention_windows[mixer.window] += mixer.flop
    else:
        one.cache_row += row
        one.attention += mixer.flop
    if row and not config.kv_offload and one.device != HOST:
        one.cache_linked[mixer.window] += row


def _state_elements(model: ModelSpec) -> int:
    """Elements of the recurrent state of one block (llama-memory-recurrent.cpp)."""
    inner = model.integer("ssm.inner_size")
    if not inner:
        return 2 * model.integer("embedding_length")
    state = model.integer("ssm.state_size")
    groups = model.integer("ssm.group_count")
    conv = max(model.integer("ssm.conv_kernel") - 1, 0)
    return state * inner + conv * (inner + 2 * groups * state)


def _element_bytes(kind: str) -> float:
    t = ggml_type(kind)
    return t.bytes / t.block
