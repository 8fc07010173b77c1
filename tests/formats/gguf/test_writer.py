"""A written file is what was meant: read back equal, and understood by the real llama.cpp."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import ModelFiles, converted_types, cut

from nemofit.catalog.ggml import tensor_bytes
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
    metadata={"block_count": 1, "embedding_length": 256, "vocab_size": 64, "tied_embeddings": True},
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


@pytest.mark.parametrize("name", BY_ARCHITECTURE.values())
def test_every_architecture_is_read_back_equal(name: str, tmp_path: Path) -> None:
    model = replace(find_model(name).spec(), file_type="F16")
    types = converted_types(model)
    path = tmp_path / f"{model.id}.gguf"
    size = writer.write_sparse(path, model, types)
    back = read_gguf(path)
    for key, value in model.metadata.items():
        if not isinstance(value, bool) or key in back.metadata:
            assert _as_stored(back.metadata[key]) == _as_stored(value), key
    assert back.tensors == tuple(
        Tensor(t.name, t.shape, kind) for t, kind in zip(model.tensors, types, strict=True)
    )
    assert (back.id, back.architecture, back.file_type) == (model.id, model.architecture, "F16")
    assert back.file_bytes == size == path.stat().st_size


def _as_stored(value: Value) -> object:
    """A value as 32-bit floats keep it."""
    if isinstance(value, tuple):
        return [_as_stored(v) for v in value]
    return struct.pack("<f", value) if isinstance(value, float) else value


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
    host, _, _ = engine.fit_params(path, RunConfig(context=256, ubatch=32))["Host"]
    assert host == _loaded_bytes(read_gguf(path)) // MIB


def _loaded_bytes(model: ModelSpec) -> int:
    """What llama.cpp loads into host memory: all but the blocks that predict further tokens."""
    blocks = model.integer("block_count") - model.integer("nextn_predict_layers")
    sizes = {t.name: tensor_bytes(t.type or "", t.shape) for t in model.tensors}
    total = sum(
        size
        for name, size in sizes.items()
        if not name.startswith("blk.") or int(name.split(".")[1]) < blocks
    )
    # src/models/gemma4.cpp makes the output's copy before the embedding, so both are kept.
    return total + (sizes["token_embd.weight"] if model.architecture == "gemma4" else 0)


def test_llama_cpp_loads_a_cut_model(engine: Engine, model_files: ModelFiles) -> None:
    """llama-server, 0.5.0-dev, three of eight blocks without mmap: weights to 0.01 MiB."""
    model = cut(EIGHT_BLOCKS, 3)
    path = model_files.path(model, "F16")
    load = engine.server_load(path, RunConfig(context=512, ubatch=64, mmap=False))
    assert abs(load.devices["CPU"].model - _loaded_bytes(read_gguf(path))) <= 0.005 * MIB
    assert load.devices["CPU"].kv == 512 * 3 * 2 * 4 * 64 * 2
