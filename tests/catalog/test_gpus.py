"""The card table against what the makers publish."""

import pytest

from nemofit.catalog.cards import all_cards, find_card
from nemofit.catalog.store import gpus
from nemofit.units import GIB

VENDOR = [
    # nvidia.com product pages and datasheets: GB, GB/s, dense fp16 TFLOPS, compute capability
    ("RTX 3090", 24, 936, None, "8.6"),
    ("RTX 4090", 24, 1008, 165, "8.9"),
    ("RTX 5090", 32, 1792, 210, "12.0"),
    ("RTX 3060", 12, 360, None, "8.6"),
    ("RTX 4060 Ti 16GB", 16, 288, None, "8.9"),
    ("RTX 2080 Ti", 11, 616, None, "7.5"),
    ("RTX A6000", 48, 768, 155, "8.6"),
    ("RTX 6000 Ada", 48, 960, 364, "8.9"),
    ("RTX PRO 6000", 96, 1792, 504, "12.0"),
    ("T4", 16, 320, 65, "7.5"),
    ("V100", 32, 900, 125, "7.0"),
    ("A10G", 24, 600, 70, "8.6"),
    ("A100 SXM 80GB", 80, 2039, 312, "8.0"),
    ("L4", 24, 300, 121, "8.9"),
    ("L40S", 48, 864, 362, "8.9"),
    ("H100 SXM", 80, 3350, 989, "9.0"),
    ("H100 NVL", 94, 3938, 835, "9.0"),
    ("H200 SXM", 141, 4800, 989, "9.0"),
    ("P40", 24, 346, None, "6.1"),
    ("P100", 16, 732, 19, "6.0"),
    # amd.com
    ("RX 7900 XTX", 24, 960, 123, None),
    ("RX 9070 XT", 16, 640, 195, None),
    ("MI300X", 192, 5300, 1307, None),
    ("MI250X", 128, 3277, 383, None),
    ("MI50", 16, 1024, 26.5, None),
    # ark.intel.com
    ("Arc A770", 16, 560, None, None),
    ("Arc B580", 12, 456, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "gb", "bandwidth", "fp16", "capability"), VENDOR)
def test_figures_are_the_vendors(
    name: str, gb: float, bandwidth: float, fp16: float | None, capability: str | None
) -> None:
    card = find_card(name)
    assert card.memory_bytes == gb * GIB
    assert card.bandwidth_gb_s == pytest.approx(bandwidth, rel=0.01)
    assert card.compute_capability == capability
    if fp16 is not None:
        assert card.fp16_tflops == pytest.approx(fp16, rel=0.02)


@pytest.mark.parametrize(
    ("chip", "bandwidth"),
    [("M1", 68), ("M1 Max", 400), ("M2 Ultra", 800), ("M3 Pro", 150), ("M4", 120), ("M4 Max", 546)],
)
def test_apples_figures(chip: str, bandwidth: float) -> None:
    """The technical specifications at support.apple.com; Max with the larger GPU."""
    card = find_card(chip)
    assert card.shared
    assert card.bandwidth_gb_s == pytest.approx(bandwidth, rel=0.01)


def test_the_rule_for_derived_rates_agrees_with_the_published_ones() -> None:
    """The head of data/gpus.yaml states the rule; GA100 (A100, A30) and Hopper have their own."""
    half_rate = {"nvidia-a10g", "nvidia-l20", "nvidia-l40"}
    checked = 0
    for i, card in all_cards().items():
        if card.vendor != "nvidia" or "fp16_tflops" in card.derived or i in half_rate:
            continue
        generation = card.architecture in ("Ampere", "Ada Lovelace", "Blackwell 2.0")
        if not generation or card.compute_capability == "8.0" or card.fp16_tflops is None:
            continue
        assert card.fp32_tflops is not None
        times = 2 if i.startswith("nvidia-geforce") else 4
        assert card.fp16_tflops == pytest.approx(times * card.fp32_tflops, rel=0.09), i
        checked += 1
    assert checked >= 20


def test_every_card_has_what_a_plan_needs_and_says_where_it_comes_from() -> None:
    for i, entry in gpus().items():
        assert entry.get("bandwidth_gb_s") or entry["kind"] == "unified", i
        assert entry["source"], i
        if entry["vendor"] == "nvidia":
            assert entry.get("compute_capability"), i
        card = all_cards()[i]
        assert card.shared or (card.total_bytes or 0) <= (card.memory_bytes or 0), i


def test_pci_ids_are_those_of_the_public_list() -> None:
    seen: dict[tuple[str, str], set[str]] = {}
    for card in all_cards().values():
        for pci_id in card.pci_ids:
            seen.setdefault((card.vendor, pci_id), set()).add(card.id)
    # pci-ids.ucw.cz: 10de:2204 is the RTX 3090, 10de:2684 the RTX 4090, 10de:2330 the H100 SXM.
    assert seen["nvidia", "2204"] == {"nvidia-geforce-rtx-3090"}
    assert seen["nvidia", "2684"] == {"nvidia-geforce-rtx-4090"}
    assert seen["nvidia", "2330"] == {"nvidia-h100-80gb-hbm3"}
    assert all(len(cards) <= 5 for cards in seen.values())
