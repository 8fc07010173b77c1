"""What a token costs: bytes, operations and kernels per device, from tensors and a placement.

The records here are plain numbers; :mod:`.decode` and :mod:`.prefill` turn them into seconds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.formats.gguf.ggml import TYPES

HOST = -1

_BLOCK = re.compile(r"blk\.(\d+)\.")
_ROWS_ONLY = ("token_embd.", "per_layer_token_embd.", "position_embd.", "token_types.")


@dataclass(slots=True)
class Weights:
    """Weights of one tensor type: bytes and elements."""

    bytes: int = 0
    elements: int = 0


@dataclass(slots=True)
class Work:
    """What one device does for a token.

    Attributes:
        device: -1 for the host, otherwise the GPU's index.
        dense: Weights that every token reads, by tensor type.
        experts: Routed experts, all of them, by tensor type.
        kernels: Operations launched for one step.
        matrices: Weight matrices multiplied in one step.
        blocks: Blocks that live here.
        cache_row: Bytes of KV cache per earlier token (full attention).
        cache_windows: The same for sliding-window blocks, by window in tokens.
        state: Bytes of recurrent state read and written per stream and token.
        attention: FLOP per token and earlier token (full attention).
        attention_windows: The same for sliding-window blocks, by window.
    """

    device: int
    dense: dict[str, Weights] = field(default_factory=lambda: defaultdict(Weights))
    experts: dict[str, Weights] = field(default_factory=lambda: defaultdict(Weights))
    kernels: int = 0
    matrices: int = 0
    blocks: int = 0
    cache_row: float = 0.0
    cache_windows: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    state: float = 0.0
    attention: float = 0.0
    attention_windows: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def cache_bytes(self, depth: float) -> float:
        """Bytes of KV cache that one token at ``depth`` reads."""
        return self.cache_row * depth + sum(
            row * min(depth, window) for window, row in self.cache_windows.items()
        )

    def attention_flop(self, depth: float) -> float:
        """Operations of the attention of one token at ``depth``."""
        return self.attention * depth + sum(
            flop * min(depth, window) for window, flop in self.attention_windows.items()
        )


def work_of(
    model: ModelSpec,
    types: Sequence[str],
    device_of: Sequence[int],
    units: Sequence[int],
    config: RunConfig,
) -> tuple[Work, ...]:
    """Add up what each device does for one token.

    Args:
        model: The model's tensors and metadata.
        types: ggml type of each tensor, in the order of ``model.tensors``.
        device_of: Device of each tensor, -1 for the host.
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

    blocks = model.integer("block_count")
    main = blocks - model.integer("nextn_predict_layers")
    names = [t.name for t in model.tensors]
    tied = "output.weight" not in names
    kinds: dict[int, set[str]] = defaultdict(set)
    for tensor, kind, device in zip(model.tensors, types, device_of, strict=True):
        block = _BLOCK.match(tensor.name)
        at = device
        if block:
            il = int(block[1])
            if il >= main:
                continue
            kinds[il].add(tensor.name[block.end() :])
        elif tensor.name.startswith(_ROWS_ONLY):
            if not (tied and tensor.name == "token_embd.weight"):
                continue
            at = units[-1]
        one = share(at)
        group = one.experts if "_exps." in tensor.name else one.dense
        weights = group[kind]
        weights.bytes += _bytes(kind, tensor.elements)
        weights.elements += tensor.elements
        one.kernels += 1
        one.matrices += len(tensor.shape) > 1
    for il in range(main):
        one = share(units[il])
        one.blocks += 1
        one.kernels += _PER_BLOCK + (_PER_MOE if "ffn_gate_inp.weight" in kinds[il] else 0)
        cache = one if config.kv_offload else share(HOST)
        _add_mixer(model, il, kinds[il], config, cache)
    order = sorted(shares, key=lambda d: (d == HOST, d))
    return tuple(shares[d] for d in order)


_PER_BLOCK = 10
"""Operations of a block that have no weight: rope (2), writing K and V (2), attention and its
combination (2), activation (1), residual sums (2), quantizing the activations (1)."""

_PER_MOE = 6
"""The same for routing: softmax, top-k, gathering and scaling weights, summing the experts."""


def _add_mixer(model: ModelSpec, il: int, tensors: set[str], config: RunConfig, out: Work) -> None:
    """Add the cache and the attention, or the recurrent state, of one block."""
    if "ssm_conv1d.weight" in tensors or "ssm_a" in tensors:
        out.state += 2 * 4 * _state_elements(model)
        return
    heads = model.per_layer("attention.head_count")[il]
    kv_heads = model.per_layer("attention.head_count_kv", heads)[il]
    if "attn_kv_a_mqa.weight" in tensors:
        rank = model.integer("attention.kv_lora_rank", 512)
        width = rank + model.integer("rope.dimension_count", 64)
        row = width * _cache_bytes(config.kv_type_k)
        flop = 2.0 * heads * (width + rank)
    elif heads and any(t.startswith(("attn_k.", "attn_qkv.", "attn_q.")) for t in tensors):
        head = model.integer("embedding_length") // max(heads, 1)
        key = model.integer("attention.key_length", head)
        value = model.integer("attention.value_length", head)
        row = kv_heads * (
            key * _cache_bytes(config.kv_type_k) + value * _cache_bytes(config.kv_type_v)
        )
        flop = 2.0 * heads * (key + value)
    else:
        return
    window = model.integer("attention.sliding_window")
    if window and _slides(model, il):
        out.cache_windows[window] += row
        out.attention_windows[window] += flop
    else:
        out.cache_row += row
        out.attention += flop


def _slides(model: ModelSpec, il: int) -> bool:
    pattern = model.metadata.get("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return il < len(pattern) and bool(pattern[il])
    return isinstance(pattern, int) and pattern > 0 and (il + 1) % pattern != 0


def _state_elements(model: ModelSpec) -> int:
    inner = model.integer("ssm.inner_size")
    state = model.integer("ssm.state_size")
    groups = model.integer("ssm.group_count")
    conv = max(model.integer("ssm.conv_kernel") - 1, 0)
    return state * inner + conv * (inner + 2 * groups * state)


def _bytes(kind: str, elements: int) -> int:
    _, block, size = TYPES[kind]
    return elements * size // block


def _cache_bytes(kind: str) -> float:
    _, block, size = TYPES[kind.upper()]
    return size / block
