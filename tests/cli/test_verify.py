"""``nemofit verify`` on the real llama.cpp, on logs, and on engines that fail in every way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import ModelFiles, cut
from command_lines import TWO_CARDS, Say
from live_server import LiveServer
from test_contract import validate

import nemofit

MODEL = ("llama-3.2-1b", "-q", "Q4_K_M", "-c", "4096")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files that must be empty in the end."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return place


def folder_of(engine: Engine) -> str:
    return str(Path(engine._programs["llama-server"]).parent)


def fake(tmp_path: Path, script: str) -> str:
    """A directory with a llama-fit-params that is a shell script."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program = folder / "llama-fit-params"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


def test_the_installed_engine_agrees_about_this_machine(
    engine: Engine, say: Say, temporary: Path
) -> None:
    """A catalog model: nothing is downloaded, nothing is left behind."""
    said = say("verify", *MODEL, "--program", folder_of(engine), "--json")
    assert said.code == 0, said
    document = said.json
    validate(document, say)
    assert document["verdict"] == "agrees" and document["source"] == "projection"
    assert engine.version() == document["engine"]["version"]
    rows = {f["kind"]: f for f in document["figures"] if f["device"] == "Host"}
    assert set(rows) == {"weights", "KV cache", "compute"}
    assert all(f["predicted"] // 2**20 * 2**20 == f["engine"] for f in rows.values())
    assert not list(temporary.iterdir())


def test_a_file_that_lies_here_and_a_card_left_out(
    engine: Engine, model_files: ModelFiles, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan needs one card of two: the engine is told which, by its own name for it."""
    path = model_files.path(nemofit.load_model("qwen3-30b-a3b"), "Q4_K_M")
    monkeypatch.setenv("LLAMA_ARG_RPC", engine._rpc(2)[1])
    said = say("verify", str(path), "-c", "8k", "--kv-type", "q8_0", "--machine", TWO_CARDS,
               "--tensor-split", "1,1", "--program", engine._programs["llama-server"])  # fmt: skip
    assert said.code == 0, said
    assert "the engine agrees to the last digit it prints" in said.out
    assert "the devices are rpc's, not cuda's as in the plan" in said.out


def test_a_file_that_lies_elsewhere(engine: Engine, model_files: ModelFiles, say: Say) -> None:
    """Its header is fetched, no weight is: the engine sees the shape and the types."""
    from tests.formats.serving import serve

    path = model_files.path(nemofit.load_model("smollm2-135m"), "Q4_K_M")
    with serve() as site:
        site.files["/m/smollm2-Q4_K_M.gguf"] = path.read_bytes()
        url = f"{site.url}/m/smollm2-Q4_K_M.gguf"
        said = say("verify", url, "-c", "4096", "--program", folder_of(engine), "--json")
        sent = site.sent
    assert said.code == 0, said
    assert said.json["quant"] == "Q4_K_M" and said.json["verdict"] == "agrees"
    assert sent < path.stat().st_size / 100


def test_a_plan_for_two_cards_on_two_devices(
    engine: Engine, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_RPC", engine._rpc(2)[1])
    said = say("verify", "nemotron", "-q", "Q4_K_M", "--machine", TWO_CARDS, "--json",
               "--program", folder_of(engine))  # fmt: skip
    assert said.code == 0, said
    assert {f["device"] for f in said.json["figures"]} == {"RPC0", "RPC1", "Host"}
    assert len(said.json["figures"]) == 8


def test_a_build_without_the_cards_is_no_agreement(engine: Engine, say: Say) -> None:
    said = say("verify", "nemotron", "-q", "Q4_K_M", "--machine", TWO_CARDS,
               "--program", folder_of(engine))  # fmt: skip
    assert said.code == 5
    assert "uses 0 GPUs (none), the plan has 2" in said.err


FAILURES = {
    "too old": ("echo 'error: invalid argument: -fitp' >&2; exit 1", 5, "does not know -fitp"),
    "crash": ("kill -SEGV $$", 5, "ended with signal 11"),
    "silence": ("exit 0", 5, "printed no memory figures but 'nothing'"),
    "other print": ("echo '-c 8192 -ngl 99'", 5, "printed no memory figures but '-c 8192"),
    "refusal": (
        "echo \"E llama_model_load: error loading model: unknown model architecture: 'x'\" >&2;"
        "kill -ABRT $$",
        3,
        "refuses it: unknown model architecture: 'x'",
    ),
    "another answer": ("echo 'Host 1 2 3 '", 3, ""),
}


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for the engine")
@pytest.mark.parametrize("script, code, message", FAILURES.values(), ids=FAILURES)
def test_every_failure_is_one_line_and_leaves_nothing(
    script: str, code: int, message: str, say: Say, tmp_path: Path, temporary: Path
) -> None:
    said = say("verify", *MODEL, "--machine", "32 GiB RAM", "--program", fake(tmp_path, script))
    assert said.code == code, said
    assert message in said.err
    assert len(said.err.splitlines()) <= 2
    assert not list(temporary.iterdir())
    if not message:
        assert "the engine differs: " in said.out


def test_all_programs_in_one(engine: Engine, say: Say, tmp_path: Path) -> None:
    """llama.cpp's installer brings ``llama`` alone, with the others as its words."""
    program = tmp_path / "llama"
    real = engine._programs["llama-fit-params"]
    program.write_text(f'#!/bin/sh\n[ "$1" = fit-params ] || exit 9\nshift\nexec {real} "$@"\n')
    program.chmod(0o755)
    said = say("verify", *MODEL, "--machine", "32 GiB RAM", "--program", str(tmp_path), "--json")
    assert said.code == 0, said
    assert said.json["engine"]["program"] == f"{program} fit-params"


def test_it_agrees_that_there_is_not_enough_room(engine: Engine, say: Say) -> None:
    said = say("verify", "nemotron", "-q", "Q8_0", "--machine", "16 GiB RAM",
               "--program", folder_of(engine))  # fmt: skip
    assert (said.code, "and it does not fit" in said.out) == (3, True), said


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for the engine")
def test_an_engine_that_hangs_is_ended(
    say: Say, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemofit.cli.commands import verify

    monkeypatch.setattr(verify, "_SECONDS", 0.5)
    monkeypatch.setattr(verify, "_ASIDE_SECONDS", 10.0)
    folder = fake(tmp_path, 'case "$*" in *fitp*) sleep 60;; esac')
    said = say("verify", *MODEL, "--machine", "32 GiB RAM", "--program", folder)
    assert (said.code, "did not answer within 0.5 s" in said.err) == (5, True)
    assert not list(temporary.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(number: int, tmp_path: Path, temporary: Path) -> None:
    """While the engine runs: its process ends, and so does the directory."""
    mark = tmp_path / "running"
    folder = fake(tmp_path, f'case "$*" in *fitp*) echo $$ > {mark}; exec sleep 60;; esac')
    process = subprocess.Popen(
        [sys.executable, "-m", "nemofit", "verify", *MODEL, "--machine", "32 GiB RAM",
         "--program", folder],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (mark.exists() and mark.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(temporary.iterdir())
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert not list(temporary.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_no_place_for_temporary_files(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    said = say("verify", *MODEL, "--machine", "32 GiB RAM", "--program", fake(tmp_path, "exit 0"))
    assert (said.code, "no temporary directory can be made" in said.err) == (5, True)


def test_a_disk_without_holes_is_not_filled(
    say: Say, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system takes every byte for real and has not the room: seen before it is written."""
    import shutil

    real = os.fstat

    class Full:
        free = 1 << 30

    def filled(fd: int) -> os.stat_result:
        found = list(real(fd))
        return os.stat_result(found, {"st_blocks": 1 << 40})

    monkeypatch.setattr("nemofit.formats.gguf.writer.os.fstat", filled)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    said = say("verify", "nemotron", "-q", "Q4_K_M", "--machine", "64 GiB RAM",
               "--program", fake(tmp_path, "exit 0"))  # fmt: skip
    assert (said.code, "keeps no sparse files" in said.err) == (5, True)
    assert not list(temporary.iterdir())


def test_what_is_not_installed_says_how_to_get_it(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = say("verify", *MODEL)
    assert said.code == 5
    assert "llama-fit-params was not found on PATH" in said.err
    assert "github.com/ggml-org/llama.cpp/releases" in said.err


MISTAKES = {
    "nothing": ((), "what to verify is not said"),
    "both": (("--running", "--log", "x"), "ask different things"),
    "no program": ((*MODEL, "--program", "/no/such/place"), "does not exist"),
    "other engine": ((*MODEL, "--engine", "ollama"), "no program that answers before a download"),
    "no log": (("--log", "/no/such/log"), "cannot read"),
    "directory": (("--log", "/"), "is not a file"),
}


@pytest.mark.parametrize("args, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(args: tuple[str, ...], message: str, say: Say) -> None:
    said = say("verify", *args)
    assert (said.code, message in said.err) == (2, True), said


def test_the_log_of_a_real_load_matches_its_plan(
    engine: Engine, model_files: ModelFiles, say: Say, tmp_path: Path
) -> None:
    """llama-server over two devices, split 5 to 4: model, knobs and split come from the log."""
    path = model_files.path(cut(nemofit.load_model("qwen3-4b"), 8), "Q4_K_M")
    log = tmp_path / "server.log"
    flags = ("-c", "6144", "-np", "2", "-ub", "256", "-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0",
             "-ngl", "9", "-ts", "5,4", "-nr")  # fmt: skip
    with LiveServer(engine, path, log, *flags, devices=2) as server:
        server.wait()
    said = say("verify", "--log", str(log), "--json")
    assert said.code == 0, said
    document = said.json
    validate(document, say)
    config = document["config"]
    expected = {
        "context": 6144, "parallel": 2, "ubatch": 256, "kv_type_k": "q8_0", "gpu_layers": 9,
        "tensor_split": [5, 4], "flash_attention": True, "backend": "rpc",
    }  # fmt: skip
    assert expected == {name: config[name] for name in expected}
    assert len(document["figures"]) == 8
    for figure in document["figures"]:
        assert abs(figure["predicted"] - figure["engine"]) <= figure["resolution"], figure


def test_a_log_alone_is_shown_and_not_called_compared(say: Say, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("load_tensors: CUDA0 model buffer size =   974.88 MiB\n")
    said = say("verify", "--log", str(log))
    assert (said.code, "974.88 MiB" in said.out) == (5, True)
    assert "nemofit verify MODEL --log FILE" in said.out


def test_a_log_of_vllm(say: Say, tmp_path: Path) -> None:
    """vllm-project/vllm issue 15815: two L40S, Qwen 2.5 32B."""
    log = tmp_path / "vllm.log"
    log.write_text(
        "INFO 04-02 10:20:45 model_runner.py:1116] Loading model weights took 30.7098 GB\n"
        "(VllmWorkerProcess pid=9) INFO 04-02 10:20:50 model_runner.py:1116] Loading model weights"
        " took 30.7098 GB\n"
        "INFO 04-02 10:20:55 worker.py:266] the current vLLM instance can use total_gpu_memory "
        "(44.42GiB) x gpu_memory_utilization (0.90) = 39.98GiB\n"
    )
    args = ("qwen2.5-32b", "--log", str(log), "--machine", "2x L40S, 128 GiB RAM", "--json")
    said = say("verify", *args)
    assert said.code == 0, said
    document = said.json
    validate(document, say)
    kinds = {f["kind"]: f["agrees"] for f in document["figures"]}
    assert kinds == {"requested": True, "weights": True}


def test_noise_for_a_log_is_refused_quickly(say: Say, tmp_path: Path) -> None:
    log = tmp_path / "noise"
    log.write_bytes(os.urandom(1 << 22) + b"size = MiB" * (1 << 20))
    said = say("verify", "--log", str(log), "--json")
    assert said.code == 2
    assert json.loads(said.out)["schema"] == "nemofit/error/1"
