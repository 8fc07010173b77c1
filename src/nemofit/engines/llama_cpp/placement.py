"""Which block and which tensor lies on which device, and how many bytes that makes.

Source: llama-model.cpp (load_tensors), llama-model-loader.cpp (create_tensor), llama.cpp 0c1e570.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from nemofit.catalog.ggml import tensor_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.errors import UsageError

from .config import RunConfig
from .graph.backends import BACKENDS, row_padding
from .kv_cache import row_of
from .layers import BLOCK, block_tensors, loaded_blocks

HOST = -1
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # common/arg.cpp: -cmoe, -ncmoe
_EXPERT_TENSOR = re.compile(_EXPERTS)
# llama-arch.cpp: tensors outside the blocks that lie with the first one
_FIRST_BLOCK = ("token_embd_norm", "per_layer_model_proj", "per_layer_proj_norm")
_HOST_ALIGNMENT = 32  # ggml-impl.h: TENSOR_ALIGNMENT


@lru_cache(maxsize=65536)
def f32(x: float) -> float:
    """Round to single precision, in which llama.cpp computes the split."""
    return float(struct.unpack("f", struct.pack("f", x))[0])


def gpu_layers(model: ModelSpec, config: RunConfig) -> int:
    """``-ngl`` as a number: the blocks and the output layer when everything is asked for."""
    everything = model.integer("block_count") + 1
    return everything if config.gpu_layers is None else config.gpu_layers


@lru_cache(maxsize=4096)
def place_units(blocks: int, ngl: int, split: tuple[float, ...]) -> tuple[int, ...]:
    """The device of each block and, as the last entry, of the output layer.

    Args:
        blocks: All blocks of the file, next-token ones included.
        ngl: ``-ngl``.
        split: ``-ts``, one proportion per GPU; empty without GPUs.
    """
    if not split:
        return (HOST,) * (blocks + 1)
    start = max(blocks + 1 - ngl, 0)
    active = min(ngl, blocks + 1)
    total, sums = 0.0, []
    for x in split:
        total = f32(total + f32(x))
        sums.append(total)
    bounds = [f32(b / total) for b in sums]
    units = []
    for il in range(blocks + 1):
        if il < start or il - start >= active:
            units.append(HOST)
            continue
        at = f32((il - start) / active)
        units.append(next((d for d, b in enumerate(bounds) if at < b), len(bounds) - 1))
    return tuple(units)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything lies: -1 is the host, 0 and up the GPUs in device order.

    Attributes:
        units: Device of each block, and of the output layer as the last entry.
        device_of: Device of each tensor of the model, in order; None: not loaded.
        output_copy: Index of the embedding when it also serves as the output matrix.
    """

    units: tuple[int, ...]
    device_of: tuple[int | None, ...]
    output_copy: int | None


def place(
    model: ModelSpec,
    config: RunConfig,
    split: Sequence[float],
    stranded: frozenset[int] = frozenset(),
) -> Placement:
    """Place every tensor of a model.

    Args:
        stranded: Indices of tensors that no GPU can use.

    Raises:
        UsageError: An override names a buffer that is not there, or its pattern is broken.
    """
    units = place_units(model.integer("block_count"), gpu_layers(model, config), tuple(split))
    rules = tuple((p, _device(t, len(split))) for p, t in checked(config.override_tensors))
    device_of: list[int | None] = []
    embedding, has_output = None, False
    last_norm = _last_norm(model)
    for i, t in enumerate(model.tensors):
        m = BLOCK.match(t.name)
        device: int | None = HOST
        if m is not None:
            il = int(m.group(1))
            device = units[il] if is_loaded(model, il, t.name) else None
            if il < config.cpu_moe_layers and device is not None and _EXPERT_TENSOR.search(t.name):
                device = HOST
        elif is_output(t.name) or t.name.startswith(last_norm):
            device = units[-1]
            has_output = has_output or t.name == "output.weight"
        elif t.name.startswith(("rope_", *_FIRST_BLOCK)):
            device = units[0]
        elif t.name == "token_embd.weight":
            embedding = i
        if device is not None and i in stranded:
            device = HOST
        if device is not None:
            device = next((d for p, d in rules if _hits(p, t.name)), device)
        device_of.append(device)
    row = row_of(model)
    tied = not has_output and (row is None or row.tied)
    return Placement(units, tuple(device_of), embedding if tied else None)


def is_output(name: str) -> bool:
    """Whether a tensor outside the blocks belongs to the output layer."""
    return name.startswith(("output", "cls", "dense_", "altup_"))


def _last_norm(model: ModelSpec) -> str:
    """What the names of the last norm's tensors start with."""
    row = row_of(model)
    return row.last_norm if row is not None else "output_norm"


def holds_copy(model: ModelSpec, device: int) -> bool:
    """Whether an output layer there has its own copy of an embedding that serves as both."""
    row = row_of(model)
    return device != HOST or (row is not None and row.output_first)


def is_loaded(model: ModelSpec, il: int, name: str) -> bool:
    """Whether a block's tensor is loaded; of next-token blocks hardly any is."""
    if il < loaded_blocks(model):
        return True
    row = row_of(model)
    return row is not None and bool(row.next_loads) and _hits(row.next_loads, name)


def checked(rules: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """``-ot`` rules whose patterns are known to be regular expressions."""
    for pattern, _ in rules:
        try:
            re.compile(pattern)
        except re.error as e:
            raise UsageError(
                f"tensor override {pattern!r} is not a regular expression: {e}",
                r"write for example blk\.(1|2)\.ffn_.*=CPU",
            ) from None
    return rules


def _device(target: str, n_gpus: int) -> int:
    m = re.fullmatch(r"[A-Za-z]+?(\d+)(?:\[.*\])?", target)
    if target.upper() == "CPU" or target.endswith("_Host"):
        return HOST
    if m is None or int(m.group(1)) >= n_gpus:
        raise UsageError(
            f"tensor override target {target!r} is not a buffer of these {n_gpus} GPUs",
            "use CPU, or a device such as CUDA0",
        )
    return int(m.group(1))


@lru_cache(maxsize=4096)
def _hits(pattern: str, name: str) -> bool:
    return re.search(pattern, name) is not None


@dataclass(frozen=True, slots=True)
class WeightSizes:
    """Bytes of a model's weights by block, as prefix sums, with a backend's alignment and padding.

    ``gpu[i]`` are blocks 0 to i-1 on a GPU, ``host[i]`` on the host; ``experts_*`` the experts
    among them. ``output_*`` is the output layer there, ``input_host`` what always stays on the
    host, ``rope_*`` what every device with blocks holds once.
    """

    gpu: tuple[int, ...]
    host: tuple[int, ...]
    experts_gpu: tuple[int, ...]
    experts_host: tuple[int, ...]
    output_gpu: int
    output_host: int
    input_host: int
    rope_gpu: int
    rope_host: int


def weight_sizes(model: ModelSpec, types: Sequence[str], key: object, backend: str) -> WeightSizes:
    """Prefix sums of a model's weights, kept with the model under ``key`` and the backend."""
    rules = BACKENDS[backend]
    memo_key = ("weights", key, rules.alignment, rules.pads_rows)
    found: WeightSizes | None = model.memo.get(memo_key)
    if found is None:
        found = model.memo[memo_key] = _weight_sizes(model, types, backend)
    return found


def tensor_sizes(
    model: ModelSpec, types: Sequence[str], backend: str
) -> tuple[list[int], list[int]]:
    """Bytes of each tensor in a GPU's buffer and in host memory."""
    rules = BACKENDS[backend]
    gpu, host = [], []
    known: dict[tuple[str, tuple[int, ...]], tuple[int, int]] = {}
    for t, type_ in zip(model.tensors, types, strict=True):
        found = known.get((type_, t.shape))
        if found is None:
            size = tensor_bytes(type_, t.shape)
            padding = row_padding(type_, t.shape[0]) if rules.pads_rows else 0
            found = known[type_, t.shape] = (
                _aligned(size + padding, rules.alignment),
                _aligned(size, _HOST_ALIGNMENT),
            )
        gpu.append(found[0])
        host.append(found[1])
    return gpu, host


def _weight_sizes(model: ModelSpec, types: Sequence[str], backend: str) -> WeightSizes:
    gpu, host = tensor_sizes(model, types, backend)
    sums: list[list[int]] = [[], [], [], []]
    loaded = loaded_blocks(model)
    for il, indices in enumerate(block_tensors(model)):
        used = list(indices)
        if il >= loaded:
            used = [i for i in indices if is_loaded(model, il, model.tensors[i].name)]
        experts = [i for i in used if _EXPERT_TENSOR.search(model.tensors[i].name)]
        sums[0].append(sum(gpu[i] for i in used))
        sums[1].append(sum(host[i] for i in used))
        sums[2].append(sum(gpu[i] for i in experts))
        sums[3].append(sum(host[i] for i in experts))
    output_gpu = output_host = input_host = rope_gpu = rope_host = 0
    row, last_norm = row_of(model), _last_norm(model)
    tied = (row is None or row.tied) and not any(t.name == "output.weight" for t in model.tensors)
    for i, t in enumerate(model.tensors):
        if BLOCK.match(t.name):
            continue
        if is_output(t.name) or t.name.startswith(last_norm):
            output_gpu += gpu[i]
            output_host += host[i]
        elif t.name.startswith("rope_"):
            rope_gpu += gpu[i]
            rope_host += host[i]
        elif t.name.startswith(_FIRST_BLOCK):
            sums[0][0] += gpu[i]
            sums[1][0] += host[i]
        else:
            input_host += host[i]
            if t.name == "token_embd.weight" and tied:
                output_gpu += gpu[i]
                output_host += host[i] if holds_copy(model, HOST) else 0
    on_gpu, on_host, experts_gpu, experts_host = (tuple(accumulate(s, initial=0)) for s in sums)
    return WeightSizes(
        gpu=on_gpu,
        host=on_host,
        experts_gpu=experts_gpu,
        experts_host=experts_host,
        output_gpu=output_gpu,
        output_host=output_host,
        input_host=input_host,
        rope_gpu=rope_gpu,
        rope_host=rope_host,
    )


def _aligned(n: int, to: int) -> int:
    return -(-n // to) * to
