"""One way in: a name of the catalog or a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemofit.errors import DataError, NemofitError, UnknownNameError
from nemofit.formats.load import load_model

from .gguf.build import DATA, SMALL, TENSORS, gguf


def test_names_and_aliases_find_the_catalog() -> None:
    assert load_model("nemotron").id == "nemotron-70b"
    assert load_model("meta-llama/Llama-3.1-70B-Instruct").parameters == 70_553_706_560


def test_files_are_found_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.GGUF"
    path.write_bytes(gguf(SMALL, TENSORS, DATA))
    assert load_model(path).id == load_model(str(path)).id == "tiny"
    blob = path.rename(tmp_path / "sha256-0123")
    assert load_model(str(blob)).architecture == "llama"


@pytest.mark.parametrize("ref", ["no-such-model", "", ".", "a\0b", "x" * 10000, "/"])
def test_what_is_neither_is_not_known(ref: str) -> None:
    with pytest.raises(UnknownNameError):
        load_model(ref)


def test_a_missing_file_is_not_taken_for_a_name() -> None:
    with pytest.raises(DataError, match="No such file"):
        load_model("nemotron.gguf")


@pytest.mark.parametrize("ref", ["hf:owner/repo", "ollama:nemotron"])
def test_other_references_say_that_they_are_not_supported(ref: str) -> None:
    with pytest.raises(NemofitError, match="not supported"):
        load_model(ref)
