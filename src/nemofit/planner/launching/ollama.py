"""Ollama: a line, a script, a Modelfile, the service's settings, a container."""

from __future__ import annotations

import shlex

from nemofit.engines import artifacts, quoting
from nemofit.engines.artifacts import Service
from nemofit.engines.devices import visibility
from nemofit.engines.ollama import launch
from nemofit.errors import UsageError

from ..ollama import is_local, is_stored, is_what_ollama_does, layers_to_insist_on, source_name
from ..records import Plan
from .records import Artifact, Order

FORMATS = ("shell", "script", "modelfile", "compose", "systemd", "powershell")
_STORE = ("ollama", "/root/.ollama")


class _Made:
    """A plan taken apart for Ollama: names, Modelfile, the server's variables."""

    def __init__(self, order: Order) -> None:
        plan = order.plan
        assert isinstance(plan, Plan)
        if order.program not in (None, "ollama"):
            raise UsageError(f"{order.program} is no program of Ollama", "leave --program out")
        self.plan = plan
        self.source = source_name(plan)
        self.is_local = is_local(plan)
        if self.is_local and not order.stays_here:
            self.source = str(order.folder / self.source)
        self.plain = is_what_ollama_does(plan)
        self.name = self.source if self.plain else launch.own_name(self.source)
        self.layers = layers_to_insist_on(plan)
        self.parameters = launch.parameters(plan.config, self.layers)
        self.variables = launch.server_variables(
            plan.config,
            plan.spare_host_bytes,
            None if order.directory is None else str(order.folder / order.directory),
        )
        self.variables |= visibility(order.cards, order.used)
        if order.port is not None:
            self.variables["OLLAMA_HOST"] = f"127.0.0.1:{order.port}"
        self.port = order.port or launch.PORT

    def modelfile(self, comments: tuple[str, ...] = ()) -> str:
        return launch.modelfile(self.source, self.parameters, comments)

    def steps(self) -> list[list[str]]:
        """What is typed, the Modelfile apart."""
        is_here = self.is_local or is_stored(self.plan)
        pull = [] if is_here else [["ollama", "pull", self.source]]
        create = [] if self.plain else [["ollama", "create", self.name, "-f", "Modelfile"]]
        return [*pull, *create, ["ollama", "run", self.name]]


def make(order: Order) -> Artifact:
    """The artifact of a plan for Ollama."""
    made = _Made(order)
    text = {
        "shell": _shell,
        "script": _script,
        "modelfile": lambda o, m: m.modelfile(o.comments),
        "compose": _compose,
        "systemd": _override,
        "powershell": _powershell,
    }[order.format](order, made)
    return Artifact(
        text=text,
        program="ollama",
        arguments=tuple(made.steps()[-1][1:]),
        variables=made.variables,
        notes=_notes(order, made),
    )


def _notes(order: Order, made: _Made) -> tuple[str, ...]:
    """Where the server's variables are set, how to install, how to see that it was right."""
    system = order.machine.host.os
    notes = []
    if order.path is None and system in launch.INSTALL:
        notes.append(f"to install Ollama: {launch.INSTALL[system]}")
    if order.format == "modelfile":
        notes.append(f"then: ollama create {made.name} -f Modelfile && ollama run {made.name}")
    if made.variables and order.format not in ("compose", "systemd"):
        where = launch.setting_lines(made.variables, system)
        notes += ["the server's own settings, where it runs as a service:", *where]
    notes.append(f"to try it: {launch.test_line(made.name, made.port)}")
    whole = " size_vram equal to size and" if _is_whole(made.plan) else ""
    notes.append(
        f"to see that it was right: {launch.check_line(made.port)} shows{whole} "
        f"context_length {made.parameters['num_ctx']}"
    )
    return tuple(notes)


def _is_whole(plan: Plan) -> bool:
    layers, blocks = plan.config.gpu_layers or 0, plan.model.integer("block_count")
    return bool(plan.memory.gpus) and layers > blocks and not plan.config.cpu_moe_layers


def _shell(order: Order, _: _Made) -> str:
    return order.plan.command() + "\n"


def _script(order: Order, made: _Made) -> str:
    lines = ["#!/bin/sh"]
    comments = [
        f"ollama: {made.plan.title}",
        *order.comments,
        *launch.setting_lines(made.variables, order.machine.host.os),
        f"try it: {launch.test_line(made.name, made.port)}",
    ]
    lines += [f"# {quoting.comment(c)}" for c in comments]
    lines.append("set -eu")
    if order.port is not None:
        lines.append(f"export OLLAMA_HOST=127.0.0.1:{order.port}")
    if not made.plain:
        lines += [
            "folder=$(mktemp -d)",
            "trap 'rm -rf \"$folder\"' EXIT",
            shlex.join(["printf", "%s\\n", *made.modelfile().splitlines()])
            + ' > "$folder/Modelfile"',
        ]
    for words in made.steps():
        line = shlex.join(words)
        lines.append(line.replace("-f Modelfile", '-f "$folder/Modelfile"')
                     if words[1] == "create" else line)  # fmt: skip
    return "\n".join(lines) + "\n"


def _powershell(_: Order, made: _Made) -> str:
    lines = []
    for words in made.steps():
        if words[1] == "create":
            text = ", ".join(f"'{line}'" if quoting.powershell(line) == line
                             else quoting.powershell(line)
                             for line in made.modelfile().splitlines())  # fmt: skip
            lines.append(f"Set-Content -Path Modelfile -Encoding utf8 -Value @({text})")
        lines.append(" ".join(quoting.powershell(word) for word in words))
    return "; ".join(lines) + "\n"


def _override(order: Order, made: _Made) -> str:
    """A drop-in for the service that Ollama's installer makes."""
    comments = [
        *order.comments,
        "/etc/systemd/system/ollama.service.d/override.conf, then:",
        "sudo systemctl daemon-reload && sudo systemctl restart ollama",
    ]
    lines = [f"# {quoting.comment(c)}" for c in comments] + ["[Service]"]
    lines += [
        "Environment=" + quoting.systemd(f"{name}={value}", command=False)
        for name, value in (made.variables | _context(made)).items()
    ]
    return "\n".join(lines) + "\n"


def _context(made: _Made) -> dict[str, str]:
    return {"OLLAMA_CONTEXT_LENGTH": str(made.parameters["num_ctx"])}


def _compose(order: Order, made: _Made) -> str:
    backend = order.used[0].backend if order.used else "cpu"
    if backend == "metal":
        raise UsageError("Docker on a Mac cannot use its GPU", "use --format shell or script")
    variables = {**made.variables, **_context(made)}
    for hidden in ("OLLAMA_HOST", "OLLAMA_MODELS", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        variables.pop(hidden, None)
    mounts = []
    if order.directory is not None:
        mounts.append((str(order.folder / order.directory), _STORE[1], True))
    used = order.used
    ids = tuple(g.uuid or str(order.cards.index(g) if g.index is None else g.index) for g in used)
    service = Service(
        name="ollama",
        image=launch.IMAGE + (":rocm" if backend == "rocm" else ""),
        variables=variables,
        port=launch.PORT,
        volumes=() if mounts else (_STORE,),
        mounts=tuple(mounts),
        gpus=(None if used == order.cards else ids) if backend == "cuda" else (),
        devices=("/dev/kfd", "/dev/dri") if backend == "rocm" else (),
    )
    then = shlex.join(["docker", "compose", "exec", "ollama", "ollama", "run", made.source])
    return artifacts.compose_file(service, [*order.comments, f"then: {then}"])
