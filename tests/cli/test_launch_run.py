"""``nemofit launch --run`` with the real llama-server, and with programs that crash and hang."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine, programs
from benchmarks.accuracy.sparse import cut
from command_lines import Say

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.formats.gguf.writer import write_sparse

BUILT = programs()  # before the tests move the cache


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def model(tmp_path: Path) -> str:
    shape = cut(find_model("qwen2.5-0.5b").spec(), 3)
    path = tmp_path / "model.gguf"
    write_sparse(path, shape, tensor_types(shape, "Q8_0"))
    return str(path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("LLAMA_CPP_DIR", "LLAMA_CPP_PATH", "LLAMA_CPP_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder


HELP = "\n".join(
    f"{flags} X  what it does" + " " * 20
    for flags in ("-m, --model", "-c, --ctx-size", "-ngl, --gpu-layers", "-fa, --flash-attn",
                  "-np, --parallel", "-dev, --device", "-ctk", "-ctv", "--port")
)  # fmt: skip


def install(folder: Path, body: str) -> None:
    path = folder / "llama-server"
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        f"if '--help' in sys.argv: print({HELP!r}); sys.exit()\n{body}\n"
    )
    path.chmod(0o755)


def running_with(words: str) -> list[int]:
    """Processes whose command line has these words."""
    import psutil

    return [p.pid for p in psutil.process_iter() if words in " ".join(_line(p))]


def _line(process: object) -> list[str]:
    import psutil

    try:
        return list(process.cmdline())  # type: ignore[attr-defined]
    except psutil.Error:
        return []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_real_server_runs_until_it_is_asked_to_end(
    engine: Engine, model: str, tmp_path: Path, ending: signal.Signals
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "nemofit", "launch", model, "-c", "512", "--run",
               "--program", str(BUILT), "--port", str(port)]  # fmt: skip
    out, err = tmp_path / "out", tmp_path / "err"
    environ = {**os.environ, "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "c")}
    with out.open("wb") as o, err.open("wb") as e:
        process = subprocess.Popen(command, stdout=o, stderr=e, env=environ)
    try:
        for _ in range(600):
            if b"ready after" in err.read_bytes():
                break
            assert process.poll() is None, err.read_text()
            time.sleep(0.05)
        assert out.read_text().startswith(f"llama-server -m {model} -c 512 ")
        assert "planned" in err.read_text()
        assert len(running_with(model)) == 2
        process.send_signal(ending)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert running_with(model) == []
    assert not list(tmp_path.glob("nemofit-*"))


def said(say: Say, model: str, *more: str) -> str:
    """The one line of an error."""
    done = say("launch", model, "-c", "512", "--run", *more)
    assert done.code == 5
    [line] = [x for x in done.err.splitlines() if x.startswith("error: ")]
    return line


def test_a_port_in_use_is_one_line(say: Say, model: str, installed: Path) -> None:
    install(installed, "sys.exit(1)")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} cannot be had" in said(say, model, "--port", str(port))


def test_a_crash_is_one_line_with_the_engines_own_words(
    say: Say, model: str, installed: Path
) -> None:
    install(installed, "print('error: out of memory', flush=True); print('bye'); sys.exit(3)")
    line = said(say, model, "--port", str(free_port()))
    assert "ended with status 3 while it loaded: error: out of memory" in line
    install(installed, "os.kill(os.getpid(), 11)")
    assert "signal 11" in said(say, model, "--port", str(free_port()))


def test_a_server_that_hangs_is_ended(
    say: Say, model: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemofit.cli.running.SILENT_S", 1.0)
    install(installed, "print('loading', flush=True); time.sleep(300)")
    line = said(say, model, "--port", str(free_port()))
    assert "has done nothing for 1 s: loading" in line
    assert running_with(str(installed / "llama-server")) == []


def test_without_the_engine_it_is_said_how_to_get_it(
    say: Say, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemofit.probe.find_program", lambda *_: None)
    done = say("launch", model, "-c", "512", "--run")
    assert done.code == 5
    assert "llama-server is not installed here" in done.err and "install llama.cpp" in done.err


@pytest.mark.parametrize(
    "args",
    [("--machine", "16 GiB RAM"), ("--json",), ("--format", "compose"),
     ("--engine", "transformers")],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_before_anything(say: Say, args: tuple[str, ...]) -> None:
    assert say("launch", "nemotron", "--run", *args).code == 2
