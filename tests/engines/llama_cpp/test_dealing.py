"""Buffers that were seen once: they tell those of every later split that is alike."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import ModelFiles, cut

from nemofit import RunConfig, estimate_memory, load_model
from nemofit.engines.llama_cpp import Estimator
from nemofit.engines.llama_cpp.dealing import Dealer, first_that, steps_of
from nemofit.errors import UsageError
from nemofit.units import GIB, MIB

MODELS = (
    "llama-3.1-70b", "deepseek-v3", "qwen3-235b-a22b", "gemma-3-27b", "gpt-oss-120b",
    "nemotron-h-56b", "phi-4", "mixtral-8x22b",
)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_role_has_one_buffer(name: str, whole: bool) -> None:
    """What the dealer takes for the same role is the same number in every replay."""
    rng = random.Random(name)
    model = load_model(name)
    estimator = Estimator(model, "Q4_K_M")
    blocks = estimator.blocks
    again = 0
    for _ in range(6):
        n = rng.choice([3, 4])
        layers = blocks + 1 if whole else blocks + 1 - rng.choice([6, 12])
        cuts = sorted(rng.sample(range(1, layers), n - 1)) if again > 3 else None
        edges = cuts or [layers * i // n + rng.randint(0, 1) for i in range(1, n)]
        counts = [b - a for a, b in zip([0, *edges], [*edges, layers], strict=True)]
        config = RunConfig(gpu_layers=layers, tensor_split=tuple(map(float, counts)))
        dealer = Dealer(estimator, config, [80 * GIB] * n, None, None)
        memory = estimator.memory(config, n)
        edges = list(accumulate(counts, initial=blocks + 1 - layers))
        for d in range(n):
            role = dealer._role((layers, 0), d, edges[d], edges[d + 1])
            known = dealer.known.exact.get(role.whole)
            if known is not None:
                again += 1
                assert known == memory.gpus[d].compute_bytes, (counts, d)
        dealer.learn((layers, 0), counts, memory)
        if dealer.frame.stranded == frozenset():
            used = [gpu.total_bytes for gpu in memory.gpus]
            assert dealer.needs((layers, 0), counts) == used
            assert dealer.host_need((layers, 0)) == memory.host.total_bytes
    assert again


def test_steps_give_up_experts_before_blocks() -> None:
    model = load_model("mixtral-8x22b")
    steps = steps_of(model, RunConfig())
    assert steps[:2] == [(57, 0), (57, 1)]
    assert steps[56:58] == [(57, 56), (56, 56)]
    assert steps[-1] == (0, 56)
    assert steps_of(model, RunConfig(), move_experts=False)[:2] == [(57, 0), (56, 0)]
    assert steps_of(model, RunConfig(gpu_layers=9, cpu_moe_layers=3)) == [(9, 3)]


def test_the_first_that_holds() -> None:
    assert list(first_that(lambda n: n >= 7, 20, 3)) == [7]
    assert list(first_that(lambda n: n >= 10 or n == 8, 20, 3)) == [8, 10]
    assert list(first_that(lambda n: False, 20, 3)) == []
    assert list(first_that(lambda n: True, 0, 3)) == []


def test_a_card_that_is_left_out_costs_nothing() -> None:
    """One of two cards alone is one card: no copies for a pipeline, nothing on the other."""
    model = load_model("llama-3.1-8b")
    one = estimate_memory(model, "Q4_K_M", RunConfig(), n_gpus=1)
    for used in (0, 1):
        split = tuple(float(d == used) for d in range(2))
        config = RunConfig(devices=(used,), tensor_split=split)
        m = estimate_memory(model, "Q4_K_M", config, n_gpus=2)
        assert m.gpus[used] == one.gpus[0]
        assert m.gpus[1 - used].total_bytes == 0
        assert (m.host, m.copies) == (one.host, 1)
        beside = estimate_memory(model, "Q4_K_M", RunConfig(tensor_split=split), n_gpus=2)
        assert (beside.gpus[1 - used].total_bytes, beside.copies) == (0, 4)


@pytest.mark.parametrize(
    ("devices", "split"), [((2,), None), ((0,), (1.0, 1.0)), ((1, 0), None), ((), None)]
)
def test_cards_that_are_not_there(
    devices: tuple[int, ...], split: tuple[float, ...] | None
) -> None:
    with pytest.raises(UsageError):
        config = RunConfig(devices=devices, tensor_split=split)
        estimate_memory(load_model("llama-3.2-1b"), "Q4_K_M", config, n_gpus=2)


def test_the_engine_holds_nothing_on_a_card_that_is_left_out(
    engine: Engine, model_files: ModelFiles
) -> None:
    """A real load with ``-dev`` names one of two devices: its buffers are those of one card."""
    model = cut(load_model("llama-3.1-8b"), 4)
    config = RunConfig(backend="rpc", gpu_layers=5, devices=(1,), tensor_split=(0, 1))
    load = engine.server_load(
        model_files.path(model, "Q4_K_M"),
        config.replace(devices=None, tensor_split=(1,)),
        2,
        ("-dev", "RPC1"),
    )
    m = estimate_memory(model, "Q4_K_M", config, n_gpus=2)
    found = load.devices["RPC1"]
    assert set(load.devices) == {"CPU", "RPC1"}
    assert m.gpus[0].total_bytes == 0
    for real, ours in (
        (found.model, m.gpus[1].weights_bytes),
        (found.kv, m.gpus[1].kv_bytes),
        (found.compute, m.gpus[1].compute_bytes),
    ):
        assert abs(real - ours) < 0.01 * MIB
    assert load.copies == m.copies == 1
