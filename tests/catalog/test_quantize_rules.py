"""Every tensor's type against what the real llama-quantize said, recorded with its version."""

from __future__ import annotations

import pytest
from benchmarks.accuracy.weights import FIXTURES, differences, read_fixture

from nemofit.catalog.filetypes import file_types, source_types, tensor_types, weights_bytes
from nemofit.catalog.model import ModelSpec, Tensor
from nemofit.errors import DataError, UsageError

SHAPES = sorted(path.stem for path in FIXTURES.glob("*.json"))


@pytest.mark.parametrize("name", SHAPES)
def test_every_type_and_total_is_llama_quantizes(name: str) -> None:
    """All file types, with and without an importance matrix, tensor by tensor."""
    shape, answers = read_fixture(FIXTURES / f"{name}.json")
    assert {(t, m) for t in file_types() for m in (False, True)} == set(answers)
    found = {
        key: wrong
        for key, answer in answers.items()
        if (wrong := differences(shape.model, *key, answer))
    }
    assert found == {}


@pytest.mark.parametrize("name", SHAPES)
def test_source_types_are_the_converters(name: str) -> None:
    """The types of the 16-bit file, written down by hand from the converter's code."""
    shape, _ = read_fixture(FIXTURES / f"{name}.json")
    assert shape.source == source_types(shape.model)


def test_shapes_cover_what_makes_a_difference() -> None:
    """Fixtures that lost a special case would still agree."""
    assert {
        "llama-3.1-70b", "llama-3.1-8b", "qwen2.5-72b", "qwen2.5-0.5b", "mixtral-8x7b",
        "mixtral-8x22b", "phi-4", "gemma-3-27b", "gpt-oss-20b", "nemotron-super-49b",
        "glm-4.5-air", "deepseek-v2-lite", "nemotron-nano-9b-v2", "qwen3-30b-a3b",
    } <= set(SHAPES)  # fmt: skip


def test_order_of_the_file_does_not_matter() -> None:
    """llama-quantize visits tensors by layer and name, whatever their order in the file."""
    model = read_fixture(FIXTURES / "nemotron-super-49b.json")[0].model
    turned = ModelSpec(
        id="turned",
        architecture=model.architecture,
        metadata=model.metadata,
        tensors=model.tensors[::-1],
    )
    assert tensor_types(model, "Q4_K_M")[::-1] == tensor_types(turned, "Q4_K_M")


def test_a_tensor_that_stays_keeps_the_files_type() -> None:
    """A BF16 norm in a file stays BF16 when the file is quantized again."""
    model = ModelSpec(
        id="m",
        architecture="llama",
        metadata={"block_count": 1, "attention.head_count": 4, "vocab_size": 8},
        tensors=(
            Tensor("output_norm.weight", (256,), "BF16"),
            Tensor("blk.0.ffn_gate_inp.weight", (256, 8), "F16"),
            Tensor("blk.0.attn_q.weight", (256, 256), "Q8_0"),
        ),
    )
    assert tensor_types(model, "Q5_K_S") == ("BF16", "F16", "Q5_K")
    assert weights_bytes(model, "Q5_K_S") == 512 + 4096 + 256 * 176
    assert tensor_types(model, None) == ("BF16", "F16", "Q8_0")
    assert weights_bytes(model) == 512 + 4096 + 256 * 272


def test_a_refusal_is_llama_quantizes() -> None:
    """Q1_0 has no fallback for rows of 2880."""
    model = read_fixture(FIXTURES / "gpt-oss-20b.json")[0].model
    with pytest.raises(UsageError, match=r"Q1_0.* rows of 2880"):
        weights_bytes(model, "Q1_0")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("blk.7.ffn_up_exps.weight", (256, 256, 4)), "none of the 2 layers"),
        (Tensor("ffn_up_exps.weight", (256, 256, 4)), "none of the 2 layers"),
        (Tensor("blk.0.attn_q.weight", ()), r"has the shape \(\)"),
        (Tensor("blk.0.attn_q.weight", (256, 0)), r"has the shape \(256, 0\)"),
        (Tensor("blk.0.attn_q.weight", (-256, 4)), r"has the shape \(-256, 4\)"),
    ],
)
def test_a_broken_model_is_named(tensor: Tensor, message: str) -> None:
    model = ModelSpec(
        id="broken",
        architecture="llama",
        metadata={"block_count": 2, "expert_count": 4, "vocab_size": 8},
        tensors=(tensor,),
    )
    with pytest.raises(DataError, match=message):
        weights_bytes(model, "Q4_K_M")


@pytest.mark.parametrize("name", ["", "blk.", "blk.x.ffn_up.weight", "blk.²." + "9" * 50, "weight"])
def test_hostile_names_are_only_names(name: str) -> None:
    model = ModelSpec(
        id="odd",
        architecture="x" * 99,
        metadata={"vocab_size": 1},
        tensors=(Tensor(name, (64, 2)),),
    )
    assert weights_bytes(model, "F16") in (256, 512)
