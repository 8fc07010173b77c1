"""Engines that run on this machine: which one is meant, and at what address."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.arguments import ServerArguments, parse_arguments
from nemofit.errors import HardwareError, NemofitError, UsageError
from nemofit.formats.load import load_model
from nemofit.probe.processes import Running, running
from nemofit.probe.served import ask_server

from .options import Options

SECONDS = 3.0
_URL = re.compile(r"(?:http://)?(127\.0\.0\.1|localhost|\[::1\])(?::(\d{1,5}))?/?")
_OLLAMA_PORT = 11434


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """A llama-server of this user: its process, how it was started, and its ``/props``."""

    process: Running
    arguments: ServerArguments
    props: dict[str, object]

    @property
    def build(self) -> str | None:
        """Its version, by its own word."""
        said = self.props.get("build_info")
        return said if isinstance(said, str) else None

    def naming(self, options: Options) -> Options:
        """The options with the model that it runs, where none was named.

        Raises:
            UsageError: It is not known.
        """
        path = self.props.get("model_path") or self.arguments.path
        if options.model is None and isinstance(path, str) and os.path.isfile(path):
            return replace(options, model=path)
        if options.model is None:
            raise UsageError("what the server runs is not known here", "name the model as well")
        return options


@dataclass(frozen=True, slots=True)
class OllamaServer:
    """An Ollama that answers: its address, and its ``/api/ps``."""

    host: str
    port: int
    answer: object


def find(options: Options) -> tuple[LlamaServer | OllamaServer, list[str]]:
    """The engine at ``--url``, else the first llama-server of this user, else Ollama.

    Returns:
        It, and notes about others that run.

    Raises:
        UsageError: The address is none of this machine.
        HardwareError: None answers.
    """
    place = None if options.url is None else address(options.url)
    if place is not None:
        answer = ask_server(*place, "/api/ps", SECONDS)
        if isinstance(answer, dict) and "models" in answer:
            return OllamaServer(*place, answer), []
    servers = [p for p in running(("llama-server", "llama")) if p.parent != "ollama"]
    known = [(p, parse_arguments(p.command)) for p in servers]
    if place is not None:
        known = [(p, a) for p, a in known if a.port == place[1]]
        if not known:
            raise HardwareError(
                f"no llama-server of this user and no Ollama answers at {options.url:.200}",
                "name the port that it listens on, for example --url http://127.0.0.1:8080",
            )
    if known:
        process, arguments = known[0]
        props = ask_server("127.0.0.1", arguments.port, "/props", SECONDS)
        notes = [f"also running: process {p.pid} at port {a.port}: --url" for p, a in known[1:]]
        said = props if isinstance(props, dict) else {}
        return LlamaServer(process, arguments, said), notes
    port = _ollama_port()
    answer = ask_server("127.0.0.1", port, "/api/ps", SECONDS)
    if answer is None:
        raise HardwareError(
            f"no llama-server runs here, and no Ollama answers at port {port}",
            "start one, or name its address with --url",
        )
    return OllamaServer("127.0.0.1", port, answer), []


def model_of_tag(name: str) -> ModelSpec:
    """The model behind Ollama's tag: its file in the store, else the catalog's of that name.

    Raises:
        UsageError: Neither.
    """
    for candidate in (f"ollama:{name}", name, name.partition(":")[0]):
        try:
            return load_model(candidate)
        except NemofitError:
            continue
    raise UsageError(
        f"{name!r:.100} is neither readable in Ollama's store nor in the catalog",
        "name the model as well",
    )


def address(url: str) -> tuple[str, int]:
    """Host and port of an engine on this machine.

    Raises:
        UsageError: It is another machine's, or no address.
    """
    found = _URL.fullmatch(url.strip())
    if found is None:
        raise UsageError(
            f"{url!r:.200} is no address of this machine", "for example http://127.0.0.1:8080"
        )
    return "::1" if found[1] == "[::1]" else "127.0.0.1", int(found[2] or 80)


def _ollama_port() -> int:
    found = _URL.fullmatch(os.environ.get("OLLAMA_HOST", "").strip().rstrip("/") or "localhost")
    return int(found[2] or _OLLAMA_PORT) if found else _OLLAMA_PORT
