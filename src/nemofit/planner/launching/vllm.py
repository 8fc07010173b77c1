"""vLLM: its server as a line, a script, a unit or a container, and a script without a server."""

from __future__ import annotations

from nemofit.engines import artifacts
from nemofit.engines.devices import visibility
from nemofit.engines.vllm import launch
from nemofit.errors import UsageError

from ..checkpoints import VllmPlan
from .records import Artifact, Order

FORMATS = ("shell", "script", "compose", "systemd", "python", "powershell")
_PORT = 8000


def variables_of(plan: VllmPlan) -> dict[str, str]:
    """What keeps vLLM to the cards of its ranks, seen from the plan's own machine."""
    return visibility(plan.room.machine.gpus, plan.used)


def make(order: Order) -> Artifact:
    """The artifact of a plan for vLLM."""
    plan = order.plan
    assert isinstance(plan, VllmPlan)
    if order.program not in (None, "vllm"):
        raise UsageError(f"{order.program} is no program of vLLM", "leave --program out")
    model = plan.checkpoint
    if plan.is_local and not order.stays_here:
        model = str(order.folder / model)
    variables = visibility(order.cards, plan.used)
    if order.directory is not None:
        variables["HF_HUB_CACHE"] = str(order.directory)
    if order.format == "python":
        text = launch.offline_script(plan.config, model, variables, order.comments)
        return Artifact(text=text, program="python3", variables=variables, notes=_notes(order))
    process = launch.process(plan.config, model, variables, order.port, order.comments)
    if order.format == "compose":
        return _compose(order, plan, model)
    text = artifacts.text_of(process, order.format)
    return Artifact(
        text=text,
        program=process.words[0],
        arguments=process.words[1:],
        variables=variables,
        notes=_notes(order),
    )


def _notes(order: Order) -> tuple[str, ...]:
    notes = []
    if order.path is None:
        notes.append(f"to install vLLM: python3 -m pip install vllm=={launch.VERSION}")
    if order.format == "powershell" or order.machine.host.os == "windows":
        notes.append("vLLM runs on Linux, on Windows under WSL")
    port = order.port or _PORT
    if order.format != "python":
        notes.append(f"to see that it runs: curl -s http://127.0.0.1:{port}/v1/models")
    return tuple(notes)


def _compose(order: Order, plan: VllmPlan, model: str) -> Artifact:
    mounts: tuple[tuple[str, str, bool], ...] = ()
    variables: dict[str, str] = {}
    if plan.is_local:
        mounts, model = ((model, "/model", False),), "/model"
    if order.directory is not None:
        mounts += ((str(order.folder / order.directory), "/hub", True),)
        variables["HF_HUB_CACHE"] = "/hub"
    used, cards = plan.used, order.cards
    ids = tuple(g.uuid or str(cards.index(g) if g.index is None else g.index) for g in used)
    service = launch.compose_service(
        plan.config, model, variables, order.port or _PORT, None if used == cards else ids
    )
    if mounts:
        from dataclasses import replace

        service = replace(service, mounts=mounts, volumes=())
    return Artifact(
        text=artifacts.compose_file(service, order.comments),
        program="vllm",
        arguments=service.arguments,
        variables=variables,
        notes=_notes(order),
    )
