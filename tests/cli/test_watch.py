"""``nemofit watch`` beside a real llama-server that loads, and its picture."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import ModelFiles, cut
from command_lines import Say
from live_server import LiveServer
from test_contract import validate

import nemofit
from nemofit.cli.chart import Series, draw
from nemofit.units import GIB

QUICK = ("--seconds", "0.3", "--interval", "0.1")


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_real_load_against_its_plan(
    engine: Engine, model_files: ModelFiles, say: Say, tmp_path: Path
) -> None:
    """On the processor: mapped weights and allocated cache rise to what the plan has there."""
    path = model_files.path(cut(nemofit.load_model("qwen3-4b"), 8), "Q4_K_M")
    picture = tmp_path / "load.svg"
    flags = ("-c", "8192", "-np", "1", "-fa", "on", "-dev", "none", "-nr")
    with LiveServer(engine, path, tmp_path / "log", *flags) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "nemofit", "watch", str(server.process.pid), "--json",
             "-m", str(path), "-c", "8192", "--machine", "16 GiB RAM", "--interval", "0.1",
             "--svg", str(picture)],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        server.wait_for_answer()
        time.sleep(0.5)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    *looks, summary = lines(out.decode())
    for document in (looks[0], looks[-1], summary):
        validate(document, say)
    assert (summary["kind"], summary["ended"], summary["looks"]) == (
        "summary",
        "process",
        len(looks),
    )
    times = [look["seconds"] for look in looks]
    assert times == sorted(times) and {look["pid"] for look in looks} == {server.process.pid}
    peaks = {d["device"]: d for d in summary["peaks"]}
    mapped, allocated = peaks["RAM mapped"], peaks["RAM allocated"]
    assert mapped["peak_bytes"] == pytest.approx(mapped["planned_bytes"], rel=0.1)
    assert 256 << 20 <= allocated["peak_bytes"] < allocated["planned_bytes"] + (256 << 20)
    root = ET.fromstring(picture.read_text())
    assert len(root.findall(".//{*}polyline")) == len(peaks)


def test_a_device_process_of_its_own(
    engine: Engine, model_files: ModelFiles, say: Say, tmp_path: Path
) -> None:
    """ggml-rpc-server takes the place of a card: its memory is that of the layers there."""
    path = model_files.path(cut(nemofit.load_model("qwen3-4b"), 8), "Q4_K_M")
    engine._rpc(1)
    device = engine._devices[0][0].pid
    before = lines(say("watch", str(device), *QUICK, "--json").out)[-1]
    flags = ("-c", "4096", "-np", "1", "-fa", "on", "-ngl", "9")
    with LiveServer(engine, path, tmp_path / "log", *flags, devices=1) as server:
        server.wait()
        after = lines(say("watch", str(device), *QUICK, "--json").out)[-1]

    def peak(summary: dict[str, Any]) -> int:
        return next(
            int(d["peak_bytes"]) for d in summary["peaks"] if d["device"] == "RAM allocated"
        )

    config = nemofit.RunConfig(context=4096, gpu_layers=9, backend="rpc")
    there = nemofit.estimate_memory(nemofit.load_model(path), None, config, 1).gpus[0]
    assert peak(after) - peak(before) >= 0.9 * (there.weights_bytes + there.kv_bytes)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_the_summary(number: int) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "nemofit",
            "watch",
            str(os.getpid()),
            "--json",
            "--interval",
            "0.05",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")
    summary = lines((first + out).decode())[-1]
    assert (summary["kind"], summary["ended"]) == ("summary", "asked")


def test_text_without_a_terminal_is_the_summary_alone(say: Say) -> None:
    said = say("watch", str(os.getpid()), *QUICK)
    assert said.code == 0 and "the time is over" in said.out
    assert "\x1b" not in said.out and "RAM" in said.out


MISTAKES = {
    "no process": (("999999999",), 5, "no process 999999999 runs here"),
    "no engine": (("gpt",), 2, "neither the number of a process nor an engine"),
    "never started": (("vllm", "--seconds", "0.2"), 5, "vllm did not start within 0.2 s"),
    "no number": (("1", "--interval", "x"), 2, "is not a number of seconds"),
    "zero": (("1", "--seconds", "0"), 2, "is not a number of seconds"),
    "nowhere": (("1", "--svg", "/no/such/place.svg"), 2, "cannot be written"),
    "directory": (("1", "--svg", "/"), 2, "cannot be written"),
}


@pytest.mark.parametrize("args, code, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(args: tuple[str, ...], code: int, message: str, say: Say) -> None:
    said = say("watch", *args)
    assert (said.code, message in said.err) == (code, True), said


def test_the_picture_is_sound_whatever_is_drawn() -> None:
    """Nothing, one look, names that would be markup, nothing held at all."""
    for series in (
        [],
        [Series('GPU <0> & "more"', [(0.0, 0)])],
        [Series("GPU 0", [(0.0, GIB), (0.5, 20 * GIB)], 21 * GIB), Series("RAM", [(0.0, 1)])],
    ):
        root = ET.fromstring(draw(series, "a < b"))
        assert root.tag.endswith("svg")
        assert len(root.findall(".//{*}polyline")) == len(series)
    text = draw([Series("GPU 0", [(0.0, 0), (2.0, 20 * GIB)], 21 * GIB)], "x")
    assert "peak 20.00 GiB, planned 21.00 GiB (dashed)" in text
