"""Engines found: the real llama.cpp, and programs that hang, crash or print garbage."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine, programs

from nemofit.machine.records import FoundEngine
from nemofit.probe import engines
from nemofit.probe.engines import find_engines, find_program
from nemofit.probe.run import run
from nemofit.probe.site import Site

posix = pytest.mark.skipif(sys.platform == "win32", reason="stands in with shell scripts")


def program(folder: Path, name: str, body: str) -> Path:
    """An executable shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def here(folder: Path, **more: str) -> Site:
    """A site whose PATH is one folder of an otherwise empty root."""
    return Site(root=str(folder), environ={"PATH": "/bin", **more})


def only(site: Site, **ask: bool) -> FoundEngine:
    (engine,) = find_engines(site, **ask)
    return engine


def test_the_real_llama_cpp(engine: Engine) -> None:
    """Its programs are found by a hint at the build folder, its version line is understood."""
    del engine
    folder = programs()
    site = Site(environ={"LLAMA_CPP_DIR": str(folder.parent)})
    assert find_program("llama-server", site) == str(folder / "llama-server")
    found = find_engines(site, ask_versions=True)[0]
    assert (found.id, found.source) == ("llama.cpp", "LLAMA_CPP_DIR")
    assert found.programs["llama-fit-params"] == str(folder / "llama-fit-params")
    assert found.commit is not None
    assert found.version is not None
    said = run([str(folder / "llama-server"), "--version"], seconds=10)
    assert found.commit in said.text
    assert (found.build is None) == ("built outside" in (found.version_note or ""))


def test_nothing_is_run_unless_asked(tmp_path: Path) -> None:
    program(tmp_path / "bin", "llama-server", f"touch {tmp_path}/ran")
    program(tmp_path / "bin", "ollama", f"touch {tmp_path}/ran")
    found = find_engines(here(tmp_path))
    assert [e.id for e in found] == ["llama.cpp", "ollama"]
    assert all(e.version is None and "nemofit probe" in (e.version_note or "") for e in found)
    assert not (tmp_path / "ran").exists()


@posix
@pytest.mark.parametrize(
    ("body", "version", "build", "note"),
    [
        ("echo 'version: 6713 (d2ee056e1)' >&2", "b6713", 6713, ""),
        ("echo 'version: 0.5.0-dev (build 7000, commit abcdef0)'", "b7000", 7000, ""),
        ("echo 'load_backend: CUDA'; echo 'version: 6713 (d2ee056e1)'", "b6713", 6713, ""),
        ("echo 'version: 0.5.0 (build 0, commit unknown)'", "0.5.0", None, "built outside"),
        ("echo 'usage: main [options]'; exit 1", None, None, "ended with status 1"),
        ("echo hello", None, None, "nothing like a version"),
        ("kill -SEGV $$", None, None, "ended by signal 11"),
        ("exec sleep 60", None, None, "no answer within"),
        ("sleep 60 & wait", None, None, "no answer within"),
        ("yes '\377\376garbage'", None, None, "more than 64 KiB"),
        ("printf 'version: 99999999999999999999 (x)'", None, None, "nothing like a version"),
    ],
)
def test_what_llama_cpp_may_say(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    version: str | None,
    build: int | None,
    note: str,
) -> None:
    """Lines as common/arg.cpp of ggml-org/llama.cpp printed them in 2025 and prints them now."""
    monkeypatch.setattr(engines, "_VERSION_S", 1.0)
    program(tmp_path / "bin", "llama-server", body)
    found = only(here(tmp_path), ask_versions=True)
    assert (found.version, found.build) == (version, build)
    assert note in (found.version_note or "")
    assert (found.version_note is None) == (not note)


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    path = program(tmp_path / "bin", "ollama", "")
    path.write_bytes(b"\x7fELF nothing behind it")
    found = only(here(tmp_path), ask_versions=True)
    assert "cannot be started" in (found.version_note or "")
    path.chmod(0o644)
    assert find_engines(here(tmp_path)) == ()


@posix
@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("ollama version is 0.12.3", "0.12.3"),
        (
            "Warning: could not connect to a running Ollama instance\\n"
            "Warning: client version is 0.12.3",
            "0.12.3",
        ),
        ("ollama version is unknown", None),
    ],
)
def test_ollama(tmp_path: Path, text: str, version: str | None) -> None:
    """As cmd/cmd.go of ollama/ollama prints it, with and without a server."""
    program(tmp_path / "bin", "ollama", f"printf '{text}\\n'")
    assert only(here(tmp_path), ask_versions=True).version == version


@pytest.mark.parametrize(
    ("system", "environ", "place"),
    [
        ("linux", {"LLAMA_CPP_DIR": "/opt/x"}, "/opt/x/build/bin/llama-server"),
        ("linux", {"HOME": "/home/me"}, "/home/me/.local/bin/llama-server"),
        ("linux", {}, "/home/linuxbrew/.linuxbrew/bin/llama-server"),
        ("linux", {"VIRTUAL_ENV": "/v"}, "/v/bin/llama-server"),
        ("darwin", {}, "/opt/homebrew/bin/llama-server"),
        ("darwin", {}, "/Applications/Ollama.app/Contents/Resources/ollama"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/Programs/Ollama/ollama.exe"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/Microsoft/WinGet/Links/llama-server.exe"),
        ("win32", {"PATH": "/a;/b"}, "/b/llama-server.exe"),
    ],
)
def test_places(tmp_path: Path, system: str, environ: dict[str, str], place: str) -> None:
    path = tmp_path / place.lstrip("/")
    program(path.parent, path.name, "")
    site = Site(root=str(tmp_path), environ=environ, system=system)
    name = path.name.removesuffix(".exe")
    assert find_program(name, site) == str(path)
    assert only(site).programs == {name: str(path)}


def test_the_working_folder_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with an empty or a relative entry must not run what lies in a downloaded folder."""
    program(tmp_path, "llama-server", "")
    monkeypatch.chdir(tmp_path)
    assert find_program("llama-server", Site(root=str(tmp_path / "r"), environ={"PATH": ":."})) is (
        None
    )


@pytest.mark.parametrize("by", ["VIRTUAL_ENV", "CONDA_PREFIX", "python_path", "program"])
def test_python_engines(tmp_path: Path, by: str) -> None:
    """By the metadata folders that pip leaves; nothing of them is read or imported."""
    base = tmp_path / "venv/lib/python3.12/site-packages"
    for name in ("vllm-0.11.0+cu129", "torch-2.8.0", "transformers-4.57.1", "Not_Ours-1.0"):
        (base / f"{name}.dist-info").mkdir(parents=True)
    if by == "program":
        program(tmp_path / "venv/bin", "vllm", "exit 1")
        site = Site(root=str(tmp_path), environ={"PATH": "/venv/bin"})
    elif by == "python_path":
        site = Site(root=str(tmp_path), python_path=("/venv/lib/python3.12/site-packages", ""))
    else:
        site = Site(root=str(tmp_path), environ={by: "/venv"})
    found = {e.id: e for e in find_engines(site, ask_versions=True)}
    assert found["vllm"].version == "0.11.0+cu129"
    assert found["vllm"].packages == {"torch": "2.8.0"}
    if by != "program":
        assert found["transformers"].version == "4.57.1"


def test_transformers_without_torch(tmp_path: Path) -> None:
    (tmp_path / "p/transformers-4.57.1.dist-info").mkdir(parents=True)
    found = only(Site(root=str(tmp_path), python_path=("/p",)))
    assert any("torch is not installed" in note for note in found.notes)


def test_this_python_agrees_with_importlib() -> None:
    from importlib.metadata import version

    from nemofit.probe.programs import packages
    from nemofit.probe.site import this_site

    found = packages(("pytest", "typer"), this_site())
    assert found["pytest"].version == version("pytest")
    assert found["typer"].version == version("typer")


@contextmanager
def serving(answers: dict[str, bytes], delay_s: float = 0.0) -> Iterator[int]:
    """A server on loopback; gives its port."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stop.wait(delay_s)
            body = answers.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_args: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        stop.set()
        server.shutdown()


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Point the default ports at ports where nobody listens, or at those that are given."""

    def set_ports(ports: dict[str, int]) -> None:
        for id in engines.PORTS:
            monkeypatch.setitem(engines.PORTS, id, ports.get(id, 1))

    set_ports({})
    return set_ports


def test_servers_without_programs(tmp_path: Path, closed: Callable[..., None]) -> None:
    """In a container of their own, for one; the answers' fields as their sources write them."""
    props = json.dumps({"build_info": "b6713-d2ee056e", "model_path": "x.gguf"}).encode()
    with (
        serving({"/api/version": b'{"version":"0.12.3"}'}) as ollama,
        serving({"/props": props}) as server,
    ):
        closed({"llama.cpp": server})
        site = here(tmp_path, OLLAMA_HOST=f"http://0.0.0.0:{ollama}/")
        found = {e.id: e for e in find_engines(site, ask_servers=True)}
        assert find_engines(site) == ()
    assert found["ollama"].server == f"http://127.0.0.1:{ollama}"
    assert found["ollama"].version == "0.12.3"
    assert found["llama.cpp"].server_version == "b6713-d2ee056e"
    assert found["llama.cpp"].path is None


def test_another_server_version(tmp_path: Path, closed: Callable[..., None]) -> None:
    del closed
    program(tmp_path / "bin", "ollama", "echo ollama version is 0.12.3")
    with serving({"/api/version": b'{"version":"0.11.0"}'}) as port:
        site = here(tmp_path, OLLAMA_HOST=f":{port}")
        found = only(site, ask_versions=True, ask_servers=True)
    assert found.version == "0.12.3"
    assert found.server_version == "0.11.0"
    assert "0.11.0" in found.notes[-1]


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"version": 3}', b"{" * 100_000, b'{"version":"' + b"x" * 70_000]
)
def test_another_server_on_the_port(
    tmp_path: Path, closed: Callable[..., None], body: bytes
) -> None:
    del closed
    with serving({"/api/version": body}) as port:
        assert find_engines(here(tmp_path, OLLAMA_HOST=f":{port}"), ask_servers=True) == ()


def test_a_server_that_hangs(tmp_path: Path, closed: Callable[..., None]) -> None:
    del closed
    with serving({"/api/version": b'{"version":"1"}'}, delay_s=20) as port:
        assert find_engines(here(tmp_path, OLLAMA_HOST=f":{port}"), ask_servers=True) == ()


def test_another_machines_server_is_not_asked(tmp_path: Path, closed: Callable[..., None]) -> None:
    del closed
    program(tmp_path / "bin", "ollama", "")
    found = only(here(tmp_path, OLLAMA_HOST="gpu-box.example:11434"), ask_servers=True)
    assert found.server is None
    assert "gpu-box.example, not this machine" in found.notes[-1]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("127.0.0.1", 11434)),
        ("0.0.0.0", ("127.0.0.1", 11434)),
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("http://localhost", ("127.0.0.1", 80)),
        ("https://127.0.0.1", ("127.0.0.1", 443)),
        ("[::]:5000", ("::1", 5000)),
        ("::1", ("::1", 11434)),
        ("[::1]:1337", ("::1", 1337)),
        (":66000", ("127.0.0.1", 11434)),
        (":-1", ("127.0.0.1", 11434)),
        (' " 0.0.0.0 " ', ("127.0.0.1", 11434)),
        ("http://127.0.0.1:4321", ("127.0.0.1", 4321)),
        ("https://example.com/ollama", None),
        ("example.com:56789", None),
        ("10.0.0.7", None),
    ],
)
def test_ollama_host(text: str, address: tuple[str, int] | None) -> None:
    """Ports and forms as TestHost in envconfig/config_test.go of ollama/ollama has them."""
    host, port, elsewhere = engines._address(text, 11434)
    assert (None if elsewhere else (host, port)) == address
