"""An entry is added to a person's own file; the rest of it stays as it was, comments and all."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nemofit.catalog.personal import dump, with_entry, write
from nemofit.errors import DataError, UsageError

ENTRY = {
    "name": "New",
    "family": "new",
    "architecture": "llama",
    "metadata": {
        "block_count": 1,
        "context_length": 128,
        "vocab_size": 64,
        "embedding_length": 64,
        "tied_embeddings": True,
        "attention.head_count_kv": [2, 4],
    },
}
OLD = """\
# models of our house
sources:
    paper: a paper   # on the shelf

models:
    # the first
    old:
        name: Old
        family: old
        architecture: llama
        metadata: {block_count: 1, context_length: 8, vocab_size: 8, embedding_length: 8,
                   tied_embeddings: true}
        source: [paper]

    # the last
    older:
        name: Older
        family: old
        architecture: llama
        metadata:
            block_count: 1
            context_length: 8
            vocab_size: 8
            embedding_length: 8
            tied_embeddings: true
        source:
        - paper
# the end
"""


def lines_of(text: str) -> set[str]:
    return set(text.splitlines())


@pytest.mark.parametrize(
    "text",
    ["", "# nothing yet\n", "models:\n", "sources:\nmodels:\n", "models:\nsources: {}\n"[:8], OLD],
)
def test_an_entry_is_added_whatever_the_file_is_like(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.yaml"
    if text:
        path.write_text(text)
    new = with_entry(path, "new", ENTRY, "a header", replace=False)
    assert yaml.safe_load(new)["models"]["new"] == {**ENTRY, "source": ["new"]}
    assert yaml.safe_load(new)["sources"]["new"] == "a header"
    assert lines_of(text) <= lines_of(new)


@pytest.mark.parametrize("id", ["old", "older"])
def test_replacing_leaves_the_others_and_the_comments(tmp_path: Path, id: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(OLD)
    with pytest.raises(UsageError, match=f"an entry '{id}' already"):
        with_entry(path, id, ENTRY, "a header", replace=False)
    new = with_entry(path, id, ENTRY, "a header", replace=True)
    before, after = yaml.safe_load(OLD)["models"], yaml.safe_load(new)["models"]
    assert after == {**before, id: {**ENTRY, "source": [id]}}
    for comment in ("# models of our house", "# on the shelf", "# the first", "# the end"):
        assert comment in new


def test_the_same_entry_twice_is_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(OLD)
    write(path, with_entry(path, "new", ENTRY, "a header", replace=False))
    first = path.read_text()
    write(path, with_entry(path, "new", ENTRY, "a header", replace=True))
    assert path.read_text() == first


def test_what_is_not_valid_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(OLD)
    with pytest.raises(DataError, match="'new': name: is missing"):
        with_entry(path, "new", {k: v for k, v in ENTRY.items() if k != "name"}, "x", False)
    path.write_text("models: {old: 1}\n")
    with pytest.raises(DataError, match="line 1"):
        with_entry(path, "new", ENTRY, "x", False)


def test_sections_in_braces_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("sources: {a: b}\nmodels:\n")
    with pytest.raises(DataError, match="'sources' is written in braces"):
        with_entry(path, "new", ENTRY, "x", False)


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """A person's dotfiles are often links into a repository."""
    real = tmp_path / "real.yaml"
    real.write_text("models:\n")
    real.chmod(0o640)
    link = tmp_path / "models.yaml"
    link.symlink_to(real)
    write(link, "models: {}\n")
    assert link.is_symlink()
    assert real.read_text() == "models: {}\n"
    assert real.stat().st_mode & 0o777 == 0o640


def test_dump_keeps_the_order() -> None:
    assert dump({"b": 1, "a": [1, 2]}, 2) == "  b: 1\n  a:\n  - 1\n  - 2\n"
