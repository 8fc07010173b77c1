"""Mistakes and misfortunes: each has an exit code and a message that says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import NO_CARD, TWO_CARDS, Say

PLAN = ("plan", "nemotron", "--machine", TWO_CARDS)
LINES = {
    "a misspelt model": (("plan", "nemotorn"), 4, "nemotron"),
    "an ambiguous model": (("plan", "llama"), 4, "one of: "),
    "a misspelt file type": ((*PLAN, "-q", "Q4_K_N"), 4, "Q4_K_M"),
    "a misspelt card": (("plan", "nemotron", "--machine", "2x RTX 3091, 64 GiB RAM"), 4, "3090"),
    "a misspelt flag": ((*PLAN, "--contxt", "8k"), 2, "--context"),
    "a misspelt command": (("recomend",), 2, "nemofit recommend"),
    "no such command": (("dance",), 2, "one of: check, recommend"),
    "no model": (("plan",), 2, "nemofit plan --help"),
    "a flag without its value": ((*PLAN, "-c"), 2, "requires an argument"),
    "a context of 0": ((*PLAN, "-c", "0"), 2, "8192"),
    "a context of -1": ((*PLAN, "-c", "-1"), 2, "8192"),
    "a context of words": ((*PLAN, "-c", "long"), 2, "8192"),
    "a context of 10 million": ((*PLAN, "-c", "10000000"), 3, "--context"),
    "a context beyond any": ((*PLAN, "-c", "99999999999"), 2, "context"),
    "a split of the wrong length": ((*PLAN, "--tensor-split", "1,1,1"), 2, "one number per GPU"),
    "a split of zeros": ((*PLAN, "--tensor-split", "0,0"), 2, "one number per GPU"),
    "a split of words": ((*PLAN, "--tensor-split", "a,b"), 2, "one number per GPU"),
    "a negative split": ((*PLAN, "--tensor-split", "1,-1"), 2, "one number per GPU"),
    "layers that are no number": ((*PLAN, "--gpu-layers", "many"), 2, "--gpu-layers"),
    "layers without a card": (
        ("plan", "nemotron", "--machine", NO_CARD, "--gpu-layers", "9"), 2, "--gpu-layers"),
    "half a sequence": ((*PLAN, "--parallel", "0.5"), 2, "--parallel 4"),
    "no sequences": ((*PLAN, "--parallel", "0"), 2, "--parallel"),
    "a cache type that is none": ((*PLAN, "--kv-type", "q3_0"), 2, "one of: f32, f16"),
    "a quantized cache without flash attention": (
        (*PLAN, "--kv-type", "q8_0", "--flash-attention", "off"), 2, "flash attention"),
    "flash attention perhaps": ((*PLAN, "--flash-attention", "maybe"), 2, "on or off"),
    "an engine that is none": ((*PLAN, "--engine", "steam"), 2, "llama.cpp"),
    "a preference that is none": ((*PLAN, "--prefer", "beauty"), 2, "balanced"),
    "a speed of words": (("recommend", "--min-tps", "fast"), 2, "--min-tps 10"),
    "a negative speed": (("recommend", "--min-tps", "-3"), 2, "--min-tps 10"),
    "a reserve of words": ((*PLAN, "--reserve", "some"), 2, "GiB"),
    "a limit of 0": (("recommend", "--limit", "0"), 2, "--limit"),
    "a machine that makes no sense": (("probe", "--machine", "a big one, honest"), 2, "RAM"),
    "an empty machine": (("probe", "--machine", ""), 2, "RAM"),
    "a machine file that is not there": (("probe", "--machine", "/no/such.json"), 2, "such.json"),
    "a model file that is not there": (("plan", "/no/such.gguf"), 2, "/no/such.gguf"),
    "a catalog that is not there": (("list", "models", "--catalog", "/no/such"), 2, "models.yaml"),
    "a list of what": (("list", "cats"), 2, "one of: models, quants"),
    "a schema of what": (("schema", "cats"), 4, "recommend"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "code", "says"), LINES.values(), ids=LINES)
def test_a_mistake_is_one_clear_message(
    args: tuple[str, ...], code: int, says: str, say: Say
) -> None:
    """``error:`` with the values and ``try:`` with the next step, on stderr; no traceback."""
    said = say(*args)
    text = said.err + (said.out if code == 3 else "")
    assert code == said.code, text
    assert says in text
    assert "Traceback" not in said.err
    if code != 3:
        first, *rest = said.err.strip().splitlines()
        assert first.startswith("error: ")
        assert [line[:4] for line in rest] in (["try:"], [])
        assert said.out == ""


@pytest.mark.parametrize(
    "key",
    [k for k, (_, code, _) in LINES.items() if code != 3 and k != "a flag without its value"],
)
def test_a_mistake_in_json(key: str, say: Say) -> None:
    """Scripts get the same message as a document."""
    args, code, says = LINES[key]
    said = say(*args, "--json")
    report = said.json
    assert ("nemofit/error/1", code) == (report["schema"], report["exit_code"])
    assert says in report["message"] + (report["hint"] or "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("models.yaml", "models: [unclosed"),
        ("models.yaml", "models:\n  mine: {architecture: llama}\n"),
        ("gpus.yaml", "just words"),
        ("quants.yaml", "\x00\x01\x02"),
    ],
)
def test_a_catalog_that_is_broken(name: str, text: str, say: Say, tmp_path: Path) -> None:
    """The file is named; the exit code is that of a mistake."""
    (tmp_path / name).write_text(text)
    what = {"models.yaml": "models", "gpus.yaml": "gpus", "quants.yaml": "quants"}[name]
    said = say("list", what, "--catalog", str(tmp_path))
    assert said.code == 2
    assert name in said.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ('{"schema": "nemofit/probe/99", "host": {}}', "newer nemofit"),
        ('{"schema": "nemofit/probe/1", "gpus": [{"name": 5}]}', "name"),
        ('{"schema": "nemofit/plan/1", "host": {}}', "schema"),
    ],
)
def test_a_machine_file_that_is_broken(text: str, says: str, say: Say, tmp_path: Path) -> None:
    """Not JSON, of the future, of another kind: what was found and what to do."""
    path = tmp_path / "machine.json"
    path.write_text(text)
    said = say("probe", "--machine", str(path))
    assert said.code == 2
    assert says in said.err
    assert "try:" in said.err


def test_an_unexpected_error_is_one_line(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect ends with exit code 1 and a way to report it; the traceback only on request."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("never")

    monkeypatch.setattr("nemofit.cli.request.machine_of", broken)
    said = say("probe")
    assert said.code == 1
    assert "ZeroDivisionError" in said.err
    assert "--debug" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in say("probe", "--debug").err
    monkeypatch.setenv("NEMOFIT_DEBUG", "1")
    assert "Traceback" in say("probe").err


def test_interruption_is_quiet(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and says nothing."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nemofit.cli.request.machine_of", interrupted)
    said = say("probe")
    assert (said.code, said.out, said.err) == (130, "", "")


def run(*args: str, **more: object) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    command = [sys.executable, "-m", "nemofit", *args]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, timeout=60, **more)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_full_disk(more: tuple[str, ...]) -> None:
    """Nothing can be written: one line on stderr, exit code 1, no traceback at the very end."""
    with open("/dev/full", "w") as full:
        done = run("list", "engines", *more, stdout=full)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes close otherwise there")
def test_a_closed_pipe() -> None:
    """``nemofit list gpus | head -1``: the reader goes away, and that is no error."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = run("list", "gpus", stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_stdout_at_all() -> None:
    """Started without a standard output, as some services are."""
    code = "import sys; sys.stdout = None; from nemofit.__main__ import main; main(['probe'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_is_one_document_even_for_errors(say: Say) -> None:
    """A consumer can always parse stdout."""
    assert json.loads(say("plan", "nope", "--json").out)["exit_code"] == 4
