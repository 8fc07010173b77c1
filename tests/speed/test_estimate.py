"""How estimates behave: order, units, what makes them slower, what is assumed, bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from conftest import gpu, machine
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import NemofitError, UsageError
from nemofit.machine.records import Gpu, Host, Machine
from nemofit.speed import estimate_speed


def test_order_and_units(llama_8b: ModelSpec) -> None:
    found = estimate_speed(llama_8b, "Q4_K_M", machine=machine("RTX 3090"), generated_tokens=100)
    for r in (found.decode, found.prefill, found.time_to_first_token_ms, found.total_ms):
        assert 0 < r.low < r.likely < r.high
    token_ms = 1e3 / found.decode.likely
    prompt_ms = 1e3 * 512 / found.prefill.likely
    assert prompt_ms + token_ms == pytest.approx(found.time_to_first_token_ms.likely)
    assert prompt_ms + 100 * token_ms == pytest.approx(found.total_ms.likely)
    assert found.basis == "published"
    assert found.notes == ()


def test_the_limit_is_named(llama_70b: ModelSpec) -> None:
    on_gpu = estimate_speed(llama_70b, "Q4_K_M", machine=machine("RTX 3090", "RTX 3090"))
    mostly_host = estimate_speed(llama_70b, "Q4_K_M", RunConfig(gpu_layers=20), machine("RTX 3090"))
    assert on_gpu.limit.endswith("% of the time reads weights from GPU memory")
    assert mostly_host.limit.endswith("% of the time reads weights from host memory")


def test_more_of_anything_is_not_faster(llama_8b: ModelSpec) -> None:
    base = estimate_speed(llama_8b, "Q4_K_M", machine=machine("RTX 4070"))
    deep = estimate_speed(llama_8b, "Q4_K_M", machine=machine("RTX 4070"), depth=32768)
    large = estimate_speed(llama_8b, "Q8_0", machine=machine("RTX 4070"))
    partly = estimate_speed(llama_8b, "Q4_K_M", RunConfig(gpu_layers=16), machine("RTX 4070"))
    none = estimate_speed(llama_8b, "Q4_K_M", RunConfig(gpu_layers=0), machine("RTX 4070"))
    for slower in (deep, large, partly):
        assert slower.decode.likely < base.decode.likely
    assert none.decode.likely < partly.decode.likely
    assert deep.prefill.likely < base.prefill.likely


def test_streams_share_the_weights(llama_8b: ModelSpec) -> None:
    """Together faster than one, each slower than alone."""
    one = estimate_speed(llama_8b, "Q4_K_M", machine=machine("RTX 4090"))
    eight = estimate_speed(llama_8b, "Q4_K_M", machine=machine("RTX 4090"), streams=8)
    assert one.decode.likely > eight.decode.likely
    assert one.decode.likely < 8 * eight.decode.likely
    assert one.time_to_first_token_ms.likely < eight.time_to_first_token_ms.likely


def test_op_offload_speeds_prompts_up(llama_70b: ModelSpec) -> None:
    with_it = estimate_speed(llama_70b, "Q4_K_M", RunConfig(gpu_layers=40), machine("RTX 4090"))
    without = estimate_speed(
        llama_70b, "Q4_K_M", RunConfig(gpu_layers=40, op_offload=False), machine("RTX 4090")
    )
    assert with_it.prefill.likely > 2 * without.prefill.likely
    assert with_it.decode.likely == without.decode.likely


def test_cpu_backend_leaves_the_gpus_out(llama_8b: ModelSpec) -> None:
    with_card = estimate_speed(llama_8b, "Q4_K_M", RunConfig(backend="cpu"), machine("RTX 4090"))
    without = estimate_speed(llama_8b, "Q4_K_M", RunConfig(), machine())
    assert with_card.decode == without.decode


def test_what_is_unknown_is_assumed_and_said(llama_8b: ModelSpec) -> None:
    found = estimate_speed(llama_8b, "Q4_K_M")
    assert found.basis == "assumed"
    assert any("memory bandwidth of the host" in note for note in found.notes)
    card = replace(gpu("RTX 4090"), bandwidth_gb_s=None)
    found = estimate_speed(llama_8b, "Q4_K_M", machine=Machine(gpus=(card,)))
    assert found.basis == "assumed"
    assert any("memory bandwidth of NVIDIA" in note for note in found.notes)


def test_unmeasured_families_have_wider_ranges(llama_8b: ModelSpec) -> None:
    known = estimate_speed(llama_8b, "Q4_K_M", machine=machine("RTX 3090"))
    other = estimate_speed(llama_8b, "Q4_K_M", machine=machine("amd-radeon-rx-6800"))
    assert known.decode.high / known.decode.low < other.decode.high / other.decode.low
    assert known.notes == ()
    assert other.notes == ("no measured speed of a rdna2 card: a wider range",)


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt_tokens": -1},
        {"generated_tokens": -1},
        {"depth": -5},
        {"streams": 0},
        {"depth": 1 << 40},
        {"streams": 1.5},
    ],
)
def test_counts_that_make_no_sense(llama_8b: ModelSpec, asked: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="is not a whole number from"):
        estimate_speed(llama_8b, "Q4_K_M", machine=machine("RTX 4090"), **asked)


def test_hostile_machines_give_an_answer_or_an_error(llama_8b: ModelSpec) -> None:
    """Zero, negative, tiny or huge figures never divide by zero or overflow."""
    for figure in (0.0, -1.0, 1e-300, 1e30, math.nan, math.inf):
        card = Gpu(name="x", bandwidth_gb_s=figure, fp32_tflops=figure, pcie_gen=0, pcie_lanes=0)
        host = Host(physical_cores=0, ram_bandwidth_gb_s=figure)
        for config in (RunConfig(), RunConfig(gpu_layers=3)):
            try:
                found = estimate_speed(llama_8b, "Q4_K_M", config, Machine(host=host, gpus=(card,)))
            except NemofitError:
                continue
            assert found.decode.likely > 0


def test_empty_prompt_and_no_generation(llama_8b: ModelSpec) -> None:
    found = estimate_speed(
        llama_8b, "Q4_K_M", machine=machine("RTX 4090"), prompt_tokens=0, generated_tokens=0
    )
    assert found.time_to_first_token_ms.likely > 0
    assert found.total_ms.likely <= found.time_to_first_token_ms.likely


def test_an_estimate_moved_to_another_depth() -> None:
    """The same as an estimate made there."""
    from nemofit.catalog.models import find_model
    from nemofit.machine import parse_machine
    from nemofit.planner import Goal
    from nemofit.planner.defaults import full_depth
    from nemofit.planner.single import single
    from nemofit.speed.estimate import estimate_speed

    machine = parse_machine("1x RTX 3060, 64 GiB RAM")
    for name in ("llama-3.1-8b", "qwen3-30b-a3b"):
        model = find_model(name).spec()
        plan, _ = single(model, machine, Goal(context=16384, quant="Q4_K_M"))
        there = estimate_speed(
            model, "Q4_K_M", plan.config, machine, depth=full_depth(plan.config),
            imatrix=plan.imatrix,
        ).decode  # fmt: skip
        assert plan.speed_full is not None
        found = plan.speed_full
        assert (found.low, found.likely, found.high) == pytest.approx(
            (there.low, there.likely, there.high)
        )
        assert found.likely < plan.tokens_per_second
