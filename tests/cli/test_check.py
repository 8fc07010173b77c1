"""check: the file that would come is the one that is judged."""

from __future__ import annotations

import pytest
from command_lines import NO_CARD, TWO_CARDS, Say

SMALL = "RTX 3060, 16 GiB RAM"


@pytest.mark.parametrize("engine", [(), ("--engine", "ollama"), ("--engine", "llama.cpp")])
def test_a_download_is_safe_to_chain(say: Say, engine: tuple[str, ...]) -> None:
    """`ollama pull nemotron` brings Q4_K_M: that smaller files fit does not make it fit."""
    said = say("check", "nemotron", "--machine", SMALL, "--json", *engine)
    assert said.code == 3
    assert said.json["plan"]["quant"]["id"] == "Q4_K_M"
    assert said.json["verdict"] == "does-not-fit"
    nearest = say("check", "nemotron", "--machine", SMALL, "--json").json["nearest"]
    assert nearest.startswith("--quant IQ2")
    quant = nearest.split()[1]
    assert say("check", "nemotron", "--machine", SMALL, "-q", quant).code == 0


@pytest.mark.parametrize(
    ("model", "quant"),
    [
        ("nemotron", "Q4_K_M"),  # nemotron:70b
        ("mixtral-8x22b", "Q4_0"),  # mixtral:8x22b
        ("gpt-oss-20b", "MXFP4_MOE"),  # published as nothing else
        ("nemotron-super-49b-v1.5", "Q6_K"),
    ],
)
def test_the_file_that_comes_where_nobody_names_one(say: Say, model: str, quant: str) -> None:
    report = say("check", model, "--machine", "8x H100, 1 TiB RAM", "--json").json
    assert report["plan"]["quant"]["id"] == quant


def test_other_files_when_something_is_preferred(say: Say) -> None:
    """A preference or a limit of quality asks about all file types."""
    args = ("check", "llama-3.1-8b", "--machine", "RTX 4090, 64 GiB RAM", "--json")
    assert say(*args, "--prefer", "quality").json["plan"]["quant"]["id"] != "Q4_K_M"
    better = say(*args, "--quality", "near-lossless").json
    assert better["plan"]["quality"]["grade"] == "near-lossless"


def test_a_yes_for_an_engine_comes_with_its_command(say: Say) -> None:
    """A file that the engine cannot get is a no, whatever the memory says."""
    said = say("check", "nemotron-super-49b-v1.5", "-q", "IQ4_NL", "--engine", "ollama",
               "--machine", TWO_CARDS, "--json")  # fmt: skip
    assert (said.code == 0) == (said.json["plan"]["command"] is not None)


def test_a_poor_best_is_called_so(say: Say) -> None:
    """Too slow to read along and heavily quantized: check and recommend say it, JSON too."""
    machine = ("--machine", "24 GiB DDR4-2133 x1, 4 cores", "--json")
    best = say("recommend", "-m", "nemotron", *machine).json
    assert best["plans"][0]["quality"]["grade"] == "heavy"
    assert best["plans"][0]["speed"]["decode_tokens_per_second"]["likely"] < 1
    assert "too slow to read along and its quality loss is heavy" in best["reason"]
    quant = best["plans"][0]["quant"]["id"]
    report = say("check", "nemotron", "-q", quant, *machine).json
    assert "a smaller model suits this machine better" in report["caution"]
    assert say("check", "llama-3.1-8b", *machine).json["caution"] is None


def test_a_described_machine_has_no_rows_for_what_nobody_said(say: Say) -> None:
    items = say("check", "llama-3.1-8b", "--machine", NO_CARD, "--json").json["items"]
    assert [item["item"] for item in items] == ["RAM", "disk"]


def test_the_speed_of_a_full_context_is_said(say: Say) -> None:
    """Slower than at the start, by as much as the cache takes longer to read."""
    args = ("check", "llama-3.1-8b", "--machine", "24 GiB RAM, 8 cores")
    speed = say(*args, "--json").json["plan"]["speed"]
    full, first = (
        speed["full_context_decode_tokens_per_second"], speed["decode_tokens_per_second"]
    )  # fmt: skip
    assert full["likely"] < first["likely"] / 2
    assert "with the context full" in " ".join(say(*args).out.split())


def test_some_memory_is_left_to_others(say: Say) -> None:
    """A context that nobody asked for does not fill the last eighth; one that was asked for may."""
    args = ("check", "llama-3.1-8b", "--machine", "24 GiB RAM, 8 cores", "--json")
    host = say(*args).json["plan"]["memory"]["host"]
    assert host["total_bytes"] <= host["budget_bytes"] * 7 / 8
    asked = say(*args, "-c", "128k", "--kv-type", "f16").json
    assert asked["verdict"] == "fits"
    host = asked["plan"]["memory"]["host"]
    assert host["total_bytes"] > host["budget_bytes"] * 7 / 8


def test_weights_of_a_shape_are_computed(say: Say) -> None:
    memory = say("plan", "llama-3.2-1b", "--machine", NO_CARD, "--json").json["memory"]
    assert memory["weights_basis"] == "computed"


def test_rows_that_differ_only_in_the_cache_show_it(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns, where experts take the widest words."""
    monkeypatch.setenv("COLUMNS", "80")
    out = say(
        "recommend", "-m", "mixtral-8x22b", "-q", "Q4_K_M", "--machine", "RTX 4090, 128 GiB RAM"
    ).out
    table = [line for line in out.splitlines() if "tokens/s" in line or "experts partly" in line]
    assert "KV" in table[0].split()
    assert len(set(table)) == len(table) > 2
    assert max(map(len, table)) <= 80
