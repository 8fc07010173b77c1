"""``nemofit launch --run``: start what was shown, watch it load, end it with all it began."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemofit.engines.ollama.launch import INSTALL
from nemofit.errors import HardwareError, UsageError
from nemofit.planner.launching import Artifact, Order
from nemofit.probe.served import ask_server
from nemofit.probe.usage import Sampler
from nemofit.units import gib

from . import output, scratch
from .commands.watch import Course, planned_bytes
from .options import Options

SILENT_S = 900.0
"""A server that neither writes nor takes memory for so long while it loads hangs; a download writes
its progress."""
_LOOK_S = 0.5
_END_S = 10.0
_READY = {"llama.cpp": (8080, "/health"), "vllm": (8000, "/v1/models")}
_TO_INSTALL = {
    "llama.cpp": "brew install llama.cpp, winget install llama.cpp, or "
    "conda install -c conda-forge llama.cpp",
    "vllm": "python3 -m pip install vllm",
}


def check(options: Options, engine: str) -> None:
    """Refuse what cannot be run, before anything is worked out.

    Raises:
        UsageError: Another machine, a format that is no command, or an engine run by hand.
    """
    if options.machine is not None:
        raise UsageError("--run runs on this machine, and --machine names another", "leave one out")
    if options.json:
        raise UsageError("--run shows and runs; there is no document of it", "leave --json out")
    if options.format not in (None, "shell"):
        raise UsageError(
            f"--run runs a command, not a {options.format}", "leave --format out, or save it"
        )
    if engine == "transformers":
        raise UsageError(
            "transformers is run by its script",
            "nemofit launch MODEL --engine transformers > run.py",
        )
    if engine == "ollama" and os.name == "nt":
        raise UsageError("--run with Ollama needs a POSIX shell", "leave --run out, and type it")


def run(artifact: Artifact, order: Order) -> None:
    """Run the artifact until it ends or Ctrl-C.

    Raises:
        HardwareError: The engine is not installed, its port is taken, it crashed or hangs.
    """
    engine = order.plan.engine
    if order.path is None:
        hint = _TO_INSTALL.get(engine) or INSTALL.get(order.machine.host.os)
        raise HardwareError(f"{artifact.program} is not installed here", hint)
    environ = {**os.environ, **artifact.variables}
    serves = artifact.program in ("llama-server", "vllm")
    if not serves:
        _attached(artifact, order, environ)
        return
    port = order.port or _READY[engine][0]
    _demand_free(port)
    with scratch.directory() as folder:
        _serve(artifact, order, environ, port, folder / "log")


def _demand_free(port: int) -> None:
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise HardwareError(
                f"port {port} cannot be had: {error.strerror or error}",
                f"--port {port + 1 if port < 65535 else 8080}",
            ) from error


def _attached(artifact: Artifact, order: Order, environ: dict[str, str]) -> None:
    """A program that talks to the person; of Ollama the line, with its Modelfile out of the way."""
    with scratch.directory() as folder:
        if order.plan.engine == "ollama":
            command, place = ["sh", "-c", artifact.text], str(folder)
        else:
            command, place = [str(order.path), *artifact.arguments], None
        code = subprocess.run(command, env=environ, cwd=place, check=False).returncode
    if code:
        raise HardwareError(f"{artifact.program} ended with status {code}", None)


def _serve(artifact: Artifact, order: Order, environ: dict[str, str], port: int, log: Path) -> None:
    with _started([str(order.path), *artifact.arguments], environ, log) as server:
        began = time.monotonic()
        peak = _loaded(server, order, port, log, artifact.program)
        took = time.monotonic() - began
        output.talk(f"ready after {took:.0f} s at http://127.0.0.1:{port}; Ctrl-C ends it")
        for line in peak:
            output.talk(line)
        try:
            code = server.wait()
        except KeyboardInterrupt:
            return
        if code:
            raise HardwareError(f"{artifact.program} ended with status {code}: {_last(log)}", None)


def _loaded(
    server: subprocess.Popen[bytes], order: Order, port: int, log: Path, program: str
) -> list[str]:
    """Watch until the server answers; what it took of each device then, in words.

    Raises:
        HardwareError: It ended or hangs.
    """
    course = Course(server.pid, planned_bytes(order.plan))
    sampler = Sampler(server.pid)
    moved, before = time.monotonic(), (-1, -1)
    path = _READY[order.plan.engine][1]
    try:
        with output.Live() as live:
            while ask_server("127.0.0.1", port, path) is None or server.poll() is not None:
                code = server.poll()
                if code is not None:
                    raise HardwareError(
                        f"{program} ended with {_status(code)} while it loaded: {_last(log)}",
                        "nemofit verify MODEL asks the engine itself before it loads",
                    )
                sample = sampler.sample()
                if sample.host is not None:
                    course.add(sample)
                    live.show(course.blocks)
                now = log.stat().st_size, 0 if sample.host is None else sample.host.resident or 0
                if now != before:
                    moved, before = time.monotonic(), now
                if time.monotonic() - moved > SILENT_S:
                    raise HardwareError(
                        f"{program} has done nothing for {SILENT_S:g} s: {_last(log)}",
                        "try again, or type the command to see all that it says",
                    )
                time.sleep(_LOOK_S)
    finally:
        sampler.close()
    return [
        f"{peak.device}: {gib(peak.peak_bytes)} of {gib(peak.planned_bytes)} planned"
        for peak in course.peaks()
        if peak.peak_bytes is not None and peak.planned_bytes
    ]


@contextmanager
def _started(
    command: list[str], environ: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own, which ends with the block."""
    with log.open("wb") as out:
        try:
            server = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        except OSError as error:
            raise HardwareError(
                f"{command[0]} cannot be started: {error.strerror or error}", "install it again"
            ) from error
    try:
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then see to it."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            if os.name == "nt":
                server.kill()
            else:
                os.killpg(server.pid, number)
        except (ProcessLookupError, PermissionError):
            pass
        try:
            server.wait(_END_S)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGTERM and os.name != "nt":
            continue  # its children may outlive it
        return


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"


def _last(log: Path) -> str:
    """The line of the log that says most: the last one that speaks of an error."""
    text = log.read_bytes()[-20_000:].decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower() or " E " in line] or lines
    return told[-1][:300] if told else "it said nothing"
