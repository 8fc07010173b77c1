"""What the shell offers after Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemofit.cli import completion


def test_words_of_the_catalog() -> None:
    """Models with their aliases, file types and cards, whatever the case."""
    assert "nemotron-70b" in completion.models("nemo")
    assert "nemotron" in completion.models("NEMO")
    assert completion.quants("q4_k") == ["Q4_K_M", "Q4_K_S"]
    assert any("RTX 3090" in card for card in completion.machines("1x NVIDIA GeForce RTX 30"))


@pytest.mark.parametrize(
    ("complete", "start", "expected"),
    [
        (completion.kv_types, "q8", ["q8_0"]),
        (completion.preferences, "q", ["quality"]),
        (completion.engines, "o", ["ollama"]),
        (completion.lists, "g", ["gpus"]),
        (completion.schemas, "rec", ["recommend"]),
        (completion.on_off, "of", ["off"]),
    ],
)
def test_fixed_words(complete: object, start: str, expected: list[str]) -> None:
    assert callable(complete)
    assert expected == complete(start)


def test_a_broken_catalog_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tab never prints an error."""
    (tmp_path / "models.yaml").write_text("[")
    monkeypatch.setenv("NEMOFIT_CATALOG", str(tmp_path))
    assert completion.models("nemo") == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("nemofit plan nemotron-7", "nemotron-70b"),
        ("nemofit plan x --quant Q4_K_", "Q4_K_M"),
        ("nemofit reco", "recommend"),
        ("nemofit list mo", "models"),
    ],
)
def test_as_bash_asks(words: str, offered: str) -> None:
    """The protocol that the installed script speaks: words in, candidates out."""
    environment = {
        **os.environ,
        "_NEMOFIT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "import sys; sys.argv[0] = 'nemofit'; from nemofit.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert offered in done.stdout.split()
