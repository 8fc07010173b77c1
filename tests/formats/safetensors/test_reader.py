"""Checkpoints on disk: what is read of them, and those that are incomplete or lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nemofit.catalog.filetypes import weights_bytes
from nemofit.errors import DataError
from nemofit.formats.load import load_model
from nemofit.formats.safetensors.reader import read_checkpoint

from .build import LLAMA, checkpoint, entries, file_bytes, llama, sparse


def test_a_directory_is_read_as_it_is_stored_and_as_a_gguf(tmp_path: Path) -> None:
    model = read_checkpoint(checkpoint(tmp_path / "tiny", LLAMA, llama()))
    stored = model.checkpoint
    assert stored is not None
    assert (model.id, model.architecture) == ("tiny", "llama")
    assert stored.total_bytes == 2 * model.parameters == weights_bytes(model)
    assert dict(stored.dtype_bytes) == {"BF16": stored.total_bytes}
    assert (stored.format, stored.quantization, stored.tied) == ("bf16", None, False)
    assert not stored.other_bytes
    assert weights_bytes(model, "F16") < weights_bytes(model, "F32")


@pytest.mark.parametrize("name", ["", "config.json/..", "model.safetensors.index.json",
                                  "model-00002-of-00002.safetensors"])  # fmt: skip
def test_any_of_its_files_names_a_checkpoint(tmp_path: Path, name: str) -> None:
    tensors = list(llama().items())
    path = checkpoint(tmp_path / "tiny", LLAMA, dict(tensors[:9]), dict(tensors[9:]))
    name = "" if ".." in name else name
    model = load_model(path / name)
    assert model.checkpoint is not None and len(model.checkpoint.files) == 2
    assert load_model(str(path / name)).parameters == model.parameters
    assert model.id == "tiny"


def test_a_model_of_the_hugging_face_cache(tmp_path: Path) -> None:
    """The cache's layout: files are links into blobs/, refs/main names the snapshot."""
    root = tmp_path / "models--owner--Tiny-Llama"
    files = checkpoint(root / "blobs", LLAMA, llama())
    for revision in ("0a" * 20, "1b" * 20):
        snapshot = root / "snapshots" / revision
        snapshot.mkdir(parents=True)
        for file in os.listdir(files):
            (snapshot / file).symlink_to(f"../../blobs/{file}")
    with pytest.raises(DataError, match="holds 2 snapshots"):
        read_checkpoint(root)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("1b" * 20)
    assert load_model(root).id == "Tiny-Llama"
    assert load_model(root / "snapshots" / ("0a" * 20)).id == "Tiny-Llama"


def test_tied_weights_count_once(tmp_path: Path) -> None:
    shapes = llama()
    config = LLAMA | {"tie_word_embeddings": True}
    both = read_checkpoint(checkpoint(tmp_path / "both", config, shapes)).checkpoint
    del shapes["lm_head.weight"]
    once = read_checkpoint(checkpoint(tmp_path / "once", config, shapes)).checkpoint
    assert both is not None and once is not None
    assert both.tied and once.tied
    assert both.total_bytes - once.total_bytes == 2 * 128 * 64


def test_a_tensor_in_two_files_counts_once(tmp_path: Path) -> None:
    shapes = llama()
    path = checkpoint(tmp_path / "twice", LLAMA, shapes, {"lm_head.weight": ("BF16", (128, 64))})
    assert read_checkpoint(path).checkpoint.total_bytes == sum(  # type: ignore[union-attr]
        e["data_offsets"][1] - e["data_offsets"][0] for e in entries(shapes).values()
    )
    sparse(path / "model-00002-of-00002.safetensors", {"lm_head.weight": ("F32", (128, 64))})
    with pytest.raises(DataError, match="once more, with another shape"):
        read_checkpoint(path)


def test_a_vision_tower_is_counted_and_named(tmp_path: Path) -> None:
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "text_config": {k: v for k, v in LLAMA.items() if k != "architectures"}
        | {"model_type": "mistral", "head_dim": 16},
        "vision_config": {"hidden_size": 32},
    }
    shapes = {"language_model." + name: value for name, value in llama().items()} | {
        "vision_tower.transformer.layers.0.attention.q_proj.weight": ("BF16", (32, 32)),
        "multi_modal_projector.linear_1.weight": ("BF16", (64, 32)),
    }
    model = read_checkpoint(checkpoint(tmp_path / "eyes", config, shapes))
    assert model.architecture == "mistral3"
    assert model.checkpoint is not None
    assert model.checkpoint.other_bytes == {"vision_tower": 2048, "multi_modal_projector": 4096}
    assert any("vision_tower" in note for note in model.notes)
    assert model.checkpoint.total_bytes == 2 * model.parameters + 6144


def test_a_family_that_is_not_known_still_tells_its_bytes(tmp_path: Path) -> None:
    config = LLAMA | {"architectures": ["BrandNewForCausalLM"]}
    with pytest.raises(DataError, match=r"0.00 GB in BF16; its GGUF shape is not known") as caught:
        read_checkpoint(checkpoint(tmp_path / "new", config, llama()))
    assert "BrandNewForCausalLM" in caught.value.message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": 32}, "elements in the files"),
        ({"num_hidden_layers": 3}, "nothing is stored for blk.2"),
        ({"num_hidden_layers": 1_000_000}, "block_count is 1000000, not 1 to 512"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"num_hidden_layers": 0}, "block_count is 0"),
        ({"num_hidden_layers": None}, "lacks num_hidden_layers"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 1e400}, "hidden_size is inf"),
        ({"hidden_size": [64]}, "hidden_size is"),
        ({"rope_theta": "big"}, "rope_theta is 'big'"),
        ({"architectures": []}, "names no architecture"),
        ({"architectures": [3]}, "names no architecture"),
        ({"architectures": None}, "names no architecture"),
        ({"architectures": ["\x1b[31mLlama"]}, "names no architecture"),
        ({"num_experts_per_tok": 1 << 31}, "llama.expert_used_count is 2147483648, not 0 to 1024"),
        ({"num_attention_heads": 0}, "without a size"),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, "is no part of that family"),
    ],
)
def test_configurations_that_lie_are_named(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read_checkpoint(checkpoint(tmp_path / "x", LLAMA | change, llama()))
    assert "\n" not in caught.value.message and "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is no JSON"),
        (b"[1]", "not an object"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"hidden_size":' + b"9" * 9999 + b"}", "is no JSON"),
        (b" " * (9 << 20), "more than"),
    ],
)
def test_broken_configurations(tmp_path: Path, text: bytes, says: str) -> None:
    path = checkpoint(tmp_path / "x", LLAMA, llama())
    (path / "config.json").write_bytes(text)
    with pytest.raises(DataError, match=says):
        read_checkpoint(path)


def index(path: Path, text: str) -> None:
    (path / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/../../b", "..\\\\b", "C:b", "a\\u0000"]
)
def test_an_index_may_not_point_elsewhere(tmp_path: Path, name: str) -> None:
    path = checkpoint(tmp_path / "x", LLAMA, llama())
    (path / "model.safetensors").rename(path / "weights.safetensors")
    index(path, '{"weight_map": {"a": "' + name + '"}}')
    with pytest.raises(DataError, match=r"outside of the directory|is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "has no weight_map"),
        ('{"weight_map": {}}', "is damaged"),
        ('{"weight_map": {"a": 3}}', "is damaged"),
        ('{"weight_map": {"a": "x.safetensors"', "is damaged"),
        ('{"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}', "lacks 2 of the 2 files"),
        (
            json.dumps({"weight_map": {str(i): f"{i}.safetensors" for i in range(2000)}}),
            "more than 1024 files",
        ),
    ],
)
def test_broken_indexes(tmp_path: Path, text: str, says: str) -> None:
    path = checkpoint(tmp_path / "x", LLAMA, llama())
    (path / "model.safetensors").rename(path / "weights.safetensors")
    index(path, text)
    with pytest.raises(DataError, match=says):
        read_checkpoint(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    tensors = list(llama().items())
    path = checkpoint(tmp_path / "x", LLAMA, dict(tensors[:9]), dict(tensors[9:]))
    (path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the 2 files.*model-00001-of-00002"):
        read_checkpoint(path)
    (path / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match=r"the number in their names.*model-00001-of-00002"):
        read_checkpoint(path)


def test_other_directories_say_what_they_lack(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x", LLAMA, llama())
    (path / "config.json").unlink()
    with pytest.raises(DataError, match=r"0.00 GB in BF16 without a config.json"):
        read_checkpoint(path / "model.safetensors")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(DataError, match="never opened"):
        read_checkpoint(path)
    with pytest.raises(DataError, match="does not exist"):
        read_checkpoint(path / "model.safetensors")


def test_pipes_and_directories_are_not_opened(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x", LLAMA, llama())
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")
    with pytest.raises(DataError, match="is no file"):
        read_checkpoint(path)
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(DataError, match="cannot read"):
        read_checkpoint(path)
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").mkdir()
    with pytest.raises(DataError, match="is no file"):
        read_checkpoint(path)


def test_tensors_of_no_such_family_are_named(tmp_path: Path) -> None:
    shapes = llama() | {"model.layers.1.mlp.extra.weight": ("BF16", (4,))}
    with pytest.raises(DataError, match=r"mlp.extra.weight.* is no part of that family"):
        read_checkpoint(checkpoint(tmp_path / "x", LLAMA, shapes))


def test_an_unknown_dtype_is_counted(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x", LLAMA, llama())
    header = entries(llama())
    header["model.layers.0.mlp.up_proj.weight"]["dtype"] = "POSIT16"
    (path / "model.safetensors").write_bytes(file_bytes(header))
    model = read_checkpoint(path)
    assert model.checkpoint is not None
    assert model.checkpoint.dtype_bytes["POSIT16"] == 2 * 96 * 64
