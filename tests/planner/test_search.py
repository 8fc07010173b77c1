"""The search: never over a budget, never against a flag, and as good as trying everything."""

from __future__ import annotations

from dataclasses import replace
from math import isclose

import pytest

from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp import estimate_memory
from nemofit.errors import DoesNotFitError, UsageError
from nemofit.machine import budgets, parse_machine
from nemofit.machine.records import Machine
from nemofit.planner import Goal, Plan, recommend
from nemofit.planner.goal import PREFERENCES
from nemofit.planner.ranking import rank
from nemofit.planner.score import frontier, ranked
from nemofit.planner.search import Search

MODELS = ("llama-3.2-1b", "qwen3-30b-a3b", "nemotron-70b")
DENSE, MOE, LARGE = MODELS


def fits(plan: Plan, machine: Machine) -> bool:
    """Asked anew, from the estimator and the machine, not from the plan's own figures."""
    config, gpus = plan.config, () if plan.config.backend == "cpu" else machine.gpus
    memory = estimate_memory(
        plan.model,
        plan.quant,
        config,
        len(gpus),
        imatrix=plan.imatrix,
        generations=[gpu.architecture for gpu in gpus],
    )
    used = [device.total_bytes for device in memory.gpus]
    return budgets(machine).fits(used, memory.host.total_bytes)


@pytest.mark.parametrize("name", MODELS)
def test_no_plan_exceeds_a_budget(name: str, machine: Machine) -> None:
    """On every kind of machine, each plan fits every device including the driver's share."""
    model = find_model(name).spec()
    try:
        plans = recommend(model, machine, Goal(context=4096))
    except DoesNotFitError:
        assert machine.host.ram_total_bytes < 80 << 30
        return
    assert all(fits(plan, machine) for plan in plans)
    assert all(plan.fits and plan.verdict == "fits" for plan in plans)
    assert plans == ranked(frontier(plans), "balanced")


@pytest.mark.parametrize("prefer", PREFERENCES)
@pytest.mark.parametrize("spec", ["6 GiB GPU @ 300 GB/s, 16 GiB RAM", "12 GiB RAM, 4 cores"])
def test_bounding_finds_what_trying_everything_finds(spec: str, prefer: str) -> None:
    """Working out every single candidate gives the same best plan, and none of the others better.

    Where speeds count as equal, the shorter way may keep a plan that the longer one drops.
    """
    model, machine = find_model("qwen3-8b").spec(), parse_machine(spec)
    goal = Goal(context=8192, prefer=prefer)
    search = Search(model, machine, goal)
    everything = [
        plan
        for c in search.candidates()
        if (plan := search.sizer.best(c.quant, c.config, c.source)) is not None
    ]
    expected = ranked(frontier(everything), prefer)[:8]
    found = Search(model, machine, goal).top(8)
    assert found[0].score == pytest.approx(expected[0].score)
    assert all(a.score >= b.score - 1e-9 for a, b in zip(found, expected, strict=False))


def test_bounds_are_bounds() -> None:
    """No configuration turns out faster than its bound."""
    search = Search(
        find_model(MOE).spec(), parse_machine("1x RTX 3060, 64 GiB RAM"), Goal(context=8192)
    )
    for c in search.candidates():
        plan = search.sizer.best(c.quant, c.config, c.source)
        if plan is not None:
            assert plan.tokens_per_second <= c.tokens_per_second * (1 + 1e-9)


@pytest.mark.parametrize(
    "knobs",
    [
        {"gpu_layers": 10},
        {"kv_type_k": "q8_0", "kv_type_v": "q5_1"},
        {"ubatch": 128, "parallel": 2},
        {"flash_attention": False},
        {"cpu_moe_layers": 5},
        {"gpu_layers": 20, "tensor_split": (1.0, 3.0)},
    ],
    ids=str,
)
def test_what_a_person_fixes_is_kept(knobs: dict[str, object]) -> None:
    """Every plan has every fixed knob, the fixed context and the fixed file type."""
    model, machine = find_model(MOE).spec(), parse_machine("2x RTX 3090, 64 GiB RAM")
    for plan in recommend(model, machine, Goal(context=16384, quant="Q4_K_M", knobs=knobs)):
        assert (plan.config.context, plan.quant) == (16384, "Q4_K_M")
        assert knobs == {name: getattr(plan.config, name) for name in knobs}


def test_experts_can_be_forbidden_on_the_host() -> None:
    """``cpu_moe_layers=0`` is a choice, not an absent one: whole blocks leave the card instead."""
    model, machine = find_model(MOE).spec(), parse_machine("1x RTX 3060, 64 GiB RAM")
    free = recommend(model, machine, Goal(context=8192, quant="Q6_K"))[0]
    fixed = recommend(
        model, machine, Goal(context=8192, quant="Q6_K", knobs={"cpu_moe_layers": 0})
    )[0]
    assert free.config.cpu_moe_layers > 0
    assert fixed.config.cpu_moe_layers == 0
    assert fixed.config.gpu_layers < free.config.gpu_layers


def test_the_preference_moves_the_choice() -> None:
    """Quality loses least, speed is fastest, context is longest among the four first plans."""
    model, machine = find_model("qwen2.5-14b").spec(), parse_machine("1x RTX 3060, 32 GiB RAM")
    first = {p: recommend(model, machine, Goal(prefer=p))[0] for p in PREFERENCES}
    assert first["quality"].loss == min(p.loss for p in first.values())
    assert first["speed"].tokens_per_second == max(p.tokens_per_second for p in first.values())
    assert first["context"].context == max(p.context for p in first.values())


def test_a_speed_that_is_asked_for_is_met() -> None:
    """Slower plans are gone; the sum of what is left is not larger than without the limit."""
    model, machine = find_model(LARGE).spec(), parse_machine("1x RTX 4090, 128 GiB RAM")
    plans = recommend(model, machine, Goal(context=8192, min_tokens_per_second=8))
    assert min(p.tokens_per_second for p in plans) >= 8


def test_a_speed_that_nothing_reaches() -> None:
    """The refusal names the fastest plan, and asking for what it offers succeeds."""
    model, machine = find_model(LARGE).spec(), parse_machine("64 GiB RAM, 8 cores")
    goal = Goal(context=8192, min_tokens_per_second=500)
    with pytest.raises(DoesNotFitError, match="reaches 500 tokens per second") as refused:
        recommend(model, machine, goal)
    reachable = float(refused.value.hint.split()[1].rstrip(","))
    assert recommend(model, machine, replace(goal, min_tokens_per_second=reachable or 0.01))


def test_a_cpu_only_machine_is_planned_for() -> None:
    """Everything lies in RAM, nothing is offloaded, and llama.cpp is told to use no device."""
    model = find_model(DENSE).spec()
    plan = recommend(model, parse_machine("16 GiB RAM, 8 cores"), Goal(context=8192))[0]
    assert (plan.config.backend, plan.config.gpu_layers, plan.config.op_offload) == (
        "cpu",
        0,
        False,
    )
    assert plan.memory.gpus == ()
    assert plan.memory.host.total_bytes > plan.weights_bytes
    assert "-dev none" in plan.command()


def test_a_card_too_small_for_anything_is_left_alone() -> None:
    """A card that cannot hold the compute buffer does not keep the host from running a model."""
    machine = parse_machine("1 GiB GPU, 32 GiB RAM")
    plan = recommend(find_model("qwen3-8b").spec(), machine, Goal(context=8192))[0]
    assert plan.words == "fits, on the CPU"
    assert "-dev none" in plan.command()


def test_shared_memory_is_promised_once() -> None:
    """On an Apple chip GPU and host parts together stay within the one memory."""
    machine = parse_machine("Apple M2 Pro, 32 GiB RAM")
    for plan in recommend(find_model("qwen3-30b-a3b").spec(), machine, Goal(context=8192)):
        parts = [d.total_bytes for d in (*plan.memory.gpus, plan.memory.host)]
        assert sum(parts) <= budgets(machine).host


def test_a_refusal_has_both_numbers_and_a_way_out() -> None:
    """Too large at the fixed file type: need and offer are named, and what is offered fits."""
    model, machine = find_model(LARGE).spec(), parse_machine("1x RTX 3090, 16 GiB RAM")
    with pytest.raises(DoesNotFitError) as refused:
        recommend(model, machine, Goal(context=8192, quant="Q8_0"))
    assert refused.value.message.count("GiB") >= 2
    change = next(c for c in refused.value.changes if c.what == "quant")
    assert change.text == refused.value.hint
    assert recommend(model, machine, Goal(context=8192, quant=change.flags.split()[1]))


def test_the_offered_context_is_the_longest_that_fits() -> None:
    """A context that is too long is answered with the longest one; 256 tokens more do not fit."""
    model, machine = find_model("qwen3-8b").spec(), parse_machine("8 GiB RAM, 4 cores")
    goal = Goal(context=10_000_000, quant="Q4_K_M", knobs={"kv_type_k": "f16", "kv_type_v": "f16"})
    with pytest.raises(DoesNotFitError) as refused:
        recommend(model, machine, goal)
    change = next(c for c in refused.value.changes if c.what == "context")
    context = int(change.flags.split()[1])
    assert recommend(model, machine, replace(goal, context=context))
    with pytest.raises(DoesNotFitError):
        recommend(model, machine, replace(goal, context=context + 256))


@pytest.mark.parametrize(
    ("spec", "knobs", "says"),
    [
        ("2x RTX 3090, 64 GiB RAM", {"tensor_split": (1.0, 1.0, 1.0)}, "3 numbers"),
        ("16 GiB RAM", {"tensor_split": (1.0, 1.0)}, "no GPU"),
        ("16 GiB RAM", {"gpu_layers": 10}, "has none"),
    ],
)
def test_an_offload_that_cannot_be_had(spec: str, knobs: dict[str, object], says: str) -> None:
    """It is refused, not quietly changed."""
    with pytest.raises(UsageError, match=says):
        recommend(find_model(DENSE).spec(), parse_machine(spec), Goal(knobs=knobs))


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefer": "beauty"},
        {"min_tokens_per_second": 0},
        {"min_tokens_per_second": float("nan")},
        {"knobs": {"colour": 1}},
        {"knobs": {"tensor_split": (0.0, 0.0)}},
        {"knobs": {"kv_type_k": "q9_9"}},
        {"context": -1},
    ],
    ids=str,
)
def test_a_goal_that_makes_no_sense(wrong: dict[str, object]) -> None:
    """It is refused when it is made."""
    with pytest.raises(UsageError):
        Goal(**wrong)


def test_a_longer_context_than_trained_is_warned_about() -> None:
    """It is a legal question; the answer says what happens."""
    model, machine = find_model("tinyllama-1.1b").spec(), parse_machine("64 GiB RAM")
    plan = recommend(model, machine, Goal(context=16384))[0]
    assert any("trained for 2048" in note for note in plan.notes)


def test_the_reason_is_one_sentence_about_the_first_plan() -> None:
    """It names the file type and the context that were chosen."""
    model, machine = find_model(LARGE).spec(), parse_machine("2x RTX 3090, 64 GiB RAM")
    ranking = rank(model, machine, Goal(context=8192))
    assert ranking.reason.count(". ") == 0
    assert ranking.reason.startswith(f"{ranking.plans[0].quant} at 8192 tokens")
    assert isclose(ranking.plans[0].score, max(p.score for p in ranking.plans))
