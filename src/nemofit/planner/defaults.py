"""The engine's defaults on a machine, with what the person fixed on top and nothing overruled."""

from __future__ import annotations

from typing import Any

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError

from .goal import Goal
from .records import Room
from .sources import Source


def config_of(room: Room, goal: Goal, context: int, k: str = "f16", v: str = "f16") -> RunConfig:
    """A configuration whose offload is still open where the person left it open."""
    gpus = room.machine.gpus
    base: dict[str, Any] = {
        "context": context,
        "kv_type_k": k,
        "kv_type_v": v,
        "repack": True,
        "backend": gpus[0].backend if gpus else "cpu",
    }
    if goal.engine == "ollama":
        from .ollama import defaults

        base |= defaults(gpus, context)
    return RunConfig(**{**base, **goal.knobs})


def settled(model: ModelSpec, config: RunConfig, room: Room) -> RunConfig:
    """The configuration with the choices that follow from the machine written out."""
    gpus = room.machine.gpus
    if not gpus:
        return config.replace(backend="cpu", gpu_layers=0, tensor_split=None, op_offload=False)
    layers = config.gpu_layers
    everything = model.integer("block_count") + 1
    split = config.tensor_split
    if split is None:
        split = tuple(float(offer >> 20) for offer in room.budgets.gpus)
    return config.replace(
        gpu_layers=everything if layers is None else min(layers, everything),
        tensor_split=split if len(gpus) > 1 else None,
    )


def full_depth(config: RunConfig) -> int:
    """Tokens before a prompt of 512 and an answer of 128 that fill a sequence's context."""
    return max(0, config.context // config.parallel - 512 - 128)


def check_offload(room: Room, goal: Goal) -> None:
    """Refuse an offload that the machine cannot have.

    Raises:
        UsageError: The split has another length than there are GPUs, or there is no GPU.
    """
    count = len(room.machine.gpus)
    split = goal.knobs.get("tensor_split")
    if split is not None and len(split) != count:
        gpus = "no GPU" if count == 0 else f"{count} GPU{'s' if count > 1 else ''}"
        raise UsageError(
            f"a tensor split of {len(split)} numbers for a machine with {gpus}",
            "write one number per GPU, or leave --tensor-split out",
        )
    if goal.knobs.get("gpu_layers") and count == 0:
        raise UsageError(
            "layers on the GPU of a machine that has none",
            "leave --gpu-layers out, or set it to 0",
        )


def notes_of(model: ModelSpec, config: RunConfig, source: Source) -> tuple[str, ...]:
    """What a person should know before running a plan."""
    trained = model.integer("context_length")
    notes = [source.note] if source.note else []
    if trained and config.context > trained * config.parallel:
        notes.append(
            f"the model was trained for {trained} tokens; beyond that its answers fall apart"
        )
    return tuple(notes)
