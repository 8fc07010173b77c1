"""The solver finds what trying everything finds, and never exceeds a budget."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import cache

import pytest

from nemofit import RunConfig, best_offload, estimate_memory, load_model
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp import Estimator, longest_context
from nemofit.errors import DoesNotFitError
from nemofit.units import GIB, MIB


@cache
def small(name: str, blocks: int) -> ModelSpec:
    from benchmarks.accuracy.sparse import cut

    return cut(load_model(name), blocks)


def splits(n_gpus: int, active: int) -> Iterator[tuple[int, ...]]:
    """Every way to deal ``active`` units to the GPUs in order."""
    for cuts in itertools.combinations_with_replacement(range(active + 1), n_gpus - 1):
        edges = (0, *cuts, active)
        yield tuple(b - a for a, b in itertools.pairwise(edges))


def best_by_hand(
    estimator: Estimator, config: RunConfig, budgets: list[int]
) -> tuple[int, int] | None:
    """(-ngl, -ncmoe) of the best placement: most layers, then fewest experts on the host."""
    blocks = estimator.blocks
    moe = any("_exps." in t.name for t in estimator.model.tensors)

    def fits(ngl: int, experts: int) -> bool:
        for counts in splits(len(budgets), min(ngl, blocks + 1)):
            if sum(counts) == 0:
                counts = (1,) * len(budgets)
            trial = config.replace(gpu_layers=ngl, tensor_split=counts, cpu_moe_layers=experts)
            memory = estimator.memory(trial, len(budgets))
            if all(g.total_bytes <= b for g, b in zip(memory.gpus, budgets, strict=True)):
                return True
        return False

    for experts in range(blocks + 1 if moe else 1):
        if fits(blocks + 1, experts):
            return blocks + 1, experts
    for ngl in range(blocks, -1, -1):
        if fits(ngl, blocks if moe else 0):
            return ngl, blocks if moe else 0
    return None


CASES = [
    ("llama-3.1-8b", 6),
    ("qwen2.5-72b", 5),
    ("gemma-3-27b", 7),
    ("qwen3-30b-a3b", 6),
    ("mixtral-8x22b", 4),
    ("gpt-oss-20b", 6),
]


@pytest.mark.parametrize(("name", "blocks"), CASES)
@pytest.mark.parametrize("backend", ["cuda", "rpc"])
def test_solver_equals_trying_everything(name: str, blocks: int, backend: str) -> None:
    rng = random.Random(f"{name}{backend}")
    model = small(name, blocks)
    estimator = Estimator(model, "Q4_K_M")
    config = RunConfig(context=4096, backend=backend)
    whole = estimator.memory(config.replace(gpu_layers=blocks + 1), 1).gpus[0].total_bytes
    seen = set()
    for _ in range(13):
        n = rng.choice([1, 1, 2])
        budgets = [int(whole * rng.uniform(0.1, 1.1) / n) for _ in range(n)]
        want = best_by_hand(estimator, config, budgets)
        try:
            got = best_offload(model, "Q4_K_M", config=config, budgets=budgets)
        except DoesNotFitError:
            assert want is None, (budgets, want)
            continue
        assert got.gpu_layers is not None
        assert (got.gpu_layers, got.cpu_moe_layers) == want, budgets
        seen.add(want)
        memory = estimate_memory(model, "Q4_K_M", got, n_gpus=n)
        assert all(g.total_bytes <= b for g, b in zip(memory.gpus, budgets, strict=True))
    assert len(seen) > 1


def test_solver_keeps_what_is_fixed() -> None:
    model = load_model("llama-3.1-8b")
    fixed = RunConfig(context=4096, gpu_layers=7, tensor_split=(3, 1))
    got = best_offload(model, "Q4_K_M", config=fixed, budgets=[8 * GIB, 8 * GIB])
    assert (got.gpu_layers, got.tensor_split) == (7, (3, 1))


def test_solver_says_by_how_much_nothing_fits() -> None:
    model = load_model("llama-3.1-70b")
    with pytest.raises(DoesNotFitError, match=r"needs .* GiB on GPU 0 .* it offers 0\.10 GiB"):
        best_offload(model, "Q4_K_M", config=RunConfig(), budgets=[100 * MIB])


def test_host_budget_counts() -> None:
    model = load_model("llama-3.1-70b")
    with pytest.raises(DoesNotFitError, match="host"):
        best_offload(model, "Q4_K_M", budgets=[8 * GIB], host_budget=8 * GIB)
    got = best_offload(model, "Q4_K_M", budgets=[], host_budget=64 * GIB)
    assert got.gpu_layers == 0


@pytest.mark.parametrize("parallel", [1, 2])
def test_longest_context_is_the_longest(parallel: int) -> None:
    model = load_model("llama-3.1-8b")
    config = RunConfig(parallel=parallel, gpu_layers=33)
    budget = 10 * GIB
    longest = longest_context(model, "Q4_K_M", config=config, budgets=[budget])

    def total(context: int) -> int:
        c = config.replace(context=context)
        return estimate_memory(model, "Q4_K_M", c, n_gpus=1).gpus[0].total_bytes

    assert total(longest) <= budget < total(longest + 256 * parallel)
