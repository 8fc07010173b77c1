"""What llama.cpp refuses is refused, with its reason."""

from __future__ import annotations

import pytest

from nemofit import RunConfig, estimate_memory, load_model
from nemofit.catalog.model import ModelSpec
from nemofit.errors import DataError, UsageError


def test_quantized_v_needs_flash_attention() -> None:
    with pytest.raises(UsageError, match="flash attention"):
        RunConfig(flash_attention=False, kv_type_v="q8_0")


def test_latent_cache_has_one_type() -> None:
    model = load_model("deepseek-v3")
    with pytest.raises(UsageError, match=r"different K \(q8_0\) and V \(f16\) cache types"):
        estimate_memory(model, "Q4_K_M", RunConfig(kv_type_k="q8_0"))


def test_heads_must_be_whole_blocks() -> None:
    """Phi-2's heads are 80 wide, no multiple of 32."""
    base = load_model("llama-3.1-8b")
    model = ModelSpec(
        id="odd",
        architecture="llama",
        metadata={**base.metadata, "attention.key_length": 80, "attention.value_length": 80},
        tensors=base.tensors,
    )
    with pytest.raises(UsageError, match="K cache type q4_0 with block size 32"):
        estimate_memory(model, "Q4_K_M", RunConfig(kv_type_k="q4_0", kv_type_v="q4_0"))


@pytest.mark.parametrize(
    "knob",
    [{"context": 0}, {"context": -1}, {"ubatch": 0}, {"parallel": 0}, {"tensor_split": (0, 0)},
     {"gpu_layers": -3}, {"kv_type_k": "q9"}, {"backend": "opencl"}, {"context": 2.5}],
)  # fmt: skip
def test_nonsense_is_named(knob: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(knob)).replace("_", "[_ ]")):
        RunConfig(**knob)  # type: ignore[arg-type]


def test_split_of_the_wrong_length() -> None:
    model = load_model("llama-3.1-8b")
    with pytest.raises(UsageError, match="3 entries for 2 GPUs"):
        estimate_memory(model, "Q4_K_M", RunConfig(tensor_split=(1, 1, 1)), n_gpus=2)


@pytest.mark.parametrize("missing", ["attn_k.weight", "attn_v.weight"])
def test_a_file_without_a_tensor_is_named(missing: str) -> None:
    """A damaged file gives one clear line."""
    base = load_model("qwen2.5-72b")
    tensors = tuple(t for t in base.tensors if t.name != f"blk.3.{missing}")
    model = ModelSpec(id="damaged", architecture="qwen2", metadata=base.metadata, tensors=tensors)
    with pytest.raises(DataError, match="tensors of damaged do not make a 'qwen2' model"):
        estimate_memory(model, "Q8_0")
