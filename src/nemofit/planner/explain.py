"""The arithmetic of a plan, line by line, and where every rule comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from nemofit.catalog.filetypes import ggml_type, tensor_bytes, tensor_types
from nemofit.engines.base import DeviceMemory
from nemofit.engines.llama_cpp.kv_cache import cells, layer_bytes, micro_batch
from nemofit.engines.llama_cpp.memory import output_bytes
from nemofit.engines.llama_cpp.placement import HOST, Placement, place

from .records import Plan

_WEIGHTS = "llama.cpp src/llama-quant.cpp (types), src/llama-model.cpp (placement)"
_CACHE = "llama.cpp src/llama-kv-cache.cpp"
_COMPUTE = "llama.cpp src/llama-context.cpp, ggml/src/ggml-backend.cpp, ggml-alloc.c (replayed)"
_OUTPUT = "llama.cpp src/llama-context.cpp (output_reserve)"
_OVERHEAD = "measured on cards of that generation; see docs/numbers.md"


@dataclass(frozen=True, slots=True)
class Step:
    """One term of a device's sum.

    Attributes:
        device: GPU 0, GPU 1, ... or RAM.
        kind: weights, KV cache, compute or overhead.
        text: How the term is made.
        bytes: Its size.
        source: Where the rule can be read.
    """

    device: str
    kind: str
    text: str
    bytes: int
    source: str


def explain(plan: Plan) -> tuple[Step, ...]:
    """Every term of every device; the terms of a device and kind add up to the plan's figure."""
    gpus = len(plan.memory.gpus)
    split = plan.config.tensor_split or (1.0,) * gpus
    placed = place(plan.model, plan.config, split[:gpus])
    devices = [(i, f"GPU {i}", device) for i, device in enumerate(plan.memory.gpus)]
    devices.append((HOST, "RAM", plan.memory.host))
    return tuple(
        step for at, name, device in devices for step in _device(plan, placed, at, name, device)
    )


def _device(
    plan: Plan, placed: Placement, at: int, name: str, device: DeviceMemory
) -> Iterator[Step]:
    yield from _weights(plan, placed, at, name, device.weights_bytes)
    if device.kv_bytes:
        yield from _cache(plan, placed, at, name)
    yield from _compute(plan, at, name, device.compute_bytes)
    if device.overhead_bytes:
        text = "driver context, loaded kernels and their pools"
        yield Step(name, "overhead", text, device.overhead_bytes, _OVERHEAD)


def _weights(plan: Plan, placed: Placement, at: int, name: str, total: int) -> Iterator[Step]:
    """By tensor type; alignment, padding and copies are the rest."""
    tensors: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    types = tensor_types(plan.model, plan.quant, plan.imatrix)
    for tensor, kind, device in zip(plan.model.tensors, types, placed.device_of, strict=True):
        if device == at:
            tensors[kind] += 1
            elements[kind] += tensor.elements
            sizes[kind] += tensor_bytes(kind, tensor.shape)
    for kind, size in sizes.most_common():
        t = ggml_type(kind)
        per = f"{t.bytes} bytes" + (f" / {t.block}" if t.block > 1 else "")
        text = f"{tensors[kind]} tensors of {kind}: {elements[kind]} weights x {per}"
        yield Step(name, "weights", text, size, _WEIGHTS)
    rest = total - sum(sizes.values())
    if rest:
        text = "alignment and padding in the buffer, and tensors that exist twice"
        yield Step(name, "weights", text, rest, _WEIGHTS)


def _cache(plan: Plan, placed: Placement, at: int, name: str) -> Iterator[Step]:
    config = plan.config
    found = cells(plan.model, config)
    sizes = Counter(
        size
        for device, size in zip(placed.units, layer_bytes(plan.model, config), strict=False)
        if size and (device if config.kv_offload else HOST) == at
    )
    for size, count in sizes.most_common():
        held = (
            f"{found.full} cells" if found.streams == 1 else f"{found.streams} x {found.full} cells"
        )
        text = f"{count} blocks x {size} bytes ({held}, {config.kv_type_k} K, {config.kv_type_v} V)"
        yield Step(name, "KV cache", text, count * size, _CACHE)


def _compute(plan: Plan, at: int, name: str, total: int) -> Iterator[Step]:
    config = plan.config
    logits = output_bytes(plan.model, config) if at == HOST else 0
    if total - logits:
        text = f"peak of the graph for a micro-batch of {micro_batch(config)} tokens"
        if plan.memory.copies > 1:
            text += f", inputs held {plan.memory.copies} times for the pipeline"
        yield Step(name, "compute", text, total - logits, _COMPUTE)
    if logits:
        vocabulary = plan.model.integer("vocab_size")
        text = f"logits: {config.parallel} sequences x {vocabulary} tokens x 4 bytes"
        yield Step(name, "compute", text, logits, _OUTPUT)
