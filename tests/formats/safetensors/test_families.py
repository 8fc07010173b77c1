"""Families against llama.cpp's own converter, the catalog, and published sizes.

``converted.jsonl`` was recorded by ``benchmarks/engines/hf_record.py``: checkpoints that
transformers 5.23 saved, and what the converter of llama.cpp (1 October 2026) made of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.engines.hf_config import config_of

from nemofit.catalog.filetypes import weights_bytes
from nemofit.catalog.models import all_models, find_model
from nemofit.engines.transformers.parameters import parameters
from nemofit.formats.safetensors.config import Config
from nemofit.formats.safetensors.families import family_of, known_families, metadata_of
from nemofit.formats.safetensors.reader import read_checkpoint

from .build import checkpoint

RECORDED = Path(__file__).parents[2] / "fixtures" / "safetensors" / "converted.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in RECORDED.read_text().splitlines()]
# Keys of attention's scaling that the converter works out and that move no byte of memory, its
# number of appended layers where there are none, and what a spec always or never has.
APART = {"rope.scaling.attn_factor", "nextn_predict_layers", "vocab_size"}
FLAGS = {
    "attention_bias", "attention_norm_2", "attention_output_bias", "attention_qk_norm",
    "expert_bias", "feed_forward_bias", "rope_factors", "rope_factors_long_short",
    "tied_embeddings",
}  # fmt: skip


def rounded(value: Any) -> Any:
    """Lists as tuples, and numbers as single precision keeps them."""
    if isinstance(value, (list, tuple)):
        return tuple(map(rounded, value))
    return float(f"{value:.6g}") if isinstance(value, float) else value


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["name"])
def test_a_family_becomes_what_the_converter_makes_of_it(
    row: dict[str, Any], tmp_path: Path
) -> None:
    shapes = {name: (dtype, shape) for name, (dtype, shape) in row["tensors"].items()}
    model = read_checkpoint(checkpoint(tmp_path / row["name"], row["config"], shapes))
    assert model.architecture == row["architecture"]
    ours = {t.name: list(t.shape) for t in model.tensors}
    # a vector per matrix is written as a matrix of one row; ggml takes both for the same
    theirs = {
        name: shape[:1] if name.endswith("ffn_gate_inp_shexp.weight") else shape
        for name, shape in row["gguf"].items()
    }
    assert ours == theirs
    keys = {k: rounded(v) for k, v in row["keys"].items() if k not in APART}
    found = {k: rounded(v) for k, v in model.metadata.items() if k not in FLAGS | APART}
    assert found == keys
    assert model.checkpoint is not None
    assert not model.checkpoint.other_bytes


def test_every_kind_of_family_was_recorded() -> None:
    """Classes that only add a vision tower or share another's row are not made again."""
    recorded = {Config(r["config"], "x").family for r in ROWS}
    missing = {
        name
        for name in known_families()
        if name not in recorded
        and not any(word in name for word in ("Conditional", "Ministral", "Phimoe"))
    }
    assert missing <= {"DeepseekForCausalLM", "Llama4ForCausalLM", "Qwen3_5ForCausalLM",
                       "Qwen3_5MoeForCausalLM"}  # fmt: skip


CATALOG = [card.id for card in all_models()]


def test_the_catalog_comes_back_from_its_configurations() -> None:
    """Shape to configuration by one table, back by the other: no key of memory is lost."""
    compared = 0
    for id in CATALOG:
        model = find_model(id).spec()
        try:
            config = Config(config_of(model), id)
        except KeyError:
            continue
        family = family_of(config)
        assert family is not None, id
        assert family.architecture == model.architecture, id
        found = metadata_of(config, family)
        trunk = model.integer("block_count") - model.integer("nextn_predict_layers")
        for key, value in model.metadata.items():
            if key == "attention.sliding_window" and not config.has("sliding_window"):
                continue  # Phi 3, whose configuration is made without
            if key.startswith(MEMORY) and (value or key in found):
                assert cut(found.get(key), trunk) == cut(value, trunk), (id, key)
        compared += 1
    assert compared >= 90


def cut(value: Any, blocks: int) -> Any:
    """Without appended blocks, which only the tensors tell."""
    return value[:blocks] if isinstance(value, tuple) else value


MEMORY = (
    "attention.head_count", "attention.kv_lora", "attention.q_lora", "attention.key_length_mla",
    "attention.value_length_mla", "attention.sliding_window", "embedding_length",
    "expert_count", "expert_feed", "expert_shared", "expert_used", "feed_forward_length",
    "leading_dense", "ssm.", "vocab_size",
)  # fmt: skip


# total_size of model.safetensors.index.json in each repository on huggingface.co.
PUBLISHED = {
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B-Instruct", 16_060_522_496),
    "nemotron-70b": ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", 141_107_412_992),
    "llama-3.2-3b": ("meta-llama/Llama-3.2-3B-Instruct", 6_425_499_648),
    "mistral-7b-v0.3": ("mistralai/Mistral-7B-Instruct-v0.3", 14_496_047_104),
    "mixtral-8x7b": ("mistralai/Mixtral-8x7B-Instruct-v0.1", 93_405_585_408),
    "qwen2.5-3b": ("Qwen/Qwen2.5-3B-Instruct", 6_171_877_376),
    "qwen2.5-7b": ("Qwen/Qwen2.5-7B-Instruct", 15_231_233_024),
    "qwen2.5-72b": ("Qwen/Qwen2.5-72B-Instruct", 145_412_407_296),
    "qwen3-8b": ("Qwen/Qwen3-8B", 16_381_470_720),
    "qwen3-30b-a3b": ("Qwen/Qwen3-30B-A3B", 61_064_245_248),
    "gemma-2-9b": ("google/gemma-2-9b-it", 18_483_411_968),
    "phi-4": ("microsoft/phi-4", 29_319_014_400),
}


@pytest.mark.parametrize("id", PUBLISHED)
def test_published_totals_follow_from_the_shape(id: str) -> None:
    assert sum(p.bytes for p in parameters(find_model(id).spec())) == PUBLISHED[id][1]


def gpt_oss_20b() -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]:
    """Names, dtypes and shapes of openai/gpt-oss-20b on huggingface.co."""
    config = config_of(find_model("gpt-oss-20b").spec())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    config["intermediate_size"] = 2880
    out: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("BF16", (201088, 2880)),
        "model.norm.weight": ("BF16", (2880,)),
        "lm_head.weight": ("BF16", (201088, 2880)),
    }
    for i in range(24):
        p = f"model.layers.{i}."
        out |= {
            f"{p}{name}": ("BF16", shape)
            for name, shape in {
                "input_layernorm.weight": (2880,),
                "post_attention_layernorm.weight": (2880,),
                "self_attn.q_proj.weight": (4096, 2880),
                "self_attn.q_proj.bias": (4096,),
                "self_attn.k_proj.weight": (512, 2880),
                "self_attn.k_proj.bias": (512,),
                "self_attn.v_proj.weight": (512, 2880),
                "self_attn.v_proj.bias": (512,),
                "self_attn.o_proj.weight": (2880, 4096),
                "self_attn.o_proj.bias": (2880,),
                "self_attn.sinks": (64,),
                "mlp.router.weight": (32, 2880),
                "mlp.router.bias": (32,),
                "mlp.experts.gate_up_proj_bias": (32, 5760),
                "mlp.experts.down_proj_bias": (32, 2880),
            }.items()
        } | {
            f"{p}mlp.experts.gate_up_proj_blocks": ("U8", (32, 5760, 90, 16)),
            f"{p}mlp.experts.gate_up_proj_scales": ("U8", (32, 5760, 90)),
            f"{p}mlp.experts.down_proj_blocks": ("U8", (32, 2880, 90, 16)),
            f"{p}mlp.experts.down_proj_scales": ("U8", (32, 2880, 90)),
        }
    return config, out


def test_a_published_mxfp4_checkpoint(tmp_path: Path) -> None:
    """Its index says total_size 13761264768; the catalog has the same model as a shape."""
    model = read_checkpoint(checkpoint(tmp_path / "gpt-oss-20b", *gpt_oss_20b()))
    shape = find_model("gpt-oss-20b").spec()
    assert model.checkpoint is not None
    assert model.checkpoint.total_bytes == 13_761_264_768
    assert model.checkpoint.quantization is not None
    assert model.checkpoint.quantization.format == "mxfp4"
    assert sorted(model.tensors) == sorted(shape.tensors)
    for quant in ("MXFP4_MOE", "Q4_K_M", "Q8_0"):
        assert weights_bytes(model, quant) == weights_bytes(shape, quant)
