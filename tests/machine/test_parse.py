"""Machines described in words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.errors import NemofitError, UnknownNameError, UsageError
from nemofit.machine import Machine, budgets, parse_machine
from nemofit.machine.parse import MOST_GPUS
from nemofit.units import GIB, MIB

RTX_3090_MIB = 24124
"""The least total that CUDA printed for an RTX 3090 under Linux (ollama/ollama issue 17482)."""


def test_two_cards_and_memory() -> None:
    m = parse_machine("2x RTX 3090, 64 GiB RAM")
    assert [g.name for g in m.gpus] == ["NVIDIA GeForce RTX 3090"] * 2
    assert [g.total_bytes for g in m.gpus] == [RTX_3090_MIB * MIB] * 2
    assert {g.card_id for g in m.gpus} == {"nvidia-geforce-rtx-3090"}
    assert {(g.vendor, g.backend, g.compute_capability) for g in m.gpus} == {
        ("nvidia", "cuda", "8.6")
    }
    assert {g.bandwidth_gb_s for g in m.gpus} == {936.2}
    assert m.host.ram_total_bytes == 64 * GIB
    assert m.source == "2x RTX 3090, 64 GiB RAM"
    assert all(g.free_bytes is None and g.display is None for g in m.gpus)


@pytest.mark.parametrize(
    "text",
    [
        "2x RTX 3090, 64 GiB RAM",
        "2 x rtx3090; 64GB RAM",
        "2× 3090 + 64 GB memory",
        "64 GiB RAM, RTX 3090 x2",
        "RTX 3090, NVIDIA GeForce RTX 3090\n64 GiB of RAM",
        "RTX-3090+RTX-3090+RAM 64GiB",
        "RTX 3090 24GB, RTX 3090 (24 GB), 2x 32 GiB RAM",
    ],
)
def test_one_machine_in_many_words(text: str) -> None:
    m = parse_machine(text)
    assert [g.total_bytes for g in m.gpus] == [RTX_3090_MIB * MIB] * 2
    assert m.host.ram_total_bytes == 64 * GIB


def test_everything_at_once() -> None:
    m = parse_machine("RTX 4090 + RTX 3060 12GB, 32GB RAM, 8 cores, RAM 51 GB/s, linux")
    assert [g.card_id for g in m.gpus] == ["nvidia-geforce-rtx-4090", "nvidia-geforce-rtx-3060"]
    assert m.host.physical_cores == 8
    assert m.host.ram_bandwidth_gb_s == 51
    assert m.host.ram_bandwidth_basis == "given"
    assert m.host.os == "linux"
    assert m.host.notes == ()


def test_a_card_by_its_memory_alone() -> None:
    exact, boxed = parse_machine("49140 MiB GPU @ 768 GB/s"), parse_machine("48 GB GPU")
    assert exact.gpus[0].total_bytes == 49140 * MIB
    assert exact.gpus[0].bandwidth_gb_s == 768
    assert exact.gpus[0].card_id is None
    # PyTorch prints 47.40 to 47.53 GiB for an RTX A6000 of 48 GB.
    assert 46.5 * GIB < (boxed.gpus[0].total_bytes or 0) < 47.4 * GIB
    assert boxed.gpus[0].bandwidth_gb_s is None
    assert any("bandwidth" in n for n in boxed.gpus[0].notes)
    assert len(parse_machine("3x 24GB GPU").gpus) == 3


def test_a_chip_whose_memory_is_the_machines() -> None:
    for text in ("M3 Max 64GB", "Apple M3 Max, 64 GB RAM"):
        m = parse_machine(text)
        assert m.host.ram_total_bytes == 64 * GIB
        assert m.host.os == "macos"
        assert m.host.ram_bandwidth_gb_s == 400
        assert m.host.ram_bandwidth_basis == "theoretical"
        (gpu,) = m.gpus
        assert gpu.shared
        assert gpu.backend == "metal"
        assert gpu.total_bytes == 48 * GIB


def test_a_chip_sold_with_one_size_needs_none_and_others_stay_unknown() -> None:
    assert parse_machine("DGX Spark").host.ram_total_bytes == 128 * GIB
    m = parse_machine("M4 Pro")
    assert m.gpus[0].total_bytes is None
    assert m.host.ram_total_bytes is None
    assert m.gpus[0].notes


def test_memory_with_speed_and_channels() -> None:
    """JEDEC: a channel moves 8 bytes per transfer; two of DDR5-5600 give 89.6 GB/s."""
    m = parse_machine("128 GiB DDR5-5600 x2")
    assert m.gpus == ()
    assert m.host.ram_total_bytes == 128 * GIB
    assert m.host.ram_bandwidth_gb_s == pytest.approx(89.6)
    assert m.host.ram_bandwidth_basis == "theoretical"
    # AMD's page for the EPYC 9554: 12 channels of DDR5-4800, 460.8 GB/s.
    epyc = parse_machine("768GB DDR5-4800 12 channels")
    assert epyc.host.ram_bandwidth_gb_s == pytest.approx(460.8)


def test_what_is_free_now() -> None:
    m = parse_machine("2x RTX 4090 20 GiB free, 64 GiB RAM 40 GiB free")
    assert [g.free_bytes for g in m.gpus] == [20 * GIB] * 2
    assert m.host.ram_available_bytes == 40 * GIB
    assert budgets(m, reserve_bytes=0).gpus == (20 * GIB, 20 * GIB)
    assert parse_machine("RTX 4090 (20 GiB free)").gpus[0].free_bytes == 20 * GIB
    assert parse_machine("M3 Max 64GB 30 GiB free").gpus[0].free_bytes == 30 * GIB


def test_a_slot_and_a_screen() -> None:
    (gpu,) = parse_machine("RTX 3090 PCIe 3 x8 with display").gpus
    assert (gpu.pcie_gen, gpu.pcie_lanes, gpu.display) == (3, 8, True)
    assert parse_machine("RTX 3090 no display").gpus[0].display is False


def test_a_container() -> None:
    m = parse_machine("64 GiB RAM, limit 16 GiB")
    assert m.host.memory_limit_bytes == m.host.ram_total_bytes == 16 * GIB
    assert budgets(m).host == 15 * GIB
    assert parse_machine("limit 16 GiB").host == parse_machine("16 GiB limit").host
    assert parse_machine("8 GiB RAM, limit 16 GiB").host.memory_limit_bytes is None


@pytest.mark.parametrize(
    ("text", "gibibytes", "gb_s"),
    [
        ("MIG 1g.10gb of A100 80GB", 9.50, 2039 / 8),
        ("A100 80GB MIG 3g.40gb", 39.25, 2039 / 2),
        ("MIG 7g.80gb of A100 80GB", 78.75, 2039),
        ("MIG 1g.18gb of H200", 16.00, 4800 / 8),
        ("MIG 1g.6gb of A30", 5.81, 933 / 4),
    ],
)
def test_mig_slices(text: str, gibibytes: float, gb_s: float) -> None:
    """Never more than ``nvidia-smi mig -lgip`` prints, in NVIDIA's MIG user guide; bandwidth by
    the guide's fractions of memory.
    """
    (gpu,) = parse_machine(text).gpus
    assert gpu.mig_profile is not None
    assert gpu.mig_profile in gpu.name
    assert 0.89 * gibibytes * GIB <= (gpu.total_bytes or 0) <= gibibytes * GIB
    assert gpu.bandwidth_gb_s == pytest.approx(gb_s, rel=0.01)
    assert gpu.display is False


@pytest.mark.parametrize(
    "name",
    [
        "Ryzen 9 7950X", "2x Xeon Gold 6138", "Raspberry Pi 5", "Intel N100", "Core i9-13900K",
        "EPYC 9654", "Core Ultra 9 285K", "Threadripper PRO 7995WX", "Snapdragon X Elite",
        "Ampere Altra Q80-30",
    ],
)  # fmt: skip
def test_processors(name: str) -> None:
    m = parse_machine(f"{name}, 64 GiB RAM")
    assert m.host.cpu == name
    assert m.gpus == ()


def test_processors_and_cards_are_told_apart() -> None:
    """Names that have both in them, and a processor nobody knows."""
    strix = parse_machine("Ryzen AI Max+ 395 128GB")
    assert strix.gpus[0].shared
    assert parse_machine("Raspberry Pi 5 8GB").host.ram_total_bytes == 8 * GIB
    assert parse_machine("CPU: Moores Law 3").host.cpu == "Moores Law 3"
    with pytest.raises(UnknownNameError):
        parse_machine("GTX 9999 Core Edition")


def test_what_is_not_said_is_not_invented() -> None:
    m = parse_machine("RTX 4090")
    assert m.host.ram_total_bytes is None
    assert m.host.ram_bandwidth_gb_s is None
    assert m.host.physical_cores is None
    assert m.host.os == "unknown"
    assert any("RAM was not given" in n for n in m.host.notes)
    assert parse_machine("64 GiB DDR4").host.ram_bandwidth_gb_s is None


def test_unknown_cards_exit_4_with_near_misses() -> None:
    for text in ("RTX 3091, 64 GiB RAM", "2x GTX 9900", "RTX 4090 48GB", "Radeon RX 9999 XTX"):
        with pytest.raises(UnknownNameError) as e:
            parse_machine(text)
        assert e.value.exit_code == 4
        assert e.value.near or "list gpus" in (e.value.hint or "")
    with pytest.raises(UnknownNameError) as e:
        parse_machine("RTX 4060 Ti, 32 GB RAM")
    assert e.value.near == ("RTX 4060 Ti 16GB", "RTX 4060 Ti 8GB")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("2x RTX 3090, bananas", "'bananas'"),
        ("8 bananas, 64GB RAM", "'8 bananas'"),
        ("64 GiB", "'64 GiB'"),
        ("-5 GB RAM", "'-5 GB RAM'"),
        ("0x RTX 3090", "'0x RTX 3090'"),
        (f"{MOST_GPUS + 1}x RTX 3090", "RTX 3090"),
        ("64 GB RAM, 32 GB RAM", "'32 GB RAM'"),
        ("0 GB RAM", "'0 GB RAM'"),
        ("999999999 TB RAM", "TB RAM"),
        ("0 cores", "'0 cores'"),
        ("24GB GPU @ 0 GB/s", "0 GB/s"),
        ("64GB DDR5-000 x2", "DDR5-000"),
        ("2x M3 Max 64GB", "'2x M3 Max 64GB'"),
        ("M3 Max 64GB, 32GB RAM", "RAM"),
        ("linux, windows", "'windows'"),
        ("", "empty"),
        (" , ;\n", "empty"),
        ("RTX 3090, " * 300, "characters"),
        ("20 GiB free", "'20 GiB free'"),
        ("8 cores 20 GiB free", "'8 cores 20 GiB free'"),
        ("RTX 4090 30 GiB free", "30.00 GiB free of 23.52 GiB"),
        ("RTX 4090 3 GiB free 4 GiB free", "twice"),
        ("RTX 4090 PCIe 9 x16", "PCIe 9"),
        ("RTX 4090 PCIe 4 x7", "PCIe 4 x7"),
        ("64 GB RAM with display", "a display is said of a card"),
        ("64 GB RAM, RAM 65 GB free", "65.00 GiB of RAM are free"),
        ("limit 8 GB, limit 9 GB", "'limit 9 GB'"),
        ("7x MIG 1g.10gb of A100 80GB", "one MIG slice"),
        ("MIG 3g.40gb of RX 7900 XTX", "no such profile"),
        ("MIG 3g.900gb of H100", "no such profile"),
        ("Xeon, EPYC", "'EPYC' gives the processor a second time"),
    ],
)
def test_nonsense_names_the_piece_and_shows_an_example(text: str, named: str) -> None:
    with pytest.raises(UsageError) as e:
        parse_machine(text)
    assert e.value.exit_code == 2
    assert named in e.value.message
    assert "\n" not in e.value.message
    assert e.value.hint


def test_the_example_in_the_messages_is_one_that_works() -> None:
    with pytest.raises(UsageError) as e:
        parse_machine("bananas")
    assert e.value.hint is not None
    m = parse_machine(e.value.hint.split("'")[1])
    assert m.host.notes == ("RAM bandwidth was not given; say for example '64 GiB RAM @ 51 GB/s'",)


@settings(max_examples=80, deadline=None)
@given(
    st.text(max_size=30)
    | st.lists(
        st.sampled_from(
            ["2x", "RTX", "3090", "64", "GiB", "RAM", "+", ",", "@", "GB/s", "M3", "x2"]
        ),
        max_size=10,
    ).map(" ".join)
)
def test_any_text_gives_a_machine_or_a_clear_error(text: str) -> None:
    try:
        assert isinstance(parse_machine(text), Machine)
    except NemofitError as e:
        assert "\n" not in e.message
