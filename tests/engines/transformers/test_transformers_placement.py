"""Placement and memory by the rules; the real libraries are in test_transformers_real.py."""

from __future__ import annotations

import pytest

from nemofit.catalog.models import all_models, find_model
from nemofit.engines.transformers import TransformersConfig, estimate_memory, place
from nemofit.engines.transformers.memory import cache_bytes
from nemofit.engines.transformers.parameters import parameters
from nemofit.engines.transformers.placement import linear_bytes, memory_limits, module_tree
from nemofit.errors import UsageError
from nemofit.units import GIB

MODEL = find_model("llama-3.1-8b").spec()
SEVENTY = find_model("llama-3.3-70b").spec()


def test_16_bit_weights_are_the_checkpoint() -> None:
    """Published: 14.96 GiB (Hugging Face, meta-llama/Llama-3.1-8B-Instruct)."""
    memory = estimate_memory(MODEL, None, [24 * GIB], 64 * GIB)
    assert memory.gpus[0].weights_bytes == 16060522496 + 512  # and two rotary tables
    assert memory.host.weights_bytes == 0


def test_a_4_bit_weight_takes_4_5_bits_and_4_127_with_double_quantization() -> None:
    """Dettmers et al., QLoRA, section 3: 0.5 and 0.127 bits a weight for the scales."""
    matrix = max((p for p in parameters(SEVENTY) if p.kind == "linear"), key=lambda p: p.elements)
    plain = TransformersConfig(quantization="bnb-4bit", double_quant=False)
    double = TransformersConfig(quantization="bnb-4bit")
    assert linear_bytes(matrix, plain) * 8 / matrix.elements == pytest.approx(4.5, abs=1e-4)
    assert linear_bytes(matrix, double) * 8 / matrix.elements == pytest.approx(4.127, abs=1e-3)


def test_8_bits_keep_a_scale_for_each_row() -> None:
    matrix = next(p for p in parameters(SEVENTY) if p.name == "blk.0.ffn_down.weight")
    config = TransformersConfig(quantization="bnb-8bit")
    assert linear_bytes(matrix, config) == 28672 * 8192 + 4 * 8192


def test_embedding_output_and_norms_stay_as_they_are() -> None:
    config = TransformersConfig(quantization="bnb-4bit")
    kept = [p for p in parameters(SEVENTY) if p.kind != "linear"]
    assert all(linear_bytes(p, config) == p.bytes for p in kept)
    assert sum(p.bytes for p in kept) == 2 * (2 * 128256 * 8192 + 161 * 8192)


def test_experts_stay_at_16_bits() -> None:
    """They are one stacked parameter in transformers 5, not nn.Linear."""
    mixtral = find_model("mixtral-8x7b").spec()
    quantized = estimate_memory(
        mixtral, TransformersConfig(quantization="bnb-4bit"), [200 * GIB], GIB
    )
    plain = estimate_memory(mixtral, None, [200 * GIB], GIB)
    assert quantized.gpus[0].weights_bytes > 0.95 * plain.gpus[0].weights_bytes


def test_a_single_card_keeps_a_tenth_and_a_quantizer_another() -> None:
    tree = module_tree(MODEL, TransformersConfig())
    one = memory_limits(tree, TransformersConfig(), [10 * GIB], 100 * GIB)
    assert one == {0: 9 * GIB, "cpu": 90 * GIB}
    four_bits = TransformersConfig(quantization="bnb-4bit")
    two = memory_limits(tree, four_bits, [10 * GIB], 100 * GIB)
    assert two == {0: int(10 * GIB * 0.9 * 0.9), "cpu": int(100 * GIB * 0.9 * 0.9)}


def test_auto_spreads_a_model_over_all_cards() -> None:
    config = TransformersConfig()
    placed = place(MODEL, config, [24 * GIB, 24 * GIB], 64 * GIB)
    used = [placed.used[d] for d in (0, 1)]
    assert min(used) > 0.35 * sum(used)
    alone = place(MODEL, config.replace(device_map="sequential"), [24 * GIB, 24 * GIB], 64 * GIB)
    assert set(alone.device_of.values()) == {0}


def test_a_tied_output_lies_with_its_embedding() -> None:
    model = find_model("qwen2.5-0.5b").spec()
    placed = place(
        model, TransformersConfig(offload_folder="x"), [GIB // 2, GIB // 2, GIB // 2], 64 * GIB
    )
    assert placed.device_of["lm_head"] == placed.device_of["model.embed_tokens"]
    assert len(set(placed.device_of.values())) > 1


def test_a_quantized_model_that_would_need_the_host_is_refused() -> None:
    with pytest.raises(UsageError, match="refuses for quantized models"):
        place(SEVENTY, TransformersConfig(quantization="bnb-4bit"), [24 * GIB], 256 * GIB)


def test_what_fits_nowhere_needs_a_folder() -> None:
    with pytest.raises(UsageError, match="fit neither the GPUs nor the host"):
        place(SEVENTY, TransformersConfig(), [24 * GIB], 32 * GIB)
    memory = estimate_memory(SEVENTY, TransformersConfig(offload_folder="x"), [24 * GIB], 32 * GIB)
    assert memory.disk_bytes > 80 * GIB


def test_without_a_gpu_everything_is_on_the_host() -> None:
    memory = estimate_memory(MODEL, TransformersConfig(device_map="cpu"), [], 64 * GIB)
    assert memory.gpus == () and memory.host.weights_bytes == 16060522496 + 512
    assert memory.host.kv_bytes == 8192 * 131072


def test_latent_attention_is_cached_expanded() -> None:
    """128 heads x (192 + 128) elements in each layer, 57 times what vLLM keeps."""
    model = find_model("deepseek-v3").spec()
    sizes = cache_bytes(model, TransformersConfig(context=1000))
    assert sizes == (1000 * 128 * (192 + 128) * 2,) * 61


def test_a_window_keeps_one_token_less_than_it_sees() -> None:
    model = find_model("gemma-2-9b").spec()
    sizes = set(cache_bytes(model, TransformersConfig(context=8192)))
    assert sizes == {8192 * 8 * 512 * 2, 4095 * 8 * 512 * 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"context": 0}, {"prompt": 0}, {"batch": True}, {"dtype": "fp8"}, {"device_map": "gpu"},
        {"quantization": "awq"}, {"attention": "xformers"}, {"max_memory": {"gpu": 1}},
        {"max_memory": {0: -1}}, {"max_memory": {-1: 1}}, {"max_memory": {0: "1GB"}},
    ],
)  # fmt: skip
def test_knobs_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TransformersConfig(**wrong)  # type: ignore[arg-type]


def test_every_model_of_the_catalog_is_placed() -> None:
    for card in all_models():
        config = TransformersConfig(context=512, offload_folder="x")
        memory = estimate_memory(card.spec(), config, [80 * GIB, 24 * GIB], 128 * GIB)
        total = sum(g.weights_bytes for g in memory.gpus) + memory.host.weights_bytes
        expected = sum(p.elements for p in parameters(card.spec())) * 2
        assert 0 <= total + memory.disk_bytes - expected <= 4096, card.id
