"""More than 500 fixed configurations over every architecture, against the real llama.cpp.

Shapes are small, contexts and micro-batches are not: every device and kind has to round down to
what llama-fit-params prints, and to meet a real llama-server load to the log's 0.01 MiB.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine, EngineError

from nemofit.catalog.model import ModelSpec, Value
from nemofit.catalog.shapes import known_architectures, tensors_of
from nemofit.engines.llama_cpp import RunConfig, estimate_memory
from nemofit.errors import DataError, UsageError
from nemofit.formats.gguf.writer import write_sparse
from nemofit.units import MIB

_PATH = Path(__file__).parents[2] / "catalog" / "test_shapes_engine.py"
_SPEC = importlib.util.spec_from_file_location("shapes_by_architecture", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_SHAPES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_SHAPES)

PROJECTIONS = 6
LARGER: dict[str, Value] = {
    "context_length": 65536,
    "embedding_length": 512,
    "feed_forward_length": 1536,
    "vocab_size": 32000,
    "attention.head_count": 8,
    "block_count": 6,
}
# Graphs that are not replayed to the byte; docs/accuracy.md says by how much they are off.
BOUNDED = frozenset({"deepseek4", "gemma-embedding"})
# MiB by which a real load of an encoder may take less than nemofit says.
OVER = {"modern-bert": 0.5}


def model_of(architecture: str) -> ModelSpec:
    own = _SHAPES.METADATA[architecture]
    small = {"context_length": 65536, "vocab_size": 32000}
    for larger in (small,) if "ssm.inner_size" in own else (LARGER, small):
        metadata = {**_SHAPES.BASE, **larger, **own}
        if own.get("attention.head_count_kv") == 4 and "attention.head_count" not in own:
            metadata["attention.head_count_kv"] = metadata["attention.head_count"]
        try:
            tensors = tensors_of(architecture, metadata)
        except DataError:
            continue  # lists per block are made for four blocks
        typed = tuple(t._replace(type=t.type or "F32") for t in tensors)
        return ModelSpec(
            id=architecture, architecture=architecture, metadata=metadata, tensors=typed
        )
    raise AssertionError(architecture)


def configurations(model: ModelSpec, program: str, count: int) -> Iterator[tuple[RunConfig, int]]:
    rng = random.Random(f"{model.id} {program}")
    blocks = model.integer("block_count")
    server = program == "llama-server"
    made = 0
    while made < count:
        n = rng.choice([0, 1, 2, 3])
        flash = rng.random() < 0.6
        k = rng.choice(["f16", "f16", "q8_0", "q4_0", "f32", "bf16"])
        try:
            yield (
                RunConfig(
                    context=rng.choice([256, 1000, 2048, 8192]),
                    ubatch=rng.choice([64, 128, 512, 1024]),
                    flash_attention=flash,
                    kv_type_k=k,
                    kv_type_v=k,
                    parallel=rng.choice([1, 1, 2, 4]),
                    kv_unified=server and rng.random() < 0.4,
                    gpu_layers=rng.choice([0, 1, blocks // 2, blocks, None, None]) if n else None,
                    tensor_split=tuple(rng.choice([1, 1, 2]) for _ in range(n)) if n else None,
                    cpu_moe_layers=rng.choice([0, 0, 2])
                    if n and model.integer("expert_count")
                    else 0,
                    kv_offload=rng.random() < 0.85,
                    swa_full=rng.random() < 0.15,
                    mmap=False,
                    backend="rpc",
                    program=program,
                ),
                n,
            )
        except UsageError:
            continue
        made += 1


@pytest.mark.parametrize("architecture", sorted(set(known_architectures()) - BOUNDED))
def test_memory_equals_the_engine(architecture: str, engine: Engine, tmp_path: Path) -> None:
    model = model_of(architecture)
    path = tmp_path / "model.gguf"
    write_sparse(path, model, [t.type or "F32" for t in model.tensors])
    compared = 0
    for config, n in configurations(model, "llama-fit-params", PROJECTIONS):
        try:
            memory = estimate_memory(model, None, config, n_gpus=n)
        except UsageError:
            continue  # the engine refuses it as well: test_refusals.py
        try:
            answer = engine.fit_params(path, config, n)
        except EngineError:
            continue  # it refuses this cache for this shape
        for (device, theirs), d in zip(answer.items(), [*memory.gpus, memory.host], strict=True):
            got = (d.weights_bytes // MIB, d.kv_bytes // MIB, d.compute_bytes // MIB)
            assert got == theirs, (device, config)
        compared += 1
    for config, n in configurations(model, "llama-server", 1):
        try:
            memory = estimate_memory(model, None, config, n_gpus=n)
            load = engine.server_load(path, config, n)
        except (UsageError, EngineError):
            continue
        ours = {"CPU": memory.host} | {f"RPC{i}": g for i, g in enumerate(memory.gpus)}
        for device, b in load.devices.items():
            d = ours[device]
            pairs = [
                (d.weights_bytes, b.model),
                (d.kv_bytes, b.kv + b.state),
                (d.compute_bytes, b.compute + b.output),
            ]
            most = 0.025 + OVER.get(architecture, 0.0)
            assert all(-0.025 * MIB < x - y < most * MIB for x, y in pairs), (device, pairs, config)
        compared += 1
    assert compared > PROJECTIONS // 2
