"""transformers: a Python script, or a shell script that installs what it needs and runs it."""

from __future__ import annotations

import shlex

from nemofit.engines.devices import visibility
from nemofit.engines.quoting import comment
from nemofit.engines.transformers import launch
from nemofit.errors import UsageError

from ..checkpoints import TransformersPlan
from .records import Artifact, Order

FORMATS = ("python", "script")


def make(order: Order) -> Artifact:
    """The artifact of a plan for transformers."""
    plan = order.plan
    assert isinstance(plan, TransformersPlan)
    if order.program is not None:
        raise UsageError("transformers has no programs", "leave --program out")
    if order.port is not None:
        raise UsageError("the script of transformers is no server", "leave --port out")
    model = str(order.folder / plan.checkpoint) if plan.is_local else plan.checkpoint
    variables = visibility(order.cards, order.used)
    if order.directory is not None:
        variables["HF_HUB_CACHE"] = str(order.folder / order.directory)
    script = launch.script(plan.config, model, variables=variables)
    comments = "".join(f"# {comment(c)}\n" for c in (*_placed(plan), *order.comments) if c)
    text = comments + script
    if order.format == "script":
        text = _shell(order, plan, text)
    install = launch.install_command(plan.config)
    return Artifact(
        text=text,
        program="python3",
        variables=variables,
        notes=() if order.format == "script" else (f"to install what it needs: {install}",),
    )


def _placed(plan: TransformersPlan) -> list[str]:
    """Where the modules will lie."""
    lines: dict[int | str, list[str]] = {}
    for name, device in plan.device_map.items():
        lines.setdefault(device, []).append(name)
    return [
        f"{plan.title}",
        *(
            f"{'GPU ' if isinstance(device, int) else ''}{device}: {', '.join(names)}"
            for device, names in lines.items()
        ),
    ]


def _shell(order: Order, plan: TransformersPlan, script: str) -> str:
    """A virtual environment beside the script, then Python with the script on its input."""
    lines = [
        "#!/bin/sh",
        *(f"# {comment(c)}" for c in order.comments if c),
        "set -eu",
        'folder="${XDG_CACHE_HOME:-$HOME/.cache}/nemofit-transformers"',
        '[ -x "$folder/bin/python" ] || python3 -m venv "$folder"',
        '"$folder/bin/python" -m pip install -q ' + shlex.join(launch.requirements(plan.config)),
        f"printf '%s' {shlex.quote(script)} | \"$folder/bin/python\" -",
    ]
    return "\n".join(lines) + "\n"
