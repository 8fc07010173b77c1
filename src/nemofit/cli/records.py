"""From what the rooms below answer to the records of the JSON contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import active_parameters
from nemofit.engines.base import DeviceMemory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError
from nemofit.machine.records import Machine
from nemofit.planner.goal import Goal
from nemofit.planner.records import EnginePlan, Plan, Room
from nemofit.planner.sources import card_of
from nemofit.speed import Range, Speed

from . import contract as c

if TYPE_CHECKING:
    from nemofit.planner.changes import Change


def plan_fields(plan: EnginePlan, engine: str) -> dict[str, Any]:
    """The fields of :class:`.contract.PlanRecord` for a plan of any engine."""
    command, why = _command(plan, engine)
    return {
        "model": model_record(plan.model),
        "quant": quant_record(plan),
        "engine": engine,
        **_own(plan),
        "memory": memory_record(plan),
        "speed": speed_record(plan.speed, plan.speed_full),
        "speed_note": plan.speed_note,
        "quality": quality_record(plan),
        "verdict": plan.verdict,
        "verdict_words": plan.words,
        "command": command,
        "command_note": why,
        "notes": plan.notes,
    }


def change_records(changes: Iterable[Change]) -> tuple[c.ChangeRecord, ...]:
    """What would have to change."""
    return tuple(
        c.ChangeRecord(
            what=change.what,  # type: ignore[arg-type]
            flags=change.flags,
            action=change.action,
            cost=change.cost,
            text=change.text,
            memory=memory_record(change.plan),
            config=config_record(change.plan.config),
            quant=quant_record(change.plan),
            speed=speed_record(change.plan.speed),
        )
        for change in changes
    )


def quant_record(plan: EnginePlan) -> c.QuantRecord:
    """A plan's file type."""
    return c.QuantRecord(
        id=plan.quant or plan.model.file_type or "as in the file",
        bits_per_weight=plan.bits_per_weight,
        imatrix=isinstance(plan, Plan) and plan.imatrix,
    )


def quality_record(plan: EnginePlan) -> c.QualityRecord:
    """What a plan loses."""
    return c.QualityRecord(
        kl_divergence=plan.quality.loss,
        grade=plan.quality.grade,
        basis=cast(c.Basis, plan.quality.basis),
        note=plan.quality.note,
        kl_low=plan.quality.low,
        kl_high=plan.quality.high,
    )


def _own(plan: EnginePlan) -> dict[str, Any]:
    """The fields in which engines differ."""
    if isinstance(plan, Plan):
        return {"config": config_record(plan.config)}
    from .checkpoints import own_fields

    return own_fields(plan)


def model_record(model: ModelSpec) -> c.ModelRecord:
    """A model, with its card's name and licence where it has one."""
    card = card_of(model)
    licence = card.licence.name if card and card.licence else None
    return c.ModelRecord(
        id=model.id,
        name=card.name if card else model.id,
        architecture=model.architecture,
        parameters=model.parameters,
        active_parameters=model.memo.get("active_parameters") or active_parameters(model),
        trained_context=model.integer("context_length") or None,
        source=model.source,
        licence=licence,
    )


def config_record(config: RunConfig) -> c.ConfigRecord:
    """The knobs of a plan."""
    names = c.ConfigRecord.__dataclass_fields__
    values = {name: getattr(config, name) for name in names if name != "gpu_layers"}
    return c.ConfigRecord(gpu_layers=config.gpu_layers or 0, **values)


def machine_summary(room: Room, machine: Machine) -> c.MachineSummary:
    """The machine that an answer is about, with the cards that could not be read."""
    offers = dict(zip(map(id, room.machine.gpus), room.budgets.gpus, strict=True))
    host = machine.host
    return c.MachineSummary(
        source=machine.source,
        gpus=tuple(
            c.GpuSummary(
                name=gpu.name,
                total_bytes=gpu.total_bytes,
                free_bytes=gpu.free_bytes,
                budget_bytes=offers.get(id(gpu)),
                shared=gpu.shared,
                error=gpu.error,
            )
            for gpu in machine.gpus
        ),
        ram_total_bytes=host.ram_total_bytes,
        ram_available_bytes=host.ram_available_bytes,
        ram_budget_bytes=room.budgets.host,
        notes=room.budgets.notes,
    )


def goal_record(goal: Goal) -> c.GoalRecord:
    """What was asked for."""
    fixed = dict(goal.knobs)
    if goal.quant is not None:
        fixed["quant"] = goal.quant
    return c.GoalRecord(
        prefer=goal.prefer,
        min_tokens_per_second=goal.min_tokens_per_second,
        context=goal.context,
        fixed=fixed,
        min_context=goal.min_context,
        max_vram_bytes=goal.max_vram_bytes,
        quality=goal.quality,
    )


def memory_record(plan: EnginePlan) -> c.MemoryRecord:
    """What a plan places where."""
    from nemofit.planner.downloads import size_of

    budgets = plan.room.budgets
    lines = _lines(plan)
    why = "host memory is not known and was not checked" if budgets.host is None else None
    requantized = plan.quant not in (None, plan.model.file_type)
    return c.MemoryRecord(
        gpus=tuple(
            _device(device, budget, None, lines.get(i, ()))
            for i, (device, budget) in enumerate(zip(plan.memory.gpus, budgets.gpus, strict=True))
        ),
        host=_device(plan.memory.host, budgets.host, why),
        file_bytes=size_of(plan),
        basis=cast(c.Basis, plan.memory.basis),
        notes=plan.memory.notes,
        weights_basis="computed" if plan.model.is_shape or requantized else "exact",
    )


def _lines(plan: EnginePlan) -> dict[int, tuple[c.LineRecord, ...]]:
    """The engine's own account by GPU, where it keeps one."""
    if isinstance(plan, Plan):
        return {}
    from .checkpoints import lines

    return lines(plan)


def _device(
    device: DeviceMemory, budget: int | None, why: str | None, lines: tuple[c.LineRecord, ...] = ()
) -> c.DeviceRecord:
    return c.DeviceRecord(
        name=device.name,
        weights_bytes=device.weights_bytes,
        kv_bytes=device.kv_bytes,
        compute_bytes=device.compute_bytes,
        overhead_bytes=device.overhead_bytes,
        total_bytes=device.total_bytes,
        budget_bytes=budget,
        budget_bytes_note=why,
        lines=lines,
    )


def speed_record(speed: Speed | None, full: Range | None = None) -> c.SpeedRecord | None:
    """How fast a plan is."""
    if speed is None:
        return None
    return c.SpeedRecord(
        decode_tokens_per_second=_range(speed.decode),
        prefill_tokens_per_second=_range(speed.prefill),
        time_to_first_token_ms=_range(speed.time_to_first_token_ms),
        basis=cast(c.Basis, speed.basis),
        limit=speed.limit,
        notes=speed.notes,
        full_context_decode_tokens_per_second=_range(full) if full else None,
    )


def _range(r: Range) -> c.RangeRecord:
    return c.RangeRecord(low=r.low, likely=r.likely, high=r.high)


def _command(plan: EnginePlan, engine: str) -> tuple[str | None, str | None]:
    try:
        return plan.command(engine), None
    except UsageError as error:
        return None, f"{error.message}; {error.hint}"
