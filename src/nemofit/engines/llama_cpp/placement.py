"""Which tensor lies on which device.

Source: llama-model.cpp (load_tensors), llama-model-loader.cpp (create_tensor), llama.cpp 0c1e570.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from nemofit.catalog.model import ModelSpec
from nemofit.errors import UsageError

from .config import RunConfig

HOST = -1
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # common/arg.cpp: -cmoe, -ncmoe
_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything lies: -1 is the host, 0 and up the GPUs in device order.

    Attributes:
        units: Device of each block, and of the output layer as the last entry.
        device_of: Device of each tensor of the model, in order; None: not loaded.
        output_copy: Index of the embedding when it also serves as the output matrix.
        overridden: Some tensor was moved by a pattern (switches pipeline copies off).
    """

    units: tuple[int, ...]
    device_of: tuple[int | None, ...]
    output_copy: int | None
    overridden: bool


def f32(x: float) -> float:
    """Round to single precision, in which llama.cpp computes the split."""
    return float(struct.unpack("f", struct.pack("f", x))[0])


def gpu_layers(model: ModelSpec, config: RunConfig) -> int:
    """``-ngl`` as a number: the blocks and the output layer when everything is asked for."""
    everything = model.integer("block_count") + 1
    return everything if config.gpu_layers is None else config.gpu_layers


def place_units(blocks: int, ngl: int, split: Sequence[float]) -> tuple[int, ...]:
    """The device of each block and of the output layer.

    Args:
        blocks: All blocks of the file, next-token ones included.
        ngl: ``-ngl``.
        split: ``-ts``, one proportion per GPU; empty without GPUs.
    """
    if not split:
        return (HOST,) * (blocks + 1)
    start = max(blocks + 1 - ngl, 0)
    active = min(ngl, blocks + 1)
    total, bounds = 0.0, []
    for x in split:
        total = f32(total + f32(x))
        bounds.append(total)
    bounds = [f32(b / total) for b in bounds]
    units = []
    for il in range(blocks + 1):
        if il < start or il - start >= active:
            units.append(HOST)
            continue
        at = f32((il - start) / active)
        units.append(next((d for d, b in enumerate(bounds) if at < b), len(bounds) - 1))
    return tuple(units)


def overrides(config: RunConfig) -> tuple[tuple[str, str], ...]:
    """Every ``-ot`` pattern with its target, those of ``-ncmoe`` behind them."""
    experts = tuple(
        (rf"blk\.{i}{_EXPERTS}", "CPU") for i in range(config.cpu_moe_layers)
    )
    return config.override_tensors + experts


def place(model: ModelSpec, config: RunConfig, split: Sequence[float]) -> Placement:
    """Place every tensor of a model.

    Raises:
        UsageError: An override names a buffer that is not there, or its pattern is broken.
    """
    units = place_units(model.integer("block_count"), gpu_layers(model, config), split)
    rules = _compiled(overrides(config), len(split))
    return _place(model, units, rules)


def _compiled(rules: tuple[tuple[str, str], ...], n_gpus: int) -> tuple[tuple[str, int], ...]:
    out = []
    for pattern, target in rules:
        try:
            re.compile(pattern)
        except re.error as e:
            raise UsageError(
                f"tensor override {pattern!r} is not a regular expression: {e}",
                r"write for example blk\.(1|2)\.ffn_.*=CPU",
            ) from None
        out.append((pattern, _device(target, n_gpus)))
    return tuple(out)


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
def _pattern_hits(pattern: str, name: str) -> bool:
    return re.search(pattern, name) is not None


def _place(
    model: ModelSpec, units: tuple[int, ...], rules: tuple[tuple[str, int], ...]
) -> Placement:
    output = units[-1]
    loaded = model.integer("block_count") - model.integer("nextn_predict_layers")
    device_of: list[int | None] = []
    embedding, has_output = None, False
    for i, t in enumerate(model.tensors):
        m = _BLOCK.match(t.name)
        if m is not None:
            il = int(m.group(1))
            device: int | None = units[il] if il < loaded else None
        elif t.name.startswith("output") or t.name.startswith("cls"):
            device = output
            has_output = has_output or t.name == "output.weight"
        elif t.name.startswith("rope_"):
            device = units[0]
        else:
            device = HOST
            if t.name == "token_embd.weight":
                embedding = i
        if device is not None:
            for pattern, target in rules:
                if _pattern_hits(pattern, t.name):
                    device = target
                    break
        device_of.append(device)
    return Placement(
        units=units,
        device_of=tuple(device_of),
        output_copy=None if has_output else embedding,
        overridden=bool(rules),
    )
