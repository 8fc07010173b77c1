"""What would have to change: every change does what it says, and a little less of it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp import estimate_memory
from nemofit.errors import DoesNotFitError, UsageError
from nemofit.machine import budgets, parse_machine
from nemofit.machine.records import Holder, Machine
from nemofit.planner import Goal, Plan, recommend
from nemofit.planner.changes import Change
from nemofit.planner.limits import unmet
from nemofit.planner.single import single
from nemofit.units import GIB, gib

F16 = {"kv_type_k": "f16", "kv_type_v": "f16"}
MISSES = {
    "too large": ("nemotron-70b", "1x RTX 3060, 16 GiB RAM", Goal(quant="Q4_K_M")),
    "long context": (
        "llama-3.1-8b",
        "1x RTX 3060, 4 GiB RAM",
        Goal(context=131072, quant="Q4_K_M"),
    ),
    "no card": ("qwen3-30b-a3b", "16 GiB RAM, 8 cores", Goal(quant="Q6_K")),
    "fixed layers": (
        "nemotron-70b",
        "2x RTX 3090, 64 GiB RAM",
        Goal(quant="Q6_K", knobs={"gpu_layers": 99}),
    ),
    "fixed experts": (
        "qwen3-30b-a3b",
        "1x RTX 3060, 64 GiB RAM",
        Goal(quant="Q4_K_M", knobs={"gpu_layers": 99, "cpu_moe_layers": 0}),
    ),
    "too slow": (
        "qwen2.5-32b",
        "1x RTX 3060, 64 GiB DDR5-5600 x2, 8 cores",
        Goal(quant="Q4_K_M", min_tokens_per_second=12),
    ),
}


def missed(name: str) -> tuple[Plan, dict[str, Change], Machine, Goal]:
    model, spec, goal = MISSES[name]
    machine = parse_machine(spec)
    plan, changes = single(find_model(model).spec(), machine, goal)
    return plan, {change.what: change for change in changes}, machine, goal


@pytest.mark.parametrize("name", MISSES)
def test_every_change_mends_the_plan(name: str) -> None:
    """The plan misses; each changed one fits by the estimator's own figures and meets the goal."""
    base, found, _, goal = missed(name)
    assert unmet(base, goal) is not None
    assert found
    for change in found.values():
        plan = change.plan
        assert unmet(plan, replace(goal, context=None)) is None, change.text
        gpus = plan.room.machine.gpus
        memory = estimate_memory(
            plan.model,
            plan.quant,
            plan.config,
            len(gpus),
            imatrix=plan.imatrix,
            generations=[gpu.architecture for gpu in gpus],
        )
        used = [device.total_bytes for device in memory.gpus]
        assert budgets(plan.room.machine).fits(used, memory.host.total_bytes), change.text


@pytest.mark.parametrize("name", MISSES)
def test_only_one_thing_changes(name: str) -> None:
    """Beside what is named, quant, context, cache and hardware stay as they were."""
    base, found, machine, _ = missed(name)

    def kept(plan: Plan) -> dict[str, object]:
        return {
            "quant": plan.quant,
            "context": plan.context,
            "kv-type": plan.config.kv_type_k,
        }

    for what, change in found.items():
        before, after = kept(base), kept(change.plan)
        if what in before:
            assert before.pop(what) != after.pop(what)
        if what != "several":
            assert before == after, change.text
        more = len(change.plan.room.machine.gpus) - len(machine.gpus)
        assert more > 0 if what == "card" else more <= 0


def test_a_shorter_context_is_the_longest_that_does() -> None:
    """256 tokens more do not fit."""
    _, found, machine, goal = missed("long context")
    context = found["context"].plan.context
    model = find_model("llama-3.1-8b").spec()
    assert single(model, machine, replace(goal, context=context))[0].fits
    assert not single(model, machine, replace(goal, context=context + 256))[0].fits


def test_a_smaller_file_is_the_best_that_does() -> None:
    """No file type with less loss fits."""
    base, found, machine, _ = missed("too large")
    change = found["quant"]
    assert change.plan.loss > base.loss
    plans = recommend(base.model, machine, Goal(context=8192, knobs=F16, prefer="quality"))
    assert change.plan.loss == pytest.approx(min(plan.loss for plan in plans))
    assert f"{change.plan.loss:.4f}" in change.cost


def test_more_memory_is_the_least_that_does() -> None:
    """With the modules one size smaller it still does not fit."""
    base, found, _, goal = missed("too large")
    host = found["ram"].plan.room.machine.host
    more = (host.ram_total_bytes - 16 * GIB) // GIB
    assert f"{more} GiB" in found["ram"].action
    for size, fits in ((more, True), (more - 8, False)):
        machine = parse_machine(f"1x RTX 3060, {16 + size} GiB RAM")
        assert single(base.model, machine, goal)[0].fits is fits


def test_the_shortage_is_the_least() -> None:
    """The card is filled first: what is missing in RAM is what all devices together lack."""
    base, _, _, _ = missed("too large")
    [(device, budget)] = base.shortfalls
    assert device.name == "RAM"
    memory, room = base.memory, base.room
    need = sum(d.total_bytes for d in memory.gpus) + memory.host.total_bytes
    unused = room.budgets.gpus[0] - memory.gpus[0].total_bytes
    assert device.total_bytes - budget == need - room.total + unused
    assert unused < 1 * GIB


def test_a_fixed_flag_that_is_dropped_is_named() -> None:
    """Both flags of the offload, and what the planner takes instead."""
    _, found, _, _ = missed("fixed experts")
    change = found["offload"]
    assert "without --gpu-layers and --cpu-moe-layers" in change.text
    assert f"--cpu-moe-layers {change.plan.config.cpu_moe_layers}" in change.text
    assert change.plan.config.cpu_moe_layers > 0


def test_closing_a_program() -> None:
    """Of three programs that hold a card's memory, the smallest whose end is enough."""
    machine = parse_machine("1x RTX 3060, 4 GiB RAM")
    holders = (
        Holder(pid=7, name="game", bytes=6 * GIB),
        Holder(pid=8, name="browser", bytes=3 * GIB),
        Holder(pid=9, name="shell", bytes=64 << 20),
    )
    total = machine.gpus[0].total_bytes
    busy = replace(machine.gpus[0], free_bytes=total - (9 * GIB + (64 << 20)), holders=holders)
    goal = Goal(context=8192, quant="Q4_K_M")
    _, changes = single(find_model("llama-3.1-8b").spec(), replace(machine, gpus=(busy,)), goal)
    change = next(c for c in changes if c.what == "process")
    assert change.action == "close browser"
    assert f"{gib(3 * GIB)} on GPU 0" in change.cost
    assert change.flags is None


def test_no_single_flag_does() -> None:
    """Then several at once: they are named, and they fit."""
    machine = parse_machine("2 GiB GPU, 4 GiB RAM")
    model = find_model("qwen3-8b").spec()
    goal = Goal(context=100_000, quant="Q8_0", knobs={"gpu_layers": 37})
    _, changes = single(model, machine, goal)
    several = next(c for c in changes if c.what == "several")
    assert "without --gpu-layers" in several.action
    flags = several.flags.split()
    kv = flags[flags.index("--kv-type") + 1]
    again = Goal(
        context=int(flags[flags.index("--context") + 1]),
        quant=flags[flags.index("--quant") + 1],
        knobs={"kv_type_k": kv, "kv_type_v": kv},
    )
    assert single(model, machine, again)[0].fits


def test_limits_hold_for_every_plan() -> None:
    """No plan has less context, more of a card or a heavier loss than asked."""
    model, machine = find_model("llama-3.1-8b").spec(), parse_machine("1x RTX 3060, 32 GiB RAM")
    goal = Goal(min_context=20_000, max_vram_bytes=6 * GIB, quality="slight")
    for plan in recommend(model, machine, goal):
        assert plan.context >= 20_000
        assert all(device.total_bytes <= 6 * GIB for device in plan.memory.gpus)
        assert plan.quality.grade in ("near-lossless", "slight")


def test_two_limits_that_conflict_are_named_with_what_would_work() -> None:
    """Each holds alone; the hint's figures hold beside the other."""
    model, machine = find_model("nemotron-70b").spec(), parse_machine("2x RTX 3090, 64 GiB RAM")
    goal = Goal(min_tokens_per_second=22, quality="slight")
    with pytest.raises(DoesNotFitError) as refused:
        recommend(model, machine, goal)
    assert "--min-tps 22" in refused.value.message
    assert "--quality slight" in refused.value.message
    assert recommend(model, machine, replace(goal, quality=None))
    least = float(refused.value.hint.split("--min-tps ")[1].split(";")[0])
    assert recommend(model, machine, replace(goal, min_tokens_per_second=least))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"context": 4096, "min_context": 8192}, "--context 4096 and --min-context 8192"),
        ({"quant": "Q2_K", "quality": "slight"}, "--quant Q2_K .* and --quality slight"),
        ({"quality": "good"}, "'good' is not a limit"),
        ({"max_vram_bytes": -1}, "-1 bytes"),
    ],
    ids=str,
)
def test_limits_that_contradict_each_other(wrong: dict[str, object], says: str) -> None:
    """Refused before anything is searched, with what would agree."""
    with pytest.raises(UsageError, match=says) as refused:
        recommend(find_model("llama-3.2-1b").spec(), parse_machine("16 GiB RAM"), Goal(**wrong))
    assert refused.value.hint
