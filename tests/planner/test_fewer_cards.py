"""Which cards a plan uses: no more than it takes, and the faster ones."""

from __future__ import annotations

import pytest

from nemofit.catalog.models import find_model
from nemofit.machine import parse_machine
from nemofit.planner import Goal, Plan
from nemofit.planner.cards import choices
from nemofit.planner.records import room_of
from nemofit.planner.search import Search
from nemofit.planner.sources import source_of


def planned(name: str, quant: str, spec: str, **goal: object) -> Plan:
    model = find_model(name).spec()
    search = Search(model, parse_machine(spec), Goal(context=8192, quant=quant, **goal))
    plan = search.sizer.best(quant, search.sizer.config(8192), source_of(model, quant, None))
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    ("name", "quant", "spec", "devices"),
    [
        ("nemotron-70b", "Q4_K_M", "8x H100, 1 TiB RAM", (0,)),
        ("nemotron-70b", "Q8_0", "8x H100, 1 TiB RAM", (0,)),
        ("nemotron-70b", "F16", "8x H100, 1 TiB RAM", (0, 1)),
        ("qwen3-8b", "Q8_0", "1x RTX 3060, 1x RTX 4090, 64 GiB RAM", (1,)),
        ("qwen3-8b", "Q8_0", "1x RTX 4090, 1x RX 7900 XTX, 64 GiB RAM", (0,)),
        ("qwen2.5-72b", "Q4_K_M", "2x RTX 3060, 2x RTX 4090, 64 GiB RAM", (0, 2, 3)),
        ("qwen2.5-32b", "Q4_K_M", "2x RTX 3060, 2x RTX 4090, 64 GiB RAM", (2,)),
        ("nemotron-70b", "Q4_K_M", "2x RTX 3060, 64 GiB RAM", None),
    ],
)
def test_no_more_cards_than_it_takes(
    name: str, quant: str, spec: str, devices: tuple[int, ...] | None
) -> None:
    """The others are told apart from those used in configuration, memory and command alike."""
    plan = planned(name, quant, spec)
    config = plan.config
    assert config.devices == devices
    if devices is None:
        assert "-dev" not in plan.command()
        return
    used = [d for d, gpu in enumerate(plan.memory.gpus) if gpu.total_bytes]
    assert used == list(devices)
    assert [d for d, x in enumerate(config.tensor_split or ()) if x] == used
    assert "-dev " + ",".join(f"CUDA{d}" for d in devices) in plan.command()
    if len(devices) > 1:
        split = plan.command().partition(" -ts ")[2].split()[0]
        assert len(split.split(",")) == len(devices)
    else:
        assert "-ts" not in plan.command()


def test_every_choice_of_cards_is_no_faster() -> None:
    """Against all subsets of unequal cards: none of as many cards or fewer is faster."""
    spec = "1x RTX 4090, 1x RTX 3060, 1x RTX 3090, 64 GiB RAM"
    model, machine = find_model("qwen2.5-32b").spec(), parse_machine(spec)
    subsets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    for quant in ("Q4_K_M", "Q6_K", "Q8_0"):
        search = Search(model, machine, Goal(context=8192, quant=quant))
        source, sizer = source_of(model, quant, None), search.sizer
        found = sizer.best(quant, sizer.config(8192), source)
        assert found is not None
        speeds = {}
        for cards in subsets:
            placed = sizer._solver(quant, sizer.config(8192), source, cards).placed()
            if placed is not None:
                plan = sizer.plan(quant, sizer._spread(placed, cards), source)
                speeds[cards] = plan.tokens_per_second
        if found.config.devices is not None:
            assert found.tokens_per_second >= 0.98 * max(speeds.values())
            assert len(found.config.devices) == min(map(len, speeds))


def test_the_faster_card_gets_what_it_can_hold() -> None:
    """No split of the same layers that fits is faster, however the cards are ordered."""
    model = find_model("qwen2.5-32b").spec()
    for spec in ("RTX 4090, RTX 3060, 64 GiB RAM", "RTX 3060, RTX 4090, 64 GiB RAM"):
        search = Search(model, parse_machine(spec), Goal(context=8192, quant="Q6_K"))
        sizer, source = search.sizer, source_of(model, "Q6_K", None)
        found = sizer.best("Q6_K", sizer.config(8192), source)
        assert found is not None
        assert found.config.gpu_layers == 65
        for first in range(66):
            config = found.config.replace(tensor_split=(first, 65 - first))
            other = sizer.plan("Q6_K", config, source)
            if other.fits:
                assert found.tokens_per_second >= 0.99 * other.tokens_per_second


def test_what_is_fixed_by_card_is_kept() -> None:
    """A split that the person set uses the cards that it names."""
    room = room_of(parse_machine("2x RTX 3090, 64 GiB RAM"), None, False)
    assert choices(room, Goal(knobs={"tensor_split": (1.0, 1.0)})) == ()
    assert [c.numbers for c in choices(room, Goal())] == [(0,)]


def test_cards_of_two_vendors_are_not_mixed_without_need() -> None:
    room = room_of(parse_machine("RTX 4090, 2x RX 7900 XTX, 64 GiB RAM"), None, False)
    assert [c.numbers for c in choices(room, Goal())] == [(0,), (1,), (1, 2)]
