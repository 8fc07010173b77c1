"""Machine to text and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.catalog.cards import all_cards
from nemofit.machine import Gpu, Host, Machine, budgets, describe, parse_machine
from nemofit.machine.records import Holder
from nemofit.units import GIB, KIB, MIB


def said(machine: Machine) -> Machine:
    """The machine without what the grammar has no words for, or that tells how it was said."""
    gpus = tuple(
        replace(g, notes=(), name=g.name if g.card_id else "", fp16_tflops=None)
        for g in machine.gpus
    )
    return replace(machine, host=replace(machine.host, notes=()), gpus=gpus, source="")


sizes = st.integers(1, 512).map(lambda n: f"{n} GiB") | st.integers(2048, 1 << 20).map(
    lambda n: f"{n} MiB"
)
rates = st.integers(1, 90_000).map(lambda n: f"{n / 10} GB/s")
discrete = sorted(c.label for c in all_cards().values() if c.kind != "unified" and c.total_bytes)
unified = sorted(c.label for c in all_cards().values() if c.kind == "unified")
counts = st.sampled_from(["", "", "2x ", "8x "])
slots = st.sampled_from(["", " PCIe 3 x4", " PCIe 5 x16"])
screens = st.sampled_from(["", " with display", " without display"])
free = st.sampled_from(["", " 1 GiB free", " 1001 MiB free", " 1048575 KiB free"])
known = st.builds("{}{}{}{}{}".format, counts, st.sampled_from(discrete), slots, screens, free)
vendors = st.sampled_from(["", "NVIDIA ", "AMD ", "Intel "])
bare = st.builds(
    "{}{} {}GPU{}{}{}".format,
    counts,
    sizes,
    vendors,
    st.just("") | rates.map(lambda r: f" @ {r}"),
    st.sampled_from(["", " 83.5 TFLOPS", " cc 8.9", " 40 TFLOPS cc 12.0"]),
    free,
)
slices = st.sampled_from(["MIG 3g.40gb of H100", "MIG 1g.6gb of A30", "MIG 1g.18gb of H200"])
memory = st.one_of(
    sizes.map(lambda s: f"{s} RAM"),
    st.builds("{} RAM @ {}".format, sizes, rates),
    sizes.map(lambda s: f"{s} DDR5-5600 x2"),
    st.builds("{} RAM 1000 MiB free".format, sizes),
    sizes.map(lambda s: f"limit {s}"),
)
others = st.lists(st.sampled_from(["16 cores", "linux", "CPU: Moores Law"]), unique=True)
machines = st.builds(
    lambda gpus, ram, rest: ", ".join([*gpus, *ram, *rest]) or "no GPU",
    st.lists(known | bare, max_size=4)
    | slices.map(lambda t: [t])
    | st.builds("{} {}".format, st.sampled_from(unified), sizes).map(lambda t: [t]),
    st.lists(memory, max_size=1),
    others,
)


@settings(max_examples=100, deadline=None)
@given(machines)
def test_the_same_machine_comes_back(text: str) -> None:
    """Every machine that the grammar can say, from a description of its description."""
    try:
        machine = parse_machine(text)
    except ValueError:
        return  # a chip with a size of its own and another size of RAM
    words = describe(machine)
    again = parse_machine(words)
    assert said(again) == said(machine), words
    assert describe(again) == words
    assert budgets(again).gpus == budgets(machine).gpus
    assert budgets(again).host == budgets(machine).host


@pytest.mark.parametrize("id", sorted(all_cards()))
def test_every_card_of_the_table(id: str) -> None:
    card = all_cards()[id]
    text = f"{card.name} {card.memory_bytes // GIB if card.memory_bytes else 64} GiB"
    gpu = Gpu(
        name=card.name, card_id=id, vendor=card.vendor, total_bytes=card.total_bytes,
        shared=card.shared, bandwidth_gb_s=card.bandwidth_gb_s,
    )  # fmt: skip
    machine = Machine(gpus=(gpu,), host=Host(ram_total_bytes=64 * GIB))
    (found,) = parse_machine(describe(machine)).gpus
    assert found.card_id == id, text


def test_a_processor_by_its_name_alone() -> None:
    assert describe(parse_machine("Ryzen 9 7950X, 8 cores")) == "Ryzen 9 7950X, 8 cores"


def probed() -> Machine:
    """Two cards as the probe reads them, one unknown, one lost, and a busy host."""
    known = parse_machine("RTX 3090").gpus[0]
    card = replace(
        known,
        total_bytes=24000 * MIB, free_bytes=20000 * MIB, pcie_gen=3, pcie_lanes=8, display=True,
        uuid="GPU-1", pci_bus_id="0000:01:00.0", index=0, power_w=350.0, bar1_bytes=GIB,
        holders=(Holder(pid=1, name="x", bytes=GIB),), notes=("busy",),
    )  # fmt: skip
    unknown = Gpu(
        name="NVIDIA Rubin, the + edition", vendor="nvidia", total_bytes=100 * GIB + 3 * KIB,
        free_bytes=99 * GIB, bandwidth_gb_s=2048.5, fp32_tflops=99.9, compute_capability="13.0",
        pcie_gen=6, pcie_lanes=16, display=False,
    )  # fmt: skip
    lost = Gpu(name="NVIDIA GPU 2", vendor="nvidia", error="lost")
    host = Host(
        os="linux", os_version="Debian", cpu="AMD EPYC 9554, 64-Core Processor",
        physical_cores=64, ram_total_bytes=65543212 * KIB, ram_available_bytes=50331648 * KIB,
        ram_bandwidth_gb_s=301.7, ram_bandwidth_basis="measured", numa_nodes=2,
    )  # fmt: skip
    return Machine(host=host, gpus=(card, unknown, lost), driver="580")


def test_a_probed_machine_keeps_what_plans_depend_on() -> None:
    machine = probed()
    again = parse_machine(describe(machine))
    whole = replace(machine, gpus=machine.gpus[:2])
    assert budgets(again) == budgets(whole)
    for read, written in zip(whole.gpus, again.gpus, strict=True):
        for name in (
            "vendor", "backend", "bandwidth_gb_s", "fp32_tflops", "compute_capability",
            "card_id", "pcie_gen", "pcie_lanes", "display", "total_bytes", "free_bytes",
        ):  # fmt: skip
            assert getattr(written, name) == getattr(read, name), name
    assert again.host.cpu == "AMD EPYC 9554 64-Core Processor"
    for name in ("os", "physical_cores", "ram_total_bytes", "ram_available_bytes"):
        assert getattr(again.host, name) == getattr(machine.host, name)
    assert again.host.ram_bandwidth_gb_s == 301.7
    assert again.host.ram_bandwidth_basis == "measured"


def test_a_limit_and_a_machine_of_which_nothing_is_known() -> None:
    host = Host(ram_total_bytes=12_345_678_901, memory_limit_bytes=12_345_678_901)
    assert parse_machine(describe(Machine(host=host))).host.memory_limit_bytes == 12_345_678_901
    assert describe(Machine()) == "no GPU"
