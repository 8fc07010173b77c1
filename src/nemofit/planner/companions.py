"""A plan for a model and what runs beside it: a projector, a LoRA adapter, a draft model.

llama.cpp puts a projector on the first GPU (``tools/mtmd/clip.cpp``), an adapter's tensors beside
those that they adapt (``src/llama-adapter.cpp``), and a draft model into a context of its own with
the target's knobs and an f16 cache (``common/speculative.cpp``); here the draft model is told to
stay on the first GPU as well. Their bytes are set aside first, then the model is planned in what is
left, so that the whole fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.engines.llama_cpp import Estimator
from nemofit.engines.llama_cpp.attached import adapter_memory, projector_memory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.kv_cache import micro_batch
from nemofit.engines.llama_cpp.launch import Weights
from nemofit.errors import UsageError
from nemofit.formats.companions import Attachment
from nemofit.machine.budgets import reserves_of
from nemofit.machine.records import Machine

from .defaults import config_of
from .goal import LEAST_CONTEXT, Goal
from .records import Beside, Plan, Room, room_for
from .single import single
from .sources import source_of

if TYPE_CHECKING:
    from .changes import Change

DRAFTED = 3
"""Tokens that llama-server drafts at a time (``--spec-draft-n-max``); each needs logits."""
_DRAFT_QUANT = "Q8_0"
_MOST_APART = 128
"""Tokens by which vocabularies may differ (SPEC_VOCAB_MAX_SIZE_DIFFERENCE)."""
_NAMES = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "metal": "MTL", "sycl": "SYCL"}
"""What llama.cpp calls the devices of a backend, before their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """What shall run beside a model.

    Attributes:
        projector: With images or sound; ``is_found_again`` where ``-hf`` loads it by itself.
        adapter: A LoRA adapter.
        draft: A model that guesses tokens ahead.
    """

    projector: Attachment | None = None
    is_found_again: bool = False
    adapter: Attachment | None = None
    draft: ModelSpec | None = None

    def __bool__(self) -> bool:
        return any((self.projector, self.adapter, self.draft))


def single_with(
    model: ModelSpec, machine: Machine, goal: Goal, companions: Companions
) -> tuple[Plan, Plan, tuple[Change, ...]]:
    """Work out one plan as :func:`.single.single` does, with companions.

    Returns:
        The plan with everything in its memory, the model's own part of it, and what would have to
        change where it misses.

    Raises:
        UsageError: As for the model alone, or an engine's command cannot name a companion.
        DataError: A companion does not fit the model.
    """
    if not companions:
        plan, changes = single(model, machine, goal)
        return plan, plan, changes
    room = room_for(machine, goal)
    trained = model.integer("context_length") or LEAST_CONTEXT
    context = goal.context or max(min(LEAST_CONTEXT, trained), goal.min_context or 0)
    config = config_of(room, goal, context)
    first = _beside(model, companions, config, 1 if room.machine.gpus else 0)
    taken = sum(b.memory.gpus[0].total_bytes for b in first if b.memory.gpus)
    spread = companions.adapter.file_bytes if companions.adapter else 0
    first_gpu = next(iter(room.machine.gpus), None)
    for on_all in (False, True):
        reserves = tuple(
            reserve + spread + (taken if on_all or gpu is first_gpu else 0)
            for gpu, reserve in zip(
                machine.gpus, reserves_of(machine.gpus, goal.reserve_bytes), strict=True
            )
        )
        alone, changes = single(model, machine, replace(goal, reserve_bytes=reserves))
        plan = _joined(alone, room, companions)
        if plan.fits or not alone.fits:
            break
    return plan, alone, changes


def _joined(alone: Plan, room: Room, companions: Companions) -> Plan:
    """The plan with its companions' bytes on its devices, against what the machine really has."""
    gpus = alone.memory.gpus
    used = next((i for i, gpu in enumerate(gpus) if gpu.total_bytes), 0)
    found = _beside(alone.model, companions, alone.config, len(gpus), used)
    memory = alone.memory
    for one in found:
        memory = replace(
            memory,
            gpus=tuple(map(_sum, memory.gpus, one.memory.gpus)),
            host=_sum(memory.host, one.memory.host),
        )
    offers = dict(zip(map(id, room.machine.gpus), room.budgets.gpus, strict=True))
    left = dict(zip(map(id, room.machine.gpus), room.budgets.reserves, strict=True))
    own = alone.room.machine.gpus
    budgets = replace(
        alone.room.budgets,
        gpus=tuple(offers[id(gpu)] for gpu in own),
        reserves=tuple(left[id(gpu)] for gpu in own),
    )
    return replace(
        alone,
        memory=memory,
        room=replace(alone.room, budgets=budgets),
        beside=tuple(found),
        weights=replace(alone.weights, has_projector=False)
        if companions.projector
        else alone.weights,
    )


def _sum(a: DeviceMemory, b: DeviceMemory) -> DeviceMemory:
    return replace(
        a,
        weights_bytes=a.weights_bytes + b.weights_bytes,
        kv_bytes=a.kv_bytes + b.kv_bytes,
        compute_bytes=a.compute_bytes + b.compute_bytes,
    )


def _beside(
    model: ModelSpec, companions: Companions, config: RunConfig, gpus: int, at: int = 0
) -> Sequence[Beside]:
    found = []
    if companions.projector is not None:
        found.append(_projector(companions.projector, companions.is_found_again, config, gpus, at))
    if companions.adapter is not None:
        found.append(_adapter(model, companions.adapter, config, gpus))
    if companions.draft is not None:
        found.append(_draft(model, companions.draft, config, gpus, at))
    return found


def _on_first(device: DeviceMemory, host: DeviceMemory, gpus: int, at: int) -> Memory:
    """A placement with something on one GPU, or all of it on the host without any."""
    if not gpus:
        return Memory(gpus=(), host=_sum(device, host))
    none = DeviceMemory()
    return Memory(gpus=tuple(device if i == at else none for i in range(gpus)), host=host)


def _projector(
    projector: Attachment, is_found_again: bool, config: RunConfig, gpus: int, at: int
) -> Beside:
    device, is_known = projector_memory(projector.tensors, projector.values, config, bool(gpus))
    note = "its compute buffer is an upper bound for the first image that the engine prepares for"
    if not is_known:
        note = "its kind is not known: the compute buffer is a guess, larger images need more"
    return Beside(
        kind="projector",
        name=projector.name,
        bytes=projector.file_bytes,
        memory=_on_first(device, DeviceMemory(), gpus, at),
        arguments=() if is_found_again else ("--mmproj", _path(projector)),
        basis="computed" if is_known else "assumed",
        note=note,
    )


def _path(companion: Attachment) -> str:
    if companion.ref.startswith(("hf:", "http://", "https://")):
        raise UsageError(
            f"llama-server takes {companion.name!r:.100} from this disk alone",
            "download it, then name its path",
        )
    return companion.ref


def _adapter(model: ModelSpec, adapter: Attachment, config: RunConfig, gpus: int) -> Beside:
    split = (config.tensor_split or (1.0,) * gpus)[:gpus]
    tokens = micro_batch(config, True)
    on_gpus, host = adapter_memory(model, adapter.tensors, config, split, tokens)
    return Beside(
        kind="adapter",
        name=adapter.name,
        bytes=adapter.file_bytes,
        memory=Memory(gpus=on_gpus, host=host),
        arguments=("--lora", _path(adapter)),
        basis="computed",
        note="what its products add to the compute buffers is an upper bound",
    )


def _draft(model: ModelSpec, draft: ModelSpec, config: RunConfig, gpus: int, at: int) -> Beside:
    apart = abs(draft.integer("vocab_size") - model.integer("vocab_size"))
    if apart > _MOST_APART:
        raise UsageError(
            f"{draft.id} cannot draft for {model.id}: their vocabularies differ by {apart} tokens",
            "name a smaller model of the same family",
        )
    quant = _DRAFT_QUANT if draft.source == "catalog" else None
    source = source_of(draft, quant, None)
    own = config.replace(
        kv_type_k="f16", kv_type_v="f16", gpu_layers=None if gpus else 0, tensor_split=None,
        cpu_moe_layers=0, override_tensors=(), cache_ram=0,
    )  # fmt: skip
    memory = Estimator(draft, quant, source.imatrix).memory(own, 1 if gpus else 0)
    logits = 4 * DRAFTED * config.parallel * model.integer("vocab_size")
    extra = DeviceMemory(compute_bytes=logits)
    device = replace(memory.gpus[0], overhead_bytes=0) if gpus else DeviceMemory()
    arguments = ["--spec-type", "draft-simple", *_drafting(source.weights)]
    arguments += ["-ngld", "all" if gpus else "0"]
    if gpus > 1 and config.backend in _NAMES:
        arguments += ["-devd", f"{_NAMES[config.backend]}{at}"]
    on_device = _sum(device, extra) if gpus else device
    return Beside(
        kind="draft",
        name=" ".join(filter(None, (draft.id, quant))),
        bytes=draft.file_bytes,
        memory=_on_first(on_device, _sum(memory.host, extra), gpus, at),
        arguments=tuple(arguments),
        basis=memory.basis,
        note="the speed is the model's own, without what drafting saves",
    )


def _drafting(weights: Weights) -> Sequence[str]:
    """The target's flag for a file, as it is called for a draft model."""
    flag, *rest = weights.option()
    if flag not in ("-m", "-hf") or len(rest) != 1:
        raise UsageError(
            "llama-server takes a draft model by its path or its repository alone",
            "download it, then name its path",
        )
    return "-md" if flag == "-m" else "-hfd", rest[0]
