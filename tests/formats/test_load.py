"""One way in: a name of the catalog or a file, and what is neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemofit.errors import DataError, UnknownNameError
from nemofit.formats.load import load_model

from .gguf.build import DATA, SMALL, TENSORS, gguf


def test_names_and_aliases_find_the_catalog() -> None:
    assert load_model("nemotron").id == "nemotron-70b"
    assert load_model("meta-llama/Llama-3.1-70B-Instruct").parameters == 70_553_706_560


def test_files_are_found_by_path(tmp_path: Path) -> None:
    path = tmp_path / "tiny.GGUF"
    path.write_bytes(gguf(SMALL, TENSORS, DATA))
    assert load_model(path).id == load_model(str(path)).id == "tiny"
    blob = path.rename(tmp_path / "sha256-0123")
    assert load_model(str(blob)).architecture == "llama"


@pytest.mark.parametrize("ref", ["no-such-model", "", "a\0b", "x" * 10000])
def test_what_is_neither_is_not_known(ref: str) -> None:
    with pytest.raises(UnknownNameError):
        load_model(ref)


def test_a_repository_without_its_prefix_is_told_how_to_write_it() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_model("zzqx/qqxyzzy-0815")
    assert caught.value.hint == "for a repository on the hub write hf:zzqx/qqxyzzy-0815"


def test_a_missing_file_names_what_lies_beside(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        load_model("nemotron.gguf")
    (tmp_path / "Nemotron-Q4_K_M.gguf").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_model(str(tmp_path / "Nemotron-Q4_K_S.gguf"))
    assert caught.value.hint == f"did you mean: {tmp_path / 'Nemotron-Q4_K_M.gguf'}"


def test_a_directory_names_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a directory"):
        load_model("/")
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_model(str(tmp_path))
    assert caught.value.hint == "name a file in it: a.gguf"


@pytest.mark.skipif(os.name == "nt", reason="links and pipes are different there")
def test_loops_and_pipes_end_at_once(tmp_path: Path) -> None:
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    with pytest.raises(DataError, match=r"levels of symbolic links|too many"):
        load_model(str(loop))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="cannot read"):
        load_model(str(tmp_path / "loop"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="device or a pipe"):
        load_model(str(tmp_path / "pipe"))
    with pytest.raises(DataError, match="device or a pipe"):
        load_model("/dev/zero")


def test_a_file_that_shrinks_while_read_is_an_error(tmp_path: Path) -> None:
    """Cut after its size was taken: the window comes back short."""
    from nemofit.formats.gguf.header import header_of
    from nemofit.formats.ranged import LocalFile

    path = tmp_path / "x.gguf"
    path.write_bytes(gguf([*SMALL, ("a", 8, "x" * 3_000_000)], TENSORS, DATA))
    with open(path, "rb") as file:
        source = LocalFile(file)
        os.truncate(path, 2_000_000)
        with pytest.raises(DataError, match="shorter while it was read"):
            header_of(source, "x.gguf")
