"""Every ``--json`` document is valid against the schema that ``nemofit schema`` prints."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command_lines import NO_CARD, SMALL_FILE, TWO_CARDS, Say, small_file

import nemofit
from nemofit.cli.schemas import REPORTS

LOGS = Path(__file__).parent / "logs"
COMMANDS = {
    "recommend model": ("recommend", "-m", "nemotron", "-c", "8k", "--machine", TWO_CARDS),
    "recommend cpu": ("recommend", "-m", "llama-3.2-1b", "-c", "4096", "--machine", NO_CARD),
    "recommend for a use": (
        *("recommend", "--use-case", "reasoning", "-q", "Q4_K_M", "-c", "2048", "--limit", "60"),
        *("--machine", NO_CARD),
    ),
    "plan": ("plan", "nemotron", "-q", "Q4_K_M", "--machine", TWO_CARDS),
    "plan explained": (
        "plan",
        "qwen3-30b-a3b",
        "--explain",
        "--machine",
        "1x RTX 3060, 64 GiB RAM",
    ),
    "plan that does not fit": ("plan", "nemotron", "-q", "Q8_0", "--machine", NO_CARD),
    "plan without RAM": ("plan", "llama-3.2-1b", "-q", "Q8_0", "--machine", "1x RTX 3090"),
    "check": ("check", "llama-3.2-1b", "-c", "4096", "--machine", TWO_CARDS),
    "check that fails": ("check", "nemotron", "-q", "Q8_0", "-c", "8k", "--machine", NO_CARD),
    "check here": ("check", "tinyllama-1.1b", "-q", "Q2_K", "-c", "512"),
    "compare": (
        *("compare", "llama-3.2-1b:Q8_0", "qwen2.5-0.5b", "nemotron:Q8_0", "-c", "4096"),
        *("--power-price", "0.3", "--machine", "RTX 3060, 16 GiB RAM"),
    ),
    "need": ("need", "llama-3.2-1b", "-q", "Q4_K_M", "--min-tps", "20", "--power-price", "0.3"),
    "plan vllm": ("plan", "llama-3.1-8b", "--engine", "vllm", "--machine", TWO_CARDS),
    "plan transformers": (
        "plan",
        "llama-3.1-8b",
        "--engine",
        "transformers",
        "--machine",
        TWO_CARDS,
    ),
    "plan ollama": ("plan", "llama-3.1-8b", "--engine", "ollama", "--machine", TWO_CARDS),
    "recommend vllm": (
        "recommend",
        "-m",
        "llama-3.1-8b",
        "--engine",
        "vllm",
        "-c",
        "8k",
        "--machine",
        TWO_CARDS,
    ),
    "check transformers": (
        "check",
        "llama-3.1-8b",
        "--engine",
        "transformers",
        "--machine",
        TWO_CARDS,
    ),
    "launch": ("launch", "llama-3.1-8b", "-c", "8k", "--machine", TWO_CARDS),
    "launch vllm": ("launch", "llama-3.1-8b", "--engine", "vllm", "--machine", TWO_CARDS),
    "probe": ("probe",),
    "probe described": ("probe", "--machine", TWO_CARDS),
    "verify": ("verify", "qwen3-4b", "--log", str(LOGS / "ollama-qwen3-4b.log")),
    "calibrate": ("calibrate", "--show"),
    "watch": ("watch", str(os.getpid()), "--seconds", "0.1", "--interval", "0.05"),
    "list-models": ("list", "models"),
    "list-quants": ("list", "quants"),
    "list-gpus": ("list", "gpus"),
    "list-engines": ("list", "engines"),
    "list-local": ("list", "models", "--local"),
    "list-machines": ("list", "machines"),
    "catalog-show": ("catalog", "show", "mixtral-8x22b"),
    "catalog-add": ("catalog", "add", SMALL_FILE),
    "catalog-check": ("catalog", "check", SMALL_FILE, "--name", "smollm2-135m"),
    "schema": ("schema",),
    "error": ("plan", "no-such-model"),
}


def validate(document: dict[str, Any], say: Say) -> str:
    """Check a document against the schema of its own name; returns that name."""
    name = document["schema"].split("/")[1]
    schema = say("schema", name).json
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    return str(name)


@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS)
def test_output_follows_its_schema(
    args: tuple[str, ...], say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON documents on stdout, nothing else; the envelope names schema and version."""
    if SMALL_FILE in args:
        small_file(tmp_path)
        monkeypatch.chdir(tmp_path)
    for line in say(*args, "--json").out.splitlines():
        document = json.loads(line)
        assert list(document)[:2] == ["schema", "nemofit"]
        assert nemofit.__version__ == document["nemofit"]
        assert validate(document, say).startswith(document["schema"].split("/")[1])


def test_every_schema_is_covered_here() -> None:
    """A report without a real document in these tests would be an unproven promise."""
    assert set(REPORTS) == {name.split()[0] for name in COMMANDS}


def test_unknown_values_say_why(say: Say) -> None:
    """Null with a note beside it, never zero: host memory that the description leaves out."""
    host = say(*COMMANDS["plan without RAM"], "--json").json["memory"]["host"]
    assert host["budget_bytes"] is None
    assert "not known" in host["budget_bytes_note"]


def test_the_published_example_holds(say: Say) -> None:
    """The fields that scripts rely on, by their names in the documentation."""
    plan = say(*COMMANDS["plan"], "--json").json
    assert plan["schema"] == "nemofit/plan/1"
    assert plan["model"]["id"] == "nemotron-70b"
    assert plan["model"]["architecture"] == "llama"
    assert plan["model"]["parameters"] == 70553706560
    assert plan["quant"]["id"] == "Q4_K_M"
    assert plan["quant"]["bits_per_weight"] == pytest.approx(4.82, abs=0.005)
    assert plan["engine"] == "llama.cpp"
    expected = {
        "context": 8192,
        "ubatch": 512,
        "flash_attention": True,
        "kv_type_k": "f16",
        "kv_type_v": "f16",
        "parallel": 1,
        "gpu_layers": 81,
        "cpu_moe_layers": 0,
        "kv_offload": True,
    }
    assert expected == {name: plan["config"][name] for name in expected}
    assert len(plan["config"]["tensor_split"]) == 2
    assert len(plan["memory"]["gpus"]) == 2
    for device in (*plan["memory"]["gpus"], plan["memory"]["host"]):
        kinds = ("weights_bytes", "kv_bytes", "compute_bytes", "overhead_bytes")
        assert device["total_bytes"] == sum(device[kind] for kind in kinds)
        assert device["total_bytes"] <= device["budget_bytes"]
    assert plan["memory"]["file_bytes"] == 42520398752  # as published
    speed = plan["speed"]["decode_tokens_per_second"]
    assert 0 < speed["low"] <= speed["likely"] <= speed["high"]
    assert plan["verdict"] == "fits"
    assert plan["command"].startswith("llama-server -hf ")


def test_the_same_words_in_both_forms(say: Say) -> None:
    """Verdict and command of the document stand in the text as they are; the command is last."""
    args = COMMANDS["plan"]
    document, text = say(*args, "--json").json, say(*args).out
    assert document["verdict_words"] in text.splitlines()
    assert document["command"] == text.splitlines()[-1]


def test_a_probed_machine_can_be_asked_about_elsewhere(say: Say, tmp_path: Any) -> None:
    """``probe --json`` of a description, read back, gives the same plans."""
    path = tmp_path / "machine.json"
    path.write_text(say("probe", "--json", "--machine", TWO_CARDS).out)
    args = ("recommend", "-m", "llama-3.1-8b", "-c", "8k", "--json", "--machine")
    described, read = say(*args, TWO_CARDS).json, say(*args, str(path)).json
    assert described["plans"] == read["plans"]


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_for_scripts_names_every_field_of_a_document(name: str) -> None:
    """A field with ``_note`` behind the name of another is told of once, for all."""
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    fields = {field.name for field in dataclasses.fields(REPORTS[name])}
    untold = {f for f in fields if not re.search(rf"\b{f}\b", page)}
    assert {f for f in untold if f.removesuffix("_note") not in fields} == set()
    assert f"| `{name}` |" in page
