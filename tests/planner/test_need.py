"""The least hardware: what need says fits, plan says fits; the one just below does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemofit.catalog.cards import all_cards
from nemofit.catalog.models import find_model
from nemofit.catalog.prices import Prices
from nemofit.errors import DoesNotFitError, UsageError
from nemofit.machine import parse_machine
from nemofit.machine.parse import assembled
from nemofit.planner.goal import Goal
from nemofit.planner.need import COUNTS, Hardware, Need, arranged, need
from nemofit.planner.single import single
from nemofit.units import GIB

WHOLE = {"gpu_layers": 1 << 15, "cpu_moe_layers": 0}
ASKED = {
    "small": ("llama-3.1-8b", Goal(context=8192, quant="Q4_K_M")),
    "large": ("nemotron-70b", Goal(context=32768, quant="Q4_K_M")),
    "sparse": ("qwen3-30b-a3b", Goal(context=16384, quant="Q5_K_M")),
}


@pytest.fixture(scope="module", params=ASKED.values(), ids=ASKED)
def answered(request: pytest.FixtureRequest) -> tuple[str, Goal, Need]:
    name, goal = request.param
    return name, goal, need(find_model(name).spec(), goal)


def some(found: Need, kind: str) -> list[Hardware]:
    """A few of a kind, the first and the last among them."""
    same = [h for h in found.hardware if h.kind == kind]
    return [*same[:: max(1, len(same) // 3)], *same[-1:]]


@pytest.mark.parametrize("kind", ["cards", "unified", "cpu"])
def test_the_planner_agrees(answered: tuple[str, Goal, Need], kind: str) -> None:
    """A description that need prints, asked about as any machine: same verdict, bytes and speed."""
    name, goal, found = answered
    model = find_model(name).spec()
    for hardware in some(found, kind):
        plan, _ = single(model, parse_machine(hardware.machine.source), goal)
        assert plan.fits, hardware.machine.source
        if hardware.count > 1:  # plan may leave cards out or split otherwise
            continue
        assert plan.memory == hardware.plan.memory
        assert plan.tokens_per_second == pytest.approx(hardware.plan.tokens_per_second)
        assert plan.command() == hardware.plan.command()


def test_the_one_just_below_does_not_fit(answered: tuple[str, Goal, Need]) -> None:
    """Half the cards, or the next smaller memory, cannot hold everything."""
    name, goal, found = answered
    model = find_model(name).spec()
    whole = replace(goal, knobs=WHOLE)
    tried = [text for h in found.hardware if h.kind != "cpu" and (text := _below(h))]
    assert tried
    for text in tried[:: max(1, len(tried) // 6)]:
        plan, _ = single(model, parse_machine(text), whole)
        assert not plan.fits, text


def _below(hardware: Hardware) -> str | None:
    card = next(c for c in all_cards().values() if c.name == hardware.name)
    if hardware.kind == "cards":
        count = COUNTS[max(COUNTS.index(hardware.count) - 1, 0)]
        return f"{count}x {card.label}, 64 GiB RAM" if count < hardware.count else None
    smaller = [size for size in card.memory_sizes if size < hardware.memory_bytes]
    return f"{card.label}, {max(smaller) // GIB} GiB RAM" if smaller else None


def test_published_runs_of_a_70b_model() -> None:
    """XiongjieDai/GPU-Benchmarks-on-LLM-Inference, README: Llama 3 70B Q4_K_M is out of memory on
    one RTX 3090 or 4090, and runs on two, on an A6000, an A100 and an M1 Max with 64 GB."""
    found = need(find_model("llama-3.1-70b").spec(), Goal(context=1024, quant="Q4_K_M"))
    least = {h.name: h for h in found.hardware}
    assert least["NVIDIA GeForce RTX 3090"].count == 2
    assert least["NVIDIA GeForce RTX 4090"].count == 2
    assert least["NVIDIA RTX A6000"].count == 1
    assert least["NVIDIA A100 80GB PCIe"].count == 1
    assert least["Apple M1 Max"].memory_bytes == 64 * GIB


def test_every_card_is_described_so_that_it_is_understood() -> None:
    """The description of each machine that need looks at reads back as that very machine."""
    for card in all_cards().values():
        if card.shared and not (card.memory_sizes or card.memory_bytes):
            continue
        size = (card.memory_sizes or (card.memory_bytes or 0,))[0] if card.shared else 16 * GIB
        count = 2 if card.kind == "discrete" else 1
        machine = assembled(card, count, size)
        read = parse_machine(machine.source)
        assert read.gpus == machine.gpus, machine.source
        assert read.host.ram_total_bytes == machine.host.ram_total_bytes == size


def test_a_speed_is_a_limit() -> None:
    """All that is slower is gone, and nothing else."""
    model = find_model("llama-3.1-8b").spec()
    goal = Goal(context=8192, quant="Q4_K_M")
    all_of_it, fast = need(model, goal), need(model, replace(goal, min_tokens_per_second=60))
    expected = [h.machine.source for h in all_of_it.hardware if h.plan.tokens_per_second >= 60]
    assert [h.machine.source for h in fast.hardware] == expected
    assert 0 < len(expected) < len(all_of_it.hardware)


def test_nothing_is_fast_enough() -> None:
    """The refusal names the nearest, and what that reaches is then found."""
    model, goal = find_model("nemotron-70b").spec(), Goal(context=8192, quant="Q4_K_M")
    with pytest.raises(DoesNotFitError, match="the nearest, ") as refused:
        need(model, replace(goal, min_tokens_per_second=5000))
    assert refused.value.hint is not None
    reachable = float(refused.value.hint.split()[1].rstrip(","))
    assert need(model, replace(goal, min_tokens_per_second=reachable)).hardware


def test_nothing_is_large_enough() -> None:
    """A cache of ten million tokens at 16 bits exceeds all there is; both numbers are told."""
    with pytest.raises(DoesNotFitError, match=r"needs .* GiB, and the largest, .* offers"):
        need(find_model("nemotron-70b").spec(), Goal(context=10_000_000, quant="F16"))


def test_the_file_type_follows_from_the_loss() -> None:
    """Without one, the smallest that loses no more than allowed; more loss, fewer bytes."""
    model = find_model("nemotron-70b").spec()
    plans = {q: need(model, Goal(context=8192, quality=q)) for q in ("near-lossless", "noticeable")}
    usual = need(model, Goal(context=8192))
    bits = [
        found.hardware[0].plan.bits_per_weight
        for found in (plans["near-lossless"], usual, plans["noticeable"])
    ]
    assert bits == sorted(bits, reverse=True)
    assert usual.hardware[0].plan.quality.grade == "slight"


def test_what_is_not_known_comes_last() -> None:
    """By power, chips without a figure; by price, what the list does not have."""
    prices = Prices(cards={("nvidia-geforce-rtx-3090", None): 700.0})
    model, goal = find_model("llama-3.1-8b").spec(), Goal(context=8192, quant="Q4_K_M")
    found = need(model, goal, prices, "price").hardware
    assert [h.price for h in found if h.price is not None] == [700.0]
    assert found[0].price == 700.0
    powers = [h.power_w for h in arranged(found, "power")]
    known = [p for p in powers if p is not None]
    assert powers == sorted(known) + [None] * (len(powers) - len(known))


def test_energy_is_power_over_speed() -> None:
    """An RTX 3090 draws 350 W by NVIDIA's data sheet; joules over 3.6 million are kWh."""
    found = need(find_model("llama-3.1-8b").spec(), Goal(context=8192, quant="Q4_K_M"))
    card = next(h for h in found.hardware if h.name == "NVIDIA GeForce RTX 3090")
    joules = 350 * 1e6 / card.plan.tokens_per_second
    assert card.kwh_per_million == pytest.approx(joules / 3.6e6)


@pytest.mark.parametrize(
    "wrong", [{"gpu_layers": 10}, {"tensor_split": (1.0, 1.0)}, {"cpu_moe_layers": 3}], ids=str
)
def test_an_offload_cannot_be_fixed(wrong: dict[str, object]) -> None:
    """Looking for hardware and fixing its offload contradict each other."""
    with pytest.raises(UsageError, match="is fixed"):
        need(find_model("llama-3.2-1b").spec(), Goal(context=4096, knobs=wrong))


def test_a_file_type_that_loses_more_than_allowed() -> None:
    """Two flags that contradict each other are refused, with what would agree."""
    with pytest.raises(UsageError, match=r"--quant Q2_K .* and --quality slight") as refused:
        need(find_model("llama-3.2-1b").spec(), Goal(quant="Q2_K", quality="slight"))
    assert refused.value.hint
