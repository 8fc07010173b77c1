"""A few blocks that stand for all give the peak of the whole graph."""

from __future__ import annotations

import random

import pytest

from nemofit.catalog.models import all_models
from nemofit.engines.llama_cpp import RunConfig
from nemofit.engines.llama_cpp.architectures import ROWS
from nemofit.engines.llama_cpp.compute import ComputeBuffers
from nemofit.engines.llama_cpp.memory import Estimator
from nemofit.engines.llama_cpp.placement import gpu_layers, place, place_units

QUANTS = ("Q4_K_M", "Q8_0", "Q3_K_L")
MODELS = {}
for card in all_models():
    if card.architecture in ROWS:
        MODELS.setdefault(card.architecture, card)


def configuration(rng: random.Random, blocks: int, n_gpus: int, experts: bool) -> RunConfig:
    return RunConfig(
        context=rng.choice([512, 4096, 32768]),
        ubatch=rng.choice([16, 128, 512, 2048]),
        flash_attention=rng.random() < 0.7,
        kv_type_k="q8_0" if rng.random() < 0.3 else "f16",
        parallel=rng.choice([1, 1, 4]),
        gpu_layers=rng.choice([None, rng.randrange(blocks + 1), blocks // 2]),
        tensor_split=tuple(rng.choice([1, 2, 3]) for _ in range(n_gpus)),
        cpu_moe_layers=rng.choice([0, 0, blocks // 3, blocks]) if experts else 0,
        kv_offload=rng.random() < 0.9,
        backend=rng.choice(["cuda", "cuda", "rpc"]),
        program=rng.choice(["llama-server", "llama-fit-params"]),
    )


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_short_equals_whole(architecture: str) -> None:
    rng = random.Random(architecture)
    model = MODELS[architecture].spec()
    blocks = model.integer("block_count")
    for _ in range(3):
        n_gpus = rng.choice([1, 2, 3])
        quant = rng.choice(QUANTS)
        config = configuration(rng, blocks, n_gpus, model.integer("expert_count") > 0)
        types = Estimator(model, quant).types
        split = tuple(float(x) for x in config.tensor_split or ())
        units = place_units(blocks, gpu_layers(model, config), split)
        full = gpu_layers(model, config) > blocks

        def peaks(whole: bool) -> list[int]:
            buffers = ComputeBuffers(model, types, quant, config, n_gpus, whole=whole)  # noqa: B023
            return buffers.bytes_for(config, units, full, lambda: place(model, config, split))  # noqa: B023

        short, whole = peaks(False), peaks(True)
        assert short == whole, (quant, n_gpus, config)
