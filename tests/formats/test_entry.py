"""A header makes the entry it was written from, and the same answer: every shape of the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec, Tensor
from nemofit.catalog.models import ModelCard, all_models, find_model
from nemofit.catalog.shapes import tensors_of
from nemofit.engines.llama_cpp import estimate_memory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import DataError
from nemofit.formats.entry import differences, plain_id, plain_name, shape_of
from nemofit.formats.gguf.reader import read_gguf
from nemofit.formats.gguf.writer import write_sparse

MODELS = all_models()
CONFIG = RunConfig(context=4096, ubatch=256, gpu_layers=None)


def written(model: ModelSpec, path: Path, file_type: str) -> ModelSpec:
    """The model after a way through a file."""
    types = tensor_types(model, file_type, imatrix=False)
    write_sparse(path, replace(model, file_type=file_type), types)
    return read_gguf(path)


@pytest.mark.parametrize("card", MODELS, ids=lambda c: c.id)
def test_a_file_gives_its_entry_back_and_the_same_answer(card: ModelCard, tmp_path: Path) -> None:
    """Memory to the byte, per device and kind."""
    model = card.spec()
    file_type = "Q8_0"
    back = written(model, tmp_path / "x.gguf", file_type)
    assert differences(model, back) == ()
    shape = {k: tuple(v) if isinstance(v, list) else v for k, v in shape_of(back).items()}
    made = {(t.name, t.shape) for t in tensors_of(back.architecture, shape)}
    assert made == {(t.name, t.shape) for t in model.tensors}
    from_entry = estimate_memory(model, quant=file_type, config=CONFIG, n_gpus=1)
    from_file = estimate_memory(back, quant=None, config=CONFIG, n_gpus=1)
    assert from_file == from_entry


TRAITS: dict[str, Callable[[ModelSpec], bool]] = {
    "appended blocks": lambda m: m.integer("nextn_predict_layers") > 0,
    "windows": lambda m: m.integer("attention.sliding_window") > 0,
    "latent attention": lambda m: m.integer("attention.kv_lora_rank") > 0,
    "experts": lambda m: m.integer("expert_count") > 0,
    "shared experts": lambda m: m.integer("expert_shared_count") > 0,
    "leading dense blocks": lambda m: m.integer("leading_dense_block_count") > 0,
    "recurrent blocks": lambda m: m.integer("ssm.state_size") > 0,
    "heads by block": lambda m: isinstance(m.metadata.get("attention.head_count_kv"), tuple),
    "tied embeddings": lambda m: m.metadata.get("tied_embeddings") is True,
}


@pytest.mark.parametrize("trait", TRAITS)
def test_the_catalog_has_shapes_with(trait: str) -> None:
    """So that what the test above goes through is what models differ in."""
    assert any(TRAITS[trait](card.spec()) for card in MODELS)


def test_the_breadth_of_the_catalog() -> None:
    assert len(MODELS) >= 120
    assert all(card.spec().parameters > 0 for card in MODELS)


def test_names_lose_their_file_type() -> None:
    model = replace(find_model("smollm2-135m").spec(), source="x")
    for name, plain, id in (
        ("House-8B-Q4_K_M", "House-8B", "house-8b"),
        ("House 8B.q8_0", "House 8B", "house-8b"),
        ("House-8B-IQ2_XXS", "House-8B", "house-8b"),
        ("House-8B", "House-8B", "house-8b"),
        ("日本", "日本", "llama"),
    ):
        named = replace(model, id=name)
        assert (plain_name(named), plain_id(named)) == (plain, id)


def test_tensors_that_no_metadata_tell_are_refused() -> None:
    model = find_model("smollm2-135m").spec()
    odd = replace(model, tensors=(*model.tensors, Tensor("blk.0.extra.weight", (3,), "F32")))
    with pytest.raises(DataError, match=r"other tensors .*blk\.0\.extra\.weight \(3\)"):
        shape_of(odd)
    with pytest.raises(DataError, match="architecture 'odd' are not known"):
        shape_of(replace(model, architecture="odd"))
