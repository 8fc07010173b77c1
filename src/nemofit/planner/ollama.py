"""Ollama's own decisions as a goal for the search, and a plan as Ollama will carry it out."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.launch import file_tag
from nemofit.engines.ollama import settings
from nemofit.engines.ollama.launch import (
    hub_name,
    modelfile,
    own_name,
    parameters,
    run_command,
    server_variables,
)
from nemofit.errors import UsageError
from nemofit.machine.records import Gpu, Machine
from nemofit.units import MIB

from .changes import Change
from .goal import Goal
from .ranking import Ranking
from .ranking import rank as ranked
from .records import Plan
from .single import single as single_plan
from .sources import file_bytes

_FIT_MARGIN = 1024 * MIB
"""That llama.cpp's fit leaves free on every card (common/common.h, fit_params_target)."""
_SPLIT_ABOVE = 48 * 10**9
"""Bytes: larger files are published in parts, and Ollama pulls no parts from the hub."""


def defaults(gpus: tuple[Gpu, ...], context: int) -> dict[str, Any]:
    """The knobs that Ollama sets for a context, as far as they do not depend on the model."""
    attention = settings.flash_attention(gpus)
    batch = settings.automatic_batch(context, gpus, attention=attention)
    return {
        "batch": batch,
        "ubatch": batch,
        "flash_attention": attention,
        "mmap": bool(gpus),
    }


def goal_for(goal: Goal, model: ModelSpec, machine: Machine, *, own_context: bool) -> Goal:
    """The goal with what Ollama decides for this model.

    Args:
        goal: What was asked.
        model: What shall run.
        machine: Where.
        own_context: Without a context asked for, Ollama's own one instead of a search.

    Raises:
        UsageError: Something was asked that Ollama cannot be told.
    """
    knobs = dict(goal.knobs)
    for name in ("tensor_split", "cpu_moe_layers", "override_tensors"):
        if knobs.get(name):
            raise UsageError(
                f"Ollama cannot be told {name.replace('_', ' ')}: it places layers by itself",
                "use --engine llama.cpp, or --gpu-layers",
            )
    asked = knobs.get("parallel", 1)
    knobs["parallel"] = settings.slots(model, asked)
    if "ubatch" in knobs:
        knobs["batch"] = knobs["ubatch"]
    settings.check(RunConfig(**knobs))
    if len(machine.gpus) > 1:  # the engine's own split: what is free on each
        knobs["tensor_split"] = tuple(float(_free(gpu) >> 20) for gpu in machine.gpus)
    context = goal.context
    if context is None and own_context:
        context = settings.default_context(model, machine.gpus) * knobs["parallel"]
    return replace(goal, context=context, knobs=knobs, engine="ollama")


def source_name(plan: Plan) -> str:
    """What Ollama makes the model from: a tag, a file on the hub, or a local file.

    Raises:
        UsageError: No file is known.
    """
    if plan.ollama_tag is not None:
        return plan.ollama_tag
    weights = plan.weights
    if weights.url is not None or weights.file is not None:
        raise UsageError(
            "Ollama cannot fetch a file by its address", "download it, then name the file"
        )
    if weights.repository is not None:
        return hub_name(weights.repository, file_tag(weights.quant) if weights.quant else None)
    return weights.option()[1]


def is_local(plan: Plan) -> bool:
    """Whether the model is made from a file of this machine, so that nothing is pulled."""
    return plan.ollama_tag is None and plan.weights.repository is None


def is_stored(plan: Plan) -> bool:
    """Whether the model is in Ollama's own store on this disk, so that nothing is pulled."""
    origin = plan.model.origin
    return origin is not None and plan.ollama_tag is not None and plan.ollama_tag == origin.ollama


def layers_to_insist_on(plan: Plan) -> int | None:
    """``num_gpu``; None where Ollama has to place the layers.

    Only llama.cpp's fit, which ``num_gpu`` turns off, can keep experts on the host.
    """
    if not plan.memory.gpus or plan.config.cpu_moe_layers:
        return None
    return plan.config.gpu_layers


def is_what_ollama_does(plan: Plan) -> bool:
    """Whether Ollama does the same without being told anything."""
    config, gpus = plan.config, plan.room.machine.gpus
    everything = plan.model.integer("block_count") + 1
    roomy = all(
        offer + reserve - device.total_bytes >= _FIT_MARGIN
        for device, offer, reserve in zip(
            plan.memory.gpus, plan.room.budgets.gpus, plan.room.budgets.reserves, strict=True
        )
    )
    return (
        not is_local(plan)
        and config.parallel == 1
        and config.kv_type_k == "f16"
        and config.context == settings.default_context(plan.model, gpus)
        and config.ubatch
        == settings.automatic_batch(config.context, gpus, attention=config.flash_attention)
        and (not plan.memory.gpus or (config.gpu_layers == everything and roomy))
        and not config.cpu_moe_layers
    )


def command(plan: Plan) -> str:
    """The line that fetches and runs a plan, with a Modelfile where it needs one.

    Raises:
        UsageError: No file is known, or its name cannot stand in a Modelfile.
    """
    source = source_name(plan)
    if is_what_ollama_does(plan):
        return run_command(source, is_here=is_stored(plan))
    text = modelfile(source, parameters(plan.config, layers_to_insist_on(plan)))
    name = own_name(source)
    steps = [] if is_local(plan) or is_stored(plan) else [["ollama", "pull", source]]
    written = len(steps)
    steps += [["printf", "%s\\n", *text.splitlines()]]
    steps += [["ollama", "create", name, "-f", "Modelfile"], ["ollama", "run", name]]
    lines = [shlex.join(words) for words in steps]
    lines[written] += " > Modelfile"
    return " && ".join(lines)


def finished(plan: Plan) -> Plan:
    """The plan with what a person has to know of Ollama."""
    notes = list(plan.notes)
    variables = server_variables(plan.config, plan.spare_host_bytes)
    if variables:
        said = " ".join(f"{name}={value}" for name, value in variables.items())
        notes.append(f"Ollama's server needs {said}")
    if plan.config.cpu_moe_layers:
        notes.append("Ollama leaves to llama.cpp's fit which experts stay in RAM: about these")
    if plan.weights.has_projector:
        notes.append("Ollama loads the projector for images too, which is not counted here")
    size = file_bytes(plan.model, plan.quant, plan.weights_bytes)
    if plan.ollama_tag is None and plan.weights.repository and size > _SPLIT_ABOVE:
        notes.append("a file of this size is published in parts, which Ollama cannot pull")
    return replace(plan, notes=tuple(notes))


def on_one_card(machine: Machine, plan: Plan) -> Machine | None:
    """The machine with the one card on which Ollama would put the plan; None: on all."""
    gpus = plan.room.machine.gpus
    if len(gpus) < 2:
        return None
    size = file_bytes(plan.model, plan.quant, plan.weights_bytes)
    predicted = settings.predicted_bytes(plan.model, size, plan.config.context)
    chosen = settings.one_card(gpus, predicted)
    return None if chosen is None else replace(machine, gpus=(gpus[chosen],))


def _free(gpu: Gpu) -> int:
    return (gpu.total_bytes or 0) if gpu.free_bytes is None else gpu.free_bytes


def rank(model: ModelSpec, machine: Machine, goal: Goal, count: int) -> Ranking:
    """The plans for Ollama, best first; the first one on the cards that Ollama would take.

    Raises:
        DoesNotFitError, UsageError: As for :func:`.ranking.rank`.
    """
    wanted = goal_for(goal, model, machine, own_context=False)
    found = ranked(model, machine, wanted, count)
    alone = on_one_card(machine, found.plans[0])
    if alone is not None:
        found = ranked(model, alone, goal_for(goal, model, alone, own_context=False), count)
    return replace(found, plans=[finished(plan) for plan in found.plans])


def single(model: ModelSpec, machine: Machine, goal: Goal) -> tuple[Plan, tuple[Change, ...]]:
    """One plan with the context that Ollama gives by itself, whether it fits or not.

    Raises:
        UsageError: As for :func:`.single.single`.
    """
    wanted = goal_for(goal, model, machine, own_context=True)
    plan, changes = single_plan(model, machine, wanted)
    alone = on_one_card(machine, plan) if plan.fits else None
    if alone is not None:
        same = replace(goal, context=wanted.context)
        plan, changes = single_plan(model, alone, goal_for(same, model, alone, own_context=False))
    return finished(plan), changes
