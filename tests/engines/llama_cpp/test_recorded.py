"""Memory equals what the real llama.cpp said, row by row.

The rows were recorded from llama.cpp of 1 October 2026 (commit 0c1e570): ``projection`` and
``op_offload`` print whole MiB, rounded down, per device and kind; ``load`` is the log of a
real llama-server load, to 0.01 MiB.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from nemofit.catalog.model import ModelSpec
from nemofit.catalog.shapes import tensors_of
from nemofit.engines.base import DeviceMemory
from nemofit.engines.llama_cpp import Estimator, RunConfig
from nemofit.units import MIB

FIXTURES = Path(__file__).parents[2] / "fixtures" / "llama_cpp"
Row = dict[str, object]


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (FIXTURES / name).read_text().splitlines()]


@cache
def shape(name: str) -> ModelSpec:
    base, _, layers = name.partition("@")
    entry = json.loads((FIXTURES / "shapes.json").read_text())["models"][base]
    metadata = dict(entry["metadata"])
    if layers:
        metadata["block_count"] = int(layers)
    return ModelSpec(
        id=name,
        architecture=entry["architecture"],
        metadata=metadata,
        tensors=tensors_of(entry["architecture"], metadata),
    )


@cache
def estimator(model: str, quant: str) -> Estimator:
    return Estimator(shape(model), quant)


def answer(row: dict[str, object]) -> dict[str, DeviceMemory]:
    config = RunConfig(**row["config"])  # type: ignore[arg-type]
    memory = estimator(row["model"], row["quant"]).memory(config, row["n_gpus"])  # type: ignore[arg-type]
    return {"Host": memory.host} | {f"GPU{i}": g for i, g in enumerate(memory.gpus)}


def names(row: Row) -> dict[str, str]:
    """The engine's device names to ours."""
    mib = row["mib"]
    assert isinstance(mib, dict)
    return {d: "Host" if d in ("Host", "CPU") else f"GPU{d.lstrip('RPCVulkan')}" for d in mib}


@pytest.mark.parametrize("name", ["gemma3-27b", "gpt-oss-20b", "llama31-70b", "llama31-8b",
                                  "llama32-1b", "mixtral-8x22b", "qwen25-72b", "qwen3-30b-a3b",
                                  "qwen3-32b"])  # fmt: skip
def test_projection(name: str) -> None:
    """Every kind on every device rounds down to what llama-fit-params prints."""
    mine = [r for r in rows("projection.jsonl") if r["model"] == name]
    assert len(mine) > 20
    wrong = []
    for row in mine:
        got = answer(row)
        for device, ours in names(row).items():
            want = row["mib"][device]  # type: ignore[index]
            g = got[ours]
            kinds = [g.weights_bytes // MIB, g.kv_bytes // MIB, g.compute_bytes // MIB]
            if kinds != [want["model"], want["context"], want["compute"]]:
                wrong.append((device, kinds, want, row["config"]))
    assert wrong == []


def test_real_loads() -> None:
    """Every buffer of a real load is met to the log's resolution."""
    mine = rows("load.jsonl")
    assert len(mine) == 90
    wrong = []
    for row in mine:
        got = answer(row)
        for device, ours in names(row).items():
            want = row["mib"][device]  # type: ignore[index]
            g = got[ours]
            pairs = [
                (g.weights_bytes, want.get("model", 0)),
                (g.kv_bytes, want.get("kv", 0)),
                (g.compute_bytes, want.get("compute", 0) + want.get("output", 0)),
            ]
            # two rounded figures may add up to 0.01 MiB
            if any(abs(a / MIB - b) > 0.0151 for a, b in pairs):
                wrong.append((device, pairs, row["config"]))
    assert wrong == []
