"""``nemofit calibrate`` with the real llama-bench, with servers, and with files that are wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import ModelFiles, cut
from command_lines import Say
from live_server import LiveServer
from stand_in_server import served
from test_contract import validate

import nemofit
from nemofit.catalog.filetypes import tensor_types
from nemofit.cli.environment import calibration_file
from nemofit.formats.gguf.writer import write_sparse
from nemofit.speed import measured as speeds


@pytest.fixture(autouse=True)
def _nothing_measured() -> Iterator[None]:
    speeds.use(None)
    yield
    speeds.use(None)


@pytest.fixture
def tiny(engine: Engine, model_files: ModelFiles) -> Path:
    """Six blocks of a small model: 50 MB of zeros, whose products take as long as any."""
    return model_files.path(cut(nemofit.load_model("smollm2-135m"), 6), "Q8_0")


def decode_of(say: Say, path: Path) -> Any:
    return say("plan", str(path), "-c", "1024", "--json").json["speed"]


def bench(**fields: object) -> str:
    """A test of llama-bench on this machine, of the model in the catalog."""
    model = nemofit.load_model("llama-3.2-1b")
    entry = {
        "build_commit": "0c1e570", "build_number": 7000, "gpu_info": "", "backends": "CPU",
        "cpu_info": nemofit.probe_machine().host.cpu or "", "model_filename": "/m/llama.gguf",
        "model_type": "llama 1B Q4_K - Medium", "model_size": 799862912,
        "model_n_params": model.parameters, "n_ubatch": 512, "n_gpu_layers": -1,
        "n_prompt": 0, "n_gen": 128, "n_depth": 0, "avg_ts": 20.0, "stddev_ts": 0.5,
        "test_time": "2026-10-01T10:00:00Z", **fields,
    }  # fmt: skip
    return json.dumps(entry) + "\n"


def test_the_real_llama_bench_moves_the_estimates(engine: Engine, tiny: Path, say: Say) -> None:
    before = decode_of(say, tiny)
    folder = str(Path(engine._programs["llama-bench"]).parent)
    said = say("calibrate", str(tiny), "--program", folder, "--repetitions", "1", "--json")
    assert said.code == 0, said
    document = said.json
    validate(document, say)
    assert document["in_use"] and [m["phase"] for m in document["measured"]] == [
        "prefill",
        "decode",
    ]
    assert all(m["engine"].startswith("llama.cpp b") for m in document["measured"])
    after = decode_of(say, tiny)
    assert before["basis"] in ("computed", "assumed") and after["basis"] == "measured"
    low, likely, high = (after["decode_tokens_per_second"][k] for k in ("low", "likely", "high"))
    measured = document["measured"][1]["tokens_per_second"]
    assert low < measured < high and likely == pytest.approx(measured, rel=0.15)
    wide = before["decode_tokens_per_second"]
    assert high / low < wide["high"] / wide["low"]


def test_a_file_of_llama_bench_show_and_forget(say: Say, tmp_path: Path) -> None:
    """A catalog model by name; measured again, the earlier run of the same is replaced."""
    path = tmp_path / "bench.json"
    path.write_text(bench(avg_ts=15.0))
    assert say("calibrate", "llama-3.2-1b", "--from", str(path)).code == 0
    path.write_text(bench(avg_ts=20.0) + bench(n_prompt=512, n_gen=0, avg_ts=60.0))
    said = say("calibrate", "llama-3.2-1b", "--from", str(path))
    assert said.code == 0 and "From now on estimates for this machine start from it" in said.out
    shown = say("calibrate", "--show", "--json").json
    validate(shown, say)
    assert sorted(m["tokens_per_second"] for m in shown["measured"]) == [20.0, 60.0]
    plan = say("plan", "llama-3.2-1b", "-q", "Q4_K_M", "-c", "1024", "--json").json
    assert plan["speed"]["basis"] == "measured"
    assert plan["speed"]["decode_tokens_per_second"]["likely"] == pytest.approx(20.0, rel=0.15)
    text = say("plan", "llama-3.2-1b", "-q", "Q4_K_M", "-c", "1024").out
    assert "(measured here)" in text
    assert "is removed" in say("calibrate", "--forget").out
    assert not calibration_file().exists()
    plan = say("plan", "llama-3.2-1b", "-q", "Q4_K_M", "-c", "1024", "--json").json
    assert plan["speed"]["basis"] != "measured"
    assert "nothing was measured here" in say("calibrate", "--forget").out


def test_a_described_machine_is_not_this_one(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(bench())
    args = ("plan", "llama-3.2-1b", "-q", "Q4_K_M", "--machine", "16 GiB RAM, 8 cores", "--json")
    before = say(*args).json["speed"]
    assert say("calibrate", "llama-3.2-1b", "--from", str(path)).code == 0
    assert say(*args).json["speed"] == before


def test_other_hardware_is_said_and_not_used(say: Say, tmp_path: Path) -> None:
    """The file was copied along with a home directory."""
    path = tmp_path / "bench.json"
    path.write_text(bench())
    say("calibrate", "llama-3.2-1b", "--from", str(path))
    kept = json.loads(calibration_file().read_text())
    kept["host"] = "Intel Core i9-13900K, 24 cores, linux"
    calibration_file().write_text(json.dumps(kept))
    plan = say("plan", "llama-3.2-1b", "-q", "Q4_K_M", "-c", "1024", "--json").json
    assert plan["speed"]["basis"] != "measured"
    assert any("made on other hardware: not used" in note for note in plan["speed"]["notes"])
    said = say("calibrate", "--show")
    assert "made on other hardware: not used" in said.out
    again = say("calibrate", "llama-3.2-1b", "--from", str(path))
    assert "what was measured on other hardware is replaced" in again.out


@pytest.mark.parametrize("damage", ["", "{}", "[]", "[" * 9999, '{"schema": 1}', "\x00" * 2000000])
def test_a_damaged_file_stops_nothing(damage: str, say: Say) -> None:
    calibration_file().parent.mkdir(parents=True)
    calibration_file().write_text(damage)
    said = say("plan", "llama-3.2-1b", "-q", "Q4_K_M", "-c", "1024")
    assert said.code == 0 and "nemofit calibrate --forget removes it" in said.err
    assert say("calibrate", "--show").code == 2
    assert say("calibrate", "--forget").code == 0
    assert say("plan", "llama-3.2-1b", "-q", "Q4_K_M", "-c", "1024").err == ""


REFUSED = {
    "another processor": (bench(cpu_info="Apple M4 Max"), 2, "it was measured on Apple M4 Max"),
    "a card": (
        bench(gpu_info="NVIDIA GeForce RTX 4080", backends="CUDA"),
        2,
        "it was measured on NVIDIA GeForce RTX 4080",
    ),
    "another model": (bench(model_n_params=7_000_000_000), 2, "7000000000 parameters"),
    "no plain test": (bench(n_prompt=512, n_gen=128), 2, "no test of prompts or of generation"),
    "two models": (bench() + bench(model_filename="/m/b.gguf"), 2, "tests of several models"),
    "truncated": (bench()[:200], 2, "ends in the middle"),
    "impossible": (bench(avg_ts=90_000.0), 2, "times the bandwidth expected"),
}


@pytest.mark.skipif(bool(nemofit.probe_machine().gpus), reason="written for a machine without GPU")
@pytest.mark.parametrize("text, code, message", REFUSED.values(), ids=REFUSED)
def test_what_says_nothing_of_this_machine_is_refused(
    text: str, code: int, message: str, say: Say, tmp_path: Path
) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    said = say("calibrate", "llama-3.2-1b", "--from", str(path))
    assert (said.code, message in said.err) == (code, True), said
    assert not calibration_file().exists()


MISTAKES = {
    "nothing": ((), "what to measure is not said"),
    "two ways": (("--show", "--forget"), "ask different things"),
    "no file": (("llama-3.2-1b",), "is no file on this disk, and nothing is downloaded"),
    "no bench file": (("--from", "/no/such"), "cannot read"),
}


@pytest.mark.parametrize("args, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(args: tuple[str, ...], message: str, say: Say) -> None:
    said = say("calibrate", *args)
    assert (said.code, message in said.err) == (2, True), said


def test_the_model_that_was_measured_has_to_be_named(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(bench())
    said = say("calibrate", "--from", str(path))
    assert (said.code, "is not here: /m/llama.gguf" in said.err) == (2, True)


def test_a_running_llama_server(engine: Engine, say: Say, tmp_path: Path) -> None:
    """The times that it reports for one real answer."""
    path = tmp_path / "tiny.gguf"
    model = cut(nemofit.load_model("smollm2-135m"), 6)
    write_sparse(path, model, tensor_types(model, "Q8_0"), vocabulary="dummy")
    flags = ("-c", "2048", "-np", "1", "-dev", "none")
    with LiveServer(engine, path, tmp_path / "log", *flags) as server:
        server.wait_for_answer()
        said = say("calibrate", "--running", "--url", server.url, "--json")
    assert said.code == 0, said
    phases = {m["phase"]: m for m in said.json["measured"]}
    assert phases["decode"]["tokens"] > 50 and phases["decode"]["tokens_per_second"] > 1
    assert decode_of(say, path)["basis"] == "measured"


def test_a_running_ollama(say: Say) -> None:
    """Its answer to /api/generate with the figures of its documentation (docs.ollama.com/api)."""
    details = {"quantization_level": "Q4_K_M"}
    one = {"name": "llama3.2:1b", "size": 1 << 30, "size_vram": 0, "details": details}
    loaded = {"models": [{**one, "context_length": 4096}]}
    answer = {"response": "", "prompt_eval_count": 26, "prompt_eval_duration": 1_300_083_000,
              "eval_count": 80, "eval_duration": 4_709_213_000}  # fmt: skip
    with served(api_ps=loaded, api_generate=answer) as url:
        said = say("calibrate", "llama-3.2-1b", "--running", "--url", url, "--json")
    assert said.code == 0, said
    speeds_of = {m["phase"]: m["tokens_per_second"] for m in said.json["measured"]}
    assert speeds_of["decode"] == pytest.approx(80 / 4.709213, rel=1e-4)
    assert speeds_of["prefill"] == pytest.approx(26 / 1.300083, rel=1e-4)


@pytest.mark.parametrize(
    "answer", [{}, [], {"eval_count": 80, "eval_duration": 0}, {"eval_count": "x"}]
)
def test_an_ollama_without_times(answer: object, say: Say) -> None:
    loaded = {"models": [{"name": "x", "size": 1, "details": {"quantization_level": "Q4_K_M"}}]}
    with served(api_ps=loaded, api_generate=answer) as url:
        said = say("calibrate", "llama-3.2-1b", "--running", "--url", url)
    assert (said.code, "reported no times" in said.err) == (5, True)
