"""Work by difference equals work added up tensor by tensor."""

from __future__ import annotations

from random import Random

import pytest

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.placement import place
from nemofit.planner.timing import UnitWork
from nemofit.speed.work import work_of


@pytest.mark.parametrize("name", ["llama-3.2-1b", "qwen3-30b-a3b", "gemma-3-4b", "mixtral-8x7b"])
@pytest.mark.parametrize("kv_offload", [True, False])
def test_any_placement(name: str, kv_offload: bool) -> None:
    """Random splits, layer counts and experts on the host: every figure of every device."""
    model = find_model(name).spec()
    types = tensor_types(model, "Q4_K_M")
    random = Random(name)
    sums = UnitWork(model, types, RunConfig(kv_offload=kv_offload))
    for _ in range(8):
        gpus = random.randint(1, 3)
        config = RunConfig(
            gpu_layers=random.randint(0, model.integer("block_count") + 1),
            cpu_moe_layers=random.choice((0, 3, 100)),
            kv_offload=kv_offload,
        )
        placed = place(model, config, [random.random() + 0.1 for _ in range(gpus)])
        expected = work_of(model, types, placed.device_of, placed.units, config)
        found = sums.placed(placed.units, config.cpu_moe_layers)
        assert [w for w in expected if w.kernels] == list(found)


def test_the_cache_is_swapped_alone() -> None:
    """Weights of one file type with the cache of another type equal both worked out together."""
    model = find_model("llama-3.2-1b").spec()
    q8 = RunConfig(kv_type_k="q8_0", kv_type_v="q8_0")
    weights = UnitWork(model, tensor_types(model, "Q6_K"), RunConfig())
    cache = UnitWork(model, tensor_types(model, "Q4_K_M"), q8)
    both = UnitWork(model, tensor_types(model, "Q6_K"), q8)
    units = (0,) * 17
    assert both.placed(units, 0) == weights.with_cache_of(cache).placed(units, 0)
