"""vLLM's weights of real checkpoints: the stored tensors themselves, divided over the ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.formats.safetensors.build import (
    LLAMA,
    METHODS,
    WIDE,
    checkpoint,
    llama,
    quantized,
    wide,
)

from nemofit.catalog.models import find_model
from nemofit.engines.vllm import VllmConfig
from nemofit.engines.vllm.formats import own_format
from nemofit.engines.vllm.placement import stage_weights
from nemofit.errors import UsageError
from nemofit.formats.safetensors.reader import read_checkpoint


def weights(path: Path, quant: str | None = None, tp: int = 1, pp: int = 1) -> list[int]:
    model = read_checkpoint(path)
    config = VllmConfig(tensor_parallel=tp, pipeline_parallel=pp)
    stages = stage_weights(model, quant or own_format(model), config)
    return [s.weights_bytes for s in stages]


def test_16_bits_are_the_files_bytes(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x", WIDE, wide())
    total = read_checkpoint(path).checkpoint.total_bytes  # type: ignore[union-attr]
    assert weights(path) == weights(path, "bf16") == [total]
    assert weights(path, tp=2) == weights(path, "bf16", tp=2)


@pytest.mark.parametrize("method", METHODS)
def test_one_rank_holds_what_is_stored(tmp_path: Path, method: str) -> None:
    path = checkpoint(tmp_path / "x", *quantized(method))
    total = read_checkpoint(path).checkpoint.total_bytes  # type: ignore[union-attr]
    assert weights(path) == [total]
    assert sum(weights(path, pp=2)) >= total


@pytest.mark.parametrize(
    ("method", "fmt"), [("awq", "awq"), ("w4a16", "compressed-tensors-w4a16"), ("fp8", "fp8")]
)
@pytest.mark.parametrize("tp", [1, 2])
def test_the_formats_rule_gives_the_same(tmp_path: Path, method: str, fmt: str, tp: int) -> None:
    """The rule is held against vLLM's own classes; weight_shape is beyond it, 16 bytes each."""
    path = checkpoint(tmp_path / "x", *quantized(method))
    extra = 16 * 7 * 2 if method == "w4a16" else 0
    assert weights(path, tp=tp) == [n + extra for n in weights(path, fmt, tp=tp)]


def test_scales_of_undivided_sides_stay_whole(tmp_path: Path) -> None:
    """Two ranks: each has all row scales of the matrices that are divided by their inputs."""
    path = checkpoint(tmp_path / "x", *quantized("fp8"))
    whole, half = weights(path)[0], weights(path, tp=2)[0]
    norms = (2 * 2 + 1) * 256 * 2
    row_scales = 2 * 2 * 256 * 4
    assert half == (whole - norms - row_scales) // 2 + norms + row_scales


def test_a_tied_copy_is_not_counted(tmp_path: Path) -> None:
    config = LLAMA | {"tie_word_embeddings": True}
    path = checkpoint(tmp_path / "x", config, llama())
    total = read_checkpoint(path).checkpoint.total_bytes  # type: ignore[union-attr]
    assert weights(path) == [total - 2 * 128 * 64]


def test_a_catalog_model_has_no_checkpoint() -> None:
    with pytest.raises(UsageError, match="is not a checkpoint"):
        own_format(find_model("nemotron-70b").spec())
