"""A written file is what was meant: read back equal, and understood by the real llama.cpp."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import ModelFiles, converted_types, cut

from nemofit.catalog.model import ModelSpec, Tensor, Value
from nemofit.catalog.models import all_models, find_model
from nemofit.catalog.shapes import tensors_of
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import DataError, HardwareError, UnknownNameError, UsageError
from nemofit.formats.gguf import writer
from nemofit.formats.gguf.reader import read_gguf
from nemofit.units import MIB

SMALL = ModelSpec(
    id="small",
    architecture="llama",
    metadata={"block_count": 1, "vocab_size": 64, "tied_embeddings": True},
    tensors=(Tensor("token_embd.weight", (256, 64)), Tensor("output_norm.weight", (256,))),
)
_METADATA: dict[str, Value] = {
    "block_count": 8,
    "context_length": 4096,
    "embedding_length": 1024,
    "feed_forward_length": 2048,
    "attention.head_count": 16,
    "attention.head_count_kv": (4,) * 8,
    "vocab_size": 8192,
}
EIGHT_BLOCKS = ModelSpec(
    id="eight-blocks",
    architecture="llama",
    metadata=_METADATA,
    tensors=tensors_of("llama", _METADATA),
)
BY_ARCHITECTURE = {card.spec().architecture: card.id for card in reversed(all_models())}


@pytest.mark.parametrize("card", all_models(), ids=lambda c: c.id)
def test_every_model_of_the_catalog_is_read_back_equal(card, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = replace(card.spec(), file_type="F16")
    types = converted_types(model)
    path = tmp_path / f"{model.id}.gguf"
    size = writer.write_sparse(path, model, types)
    back = read_gguf(path)
    flags = {k for k, v in model.metadata.items() if isinstance(v, bool)}
    assert {k: back.metadata[k] for k in model.metadata.keys() - flags} == {
        k: v for k, v in model.metadata.items() if k not in flags
    }
    assert back.tensors == tuple(
        Tensor(t.name, t.shape, kind) for t, kind in zip(model.tensors, types, strict=True)
    )
    assert (back.id, back.architecture, back.file_type) == (model.id, model.architecture, "F16")
    assert back.file_bytes == size == path.stat().st_size


def test_the_file_takes_no_room(tmp_path: Path) -> None:
    model = find_model("llama-3.1-70b").spec()
    path = tmp_path / "x.gguf"
    size = writer.write_sparse(path, model, converted_types(model))
    assert size > 131 << 30
    assert os.stat(path).st_blocks * 512 < 256 << 10


def test_a_dummy_vocabulary_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer.write_sparse(path, SMALL, ["F16", "F32"], vocabulary="dummy")
    assert read_gguf(path).metadata["vocab_size"] == 64
    assert path.stat().st_size > 64 * 100


def test_keys_that_the_loader_requires_get_neutral_values(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer.write_sparse(path, SMALL, ["F16", "F32"])
    back = read_gguf(path).metadata
    assert back["attention.layer_norm_rms_epsilon"] == 1e-5
    assert "tied_embeddings" not in back
    given = replace(SMALL, metadata={**SMALL.metadata, "attention.layer_norm_rms_epsilon": 1e-6})
    writer.write_sparse(path, given, ["F16", "F32"])
    assert read_gguf(path).metadata["attention.layer_norm_rms_epsilon"] == 1e-6


def test_no_disk_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where holes cost blocks, a file larger than half of what is free is refused and removed."""

    full = SimpleNamespace(fstat=lambda _: SimpleNamespace(st_blocks=1 << 40))
    monkeypatch.setattr(writer, "os", full)
    path = tmp_path / "x.gguf"
    small = writer.write_sparse(path, SMALL, ["F16", "F32"])
    assert path.stat().st_size == small
    huge = replace(SMALL, tensors=(Tensor("token_embd.weight", (1 << 20, 1 << 24)),))
    with pytest.raises(HardwareError, match="sparse"):
        writer.write_sparse(path, huge, ["F16"])
    assert not path.exists()


def test_mistakes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    with pytest.raises(UsageError, match="1 tensor types for 2 tensors"):
        writer.write_sparse(path, SMALL, ["F16"])
    with pytest.raises(UnknownNameError):
        writer.write_sparse(path, SMALL, ["F16", "Q99"])
    with pytest.raises(DataError):
        writer.write_sparse(path, replace(SMALL, tensors=(Tensor("w", (255,)),)), ["Q4_K"])
    with pytest.raises(DataError, match="5 dimensions"):
        writer.write_sparse(path, replace(SMALL, tensors=(Tensor("w", (1,) * 5),)), ["F32"])
    with pytest.raises(HardwareError, match="cannot write"):
        writer.write_sparse(tmp_path / "none" / "x.gguf", SMALL, ["F16", "F32"])


@pytest.mark.parametrize("name", BY_ARCHITECTURE.values())
def test_llama_cpp_takes_every_architecture(
    name: str, engine: Engine, model_files: ModelFiles
) -> None:
    """llama-fit-params, 0.5.0-dev: loads the header and every tensor, and finds their bytes."""
    model = find_model(name).spec()
    path = model_files.path(model, "F16")
    weights = sum(
        t.elements * 4 if t.type == "F32" else t.elements * 2 for t in read_gguf(path).tensors
    )
    host, _, _ = engine.fit_params(path, RunConfig(context=256, ubatch=32))["Host"]
    assert host == weights // MIB


def test_llama_cpp_loads_a_cut_model(engine: Engine, model_files: ModelFiles) -> None:
    """llama-server, 0.5.0-dev, three of eight blocks without mmap: weights to 0.01 MiB."""
    model = cut(EIGHT_BLOCKS, 3)
    path = model_files.path(model, "F16")
    load = engine.server_load(path, RunConfig(context=512, ubatch=64, mmap=False))
    weights = sum(
        t.elements * 4 if t.type == "F32" else t.elements * 2 for t in read_gguf(path).tensors
    )
    assert abs(load.devices["CPU"].model - weights) <= 0.005 * MIB
    assert load.devices["CPU"].kv == 512 * 3 * 2 * 4 * 64 * 2
