"""``nemofit verify --running``: a real llama-server, and an Ollama that answers as published."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine, Load
from benchmarks.accuracy.sparse import ModelFiles, cut
from command_lines import NO_CARD, Say
from live_server import LiveServer
from stand_in_server import served
from test_contract import validate

import nemofit


def test_a_running_server_with_its_log(
    engine: Engine, model_files: ModelFiles, say: Say, tmp_path: Path
) -> None:
    """Found by its port; the model, the knobs and the log come from the process itself."""
    path = model_files.path(cut(nemofit.load_model("qwen3-4b"), 6), "Q4_K_M")
    flags = ("-c", "4096", "-np", "1", "-fa", "on", "-ngl", "4", "-nr")
    with LiveServer(engine, path, tmp_path / "log", *flags, devices=1) as server:
        server.wait()
        said = say("verify", "--running", "--url", server.url, "--json")
    assert said.code == 0, said
    document = said.json
    validate(document, say)
    assert document["source"] == "running" and document["engine"]["version"]
    assert document["config"]["gpu_layers"] == 4
    assert {f["device"] for f in document["figures"]} == {"RPC0", "Host"}
    for figure in document["figures"]:  # mapped pages are counted from first to last tensor
        assert abs(figure["predicted"] - figure["engine"]) <= 2 * figure["resolution"], figure


def test_a_running_server_without_a_log(engine: Engine, model_files: ModelFiles, say: Say) -> None:
    """What the process allocated, by the system: the KV cache of 128 MiB is in it."""
    path = model_files.path(cut(nemofit.load_model("qwen3-4b"), 8), "Q4_K_M")
    flags = ("-c", "8192", "-np", "1", "-fa", "on", "-dev", "none", "-nr")
    with LiveServer(engine, path, Path("/dev/null"), *flags) as server:
        server.wait_for_answer()
        said = say("verify", "--running", "--url", server.url, "--json")
    assert said.code == 0, said
    document = said.json
    figures = {f["kind"]: f for f in document["figures"]}
    assert figures["allocated"]["agrees"] is True
    assert figures["allocated"]["engine"] >= 256 << 20
    assert figures["mapped"]["agrees"] is None
    assert (document["config"]["context"], document["config"]["parallel"]) == (8192, 1)


def test_ollama_beside_what_its_engine_allocated(
    engine: Engine, model_files: ModelFiles, say: Say
) -> None:
    """Ollama adds up the buffers that its llama-server logs: here those of a real one."""
    model = nemofit.load_model("llama-3.2-1b")
    path = model_files.path(model, "Q4_K_M")
    config = nemofit.RunConfig(context=4096, batch=512, ubatch=512, backend="rpc", gpu_layers=17)
    load = engine.server_load(path, config, n_devices=1)
    sizes = {name: _total(load, name) for name in load.devices}
    answer = {
        "models": [
            {
                "name": "llama3.2:1b",
                "size": sum(sizes.values()),
                "size_vram": sizes["RPC0"],
                "details": {"quantization_level": "Q4_K_M"},
                "context_length": 4096,
            }
        ]
    }
    with served(api_ps=answer, api_version={"version": "0.40.12"}) as url:
        said = say("verify", "llama-3.2-1b", "-q", "Q4_K_M", "--running", "--url", url,
                   "--machine", "RTX 4060, 32 GiB RAM", "--json")  # fmt: skip
    assert said.code == 0, said
    document = said.json
    validate(document, say)
    assert (document["engine"]["name"], document["engine"]["version"]) == ("ollama", "0.40.12")
    assert document["config"]["gpu_layers"] == 17
    for figure in document["figures"]:
        assert figure["predicted"] == pytest.approx(figure["engine"], rel=0.02)


def _total(load: Load, device: str) -> int:
    buffers = load.devices[device]
    return buffers.model + buffers.kv + buffers.state + buffers.compute + buffers.output


PUBLISHED = {
    "models": [
        {
            "name": "gemma3",
            "model": "gemma3",
            "size": 6591830464,
            "digest": "a2af6cc3eb7fa8be8504abaf9b04e88f17a119ec3f04a3addf55f92841195f5a",
            "details": {"format": "gguf", "parameter_size": "4.3B", "quantization_level": "Q4_K_M"},
            "expires_at": "2025-10-17T16:47:07.93355-07:00",
            "size_vram": 5333539264,
            "context_length": 4096,
        }
    ]
}
"""docs.ollama.com/api/ps: an older version's estimate, which includes the projector for images."""


def test_the_published_answer_is_read(say: Say) -> None:
    with served(api_ps=PUBLISHED) as url:
        said = say("verify", "gemma-3-4b", "--running", "--url", url, "--json",
                   "--machine", "RTX 4060, 32 GiB RAM")  # fmt: skip
    document = said.json
    validate(document, say)
    assert document["quant"] == "Q4_K_M" and document["config"]["context"] == 4096
    assert [f["engine"] for f in document["figures"]] == [5333539264, 6591830464]


BROKEN = {
    "no models": ({"models": []}, 5, "has no model in memory"),
    "another shape": ({"models": [{"name": 3}]}, 2, "has no name or size"),
    "negative": ({"models": [{"name": "a", "size": -1}]}, 2, "has no name or size"),
    "list": ([], 5, "no llama-server"),
    "no JSON": (b"<html>", 5, "no llama-server"),
    "too much": (b"[" * 200_000, 5, "no llama-server"),
}


@pytest.mark.parametrize("answer, code, message", BROKEN.values(), ids=BROKEN)
def test_answers_that_make_no_sense(answer: object, code: int, message: str, say: Say) -> None:
    with served(api_ps=answer) as url:
        said = say("verify", "--running", "--url", url, "--machine", NO_CARD)
    assert (said.code, message in said.err) == (code, True), said


@pytest.mark.parametrize("url", ["http://example.org", "ftp://127.0.0.1", "127.0.0.1:x", ""])
def test_only_this_machine_is_asked(url: str, say: Say) -> None:
    said = say("verify", "--url", url)
    assert (said.code, "is no address of this machine" in said.err) == (2, True)
