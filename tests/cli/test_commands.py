"""What the commands answer, and how they end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from command_lines import NO_CARD, TWO_CARDS, Say

from nemofit.catalog.ggml import file_types
from nemofit.catalog.models import all_models


def test_recommend_ends_with_the_command(say: Say) -> None:
    """A table, a reason, bars, and the line to copy."""
    said = say("recommend", "-m", "nemotron", "-c", "8192", "--machine", TWO_CARDS)
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[-1].startswith("llama-server -hf bartowski/")
    assert " -c 8192 " in lines[-1]
    assert any("Q4_K_M 8k" in " ".join(line.split()) for line in lines)
    assert sum("GPU " in line and "[" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("check", "llama-3.2-1b", "-c", "4096", "--machine", TWO_CARDS), 0),
        (("check", "nemotron", "-q", "F16", "-c", "8k", "--machine", NO_CARD), 3),
        (("plan", "nemotron", "-q", "Q8_0", "--machine", NO_CARD), 3),
        (("recommend", "-m", "nemotron", "-q", "Q8_0", "--machine", NO_CARD), 3),
        (("recommend", "-m", "nemotron", "--min-tps", "900", "--machine", TWO_CARDS), 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_exit_code_is_the_verdict(args: tuple[str, ...], code: int, say: Say) -> None:
    """0 it fits, 3 a definite no; a no says by how much and what would do."""
    said = say(*args)
    assert code == said.code
    if code:
        assert "GiB" in said.out + said.err or "tokens per second" in said.err
        assert "fit" in (said.out + said.err).lower()


def test_check_says_by_how_much(say: Say) -> None:
    """Each item is ok or short by an amount; amounts are need less offer."""
    report = say("check", "nemotron", "-q", "Q8_0", "-c", "8k", "--machine", NO_CARD, "--json").json
    short = [item for item in report["items"] if item["status"] == "short"]
    assert short
    for item in short:
        assert item["short_bytes"] == item["need_bytes"] - item["have_bytes"]
    assert report["nearest"] is None or "fits" in report["nearest"]


def test_check_looks_at_the_disk(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk where the file would go is a no, with the amount that is missing."""
    monkeypatch.setattr("nemofit.probe.disk_free", lambda place: 1000)
    args = ("check", "tinyllama-1.1b", "-q", "Q4_K_M", "-c", "512")
    said = say(*args, "--directory", str(tmp_path), "--json")
    disk = next(item for item in said.json["items"] if item["item"] == "disk")
    assert (said.code, disk["status"]) == (3, "short")
    assert disk["short_bytes"] == disk["need_bytes"] - 1000


def test_check_here_is_safe_to_chain(say: Say) -> None:
    """On this machine a tiny model fits, and the answer is 0."""
    said = say("check", "tinyllama-1.1b", "-q", "Q2_K", "-c", "512")
    assert said.code == 0, said.out


def test_unreadable_hardware_is_not_a_no(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a card could not be read and nothing else suffices, the exit code is 5."""
    from nemofit.machine.records import Gpu, Host, Machine

    gone = Gpu(name="GPU 0", error="GPU is lost")
    machine = Machine(host=Host(ram_total_bytes=4 << 30), gpus=(gone,))
    monkeypatch.setattr("nemofit.probe.probe_machine", lambda: machine)
    said = say("check", "nemotron", "-q", "Q8_0", "-c", "8k")
    assert said.code == 5
    assert "GPU is lost" in said.err


def test_plan_explains_with_sources(say: Say) -> None:
    """``--explain`` shows products and where each rule is written down."""
    text = say("plan", "nemotron", "-q", "Q4_K_M", "--machine", TWO_CARDS, "--explain").out
    assert "weights x 144 bytes / 256" in text
    assert "llama-kv-cache.cpp" in text


def test_every_shared_option_reaches_the_plan(say: Say) -> None:
    """What is typed stands in the configuration and in the command."""
    said = say(
        "plan", "qwen3-30b-a3b", "--machine", TWO_CARDS, "--json", "-q", "q4_k_m", "-c", "16k",
        "--kv-type", "q8_0,q5_1", "--parallel", "2", "--ubatch", "256", "--gpu-layers", "30",
        "--tensor-split", "3,2", "--cpu-moe-layers", "4", "--flash-attention", "on",
        "--reserve", "2GiB", "--prefer", "speed",
    )  # fmt: skip
    plan = said.json
    config = plan["config"]
    assert plan["quant"]["id"] == "Q4_K_M"
    assert (config["context"], config["parallel"], config["ubatch"]) == (16384, 2, 256)
    assert (config["kv_type_k"], config["kv_type_v"]) == ("q8_0", "q5_1")
    assert (config["gpu_layers"], config["tensor_split"]) == (30, [3, 2])
    assert config["cpu_moe_layers"] == 4
    for words in ("-c 16384", "-ngl 30", "-ts 3,2", "-ncmoe 4", "-ctk q8_0 -ctv q5_1", "-np 2"):
        assert words in plan["command"]


def test_more_is_reserved_when_asked(say: Say) -> None:
    """``--reserve`` comes off every GPU's budget."""
    args = ("plan", "llama-3.2-1b", "--machine", TWO_CARDS, "--json")
    none = say(*args, "--reserve", "0").json["memory"]["gpus"][0]["budget_bytes"]
    two = say(*args, "--reserve", "2GiB").json["memory"]["gpus"][0]["budget_bytes"]
    assert none - two == 2 << 30


def test_ollama_command(say: Say) -> None:
    """The tag whose weights have the file type; where there is none, the file on the hub."""
    args = ("plan", "nemotron", "--machine", TWO_CARDS, "--engine", "ollama", "--json")
    assert "ollama pull nemotron:70b " in say(*args, "-q", "Q4_K_M").json["command"]
    other = say(*args, "-q", "IQ3_M").json["command"]
    assert "ollama pull hf.co/bartowski/Llama-3.1-Nemotron-70B-Instruct-HF-GGUF:IQ3_M " in other


def test_the_catalog_is_ranked(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a model: one row for each that fits; check counts them."""
    few = tuple(c for c in all_models() if c.id in ("llama-3.2-1b", "qwen3-8b", "nemotron-70b"))
    monkeypatch.setattr("nemofit.planner.footprints.all_models", lambda: few)
    monkeypatch.setattr("nemofit.planner.across.all_models", lambda: few)
    args = ("--machine", "12 GiB RAM, 6 cores", "-c", "4000", "--json")
    report = say("recommend", *args).json
    assert report["scope"] == "catalog"
    assert {"llama-3.2-1b", "qwen3-8b"} == {plan["model"]["id"] for plan in report["plans"]}
    assert [plan["rank"] for plan in report["plans"]] == [1, 2]
    checked = say("check", *args).json
    assert (checked["fitting_models"], checked["catalog_models"]) == (2, 3)
    text = say("recommend", *args[:-1]).out
    assert text.splitlines()[-1].startswith("llama-server ")


def test_a_limit_is_kept(say: Say) -> None:
    """No more rows than asked for, and the text tells how many there are without one."""
    args = ("recommend", "-m", "llama-3.1-8b", "-c", "8k", "--machine", TWO_CARDS)
    assert len(say(*args, "--limit", "2", "--json").json["plans"]) == 2


def test_lists_are_complete(say: Say) -> None:
    """Every model, file type and card of the catalog is in its list."""
    assert len(all_models()) == len(say("list", "models", "--json").json["items"])
    assert list(file_types()) == [q["id"] for q in say("list", "quants", "--json").json["items"]]
    text = say("list", "gpus").out
    assert "NVIDIA GeForce RTX 3090" in text


def test_a_machine_from_stdin(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """``probe --json | nemofit plan --machine -``."""
    document = say("probe", "--machine", NO_CARD, "--json").out
    monkeypatch.setattr("sys.stdin", io.StringIO(document))
    assert say("plan", "llama-3.2-1b", "--machine", "-").code == 0


def test_version(say: Say) -> None:
    """Alone and among other words."""
    import nemofit

    assert f"nemofit {nemofit.__version__}\n" == say("--version").out


@pytest.mark.parametrize("command", ["check", "recommend", "plan", "probe", "list", "schema"])
def test_help_has_examples(command: str, say: Say) -> None:
    """Each command says what it does and ends with something to type."""
    said = say(command, "--help")
    assert said.code == 0
    assert "Examples" in said.out
    assert f"nemofit {command}" in said.out


@pytest.mark.parametrize("command", ["check", "recommend", "probe", "list"])
def test_help_promises_no_value_for_a_switch(command: str, say: Say) -> None:
    lines = say(command, "--help").out.splitlines()
    [line] = [line for line in lines if line.startswith("│ --json")]
    assert "bool" not in line


def test_without_words_there_is_help(say: Say) -> None:
    """The list of commands and the exit codes."""
    said = say()
    assert said.code == 0
    assert "recommend" in said.out
    assert "Exit codes" in said.out
