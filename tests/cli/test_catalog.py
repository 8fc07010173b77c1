"""``nemofit catalog``: what is known of a model, an entry from a header, catalog against file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from command_lines import NO_CARD, Say, small_file

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.formats.gguf.writer import write_sparse


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    directory = tmp_path / "mine"
    directory.mkdir()
    return directory


def test_everything_known_is_shown_with_its_sources(say: Say) -> None:
    """Published parameters, licence and a score of Llama 3.3 as its makers state them."""
    shown = say("catalog", "show", "llama3.3:70b", "--json").json
    assert shown["id"] == "llama-3.3-70b"
    assert shown["published_parameters"] == 70553706496
    assert shown["licence"]["name"] == "Llama 3.3 Community License"
    assert all(score["sources"] for score in shown["scores"])
    assert shown["file"].endswith("models.yaml")
    text = say("catalog", "show", "llama3.3:70b").out
    for fact in ("70,553,706,496", "attention.head_count_kv", "bartowski/", "models/llama3_3/"):
        assert fact in text


def test_a_file_becomes_an_entry_that_gives_the_same_plan(
    say: Say, tmp_path: Path, mine: Path
) -> None:
    path = small_file(tmp_path)
    added = say("catalog", "add", str(path), "--catalog", str(mine), "--json").json
    assert added["id"] == "small-135m"
    assert added["replaced"] is False
    args = ("-q", "Q4_0", "-c", "2k", "--no-imatrix", "--machine", NO_CARD, "--json")
    entry = say("plan", "small-135m", *args, "--catalog", str(mine)).json
    shipped = say("plan", "smollm2-135m", *args).json
    assert entry["memory"]["host"] == shipped["memory"]["host"]
    assert entry["model"]["parameters"] == shipped["model"]["parameters"] == 134515008


def test_what_was_written_is_shown(say: Say, tmp_path: Path, mine: Path) -> None:
    path = small_file(tmp_path)
    out = say("catalog", "add", str(path), "--name", "tiny", "--catalog", str(mine)).out
    written = (mine / "models.yaml").read_text()
    assert written.strip() in out
    assert f"header of {path.name}" in written


def test_an_entry_is_replaced_only_by_force(say: Say, tmp_path: Path, mine: Path) -> None:
    add = ("catalog", "add", str(small_file(tmp_path)), "--catalog", str(mine))
    assert say(*add).code == 0
    before = (mine / "models.yaml").read_bytes()
    refused = say(*add)
    assert refused.code == 2
    assert "--force" in refused.err
    assert (mine / "models.yaml").read_bytes() == before
    assert say(*add, "--force", "--json").json["replaced"] is True
    assert (mine / "models.yaml").read_bytes() == before


def test_an_entry_that_hides_a_shipped_one_says_so(say: Say, tmp_path: Path, mine: Path) -> None:
    add = ("catalog", "add", str(small_file(tmp_path)), "--catalog", str(mine))
    assert "shipped" in say(*add, "--name", "smollm2-135m").err
    shown = say("catalog", "show", "smollm2-135m", "--catalog", str(mine), "--json").json
    assert shown["file"] == str(mine / "models.yaml")


@pytest.mark.parametrize("name", ["Has Capitals", "../escape", "", "x" * 65])
def test_an_id_that_no_entry_may_have_is_refused(
    say: Say, tmp_path: Path, mine: Path, name: str
) -> None:
    add = ("catalog", "add", str(small_file(tmp_path)), "--catalog", str(mine))
    said = say(*add, f"--name={name}")
    assert said.code == 2 if name else said.code == 0
    assert (mine / "models.yaml").exists() is (not name)


def test_a_broken_personal_file_stays_as_it_is(say: Say, tmp_path: Path, mine: Path) -> None:
    (mine / "models.yaml").write_text("models: {broken: [}\n")
    said = say("catalog", "add", str(small_file(tmp_path)), "--catalog", str(mine))
    assert said.code == 2
    assert "line 1" in said.err
    assert (mine / "models.yaml").read_text() == "models: {broken: [}\n"
    assert os.listdir(mine) == ["models.yaml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written(say: Say, tmp_path: Path, mine: Path) -> None:
    mine.chmod(0o500)
    said = say("catalog", "add", str(small_file(tmp_path)), "--catalog", str(mine))
    assert said.code == 5
    assert os.listdir(mine) == []


def test_a_file_as_the_catalog_says(say: Say, tmp_path: Path) -> None:
    path = small_file(tmp_path)
    said = say("catalog", "check", str(path), "--name", "smollm2-135m", "--json")
    assert said.code == 0
    assert said.json["verdict"] == "same"
    assert said.json["compared"][0]["model"] == "smollm2-135m"


def test_every_difference_is_told(say: Say, tmp_path: Path) -> None:
    """A layer of another width and another rope base: two keys and the tensors that follow."""
    model = find_model("smollm2-135m").spec()
    wide = {"blk.3.ffn_up.weight", "blk.3.ffn_gate.weight"}
    tensors = tuple(
        t._replace(shape=(576, 1600)) if t.name in wide else t for t in model.tensors[:-1]
    )
    metadata = {**model.metadata, "rope.freq_base": 10000.0, "block_count": 30}
    other = replace(model, metadata=metadata, tensors=tensors, file_type="F16")
    path = tmp_path / "Smol.gguf"
    write_sparse(path, other, tensor_types(other, "F16", imatrix=False))
    said = say("catalog", "check", str(path), "--name", "smollm2-135m", "--json")
    assert said.code == 3
    found = {(d["name"], d["catalog"], d["file"]) for d in said.json["compared"][0]["differences"]}
    assert found == {
        ("rope.freq_base", "100000.0", "10000.0"),
        ("blk.3.ffn_gate.weight", "576x1536", "576x1600"),
        ("blk.3.ffn_up.weight", "576x1536", "576x1600"),
        (model.tensors[-1].name, "x".join(map(str, model.tensors[-1].shape)), None),
    }


def test_a_file_that_the_catalog_does_not_know(say: Say, tmp_path: Path) -> None:
    said = say("catalog", "check", str(small_file(tmp_path)), "--json")
    assert said.code == 0
    [compared] = said.json["compared"]
    assert compared["model"] is None
    assert "--name" in compared["note"]


def test_the_catalog_alone_is_checked_too(say: Say, mine: Path) -> None:
    (mine / "gpus.yaml").write_text("gpus:\n  x1: {name: X1, vendor: nvidia}\n")
    said = say("catalog", "check", "--catalog", str(mine))
    assert said.code == 2
    assert "gpus.yaml line 2" in said.err
    entries = {
        Path(f["file"]).name: f["entries"] for f in say("catalog", "check", "--json").json["files"]
    }
    assert entries["models.yaml"] >= 120


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("catalog", "remove"), "show, add, check"),
        (("catalog", "show"), "nemofit catalog --help"),
        (("catalog", "add"), "nemofit catalog --help"),
        (("catalog", "add", "nemotron"), "catalog show nemotron-70b"),
        (("catalog", "check", "nemotron"), "name a file"),
    ],
)
def test_mistakes(say: Say, args: tuple[str, ...], hint: str) -> None:
    said = say(*args)
    assert said.code == 2
    assert hint in said.err


def test_a_model_that_is_not_known(say: Say) -> None:
    said = say("catalog", "show", "nemotrom")
    assert said.code == 4
    assert "nemotron-70b" in said.err


def test_files_on_this_disk_are_compared_with_the_entries_of_their_name(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LM Studio's directory: one file as the catalog says, one of another shape, one unknown."""
    models = Path.home() / ".lmstudio" / "models" / "maker" / "repo"
    models.mkdir(parents=True)
    small_file(models).rename(models / "smollm2-135m-Q4_0.gguf")
    small_file(models).rename(models / "smollm2-360m-Q4_0.gguf")
    small_file(models)
    for variable in ("HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS", "LLAMA_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    said = say("catalog", "check", "--json")
    assert said.code == 3
    compared = {row["model"]: row["differences"] for row in said.json["compared"]}
    assert set(compared) == {"smollm2-135m", "smollm2-360m"}
    assert compared["smollm2-135m"] == []
    assert {"key", "tensor"} == {d["what"] for d in compared["smollm2-360m"]}
