"""Engines that are installed or running here, found without importing or loading them.

    find_program("llama-server")        # its path, or None
    find_engines()                      # nothing is run
    find_engines(ask_versions=True, ask_servers=True)

A llama.cpp of today prints ``version: 0.5.0-dev (build 7000, commit abcdef0)``, an older one
``version: 7000 (abcdef0)``; common/build-info.cpp.in and common/arg.cpp of ggml-org/llama.cpp.
"""

from __future__ import annotations

import re
from dataclasses import replace

from nemofit.errors import HardwareError

from ..machine.records import FoundEngine
from . import programs
from .served import ask_server
from .site import Site, this_site

ENGINES = ("llama.cpp", "ollama", "vllm", "transformers")
LLAMA_CPP = (
    "llama-server", "llama-cli", "llama-bench", "llama-fit-params", "llama-quantize", "llama",
)  # fmt: skip
"""Programs of llama.cpp; ``llama`` is all of them in one, each a subcommand (app/llama.cpp)."""
_TELL_VERSION = ("llama-server", "llama-cli", "llama-fit-params", "llama")
PORTS = {"llama.cpp": 8080, "ollama": 11434, "vllm": 8000}
"""Where their servers listen unless told otherwise."""
_VERSION = re.compile(
    r"^version: (?:(?P<old>\d{1,9}) \((?P<old_commit>\w{1,40})\)"
    r"|(?P<release>\S{1,40}) \(build (?P<build>\d{1,9}), commit (?P<commit>\w{1,40})\))",
    re.MULTILINE,
)
_VERSION_S = 5.0
"""A CUDA build that wakes the driver takes two seconds to print its version."""
_VERSION_LIMIT = 1 << 16
_FIRST_NUMBERED = 100
"""Builds are numbered by commits since 2023; a source archive has no history and says 0 or 1."""


def find_program(name: str, site: Site | None = None) -> str | None:
    """The path of a program, None where it is not found.

    Looked for where LLAMA_CPP_DIR points, on PATH, in VIRTUAL_ENV and in the places that installers
    use. On Windows without its ``.exe``.
    """
    found = programs.find(name, site or this_site())
    return found.path if found else None


def find_engines(
    site: Site | None = None, *, ask_versions: bool = False, ask_servers: bool = False
) -> tuple[FoundEngine, ...]:
    """Every engine that is here, in the order of ``ENGINES``.

    Args:
        site: Where to look; None: this machine.
        ask_versions: Run each program once with ``--version``, for a few seconds at most.
        ask_servers: Ask the ports of this machine where such servers listen.
    """
    site = site or this_site()
    found = [
        _llama_cpp(site, ask_versions),
        _ollama(site, ask_versions),
        _vllm(site),
        _transformers(site),
    ]
    if ask_servers:
        found = [_served(e, id, site) for e, id in zip(found, ENGINES, strict=True)]
    return tuple(e for e in found if e is not None)


def _llama_cpp(site: Site, ask: bool) -> FoundEngine | None:
    there = {name: p for name in LLAMA_CPP if (p := programs.find(name, site))}
    if not there:
        return None
    first = next(iter(there.values()))
    engine = FoundEngine(
        id="llama.cpp",
        path=first.path,
        source=first.source,
        programs={name: p.path for name, p in there.items()},
        version_note=_NOT_ASKED,
    )
    teller = next((there[n].path for n in _TELL_VERSION if n in there), None)
    if not ask:
        return engine
    if teller is None:
        return replace(engine, version_note="none of its programs tells a version")
    text, unclear = _version_text(teller)
    m = _VERSION.search(text)
    if m is None:
        return replace(engine, version_note=unclear)
    number, commit = int(m["old"] or m["build"]), m["commit"] or m["old_commit"]
    engine = replace(engine, version_note=None, commit=commit)
    if number >= _FIRST_NUMBERED:
        return replace(engine, version=f"b{number}", build=number)
    note = "built outside its repository: it does not know its build number"
    return replace(engine, version=m["release"], version_note=note)


def _ollama(site: Site, ask: bool) -> FoundEngine | None:
    program = programs.find("ollama", site)
    if program is None:
        return None
    engine = FoundEngine(
        id="ollama",
        path=program.path,
        source=program.source,
        programs={"ollama": program.path},
        version_note=_NOT_ASKED,
    )
    if not ask:
        return engine
    text, unclear = _version_text(program.path)
    m = re.search(r"version is (\d[\w.+-]{0,60})", text)
    if m is None:
        return replace(engine, version_note=unclear)
    return replace(engine, version=m[1], version_note=None)


def _vllm(site: Site) -> FoundEngine | None:
    program = programs.find("vllm", site)
    found = programs.packages(("vllm", "torch"), site, program.path if program else None)
    package = found.get("vllm")
    if program is None and package is None:
        return None
    return FoundEngine(
        id="vllm",
        path=program.path if program else package.folder if package else None,
        source=program.source if program else package.source if package else "",
        programs={"vllm": program.path} if program else {},
        version=package.version if package else None,
        version_note=None if package else "its Python package was not found beside the program",
        packages={name: p.version for name, p in found.items() if name != "vllm"},
    )


def _transformers(site: Site) -> FoundEngine | None:
    names = ("transformers", "torch", "accelerate", "bitsandbytes")
    found = programs.packages(names, site)
    package = found.get("transformers")
    if package is None:
        return None
    missing = (
        () if "torch" in found else ("torch is not installed beside it: it cannot run models",)
    )
    return FoundEngine(
        id="transformers",
        path=package.folder,
        source=package.source,
        version=package.version,
        packages={name: p.version for name, p in found.items() if name != "transformers"},
        notes=missing,
    )


_NOT_ASKED = "not asked: nemofit probe runs it with --version"


def _version_text(program: str) -> tuple[str, str]:
    """What it prints when asked for its version, and what to say where that tells none."""
    from .run import run

    try:
        said = run([program, "--version"], seconds=_VERSION_S, limit=_VERSION_LIMIT)
    except HardwareError as error:
        return "", error.message
    return said.text, f"{program} --version {said.why or 'printed nothing like a version'}"


def _served(engine: FoundEngine | None, id: str, site: Site) -> FoundEngine | None:
    """The engine with the server that answers for it; a server without a program counts too."""
    if id not in _SERVERS:
        return engine
    variable, path, key = _SERVERS[id]
    host, port, elsewhere = _address(site.environ.get(variable, ""), PORTS[id])
    if elsewhere is not None:
        return engine and replace(
            engine, notes=(*engine.notes, f"{variable} names {elsewhere}, not this machine")
        )
    answer = ask_server(host, port, path)
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, str) or len(value) > 100:
        return engine
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    if engine is None:
        engine = FoundEngine(id=id, source=url, version=value)
    note = None if engine.version in (None, value) else f"the server that runs is {value}"
    return replace(
        engine,
        server=url,
        server_version=value,
        notes=(*engine.notes, note) if note and id != "llama.cpp" else engine.notes,
    )


# Variable with the address, question, and the field of the answer that has the version.
_SERVERS = {
    "llama.cpp": ("", "/props", "build_info"),
    "ollama": ("OLLAMA_HOST", "/api/version", "version"),
    "vllm": ("", "/version", "version"),
}


def _address(text: str, port: int) -> tuple[str, int, str | None]:
    """Host and port to ask on this machine; third: the other machine that is named instead.

    Read as Ollama reads OLLAMA_HOST (envconfig/config.go): scheme, host and port may each be left
    out; an address to listen on everywhere is asked on loopback.
    """
    rest = text.strip(" \t\"'")
    scheme, mark, after = rest.partition("://")
    if mark:
        rest, port = after, {"http": 80, "https": 443}.get(scheme, port)
    rest = rest.partition("/")[0]
    if rest.startswith("["):
        host, _, said = rest[1:].partition("]")
    elif rest.count(":") == 1:
        host, _, said = rest.partition(":")
    else:
        host, said = rest, ""
    said = said.removeprefix(":")
    if said.isdecimal() and 0 < int(said[:6]) < 1 << 16:
        port = int(said)
    if host in ("::1", "::"):
        return "::1", port, None
    if host in ("", "0.0.0.0", "localhost") or re.fullmatch(r"127(\.\d{1,3}){3}", host):
        return "127.0.0.1", port, None
    return "", port, host[:80]
