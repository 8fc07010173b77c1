"""The configuration behind a log: which plan is it that ran there?

The engine prints its knobs, but not how the layers were dealt to the devices. That follows from
the sizes of the weights on each: blocks go to the devices in order, so each device's size says how
many it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory

from .config import KV_TYPES, RunConfig
from .placement import WeightSizes, weight_sizes
from .server_log import Buffers, ServerLog
from .verify import KINDS, TOLERANCE, Difference, backend_of

_ON = ("1", "enabled", "true", "on", "auto")


def matching_config(model: ModelSpec, types: Sequence[str], log: ServerLog) -> RunConfig:
    """The knobs of the run that wrote the log; what it does not say is the engine's default.

    Args:
        model: What ran.
        types: Its tensor types.
        log: From :func:`.server_log.parse_server_log`.
    """
    knobs: dict[str, Any] = {"repack": bool(log.host.repacked)}
    for ours, names in (
        ("context", ("n_ctx",)),
        ("batch", ("n_batch",)),
        ("ubatch", ("n_ubatch",)),
        ("parallel", ("n_seq_max",)),
    ):
        value = next((n for name in names if (n := log.number(name))), None)
        if value:
            knobs[ours] = value
    if "flash_attn" in log.knobs:
        knobs["flash_attention"] = log.knobs["flash_attn"] in _ON
    if "kv_unified" in log.knobs:
        knobs["kv_unified"] = log.knobs["kv_unified"] in _ON
    if log.kv_types and all(t in KV_TYPES for t in log.kv_types):
        knobs["kv_type_k"], knobs["kv_type_v"] = log.kv_types
    first = next(iter(log.gpus), None)
    if first is None:
        return RunConfig(**knobs, backend="cpu", gpu_layers=0, op_offload=False)
    knobs["backend"] = backend_of(first.partition("[")[0]) or "cuda"
    layers = log.offloaded[0] if log.offloaded else model.integer("block_count") + 1
    knobs["gpu_layers"] = layers
    knobs["kv_offload"] = not log.host.kv or any(b.kv for b in log.gpus.values())
    sizes = weight_sizes(model, types, ("log", tuple(types)), knobs["backend"])
    if model.integer("expert_count"):
        knobs["cpu_moe_layers"] = _experts_on_host(sizes, model, layers, log)
    if len(log.gpus) > 1:
        knobs["tensor_split"] = _dealt(sizes, model, knobs, list(log.gpus.values()))
    return RunConfig(**knobs)


def compare_log(memory: Memory, log: ServerLog) -> tuple[Difference, ...]:
    """Predicted against what the log says was allocated, for every device and kind.

    A kind that the log has on no device at all was not reached when it ended.
    """
    gpus = dict(zip(log.gpus, memory.gpus, strict=True))
    pairs = [(name, gpus[name], buffers) for name, buffers in log.gpus.items()]
    whole = [_sizes(b) for b in (*log.gpus.values(), log.host)]
    printed = [any(column) for column in zip(*whole, strict=True)]
    out = []
    for name, device, buffers in [*pairs, ("Host", memory.host, log.host)]:
        out += _differences(name, device, buffers, printed, log.resolution)
    return tuple(out)


def _sizes(buffers: Buffers) -> tuple[int, int, int]:
    return buffers.weights, buffers.kv, buffers.compute + buffers.output


def _differences(
    name: str,
    device: DeviceMemory,
    buffers: Buffers,
    printed: Sequence[bool],
    resolution: int,
) -> list[Difference]:
    engine = _sizes(buffers)
    predicted = device.weights_bytes, device.kv_bytes, device.compute_bytes
    most = max(TOLERANCE * sum(engine), 2 * resolution)
    return [
        Difference(name, kind, p, e, abs(p - e) <= most)
        if known
        else Difference(name, kind, p, None, None)
        for kind, p, e, known in zip(KINDS, predicted, engine, printed, strict=True)
        if p or e
    ]


def _on_gpus(sizes: WeightSizes, first: int, end: int, moved: int) -> int:
    """Weights of blocks ``first`` to ``end`` less the experts of the first ``moved`` ones."""
    moved = min(max(moved, first), end)
    whole = sizes.gpu[end] - sizes.gpu[first] + (sizes.rope_gpu if end > first else 0)
    return whole - (sizes.experts_gpu[moved] - sizes.experts_gpu[first])


def _experts_on_host(sizes: WeightSizes, model: ModelSpec, layers: int, log: ServerLog) -> int:
    blocks = model.integer("block_count")
    first = max(blocks + 1 - layers, 0)
    found = sum(buffers.weights for buffers in log.gpus.values())

    def off(moved: int) -> int:
        return abs(_on_gpus(sizes, first, blocks, moved) + sizes.output_gpu - found)

    return min(range(blocks + 1), key=lambda n: (off(n), n))


def _dealt(
    sizes: WeightSizes, model: ModelSpec, knobs: dict[str, Any], gpus: Sequence[Buffers]
) -> tuple[float, ...]:
    """How many units each device holds: blocks, and the output as the last one."""
    blocks = model.integer("block_count")
    at = max(blocks + 1 - knobs["gpu_layers"], 0)
    moved = knobs.get("cpu_moe_layers", 0)
    counts: list[float] = []
    for buffers in gpus[:-1]:

        def off(end: int, start: int = at, size: int = buffers.weights) -> int:
            return abs(_on_gpus(sizes, start, end, moved) - size)

        end = min(range(at, blocks + 1), key=off)
        counts.append(float(end - at))
        at = end
    return (*counts, float(blocks + 1 - at))
