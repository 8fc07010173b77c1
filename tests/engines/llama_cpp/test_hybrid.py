"""Recurrent and hybrid models: memory equals what the real llama.cpp said, and says.

``hybrid.jsonl`` was recorded from llama.cpp of 1 October 2026 (commit 0c1e570) on RPC devices:
llama-fit-params prints whole MiB, rounded down; llama-server logs to 0.01 MiB.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.shapes import tensors_of
from nemofit.engines.base import Memory
from nemofit.engines.llama_cpp import Estimator, RunConfig, estimate_memory
from nemofit.engines.llama_cpp.architectures import ROWS
from nemofit.engines.llama_cpp.refusals import check
from nemofit.errors import UsageError
from nemofit.formats.gguf.writer import write_sparse
from nemofit.units import MIB

if TYPE_CHECKING:
    from benchmarks.accuracy.engine import Engine

FIXTURE = Path(__file__).parents[2] / "fixtures" / "llama_cpp" / "hybrid.jsonl"
# two rounded figures may add up to 0.01 MiB, and three kinds of buffers are two of them
LOG_MIB = 0.0251
Kinds = dict[str, tuple[float, float, float]]
Row = dict[str, Any]


@cache
def rows() -> list[Row]:
    return [json.loads(line) for line in FIXTURE.read_text().splitlines()]


def spec(row: Row) -> ModelSpec:
    metadata = {k: tuple(v) if isinstance(v, list) else v for k, v in row["metadata"].items()}
    architecture = row["architecture"]
    return ModelSpec(
        id=architecture,
        architecture=architecture,
        metadata=metadata,
        tensors=tensors_of(architecture, metadata),
    )


def kinds(memory: Memory) -> Kinds:
    """Weights, cache with state, and compute in MiB by the engine's device names."""
    devices = {f"RPC{i}": g for i, g in enumerate(memory.gpus)} | {"Host": memory.host}
    return {
        name: (d.weights_bytes / MIB, d.kv_bytes / MIB, d.compute_bytes / MIB)
        for name, d in devices.items()
    }


def is_met(got: Kinds, want: Kinds, program: str) -> bool:
    pairs = [(got[d][i], want[d][i]) for d in want for i in range(3)]
    if program == "llama-server":
        return all(abs(g - w) <= LOG_MIB for g, w in pairs)
    return all(int(g) == w for g, w in pairs)


@pytest.mark.parametrize("architecture", sorted({r["architecture"] for r in rows()}))
def test_recorded(architecture: str) -> None:
    """Every kind on every device, of small shapes and of those in the catalog."""
    mine = [r for r in rows() if r["architecture"] == architecture]
    assert len(mine) >= 8
    wrong = []
    for row in mine:
        config = RunConfig(**row["config"])
        got = kinds(estimate_memory(spec(row), row["quant"], config, row["n_gpus"]))
        want = {d: (m["model"], m["context"], m["compute"]) for d, m in row["mib"].items()}
        if not is_met(got, want, row["program"]):
            wrong.append((got, want, config))
    assert wrong == []


def test_every_recurrent_architecture_is_recorded() -> None:
    """A new row of this kind needs answers of the engine."""
    drawn = {a for a, row in ROWS.items() if "hybrid" in row.graph}
    assert drawn == {r["architecture"] for r in rows()}


def test_older_qwen3_next_file() -> None:
    """The first files mix the delta net's inputs in one matrix; figures of llama-fit-params."""
    base = next(r for r in rows() if r["architecture"] == "qwen3next")
    metadata = base["metadata"] | {
        "block_count": 8, "ssm.inner_size": 1024, "ssm.state_size": 128,
        "ssm.time_step_rank": 8, "ssm.group_count": 4, "full_attention_interval": 4,
        "expert_shared_feed_forward_length": 384, "attention.key_length": 128,
        "attention.value_length": 128, "nextn_predict_layers": 0,
    }  # fmt: skip
    model = spec(base | {"metadata": metadata})
    width = 2 * (4 + 8) * 128
    tensors = tuple(
        t._replace(name=t.name.replace("attn_qkv", "ssm_in"), shape=(t.shape[0], width))
        if t.name.endswith("attn_qkv.weight")
        else t
        for t in model.tensors
        if not t.name.endswith("attn_gate.weight")
    )
    config = RunConfig(
        context=2048, ubatch=128, flash_attention=False, kv_type_k="q5_1", gpu_layers=8,
        tensor_split=(2, 1), cpu_moe_layers=3, kv_offload=False, backend="rpc",
        program="llama-fit-params",
    )  # fmt: skip
    got = kinds(estimate_memory(replace(model, tensors=tensors), "Q8_0", config, 2))
    want: Kinds = {"RPC0": (41, 0, 13), "RPC1": (25, 0, 17), "Host": (38, 5, 7)}
    assert is_met(got, want, "llama-fit-params"), got


def test_a_micro_batch_that_kimi_linear_cannot_split() -> None:
    """llama.cpp 0c1e570 aborts: ggml.c, GGML_ASSERT(ggml_can_repeat(b, a))."""
    model = spec(next(r for r in rows() if r["architecture"] == "kimi-linear"))
    with pytest.raises(UsageError, match="micro-batch of 128 tokens over 3 sequences"):
        estimate_memory(model, "Q8_0", RunConfig(ubatch=128, parallel=3))
    estimate_memory(model, "Q8_0", RunConfig(ubatch=128, parallel=3, kv_unified=True))


def draw(rng: random.Random, metadata: dict[str, Any], n_gpus: int) -> RunConfig:
    blocks = metadata["block_count"]
    flash = rng.random() < 0.6
    k = rng.choice(["f16", "q8_0", "q4_0", "bf16"]) if flash else "f16"
    return RunConfig(
        context=rng.choice([256, 1000, 4096, 30000]),
        ubatch=rng.choice([64, 128, 512, 2048]),
        flash_attention=flash,
        kv_type_k=k,
        kv_type_v=k,
        parallel=rng.choice([1, 1, 2, 4]),
        gpu_layers=rng.choice([0, 1, blocks // 2, blocks, blocks + 1]) if n_gpus else None,
        tensor_split=tuple(rng.choice([1, 2, 3]) for _ in range(n_gpus)) if n_gpus else None,
        cpu_moe_layers=rng.choice([0, 2]) if n_gpus and "expert_count" in metadata else 0,
        kv_offload=rng.random() < 0.85,
        backend="rpc",
        program=rng.choice(["llama-server", "llama-fit-params"]),
    )


def accepted(
    rng: random.Random, metadata: dict[str, Any], n_gpus: int, model: ModelSpec
) -> RunConfig:
    """A drawn configuration that the engine does not refuse."""
    while True:
        config = draw(rng, metadata, n_gpus)
        try:
            check(model, config)
        except UsageError:
            continue
        return config


@pytest.mark.parametrize("architecture", sorted({r["architecture"] for r in rows()}))
def test_drawn(architecture: str, engine: Engine, tmp_path: Path) -> None:
    """Configurations that nobody chose."""
    rng = random.Random(architecture)
    small = [
        r
        for r in rows()
        if r["architecture"] == architecture and "rope.freq_base" not in r["metadata"]
    ]
    for row in rng.sample(small, 3):
        model, quant = spec(row), row["quant"]
        path = tmp_path / "model.gguf"
        write_sparse(path, model, tensor_types(model, quant))
        n_gpus = rng.choice([0, 1, 2, 3])
        config = accepted(rng, row["metadata"], n_gpus, model)
        want: Kinds
        if config.program == "llama-server":
            loaded = engine.server_load(path, config, n_gpus, ["-lm", "none"]).devices
            want = {
                "Host" if d == "CPU" else d: (
                    b.model / MIB, (b.kv + b.state) / MIB, (b.compute + b.output) / MIB
                )
                for d, b in loaded.items()
            }  # fmt: skip
        else:
            want = dict(engine.fit_params(path, config, n_gpus))
        got = kinds(Estimator(model, quant).memory(config, n_gpus))
        assert is_met(got, want, config.program), (got, want, config)
