"""``--mmproj``, ``--lora`` and ``--draft`` on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.accuracy import attachments
from benchmarks.accuracy.sparse import cut
from command_lines import NO_CARD, TWO_CARDS, Say

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.formats.gguf.writer import write_sparse

SMOL = find_model("smollm2-135m").spec()
CARD = ("--machine", "RTX 4060, 32 GiB RAM")


@pytest.fixture
def gemma(tmp_path: Path) -> str:
    model = replace(cut(find_model("gemma-3-4b").spec(), 2), file_type="Q4_0")
    path = tmp_path / "gemma-3-4b-it-Q4_0.gguf"
    write_sparse(path, model, tensor_types(model, "Q4_0", imatrix=False))
    attachments.gemma3(tmp_path / "mmproj-f16.gguf")
    return str(path)


def test_a_projector_beside_the_model_comes_along(say: Say, gemma: str) -> None:
    plan = say("plan", gemma, *CARD, "--json").json
    [found] = plan["companions"]
    assert (found["kind"], found["name"], found["basis"]) == (
        "projector", "mmproj-f16.gguf", "computed",
    )  # fmt: skip
    [part] = found["parts"]
    assert part["device"] == "GPU 0"
    assert round(part["weights_bytes"] / 1e6) == 851
    assert plan["command"].endswith("mmproj-f16.gguf")
    text = say("plan", gemma, *CARD).out
    assert f"projector mmproj-f16.gguf: {part['total_bytes'] / (1 << 20):.2f} MiB on GPU 0" in text


def test_it_can_be_left_out(say: Say, gemma: str) -> None:
    without = say("plan", gemma, *CARD, "--mmproj", "none", "--json").json
    whole = say("plan", gemma, *CARD, "--json").json
    assert without["companions"] == []
    assert "--mmproj" not in without["command"]
    before, after = (p["memory"]["gpus"][0]["total_bytes"] for p in (without, whole))
    assert after - before == whole["companions"][0]["parts"][0]["total_bytes"]


def test_the_arithmetic_has_its_lines(say: Say, gemma: str) -> None:
    plan = say("plan", gemma, *CARD, "--explain", "--json").json
    gpu = plan["memory"]["gpus"][0]
    for kind, field in (("weights", "weights_bytes"), ("compute", "compute_bytes")):
        steps = [s for s in plan["explanation"] if (s["device"], s["kind"]) == ("GPU 0", kind)]
        assert sum(s["bytes"] for s in steps) == gpu[field]
        assert any("mmproj-f16.gguf" in s["text"] for s in steps)


@pytest.mark.parametrize(
    ("flag", "make", "said"),
    [
        ("--mmproj", lambda p: attachments.pixtral(p), "not of the width"),
        (
            "--mmproj",
            lambda p: attachments.lora(p, find_model("smollm2-135m").spec()),
            "is no proj",
        ),
        ("--lora", lambda p: attachments.gemma3(p), "is no adapter"),
        ("--lora", lambda p: attachments.lora(p, find_model("llama-3.2-1b").spec()), "not have"),
        ("--lora", lambda p: p.write_bytes(b"GGUF"), "cut off"),
    ],
)
def test_what_does_not_belong_is_refused(
    say: Say, gemma: str, tmp_path: Path, flag: str, make: object, said: str
) -> None:
    path = tmp_path / "other.bin"
    make(path)  # type: ignore[operator]
    answer = say("plan", gemma, *CARD, flag, str(path))
    assert answer.code == 2
    assert said in answer.err


def test_a_draft_model_by_its_name(say: Say) -> None:
    args = ("plan", "qwen3-32b", "-q", "Q4_K_M", "--machine", TWO_CARDS)
    plan = say(*args, "--draft", "qwen3-0.6b", "--json").json
    [found] = plan["companions"]
    assert found["kind"] == "draft"
    assert {part["device"] for part in found["parts"]} == {"GPU 0", "RAM"}
    assert "--spec-type draft-simple -hfd " in plan["command"]
    refused = say(*args, "--draft", "qwen3-0.6b", "--engine", "ollama")
    assert refused.code == 2
    assert "--draft is not planned for ollama" in refused.err


def test_a_repository_with_a_projector_is_told_to_leave_it(say: Say) -> None:
    """``-hf`` would load it unasked, and no plan has counted it (llama.cpp common/arg.cpp)."""
    vision = say("plan", "gemma-3-27b", "-q", "Q4_K_M", "--machine", TWO_CARDS, "--json").json
    assert " --no-mmproj " in vision["command"]
    text = say("plan", "qwen3-8b", "-q", "Q4_K_M", "--machine", NO_CARD, "--json").json
    assert "--no-mmproj" not in text["command"]


def test_a_projector_that_is_named_replaces_that_of_the_repository(
    say: Say, tmp_path: Path
) -> None:
    path = attachments.gemma3(tmp_path / "mine.gguf")
    args = ("plan", "gemma-3-4b", "-q", "Q4_K_M", *CARD, "--json")
    plan = say(*args, "--mmproj", str(path)).json
    assert plan["command"].endswith(f"--mmproj {path}")
    assert "--no-mmproj" not in plan["command"]
    assert "--no-mmproj" in say(*args).json["command"]
