"""``nemofit launch``: the artifact alone on stdout, all talk on stderr, one line for a no."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import NO_CARD, TWO_CARDS, Say


def test_stdout_is_the_artifact_alone(say: Say) -> None:
    """The script is what stands in the document; licence, size and speed are said beside it."""
    args = ("launch", "nemotron", "--format", "script", "--machine", TWO_CARDS)
    said, document = say(*args), say(*args, "--json").json
    assert said.code == 0
    assert said.out == document["artifact"]
    assert said.out.startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-n"], input=said.out.encode(), timeout=20).returncode == 0
    for words in ("licence: NVIDIA", "conditions: ", "download: bartowski/", "tokens per second"):
        assert words in said.err
    assert document["plan"]["command"].endswith(" ".join(document["arguments"]))
    assert document["download"]["bytes"] == document["plan"]["memory"]["file_bytes"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--machine", NO_CARD, "-q", "Q8_0", "-c", "8k"), 3, "does not fit"),
        (("--machine", NO_CARD, "--engine", "vllm"), 3, "vLLM needs"),
        (("--machine", NO_CARD, "--engine", "transformers"), 3, "fits neither"),
        (("--machine", TWO_CARDS, "--engine", "vllm", "--format", "modelfile"), 2, "for vllm"),
        (("--machine", TWO_CARDS, "--format", "bat"), 2, "no 'bat' for llama.cpp"),
        (("--machine", TWO_CARDS, "--port", "0"), 2, "is not a port"),
        (("--machine", TWO_CARDS, "--program", "llama-x"), 2, "not known"),
        (("--machine", TWO_CARDS, "--engine", "vllm", "--ubatch", "64"), 2, "like --ubatch"),
        (("--machine", TWO_CARDS, "--enforce-eager"), 2, "knob of vLLM"),
        (("--machine", TWO_CARDS, "--engine", "vllm", "-q", "gptq"), 4, "not known"),
        (("--machine", TWO_CARDS, "--engine", "vllm", "--cpu-offload-gb", "x"), 2, "number"),
        (("--machine", TWO_CARDS, "--engine", "ollama", "--kv-type", "q5_1"), 2, "no cache"),
    ],
)  # fmt: skip
def test_a_no_is_one_line_and_nothing_on_stdout(
    say: Say, args: tuple[str, ...], code: int, words: str
) -> None:
    said = say("launch", "nemotron", *args)
    assert (said.code, said.out) == (code, "")
    [line] = [x for x in said.err.splitlines() if x.startswith("error: ")]
    assert words in line


def test_a_gated_repository_says_what_is_needed(say: Say) -> None:
    said = say("launch", "llama-3.1-8b", "--engine", "vllm", "--machine", TWO_CARDS)
    assert "accept the licence at https://huggingface.co/meta-llama/" in said.err
    assert "HF_TOKEN" in said.err
    open_one = say("launch", "qwen2.5-7b", "--engine", "vllm", "--machine", TWO_CARDS)
    assert open_one.code == 0 and "accept the licence" not in open_one.err


def test_a_disk_that_is_too_small_is_a_no(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemofit.probe.disk_free", lambda _: 1 << 20)
    said = say("launch", "tinyllama-1.1b", "-q", "Q2_K", "-c", "512")
    assert (said.code, said.out) == (3, "")
    assert "more in" in said.err and "--directory" in said.err


def test_what_is_there_is_not_fetched_again(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hub's own layout: whole files in snapshots, begun ones in blobs."""
    args = ("launch", "tinyllama-1.1b", "-q", "Q2_K", "-c", "512", "--json")
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path))
    first = say(*args).json["download"]
    assert first["present_bytes"] == 0 and first["missing_bytes"] == first["bytes"]
    root = tmp_path / ("models--" + first["what"].replace("/", "--"))
    (root / "snapshots" / "abc").mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "snapshots" / "abc" / "tinyllama.Q2_K_S.gguf").write_bytes(b"x" * 99)
    (root / "blobs" / "def.downloadInProgress").write_bytes(b"x" * 1000)
    assert say(*args).json["download"]["partial_bytes"] == 1000
    assert say(*args).json["download"]["present_bytes"] == 0
    whole = root / "snapshots" / "abc" / "tinyllama.Q2_K.gguf"
    whole.write_bytes(b"")
    os.truncate(whole, first["bytes"])
    again = say(*args).json["download"]
    assert (again["present_bytes"], again["missing_bytes"]) == (first["bytes"], 0)
    assert "is there already" in say(*args[:-1]).err


def install(folder: Path, body: str) -> None:
    path = folder / "llama-server"
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)


HELP = "\n".join(
    f"{flags}  what it does" for flags in ("-m, --model FNAME", "-hf, --hf-repo REPO",
    "-c, --ctx-size N", "-ngl, --gpu-layers N", "-fa, --flash-attn", "-np, --parallel N",
    "-dev, --device D", "-b, --batch-size N", "-ub, --ubatch-size N", "--no-mmap")
)  # fmt: skip
ARGS = ("launch", "tinyllama-1.1b", "-q", "Q2_K", "-c", "512", "--json")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    for name in ("LLAMA_CPP_DIR", "LLAMA_CPP_PATH", "LLAMA_CPP_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return place


def test_the_installed_build_decides_and_is_asked_once(say: Say, folder: Path) -> None:
    install(folder, f"open({str(folder / 'asked')!r}, 'a').write('x'); print({HELP!r})")
    for _ in range(2):
        arguments = say(*ARGS).json["arguments"]
        assert "-fa" in arguments and "on" not in arguments and "-fit" not in arguments
    assert (folder / "asked").read_text() == "x"
    install(folder, f"open({str(folder / 'asked')!r}, 'a').write('x'); print({HELP!r} + ' ')")
    assert say(*ARGS).code == 0
    assert (folder / "asked").read_text() == "xx"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("print('error while loading shared libraries: libcuda.so.1')", "libcuda.so.1"),
        ("print('-m, --model FNAME' + ' ' * 300)", "does not know -hf"),
    ],
)
def test_an_engine_that_is_broken_or_too_old_is_one_line(
    say: Say, folder: Path, body: str, words: str
) -> None:
    install(folder, body)
    said = say(*ARGS[:-1])
    assert (said.code, said.out) == (5, "")
    [line] = [x for x in said.err.splitlines() if x.startswith("error: ")]
    assert words in line


def test_an_engine_that_hangs_is_left_after_its_time(
    say: Say, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemofit.probe.program_help._SECONDS", 0.5)
    install(folder, "import time; time.sleep(60)")
    said = say(*ARGS[:-1])
    assert said.code == 5
    assert "gave no answer within 0.5 s" in said.err
