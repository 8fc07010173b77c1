"""Latent, sparse and windowed attention, encoders, shared caches: as the real llama.cpp said.

``attention.jsonl`` was recorded from llama.cpp of 1 October 2026 (commit 0c1e570) on RPC devices,
of small shapes and of models of the catalog: llama-fit-params prints whole MiB, rounded down,
llama-server (with ``--embedding`` for models made for that) logs to 0.01 MiB.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import find_model
from nemofit.catalog.shapes import tensors_of
from nemofit.engines.base import Memory
from nemofit.engines.llama_cpp import RunConfig, estimate_memory
from nemofit.engines.llama_cpp.kv_cache import layer_bytes, micro_batch
from nemofit.errors import UsageError
from nemofit.units import MIB

FIXTURE = Path(__file__).parents[2] / "fixtures" / "llama_cpp" / "attention.jsonl"
# two rounded figures may add up to 0.01 MiB, and three kinds of buffers are two of them
LOG_MIB = 0.0251
Row = dict[str, Any]


@cache
def rows() -> list[Row]:
    return [json.loads(line) for line in FIXTURE.read_text().splitlines()]


def spec(architecture: str, metadata: dict[str, Any]) -> ModelSpec:
    whole = {k: tuple(v) if isinstance(v, list) else v for k, v in metadata.items()}
    return ModelSpec(
        id=architecture,
        architecture=architecture,
        metadata=whole,
        tensors=tensors_of(architecture, whole),
    )


def kinds(memory: Memory) -> dict[str, tuple[float, float, float]]:
    """Weights, cache with state, and compute in MiB by the engine's device names."""
    devices = {f"RPC{i}": g for i, g in enumerate(memory.gpus)} | {"Host": memory.host}
    return {
        name: (d.weights_bytes / MIB, d.kv_bytes / MIB, d.compute_bytes / MIB)
        for name, d in devices.items()
    }


@pytest.mark.parametrize("architecture", sorted({r["architecture"] for r in rows()}))
def test_recorded(architecture: str) -> None:
    """Every kind on every device."""
    mine = [r for r in rows() if r["architecture"] == architecture]
    assert len(mine) >= 4
    wrong = []
    for row in mine:
        config = RunConfig(**row["config"])
        model = spec(architecture, row["metadata"])
        got = kinds(estimate_memory(model, row["quant"], config, row["n_gpus"]))
        for device, theirs in row["mib"].items():
            pairs = list(zip(got[device], theirs.values(), strict=True))
            if row["program"] == "llama-server":
                met = all(abs(g - w) <= LOG_MIB for g, w in pairs)
            else:
                met = all(int(g) == w for g, w in pairs)
            if not met:
                wrong.append((device, pairs, config))
    assert wrong == []


# arXiv 2505.09343, table 1: KV cache per token at 16 bits, KB of 1,000 bytes
@pytest.mark.parametrize(
    ("name", "kilobytes"),
    [("deepseek-v3", 70.272), ("qwen2.5-72b", 327.680), ("llama-3.1-405b", 516.096)],
)
def test_cache_per_token_is_the_published_one(name: str, kilobytes: float) -> None:
    cache_bytes = sum(layer_bytes(find_model(name).spec(), RunConfig(context=1024)))
    assert cache_bytes / 1024 == kilobytes * 1000


def test_tied_embedding_is_held_twice_by_a_host_with_the_output_layer() -> None:
    """Gemma 4 creates its output matrix first; Gemma 3 shares the one it already has."""
    for name, copies in (("gemma-4-31b", 2), ("gemma-3-27b", 1)):
        model = find_model(name).spec()
        table = next(t for t in model.tensors if t.name == "token_embd.weight")
        rest = sum(t.elements for t in model.tensors if t is not table)
        host = estimate_memory(model, "BF16", RunConfig(gpu_layers=0), 1).host.weights_bytes
        # norms and the like are F32
        assert host / (2 * (rest + copies * table.elements)) == pytest.approx(1, abs=2e-4)


def test_a_batch_that_sees_itself_is_not_bound_to_the_context_asked_for() -> None:
    """llama-context.cpp: the context is padded to 256 cells per sequence first."""
    config = RunConfig(context=100, ubatch=2048, parallel=2)
    assert micro_batch(config) == 100
    assert micro_batch(config, causal=False) == 512


def test_what_llama_cpp_loads_of_next_token_blocks() -> None:
    """Cohere 2 MoE's copies of the embedding and of the head are not skipped, DeepSeek's are."""
    for architecture, copies in (("cohere2moe", 2), ("deepseek2", 0)):
        row = next(r for r in rows() if r["architecture"] == architecture)
        whole = {**row["metadata"], "nextn_embedding": True, "nextn_output": True}
        trunk = {**whole, "nextn_predict_layers": 0, "block_count": whole["block_count"] - 1}
        config = RunConfig(gpu_layers=0)
        with_next, without = (
            estimate_memory(spec(architecture, m), "F16", config, 1).host.weights_bytes
            for m in (whole, trunk)
        )
        table = 2 * whole["vocab_size"] * whole["embedding_length"]
        assert (with_next - without) // table == copies


def test_a_mean_over_sequences_that_do_not_divide_the_micro_batch() -> None:
    """llama.cpp 0c1e570 aborts: ggml.c, GGML_ASSERT(ggml_can_mul_mat(a, b))."""
    model = find_model("nomic-embed-text-v1.5").spec()
    with pytest.raises(UsageError, match="3 sequences"):
        estimate_memory(model, "F16", RunConfig(ubatch=512, parallel=3))
    estimate_memory(model, "F16", RunConfig(ubatch=512, parallel=3, program="llama-fit-params"))
