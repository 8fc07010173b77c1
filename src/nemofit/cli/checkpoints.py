"""What plans for vLLM and transformers add to the records of the JSON contract."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

from nemofit.engines.transformers import TransformersConfig
from nemofit.engines.vllm import VllmConfig
from nemofit.planner.checkpoints import CheckpointGoal, CheckpointPlan, TransformersPlan, VllmPlan
from nemofit.planner.records import EnginePlan

from . import contract as c


def own_fields(plan: EnginePlan) -> dict[str, Any]:
    """The fields of a plan's record that other engines do not have."""
    assert isinstance(plan, CheckpointPlan)
    own: dict[str, Any] = {"checkpoint": plan.checkpoint}
    if isinstance(plan, VllmPlan):
        own["config"] = vllm_config(plan.config)
        own["serving"] = c.ServingRecord(
            kv_tokens=plan.account.kv_tokens,
            max_concurrency=plan.account.max_concurrency,
            longest_model_len=plan.account.longest_model_len,
        )
    if isinstance(plan, TransformersPlan):
        own["config"] = transformers_config(plan.config)
        own["device_map"] = dict(plan.device_map)
    return own


_NOT_KNOBS = ("prefer", "context", "reserve_bytes", "assume_idle")


def goal_record(goal: CheckpointGoal) -> c.GoalRecord:
    """What was asked for."""
    asked = {f.name: getattr(goal, f.name) for f in fields(goal) if f.name not in _NOT_KNOBS}
    return c.GoalRecord(
        prefer=goal.prefer,
        min_tokens_per_second=None,
        context=goal.context,
        fixed={name: value for name, value in asked.items() if value},
    )


def vllm_config(config: VllmConfig) -> c.VllmConfigRecord:
    """The knobs under the names of vLLM's flags."""
    renamed = {"tensor_parallel": "tensor_parallel_size", "pipeline_parallel":
               "pipeline_parallel_size"}  # fmt: skip
    values = {
        renamed.get(name, name): getattr(config, name) for name in VllmConfig.__dataclass_fields__
    }
    return c.VllmConfigRecord(**values)


def transformers_config(config: TransformersConfig) -> c.TransformersConfigRecord:
    """The knobs that decide placement and memory."""
    limits = config.max_memory
    return c.TransformersConfigRecord(
        context=config.context,
        batch=config.batch,
        dtype=config.dtype,
        quantization=config.quantization,
        double_quant=config.double_quant,
        device_map=config.device_map,
        max_memory=None if limits is None else {str(d): n for d, n in limits.items()},
        attention=config.attention,
    )


def lines(plan: EnginePlan) -> dict[int, tuple[c.LineRecord, ...]]:
    """vLLM's account of each rank, by the GPU that the rank is on."""
    if not isinstance(plan, VllmPlan):
        return {}
    found = {}
    for rank, gpu in enumerate(plan.cards):
        account = plan.account.lines[rank // plan.config.tensor_parallel]
        found[gpu] = tuple(
            c.LineRecord(
                name=line.name, bytes=line.bytes, basis=cast(c.Basis, line.basis), note=line.note
            )
            for line in account
        )
    return found
