"""The offload that is found in few replays is the one that the engine's solver finds."""

from __future__ import annotations

import pytest

from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp import best_offload
from nemofit.errors import DoesNotFitError
from nemofit.machine import parse_machine
from nemofit.planner import Goal
from nemofit.planner.search import Search
from nemofit.planner.sources import source_of


@pytest.mark.parametrize("name", ["qwen2.5-14b", "qwen3-30b-a3b", "llama-3.2-1b"])
@pytest.mark.parametrize(
    "spec",
    [
        "6 GiB GPU, 64 GiB RAM",
        "1x RTX 3060, 64 GiB RAM",
        "2x RTX 3060, 64 GiB RAM",
        "1x RTX 3060, 1x GTX 1650, 64 GiB RAM",
        "1 GiB GPU, 64 GiB RAM",
    ],
)
@pytest.mark.parametrize("quant", ["Q8_0", "Q3_K_M"])
def test_as_much_as_the_solver(name: str, spec: str, quant: str) -> None:
    """The same layers and the same experts on the GPUs, or neither finds any."""
    model = find_model(name).spec()
    search = Search(model, parse_machine(spec), Goal(context=16384))
    config, source = search.sizer.config(16384), source_of(model, quant, None)
    budgets = search.room.budgets
    try:
        expected = best_offload(
            model,
            quant,
            config=config,
            budgets=budgets.gpus,
            host_budget=budgets.host,
            imatrix=source.imatrix,
            generations=[gpu.architecture for gpu in search.room.machine.gpus],
        )
    except DoesNotFitError:
        expected = None
    found = search.sizer.best(quant, config, source)
    if expected is None:
        assert found is None or found.config.backend == "cpu"
    else:
        assert found is not None
        assert (expected.gpu_layers, expected.cpu_moe_layers) == (
            found.config.gpu_layers,
            found.config.cpu_moe_layers,
        )
