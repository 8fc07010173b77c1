"""llama.cpp: its server, its chat and its benchmark as lines, scripts, units and containers.

Images: ggml-org/llama.cpp/docs/docker.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nemofit.engines import artifacts
from nemofit.engines.artifacts import Process, Service
from nemofit.engines.devices import visibility
from nemofit.engines.llama_cpp.flags import accepted, words
from nemofit.engines.llama_cpp.launch import PORT, PROGRAMS, Weights, options_of
from nemofit.errors import UsageError

from ..records import Plan
from .records import Artifact, Order

FORMATS = ("shell", "script", "compose", "systemd", "powershell")
_SERVERS_ONLY = ("compose", "systemd")
_IMAGE = "ghcr.io/ggml-org/llama.cpp:server"
_IMAGES = {"cuda": "-cuda", "rocm": "-rocm", "vulkan": "-vulkan", "sycl": "-intel"}
_DEVICES = {
    "rocm": ("/dev/kfd", "/dev/dri"),
    "vulkan": ("/dev/dri",),
    "sycl": ("/dev/dri",),
}
_MODELS = "/models"
_HUB_CACHE = ("${HF_HOME:-~/.cache/huggingface}", "/root/.cache/huggingface")


def make(order: Order) -> Artifact:
    """The artifact of a plan for llama.cpp."""
    plan = order.plan
    assert isinstance(plan, Plan)
    program = order.program or PROGRAMS[0]
    if program != PROGRAMS[0] and order.format in _SERVERS_ONLY:
        raise UsageError(
            f"a {order.format} runs llama-server, and {program} is none", "use --format shell"
        )
    if visibility(order.cards, order.used) or len(order.used) == len(order.cards):
        plan = _with_used_cards(plan)
    if order.format == "compose":
        return _compose(order, plan)
    weights = plan.weights if order.stays_here else _absolute(plan.weights, order.folder)
    options, notes = accepted(
        options_of(
            program, plan.config, weights, len(plan.memory.gpus), plan.spare_host_bytes
        ),
        order.known,
        program,
    )  # fmt: skip
    if order.port is not None and program == PROGRAMS[0]:
        options.append(("--port", str(order.port)))
    variables = _variables(order)
    process = Process(
        words=words(_called(order, program), options),
        variables=variables,
        title=f"{program}: {plan.title}",
        comments=order.comments,
    )
    text = artifacts.text_of(process, order.format)
    return Artifact(
        text=text, program=program, arguments=process.words[1:], variables=variables, notes=notes
    )


def _variables(order: Order) -> dict[str, str]:
    found = visibility(order.cards, order.used)
    if order.directory is not None:
        found["LLAMA_CACHE"] = str(order.directory)
    return found


def _called(order: Order, program: str) -> str:
    """By its path in a unit, which does not search where a shell does; else by its name."""
    return order.path if order.format == "systemd" and order.path else program


def _with_used_cards(plan: Plan) -> Plan:
    """The same without the cards that it places nothing on, which the engine will not see."""
    used = [i for i, gpu in enumerate(plan.memory.gpus) if gpu.weights_bytes or gpu.kv_bytes]
    if not used or len(used) == len(plan.memory.gpus):
        return plan
    split = plan.config.tensor_split
    kept = tuple(split[i] for i in used) if split and len(used) > 1 else None
    room = plan.room
    return replace(
        plan,
        config=plan.config.replace(tensor_split=kept, devices=None),
        memory=replace(plan.memory, gpus=tuple(plan.memory.gpus[i] for i in used)),
        room=replace(
            room,
            machine=replace(room.machine, gpus=tuple(room.machine.gpus[i] for i in used)),
            budgets=replace(
                room.budgets,
                gpus=tuple(room.budgets.gpus[i] for i in used),
                shared=tuple(room.budgets.shared[i] for i in used),
                reserves=tuple(room.budgets.reserves[i] for i in used),
            ),
        ),
    )


def _absolute(weights: Weights, folder: Path) -> Weights:
    if weights.path is None or "://" in weights.path:
        return weights
    return replace(weights, path=str(folder / weights.path))


def _compose(order: Order, plan: Plan) -> Artifact:
    backend = plan.config.backend if order.used else "cpu"
    if backend == "metal":
        raise UsageError(
            "Docker on a Mac cannot use its GPU", "use --format shell, script or systemd"
        )
    weights = plan.weights
    mounts: tuple[tuple[str, str, bool], ...] = ()
    if weights.path is not None:
        path = Path(str(_absolute(weights, order.folder).path))
        weights = Weights(path=f"{_MODELS}/{path.name}")
        mounts = ((str(path.parent), _MODELS, False),)
    options = options_of(
        PROGRAMS[0], plan.config, weights, len(plan.memory.gpus), plan.spare_host_bytes
    )
    port = order.port or PORT
    options += [("--host", "0.0.0.0"), ("--port", str(port))]
    arguments = tuple(word for option in options for word in option)
    volumes: tuple[tuple[str, str], ...] = ()
    variables: dict[str, str] = {}
    if weights.repository and order.directory is not None:
        mounts = ((str(order.folder / order.directory), _MODELS, True),)
        variables["LLAMA_CACHE"] = _MODELS
    elif weights.repository:
        volumes = (_HUB_CACHE,)
    service = Service(
        name="llama",
        image=_IMAGE + _IMAGES.get(backend, ""),
        arguments=arguments,
        variables=variables,
        passed=("HF_TOKEN",) if weights.repository else (),
        port=port,
        volumes=volumes,
        mounts=mounts,
        gpus=_device_ids(order) if backend == "cuda" else (),
        devices=_DEVICES.get(backend, ()),
    )
    return Artifact(
        text=artifacts.compose_file(service, order.comments),
        program=PROGRAMS[0],
        arguments=arguments,
        variables=variables,
    )


def _device_ids(order: Order) -> tuple[str, ...] | None:
    """The cards to pass in; None: all of them."""
    used, cards = order.used, order.cards
    if used == cards:
        return None
    return tuple(
        gpu.uuid or str(cards.index(gpu) if gpu.index is None else gpu.index) for gpu in used
    )
