"""Cards by name, and how much of a card an engine can have."""

from pathlib import Path

import pytest

from nemofit.catalog import store
from nemofit.catalog.cards import (
    all_cards,
    find_card,
    total_of_nominal,
    total_of_nvml,
    unified_bytes,
)
from nemofit.catalog.store import gpus
from nemofit.errors import UnknownNameError
from nemofit.units import GIB, MIB


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("RTX3090", "nvidia-geforce-rtx-3090"),
        ("rtx-3090", "nvidia-geforce-rtx-3090"),
        ("3090", "nvidia-geforce-rtx-3090"),
        ("NVIDIA GeForce RTX 3090", "nvidia-geforce-rtx-3090"),
        ("GeForce RTX 3090", "nvidia-geforce-rtx-3090"),
        ("nvidia rtx 3090", "nvidia-geforce-rtx-3090"),
        ("RTX 3090 Ti", "nvidia-geforce-rtx-3090-ti"),
        ("RTX 4060 Ti 16GB", "nvidia-geforce-rtx-4060-ti-16gb"),
        ("RTX A6000", "nvidia-rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "nvidia-rtx-6000-ada-generation"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("Tesla T4", "tesla-t4"),
        ("AMD Radeon RX 7900 XTX", "amd-radeon-rx-7900-xtx"),
        ("7900 xtx", "amd-radeon-rx-7900-xtx"),
        ("Intel(R) Arc(TM) A770 Graphics", "intel-arc-a770"),
        ("Arc B580", "intel-arc-b580"),
        ("Apple M3 Max", "apple-m3-max"),
        ("m3 max", "apple-m3-max"),
        ("Strix Halo", "amd-radeon-8060s"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "nvidia-geforce-rtx-4090-laptop-gpu"),
    ],
)
def test_driver_names_and_marketing_names_both_resolve(asked: str, found: str) -> None:
    assert found == find_card(asked).id


def test_every_card_is_found_by_its_id_its_name_and_each_alias() -> None:
    cards = all_cards()
    assert len(cards) >= 195
    shared = {c.name for c in cards.values()}
    shared = {n for n in shared if sum(c.name == n for c in cards.values()) > 1}
    for card in cards.values():
        assert card is find_card(card.id)
        assert card is find_card(card.label)
        for alias in card.aliases:
            assert card is find_card(alias), alias
        if card.name not in shared:
            assert card is find_card(card.name), card.name
    assert shared == {"NVIDIA GeForce RTX 4060 Ti", "NVIDIA GeForce RTX 5060 Ti"}


def test_memory_settles_a_name_that_two_boards_have() -> None:
    with pytest.raises(UnknownNameError) as e:
        find_card("NVIDIA GeForce RTX 4060 Ti")
    assert e.value.ambiguous
    assert e.value.near == ("RTX 4060 Ti 16GB", "RTX 4060 Ti 8GB")
    for mib, found in ((8188, "8gb"), (16380, "16gb"), (15944, "16gb"), (16384, "16gb")):
        card = find_card("NVIDIA GeForce RTX 4060 Ti", memory_bytes=mib * MIB)
        assert card.id == f"nvidia-geforce-rtx-4060-ti-{found}"


def test_a_size_that_the_model_never_had_means_that_the_card_is_not_known() -> None:
    """A board rebuilt to 48 GiB, and the 12 GB board that shares the name of the 10 GB one."""
    for name, size in (("RTX 4090", 48), ("NVIDIA GeForce RTX 3080", 12)):
        with pytest.raises(UnknownNameError) as e:
            find_card(name, memory_bytes=size * GIB)
        assert not e.value.ambiguous
        assert f"{size}.00 GiB" in e.value.message


def test_pci_ids_settle_names_and_find_cards_without_one() -> None:
    both = "NVIDIA GeForce RTX 4060 Ti"
    assert find_card(both, pci_id="10de:2805").id == "nvidia-geforce-rtx-4060-ti-16gb"
    assert find_card(both, pci_id="0x2803").id == "nvidia-geforce-rtx-4060-ti-8gb"
    nameless = "AMD Radeon Graphics"
    for size, model in ((24, "xtx"), (20, "xt"), (16, "gre")):
        card = find_card(nameless, memory_bytes=size * GIB - 16 * MIB, pci_id="1002:744c")
        assert card.id == f"amd-radeon-rx-7900-{model}"
    with pytest.raises(UnknownNameError):
        find_card("card of the future", pci_id="10de:ffff")


@pytest.mark.parametrize(
    "asked", ["RTX 3091", "GTX 6090 Ultra", "RTX 6000", "", "nvidia", "x" * 10**6]
)
def test_an_unknown_card_is_never_replaced(asked: str) -> None:
    with pytest.raises(UnknownNameError) as e:
        find_card(asked)
    assert e.value.exit_code == 4
    assert len(e.value.message) < 200


def test_near_misses_are_names_that_resolve() -> None:
    with pytest.raises(UnknownNameError) as e:
        find_card("RTX 3091")
    assert "RTX 3090" in e.value.near
    for name in e.value.near:
        find_card(name)


PRINTED_MIB = {
    "RTX 3090": 24154, "RTX 4090": 24080, "RTX 4070": 11868, "RTX 5070 Ti": 15842, "T4": 14912,
    "V100": 32494, "A100": 81151, "H100": 81081, "RTX PRO 6000": 97249, "RX 7900 XTX": 24560,
    "RX 6700 XT": 12272, "R9700": 32624, "V620": 30704, "RX 9060 XT": 16304, "MI50": 16368,
    "A770": 15473, "B580": 12216, "RTX A4000": 15980,
}  # fmt: skip
"""Totals printed by llama.cpp (or PyTorch) on idle cards under Linux."""


@pytest.mark.parametrize(("name", "mib"), PRINTED_MIB.items())
def test_a_described_card_is_never_larger_than_the_real_one(name: str, mib: int) -> None:
    card = find_card(name)
    assert card.total_bytes is not None
    assert 0.93 * mib * MIB <= card.total_bytes <= mib * MIB


def test_the_rules_stay_below_every_total_that_is_known() -> None:
    """What the rules would say of a card whose total was printed, as if it had not been."""
    checked = 0
    for i, entry in gpus().items():
        nominal, nvml, runtime = (entry.get(k) for k in ("memory_gb", "nvml_mib", "runtime_mib"))
        if not isinstance(nominal, float) or entry["kind"] == "unified":
            continue
        ecc = bool(entry.get("ecc"))
        by_nominal = total_of_nominal(str(entry["vendor"]), int(nominal * GIB), ecc=ecc)
        if isinstance(runtime, int):
            assert by_nominal <= runtime * MIB, i
            assert by_nominal >= 0.90 * runtime * MIB, i
            checked += 1
        if isinstance(nvml, int):
            assert by_nominal <= total_of_nvml(nvml * MIB), i
            if isinstance(runtime, int):
                assert 0 <= runtime * MIB - total_of_nvml(nvml * MIB) <= 500 * MIB, i
    assert checked >= 20


@pytest.mark.parametrize(
    ("chip", "installed_gib", "printed_mib"),
    [
        ("M1", 16, 10922),  # abetlen/llama-cpp-python issue 687
        ("M2 Max", 32, 21845),  # ollama/ollama issue 434
        ("M2 Max", 96, 73728),  # ggml-org/llama.cpp issue 3213
        ("M4 Max", 128, 110100),  # 107.52 GiB
        ("Strix Halo", 128, 59392),
        ("GB10", 128, 124549),  # 121.63 GiB
    ],
)
def test_unified_parts_offer_a_share_of_the_installed_memory(
    chip: str, installed_gib: int, printed_mib: int
) -> None:
    card = find_card(chip)
    assert card.shared
    assert card.total_bytes is None
    offered = unified_bytes(card, installed_gib * GIB)
    assert 0.85 * printed_mib * MIB <= offered <= (printed_mib + 1) * MIB


def test_boards_of_one_name_and_size_are_settled_by_their_bus(tmp_path: Path) -> None:
    """Two boards that differ in the width of the memory bus alone."""
    entry = """
  {0}:
    name: NVIDIA GeForce Twin
    vendor: nvidia
    kind: discrete
    memory_gb: 8
    bandwidth_gb_s: {1}
    source: ["test"]
"""
    text = "gpus:" + entry.format("twin-wide", 224.0) + entry.format("twin-narrow", 112.0)
    (tmp_path / "gpus.yaml").write_text(text)
    store.use_personal_catalog(tmp_path)
    try:
        assert find_card("GeForce Twin", bandwidth_gb_s=112.1).id == "twin-narrow"
        assert find_card("GeForce Twin", 8 * GIB, bandwidth_gb_s=224.0).id == "twin-wide"
        for unhelpful in (None, 500.0):
            with pytest.raises(UnknownNameError) as e:
                find_card("GeForce Twin", bandwidth_gb_s=unhelpful)
            assert e.value.ambiguous
    finally:
        store.use_personal_catalog(None)
