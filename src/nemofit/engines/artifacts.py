"""What a person can run or install: one process, written for the reader that it is meant for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import quoting

FORMATS = ("shell", "script", "modelfile", "compose", "systemd", "python", "powershell")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A program to start.

    Attributes:
        words: The program and its arguments.
        variables: Environment that it needs beside what is there.
        title: What it does, a few words.
        comments: What a person should know before starting it, a line each.
    """

    words: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a Compose file needs beside the arguments.

    Attributes:
        name: The service.
        image: With its tag.
        arguments: Behind the image's entry point.
        variables: Set in the container.
        passed: Variables taken from whoever starts it, as they are.
        port: On loopback of the host and in the container.
        volumes: Host path or volume, and path in the container; variables in them are expanded.
        mounts: Directories of this machine as they are: path here, path there, writable.
        gpus: NVIDIA devices by UUID; None: all; empty: none.
        devices: Device files to pass in.
        shares_memory: Uses the host's shared memory.
    """

    name: str
    image: str
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    port: int
    volumes: tuple[tuple[str, str], ...] = ()
    mounts: tuple[tuple[str, str, bool], ...] = ()
    gpus: tuple[str, ...] | None = None
    devices: tuple[str, ...] = ()
    shares_memory: bool = False


def shell_line(process: Process) -> str:
    """One line for a POSIX shell."""
    settings = [f"{name}={quoting.posix([value])}" for name, value in process.variables.items()]
    return " ".join([*settings, quoting.posix(process.words)]) + "\n"


def powershell_line(process: Process) -> str:
    """One line for PowerShell."""
    settings = [
        f"$env:{name}={_always_quoted(value)};" for name, value in process.variables.items()
    ]
    words = [quoting.powershell(word) for word in process.words]
    if words[0].startswith("'"):
        words.insert(0, "&")
    return " ".join([*settings, *words]) + "\n"


def _always_quoted(value: str) -> str:
    quoted = quoting.powershell(value)
    return quoted if quoted.startswith("'") else f"'{quoted}'"


def shell_script(process: Process, before: Sequence[str] = ()) -> str:
    """A script for ``/bin/sh`` that becomes the program; further arguments go to it.

    Args:
        process: What it ends in.
        before: Lines of shell to run first.
    """
    lines = [
        "#!/bin/sh",
        *_comments([process.title, *process.comments]),
        "set -eu",
        *(f"export {name}={quoting.posix([v])}" for name, v in process.variables.items()),
        *before,
        f'exec {quoting.posix(process.words)} "$@"',
    ]
    return "\n".join(lines) + "\n"


def systemd_unit(process: Process) -> str:
    """A unit for ``systemctl --user``."""
    settings = [
        "Environment=" + quoting.systemd(f"{name}={value}", command=False)
        for name, value in process.variables.items()
    ]
    lines = [
        *_comments([*process.comments, "~/.config/systemd/user/NAME.service, then:",
                    "systemctl --user daemon-reload && systemctl --user enable --now NAME"]),
        "[Unit]",
        f"Description={quoting.comment(process.title).replace('%', '%%')}",
        "",
        "[Service]",
        *settings,
        "ExecStart=" + " ".join(quoting.systemd(word) for word in process.words),
        "Restart=on-failure",
        "RestartSec=5",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def text_of(process: Process, format: str) -> str:
    """A process in one of the formats that every program has."""
    return {
        "shell": shell_line,
        "powershell": powershell_line,
        "script": shell_script,
        "systemd": systemd_unit,
    }[format](process)


def compose_file(service: Service, comments: Iterable[str] = ()) -> str:
    """A Compose file with one service."""
    s = service
    lines = [
        *_comments(comments),
        "services:",
        f"  {s.name}:",
        f"    image: {quoting.yaml(s.image)}",
    ]
    lines += _list("command", [quoting.yaml(a) for a in s.arguments])
    settings = [quoting.yaml(f"{name}={value}") for name, value in s.variables.items()]
    lines += _list("environment", [*s.passed, *settings])
    lines += _list("ports", [quoting.yaml(f"127.0.0.1:{s.port}:{s.port}")])
    lines += _list("devices", [quoting.yaml(d) for d in s.devices])
    lines += _list("volumes", [*(f'"{here}:{there}"' for here, there in s.volumes), *_mounts(s)])
    if s.shares_memory:
        lines.append("    ipc: host")
    if s.gpus is None or s.gpus:
        lines += _reservation(s.gpus)
    named = [here for here, _ in s.volumes if "/" not in here]
    if named:
        lines += ["volumes:", *(f"  {name}:" for name in named)]
    return "\n".join(lines) + "\n"


def _mounts(service: Service) -> list[str]:
    """The long form: a path with a colon would be cut in two in the short one."""
    return [
        "type: bind\n"
        f"        source: {quoting.yaml(here)}\n"
        f"        target: {quoting.yaml(there)}\n"
        f"        read_only: {'false' if writable else 'true'}"
        for here, there, writable in service.mounts
    ]


def _reservation(gpus: Sequence[str] | None) -> list[str]:
    which = ["              count: all"]
    if gpus is not None:
        which = [
            "              device_ids:",
            *(f"                - {quoting.yaml(g)}" for g in gpus),
        ]
    return [
        "    deploy:",
        "      resources:",
        "        reservations:",
        "          devices:",
        "            - driver: nvidia",
        *which,
        "              capabilities: [gpu]",
    ]


def _list(key: str, items: Sequence[str]) -> list[str]:
    return [f"    {key}:", *(f"      - {item}" for item in items)] if items else []


def _comments(lines: Iterable[str]) -> list[str]:
    return [f"# {quoting.comment(line)}" for line in lines if line]
