"""How checkpoints say that they are quantized: configurations of published repositories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nemofit.catalog.filetypes import weights_bytes
from nemofit.formats.safetensors.quantization import quantization
from nemofit.formats.safetensors.reader import read_checkpoint

from .build import METHODS, WIDE, checkpoint, quantized, wide


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_gguf_as_16_bits(tmp_path: Path, method: str) -> None:
    plain = read_checkpoint(checkpoint(tmp_path / "plain", WIDE, wide()))
    config, shapes = quantized(method)
    model = read_checkpoint(checkpoint(tmp_path / method, config, shapes))
    assert model.tensors == plain.tensors
    assert weights_bytes(model, "Q4_K_M") == weights_bytes(plain, "Q4_K_M")
    stored = model.checkpoint
    assert stored is not None and stored.quantization is not None
    assert stored.total_bytes < plain.checkpoint.total_bytes  # type: ignore[union-attr]
    assert not stored.other_bytes


CASES: list[tuple[dict[str, Any], tuple[str, int | None, int | None, str | None]]] = [
    # Qwen/Qwen2.5-72B-Instruct-AWQ
    (
        {"bits": 4, "group_size": 128, "modules_to_not_convert": None, "quant_method": "awq",
         "version": "gemm", "zero_point": True},
        ("awq", 4, 128, "awq"),
    ),
    # Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8
    (
        {"bits": 8, "damp_percent": 0.01, "desc_act": False, "group_size": 128,
         "quant_method": "gptq", "sym": True, "true_sequential": True},
        ("gptq", 8, 128, "gptq-int8"),
    ),
    # deepseek-ai/DeepSeek-V3
    (
        {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
         "weight_block_size": [128, 128]},
        ("fp8", 8, 128, "fp8"),
    ),
    # meta-llama/Llama-3.1-405B-Instruct-FP8
    (
        {"activation_scale_ub": 1200.0, "modules_to_not_convert": [], "quant_method": "fbgemm_fp8"},
        ("fp8", 8, 0, "fp8"),
    ),
    # openai/gpt-oss-20b
    (
        {"modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"],
         "quant_method": "mxfp4"},
        ("mxfp4", 4, 32, "mxfp4"),
    ),
    # unsloth/Llama-3.2-1B-Instruct-bnb-4bit
    (
        {"_load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16", "load_in_8bit": False,
         "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "load_in_4bit": True,
         "quant_method": "bitsandbytes"},
        ("bitsandbytes", 4, 64, "bitsandbytes-nf4-double"),
    ),
    # RedHatAI's w8a8 and w4a16 of Llama 3.1
    (
        {"config_groups": {"group_0": {
            "input_activations": {"dynamic": True, "num_bits": 8, "type": "int"},
            "weights": {"num_bits": 8, "strategy": "channel", "type": "int"}}},
         "format": "int-quantized", "quant_method": "compressed-tensors"},
        ("compressed-tensors", 8, None, "compressed-tensors-w8a8"),
    ),
    (
        {"config_groups": {"group_0": {
            "input_activations": None,
            "weights": {"group_size": 128, "num_bits": 4, "strategy": "group", "type": "int"}}},
         "format": "pack-quantized", "quant_method": "compressed-tensors"},
        ("compressed-tensors", 4, 128, "compressed-tensors-w4a16"),
    ),
    # RedHatAI's NVFP4
    (
        {"config_groups": {"group_0": {
            "format": "nvfp4-pack-quantized", "input_activations": {"num_bits": 4},
            "weights": {"group_size": 16, "num_bits": 4, "type": "float"}}},
         "format": "nvfp4-pack-quantized", "quant_method": "compressed-tensors"},
        ("nvfp4", 4, 16, "nvfp4"),
    ),
    # moonshotai/Kimi-K2.5
    (
        {"config_groups": {"group_0": {
            "input_activations": None,
            "weights": {"group_size": 32, "num_bits": 4, "strategy": "group", "type": "int"}}},
         "format": "pack-quantized", "quant_method": "compressed-tensors"},
        ("compressed-tensors", 4, 32, None),
    ),
    ({"quant_method": "hqq", "nbits": 4}, ("hqq", 4, None, None)),
    ({"quant_method": ["\x1b"], "bits": "four"}, ("unknown", None, None, None)),
    ({"quant_method": "gptq", "bits": 4, "group_size": -1}, ("gptq", 4, 0, None)),
]  # fmt: skip


@pytest.mark.parametrize(("stated", "expected"), CASES)
def test_published_configurations(
    stated: dict[str, Any], expected: tuple[str, int | None, int | None, str | None]
) -> None:
    for config in (
        {"quantization_config": stated},
        {"text_config": {"quantization_config": stated}},
    ):
        q = quantization(config)
        assert q is not None
        assert (q.method, q.bits, q.group, q.format) == expected


def test_model_optimizer_writes_a_file_of_its_own() -> None:
    """nvidia/Llama-3.1-8B-Instruct-FP8 and -NVFP4, hf_quant_config.json."""
    for algorithm, expected in (("FP8", ("fp8", 8, 0)), ("NVFP4", ("nvfp4", 4, 16))):
        stated = {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "group_size": 16}
        q = quantization({}, {"producer": {"name": "modelopt"}, "quantization": stated})
        assert q is not None
        assert (q.method, q.bits, q.group) == expected
    assert quantization({}) is None
    assert quantization({"quantization_config": None}, {"quantization": 3}) is not None
