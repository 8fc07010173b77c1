"""The real llama.cpp loads a file of every architecture: nothing is missing, nothing is unused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nemofit.catalog.model import ModelSpec, Tensor, Value
from nemofit.catalog.shapes import known_architectures, tensors_of
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.formats.gguf.writer import write_sparse

if TYPE_CHECKING:
    from benchmarks.accuracy.engine import Engine

Metadata = dict[str, Value]

BASE: Metadata = {
    "block_count": 4,
    "context_length": 512,
    "embedding_length": 256,
    "feed_forward_length": 512,
    "vocab_size": 512,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
FULL_HEADS: Metadata = {"attention.head_count_kv": 4}
NO_HEADS: Metadata = {
    "attention.head_count": 0,
    "attention.head_count_kv": 0,
    "feed_forward_length": 0,
}
TYPES: Metadata = {"token_type_count": 2, **FULL_HEADS}
WINDOW: Metadata = {"attention.sliding_window": 128}
EXPERTS: Metadata = {
    "expert_count": 8,
    "expert_used_count": 2,
    "expert_feed_forward_length": 128,
}
SHARED: Metadata = {"expert_shared_feed_forward_length": 256}
DENSE_FIRST: Metadata = {**EXPERTS, "leading_dense_block_count": 1, "expert_shared_count": 1}
NARROW: Metadata = {**EXPERTS, **SHARED, "feed_forward_length": 128}
SIGMOID: Metadata = {"expert_gating_func": 2}
NEXT: Metadata = {"nextn_predict_layers": 1}
NEXT_IN_FULL: Metadata = {**NEXT, "nextn_embedding": True, "nextn_output": True}
LATENT: Metadata = {
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": 96,
    "attention.kv_lora_rank": 64,
    "attention.key_length": 96,
    "attention.value_length": 64,
    "attention.key_length_mla": 96,
    "attention.value_length_mla": 64,
    "rope.dimension_count": 32,
}
INDEXER: Metadata = {
    "attention.indexer.head_count": 2,
    "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 64,
}
STATE: Metadata = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 512,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 8,
    "ssm.group_count": 2,
}
DELTA_NET: Metadata = {
    **STATE,
    "ssm.inner_size": 256,
    "ssm.state_size": 64,
    "ssm.time_step_rank": 4,
    "full_attention_interval": 2,
}
KIMI: Metadata = {
    **DENSE_FIRST,
    **LATENT,
    "attention.head_count_kv": (0, 1, 0, 1),
    "kda.head_dim": 64,
    "ssm.conv_kernel": 4,
}
EVERY_OTHER: Metadata = {"attention.head_count_kv": (0, 2, 0, 2)}
LAST_FULL: Metadata = {"attention.sliding_window_pattern": (True, True, True, False), **WINDOW}
FIRST_FULL: Metadata = {"attention.sliding_window_pattern": (False, True, True, True), **WINDOW}
ROPE: Metadata = {"rope_factors": True}
LONG_ROPE: Metadata = {"rope_factors_long_short": True}
BIASES: Metadata = {
    "attention_bias": True,
    "attention_output_bias": True,
    "feed_forward_bias": True,
}
GEMMA4: Metadata = {
    **LAST_FULL,
    "embedding_length_per_layer_input": 64,
    "attention.key_length": 128,
    "attention.value_length": 128,
    "attention.key_length_swa": 64,
    "attention.value_length_swa": 64,
    "rope.dimension_count": 128,
    "rope.dimension_count_swa": 64,
}

METADATA: dict[str, Metadata] = {
    "apertus": ROPE,
    "arcee": ROPE,
    "bailingmoe": DENSE_FIRST,
    "bailingmoe2": {**DENSE_FIRST, **SIGMOID, **NEXT_IN_FULL},
    "bert": TYPES,
    "cohere2": WINDOW,
    "cohere2moe": {**DENSE_FIRST, **WINDOW, **NEXT_IN_FULL},
    "command-r": {},
    "deci": {
        "attention.head_count": (4, 4, 0, 0),
        "attention.head_count_kv": (2, 0, 0, 0),
        "feed_forward_length": (512, 256, 512, 0),
        **ROPE,
    },
    "deepseek": DENSE_FIRST,
    "deepseek2": {**DENSE_FIRST, **LATENT, **SIGMOID, **NEXT_IN_FULL},
    "deepseek32": {**DENSE_FIRST, **LATENT, **INDEXER, **NEXT_IN_FULL},
    "deepseek4": {
        **DENSE_FIRST,
        **INDEXER,
        **WINDOW,
        "attention.q_lora_rank": 96,
        "attention.key_length": 64,
        "attention.value_length": 64,
        "attention.head_count_kv": 1,
        "attention.output_group_count": 2,
        "attention.output_lora_rank": 32,
        "attention.compress_ratios": (0, 4, 128, 0),
        "hyper_connection.count": 4,
        "hash_layer_count": 1,
        "expert_gating_func": 4,
        "rope.dimension_count": 32,
    },
    "dots1": {**DENSE_FIRST, **SIGMOID, **FULL_HEADS},
    "ernie4_5": {},
    "ernie4_5-moe": {
        **DENSE_FIRST,
        **SHARED,
        "interleave_moe_layer_step": 1,
        "expert_bias": True,
    },
    "exaone": ROPE,
    "exaone-moe": {**DENSE_FIRST, **SIGMOID, **WINDOW, **NEXT_IN_FULL},
    "exaone4": {**ROPE, **NEXT},
    "falcon": {"attention.head_count_kv": 1, "attention_norm_2": True},
    "falcon-h1": {**STATE, "ssm_norm": True},
    "gemma": {},
    "gemma-embedding": {**WINDOW, "dense_2_feat_in": 256, "dense_2_feat_out": 384,
                        "dense_3_feat_in": 384, "dense_3_feat_out": 256},
    "gemma2": WINDOW,
    "gemma3": WINDOW,
    "gemma3n": {
        **WINDOW,
        "block_count": 24,
        "attention.sliding_window_pattern": (True, False) * 12,
        "embedding_length_per_layer_input": 256,
        "altup.num_inputs": 4,
    },
    "gemma4": {**GEMMA4, **EXPERTS, "attention_k_is_v": True},
    "glm-dsa": {**DENSE_FIRST, **LATENT, **INDEXER, **NEXT_IN_FULL},
    "glm4": NEXT_IN_FULL,
    "glm4moe": {
        **DENSE_FIRST,
        **NEXT_IN_FULL,
        "attention_bias": True,
        "attention_qk_norm": True,
    },
    "gpt-oss": {**EXPERTS, **WINDOW},
    "granite": BIASES,
    "granitehybrid": {**STATE, **NARROW, **EVERY_OTHER},
    "granitemoe": NARROW,
    "hunyuan-dense": {},
    "hunyuan-moe": {**EXPERTS, **SHARED},
    "hunyuan_vl": {},
    "internlm2": {},
    "jamba": {**STATE, **EXPERTS, **EVERY_OTHER},
    "jina-bert-v2": TYPES,
    "kimi-k3": {**KIMI, "expert_latent_length": 128, "attn_res.block_size": 2},
    "kimi-linear": {**KIMI, "attention.q_lora_rank": 0},
    "lfm2": {"shortconv.l_cache": 3, "attention.head_count_kv": (2, 0, 2, 0)},
    "lfm2moe": {
        **DENSE_FIRST,
        "shortconv.l_cache": 3,
        "attention.head_count_kv": (2, 0, 2, 0),
    },
    "llama": {**ROPE, **BIASES},
    "llama4": {**EXPERTS, **ROPE, "interleave_moe_layer_step": 2},
    "mamba": {**STATE, **NO_HEADS},
    "mamba2": {**STATE, **NO_HEADS},
    "mimo2": {
        **DENSE_FIRST,
        **FIRST_FULL,
        **NEXT,
        "attention.key_length": 64,
        "attention.value_length": 48,
        "attention.head_count_kv": (1, 2, 2, 2),
    },
    "minicpm": {**EXPERTS, "rope.scaling.type": "longrope", **LONG_ROPE},
    "minicpm3": {**LATENT, **FULL_HEADS, **LONG_ROPE},
    "minimax-m2": {**EXPERTS, **SIGMOID},
    "minimax-m3": {
        **DENSE_FIRST,
        **INDEXER,
        "attention.indexer.block_size": 16,
        "attention.indexer.local_blocks": 1,
    },
    "mistral3": {},
    "mistral4": {**DENSE_FIRST, **LATENT},
    "modern-bert": {**WINDOW, **FULL_HEADS},
    "nemotron": {},
    "nemotron_h": {
        **STATE,
        "attention.head_count_kv": (0, 2, 0, 0),
        "feed_forward_length": (0, 0, 512, 0),
    },
    "nemotron_h_moe": {
        **STATE,
        **EXPERTS,
        **SHARED,
        **NEXT,
        "attention.head_count_kv": (0, 2, 0, 2),
        "feed_forward_length": (0, 0, 128, 128),
        "moe_latent_size": 128,
    },
    "nomic-bert": TYPES,
    "nomic-bert-moe": {**TYPES, **EXPERTS, "moe_every_n_layers": 2},
    "olmo": {},
    "olmo2": {},
    "olmoe": {**EXPERTS, **FULL_HEADS},
    "phi2": {},
    "phi3": LONG_ROPE,
    "phimoe": {**EXPERTS, **LONG_ROPE},
    "qwen2": {},
    "qwen2moe": {**EXPERTS, **SHARED},
    "qwen2vl": {},
    "qwen3": {},
    "qwen35": {**DELTA_NET, **NEXT_IN_FULL},
    "qwen35moe": {**DELTA_NET, **EXPERTS, **SHARED, **NEXT_IN_FULL},
    "qwen3moe": EXPERTS,
    "qwen3next": {**DELTA_NET, **EXPERTS, **SHARED, **NEXT_IN_FULL},
    "qwen3vl": {},
    "qwen3vlmoe": EXPERTS,
    "seed_oss": {"attention_bias": True},
    "smollm3": {},
    "stablelm": {"attention_qk_norm": True, "use_parallel_residual": True},
    "starcoder2": {},
    "step35": {
        **DENSE_FIRST,
        **SHARED,
        **FIRST_FULL,
        **NEXT_IN_FULL,
        **ROPE,
        "attention.head_count": (4, 6, 6, 6),
        "attention.key_length": 64,
        "attention.value_length": 64,
    },
}  # fmt: skip

VARIANTS: list[tuple[str, Metadata]] = [
    ("llama", {**EXPERTS, "expert_feed_forward_length": 512, "tied_embeddings": True}),
    ("command-r", {"block_count": 64}),
    ("deepseek2", {**DENSE_FIRST, **LATENT, "attention.q_lora_rank": 0}),
    ("falcon-h1", {**STATE, **ROPE, "tied_embeddings": True}),
    (
        "gemma4",
        {
            **GEMMA4,
            "attention.sliding_window_pattern": (True, False, True, False),
            "attention.shared_kv_layers": 2,
            "shared_kv_omitted": True,
        },
    ),
    ("glm-dsa", {**DENSE_FIRST, **LATENT, **INDEXER, "attention.indexer.types": (1, 0, 0, 1)}),
    ("gpt-oss", {**EXPERTS, **WINDOW, "attention.key_length": 32, "attention.value_length": 32}),
    ("granitehybrid", {**STATE, **EVERY_OTHER, "tied_embeddings": True}),
    ("nemotron", {"attention_output_bias": True, "feed_forward_bias": True}),
    (
        "qwen3next",
        {**DELTA_NET, **EXPERTS, "attention.recurrent_layers": (True, True, False, True)},
    ),
    ("stablelm", {"attention_bias": True}),
]


def spec(architecture: str, metadata: Metadata) -> ModelSpec:
    whole = BASE | metadata
    return ModelSpec(
        id=architecture,
        architecture=architecture,
        metadata=whole,
        tensors=tensors_of(architecture, whole),
    )


def load(engine: Engine, model: ModelSpec, directory: Path) -> None:
    types = [t.type or "F32" for t in model.tensors]
    path = directory / "model.gguf"
    write_sparse(path, model, types)
    header = path.read_bytes()[: 1 << 16]
    for key, architectures in WITHOUT_PREFIX.items():
        if model.architecture in architectures and f"{model.architecture}.{key}".encode() in header:
            pytest.skip(f"the writer prefixes {key}, which llama.cpp reads without a prefix")
    engine.fit_params(path, RunConfig(context=512))


# Keys of llama.cpp that do not begin with the architecture's name.
WITHOUT_PREFIX = {
    "token_type_count": ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2"),
    "xielu.alpha_n": ("apertus",),
}


def test_every_architecture_has_a_case() -> None:
    """A new row needs a line here."""
    assert known_architectures() == tuple(sorted(METADATA))


@pytest.mark.engine
@pytest.mark.parametrize("architecture", known_architectures())
def test_llama_cpp_loads_every_architecture(
    architecture: str, engine: Engine, tmp_path: Path
) -> None:
    """It refuses a file that lacks a tensor, has one too many or one of another shape."""
    load(engine, spec(architecture, METADATA[architecture]), tmp_path)


@pytest.mark.engine
@pytest.mark.parametrize(("architecture", "metadata"), VARIANTS)
def test_llama_cpp_loads_the_variants(
    architecture: str, metadata: Metadata, engine: Engine, tmp_path: Path
) -> None:
    """So it is with what only some models of an architecture have or lack."""
    load(engine, spec(architecture, metadata), tmp_path)


@pytest.mark.engine
def test_llama_cpp_would_tell(engine: Engine, tmp_path: Path) -> None:
    """One tensor less, one more, or one of another shape is refused."""
    model = spec("llama", {})
    wrong = Tensor("blk.0.ffn_up.weight", (256, 511))
    for tensors in (
        model.tensors[:-1],
        (*model.tensors, Tensor("blk.0.extra.weight", (4, 4))),
        tuple(wrong if t.name == wrong.name else t for t in model.tensors),
    ):
        with pytest.raises(RuntimeError, match="llama-fit-params"):
            load(engine, dataclasses.replace(model, tensors=tensors), tmp_path)
