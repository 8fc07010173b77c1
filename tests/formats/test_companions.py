"""Projectors and adapters by their headers, and which projector belongs to a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.accuracy import attachments
from benchmarks.accuracy.sparse import cut

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import find_model
from nemofit.errors import DataError
from nemofit.formats.companions import belongs, bits_of, projector_of, read_attachment
from nemofit.formats.gguf.reader import read_gguf
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.places import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(home=tmp_path)


def small(directory: Path, name: str) -> ModelSpec:
    model = replace(cut(find_model("gemma-3-4b").spec(), 1), file_type="Q4_0")
    path = directory / name
    write_sparse(path, model, tensor_types(model, "Q4_0", imatrix=False))
    return read_gguf(path)


def test_a_projector_is_read(tmp_path: Path, places: Places) -> None:
    found = read_attachment(str(attachments.gemma3(tmp_path / "p.gguf")), places)
    assert (found.kind, found.name) == ("projector", "p.gguf")
    assert found.integer("clip.vision.projection_dim") == 2560
    assert round(found.file_bytes / 1e6) == 851  # ggml-org/gemma-3-4b-it-GGUF, mmproj-model-f16


def test_an_adapter_is_read(tmp_path: Path, places: Places) -> None:
    model = find_model("smollm2-135m").spec()
    found = read_attachment(str(attachments.lora(tmp_path / "l.gguf", model)), places)
    assert found.kind == "adapter"
    assert len(found.tensors) == 2 * 7 * 30


def test_a_model_is_neither(tmp_path: Path, places: Places) -> None:
    model = small(tmp_path, "x.gguf")
    with pytest.raises(DataError, match=r"'x\.gguf' is a model, neither"):
        read_attachment(model.source, places)


def test_the_projector_beside_a_model_is_found(tmp_path: Path, places: Places) -> None:
    """That of another model is passed over, and so is a file that only has such a name."""
    model = small(tmp_path, "gemma-3-4b-it-Q4_0.gguf")
    assert projector_of(model, places) is None
    attachments.pixtral(tmp_path / "mmproj-a.gguf")
    (tmp_path / "mmproj-b.gguf").write_bytes(b"GGUF")
    assert projector_of(model, places) is None
    attachments.gemma3(tmp_path / "mmproj-gemma-f16.gguf")
    found = projector_of(model, places)
    assert found is not None
    assert found.name == "mmproj-gemma-f16.gguf"
    assert belongs(found, model)


def test_of_several_the_nearest_file_type_is_taken(tmp_path: Path, places: Places) -> None:
    """llama.cpp common/download.cpp: the least difference between the numbers in their names."""
    model = small(tmp_path, "gemma-3-4b-it-Q4_0.gguf")
    for name in ("mmproj-x-BF16.gguf", "mmproj-x-F32.gguf", "mmproj-x-Q8_0.gguf"):
        attachments.gemma3(tmp_path / name)
    found = projector_of(model, places)
    assert found is not None
    assert found.name == "mmproj-x-Q8_0.gguf"


@pytest.mark.parametrize(
    ("name", "bits"),
    [("a/x-Q4_K_M.gguf", 4), ("x-IQ2_XXS.gguf", 2), ("mmproj-F16.gguf", 16), ("x.gguf", 0),
     ("Qwen3-8B-BF16.gguf", 16)],
)  # fmt: skip
def test_bits_of_a_name(name: str, bits: int) -> None:
    assert bits_of(name) == bits
