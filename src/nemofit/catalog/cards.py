"""Cards by name: what an idle card of a model offers, and how fast it is.

>>> card = find_card("rtx-3090")
>>> card.name, card.bandwidth_gb_s, card.compute_capability
('NVIDIA GeForce RTX 3090', 936.2, '8.6')
>>> find_card("NVIDIA GeForce RTX 4060 Ti", memory_bytes=16380 << 20).id
'nvidia-geforce-rtx-4060-ti-16gb'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from ..errors import UnknownNameError
from ..units import GIB, MIB, gib
from . import store
from .names import near_misses, resolve

# What an engine can have of a card is less than its box says, and how much less depends on the
# maker. Where nobody has printed the total of a model, these rules stand in. Each is the worst case
# seen, so that a described card is never larger than the real one; tests hold them against every
# card of the table whose real figure is known.

CUDA_RESERVE_BYTES: Final = 400 * MIB
CUDA_RESERVE_SHARE: Final = 0.006
"""What the driver on Linux keeps of the total that nvidia-smi prints (nvml_mib): a part that every
card has and one that grows with it. Printed totals, driver branches 535 to 595: RTX 3090 24576 and
24124 MiB, RTX 4090 24564 and 24080, RTX 5070 Ti 16303 and 15842, T4 15360 and 14912, A100 80 GB
81920 and 81151, H100 81559 and 81081, RTX PRO 6000 97887 and 97249; the rule is 7 to 500 MiB below
each. Windows keeps less of the total (RTX 5090: 1 MiB) but lends less of it."""
NVML_SHARE: Final = 0.994
"""Of the nominal size, what nvidia-smi prints at least without error correction: RTX 5050 8151 of
8192 MiB, RTX 5070 12227 of 12288, RTX 5090 32607 of 32768, H200 143771 of 144384."""
ECC_SHARE: Final = 15 / 16
"""What GDDR memory keeps with error correction on: A40 and L40S 46068 of 49152 MiB, T4 15360 of
16384, Radeon PRO V620 30704 of 32768."""
AMD_SHARE: Final = 0.99
"""Of the nominal size, ROCm's total: RX 9060 XT 16304 of 16384 MiB, AI PRO R9700 32624 of 32768,
RX 7900 XTX 24560 of 24576, MI50 16368 of 16384."""
INTEL_SHARE: Final = 0.94
"""Of the nominal size, SYCL's total: Arc A770 15473 of 16384 MiB (older driver), B580 12216 of
12288."""

APPLE_LARGE_BYTES: Final = 36 * GIB
APPLE_SMALL_SHARE: Final = 2 / 3
APPLE_LARGE_SHARE: Final = 3 / 4
"""Of the installed memory, Metal's recommendedMaxWorkingSetSize: 10922.67 of 16384 MiB
(abetlen/llama-cpp-python issue 687), 21845.34 of 32768 (ollama/ollama issue 434), 73728 of 98304
(ggml-org/llama.cpp issue 3213). Newer systems give up to 84 %: a probe there asks Metal."""
AMD_UNIFIED_SHARE: Final = 0.45
"""Of the installed memory, ROCm's total on Strix Halo without a raised GTT limit: 59392, 63720 and
63967 MiB were printed with 128 GiB installed (half of what Linux shows, or a carve-out)."""
NVIDIA_UNIFIED_SHARE: Final = 0.92
"""Of the installed memory, what Linux shows on unified NVIDIA parts: 121.63 of 128 GiB on GB10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One model of card; a figure that is not known is None. The source of each is in ``source``.

    Attributes:
        id: Key in ``data/gpus.yaml``.
        name: As the driver says it.
        kind: discrete, laptop or unified (its memory is the host's).
        memory_bytes: Nominal size as sold; for unified parts the usual one or None.
        total_bytes: What an engine can have on an idle card, None for unified parts: it depends on
            the machine, see :func:`unified_bytes`.
        total_basis: "measured" where such a card printed it, "computed" by the rules above.
        bandwidth_gb_s: Peak, 10^9 bytes per second.
        fp16_tflops: Dense matrix throughput, or packed vector throughput without matrix units.
        fp32_tflops, int8_tops: Dense throughput, 10^12 operations per second.
        derived: Which of the rates are computed from the architecture instead of published.
        memory_sizes: Of a unified part, the sizes in bytes that it is sold with.
        gfx: AMD's target name.
        pci_ids: Device ids under the vendor's.
        pcie_gen, pcie_lanes: Of the card, not of the slot.
    """

    id: str
    name: str
    vendor: str
    kind: str
    aliases: tuple[str, ...] = ()
    year: int | None = None
    architecture: str | None = None
    compute_capability: str | None = None
    gfx: str | None = None
    pci_ids: tuple[str, ...] = ()
    memory_bytes: int | None = None
    memory_sizes: tuple[int, ...] = ()
    total_bytes: int | None = None
    total_basis: str | None = None
    memory: str | None = None
    bandwidth_gb_s: float | None = None
    fp16_tflops: float | None = None
    fp32_tflops: float | None = None
    int8_tops: float | None = None
    derived: tuple[str, ...] = ()
    sm_count: int | None = None
    power_w: float | None = None
    pcie_gen: int | None = None
    pcie_lanes: int | None = None
    nvlink: bool | None = None
    source: tuple[str, ...] = ()
    note: str | None = None

    @property
    def label(self) -> str:
        """The shortest way to name the card that no other shares."""
        return self.aliases[0] if self.aliases else self.name

    @property
    def shared(self) -> bool:
        """Whether its memory is the host's."""
        return self.kind == "unified"


def all_cards() -> Mapping[str, Card]:
    """Every known card by id, shipped and personal."""
    return store.derived("gpus", _cards)


def find_card(
    name: str,
    memory_bytes: int | None = None,
    pci_id: str | None = None,
    bandwidth_gb_s: float | None = None,
) -> Card:
    """Find a card by any of its names, by its PCI id where the name says nothing.

    Several cards can share a name (the boards of the RTX 4060 Ti) or a PCI id (the RX 7900 family).
    The PCI id settles it, then the memory's size, then the width of its bus; a size that no card of
    that name has means that the card is not known, because its speed is not known either.

    Args:
        name: Driver's or marketing name, alias or id; case and punctuation are forgiven.
        memory_bytes: The total that a driver or engine printed, or the nominal size.
        pci_id: ``"10de:2204"`` or ``"2204"``.
        bandwidth_gb_s: What the width of the bus and the memory's clock give.

    Raises:
        UnknownNameError: No card, or several, with their names.
    """
    cards = all_cards()
    found = [cards[i] for i in _named(name)]
    if pci_id is not None:
        same = [c for c in found or cards.values() if _has_pci_id(c, pci_id)]
        found = same or found
    if memory_bytes is not None:
        fitting = [c for c in found if _could_have(c, memory_bytes)]
        if found and not fitting:
            asked = f"{name} with {gib(memory_bytes)}"
            raise UnknownNameError("card", asked, [_in_full(c) for c in found])
        found = fitting
    if len(found) > 1 and bandwidth_gb_s is not None:
        found = [c for c in found if _as_fast(c, bandwidth_gb_s)] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownNameError("card", name, sorted(c.label for c in found), ambiguous=True)
    shown = name if len(name) <= 100 else name[:97] + "..."
    near = near_misses(_short(shown), store.derived("gpus", _names))
    raise UnknownNameError("card", shown, [cards[i].label for i in near])


def unified_bytes(card: Card, installed_bytes: int) -> int:
    """What an engine can have of a unified part on an idle machine with this much memory.

    It is a share of the host's memory, never in addition to it.
    """
    if card.vendor == "apple":
        large = installed_bytes >= APPLE_LARGE_BYTES
        return int(installed_bytes * (APPLE_LARGE_SHARE if large else APPLE_SMALL_SHARE))
    share = NVIDIA_UNIFIED_SHARE if card.vendor == "nvidia" else AMD_UNIFIED_SHARE
    return int(installed_bytes * share)


def total_of_nominal(vendor: str, nominal_bytes: int, *, ecc: bool = False) -> int:
    """What an engine can have at least of a card that is sold with this much memory."""
    size = nominal_bytes * (ECC_SHARE if ecc else 1)
    if vendor == "amd":
        return int(size * AMD_SHARE)
    if vendor == "intel":
        return int(size * INTEL_SHARE)
    return total_of_nvml(int(size * NVML_SHARE))


def total_of_nvml(nvml_bytes: int) -> int:
    """What CUDA offers at least of the total that nvidia-smi prints, on Linux."""
    return max(0, int(nvml_bytes * (1 - CUDA_RESERVE_SHARE)) - CUDA_RESERVE_BYTES)


def _cards(entries: store.Entries) -> dict[str, Card]:
    return {i: _card(i, e) for i, e in entries.items()}


def _card(i: str, entry: Mapping[str, object]) -> Card:
    known = {
        f.name: tuple(v) if isinstance(v, list) else v
        for f in fields(Card)
        if (v := entry.get(f.name)) is not None
    }
    known.setdefault("fp16_tflops", entry.get("fp16_vector_tflops"))
    gb, nvml, runtime = (entry.get(k) for k in ("memory_gb", "nvml_mib", "runtime_mib"))
    if isinstance(gb, float):
        known["memory_bytes"] = int(gb * GIB)
    sizes = entry.get("memory_sizes_gb")
    if isinstance(sizes, list):
        known["memory_sizes"] = tuple(int(size) * GIB for size in sizes)
    if isinstance(runtime, int):
        known |= {"total_bytes": runtime * MIB, "total_basis": "measured"}
    elif isinstance(nvml, int):
        known |= {"total_bytes": total_of_nvml(nvml * MIB), "total_basis": "computed"}
    elif isinstance(gb, float) and entry["kind"] != "unified":
        ecc = bool(entry.get("ecc"))
        total = total_of_nominal(str(entry["vendor"]), int(gb * GIB), ecc=ecc)
        known |= {"total_bytes": total, "total_basis": "computed"}
    return Card(id=i, **known)  # type: ignore[arg-type]


_FILLER: Final = re.compile(
    r"\((?:r|tm)\)|\b(?:nvidia|geforce|amd|ati|radeon|intel|arc|apple|tesla|rx|graphics)\b",
    re.IGNORECASE,
)


def _short(name: str) -> str:
    """A name without the words that people leave out."""
    return " ".join(_FILLER.sub(" ", name).split())


def _names(_entries: store.Entries) -> dict[str, tuple[str, ...]]:
    out = {}
    for i, card in all_cards().items():
        full = (card.name, *card.aliases)
        out[i] = (*full, *(s for n in full if len(s := _short(n)) > 1))
    return out


def _named(name: str) -> list[str]:
    """Ids of the cards that the name fits; empty where none does."""
    return _fitting(name) or _fitting(_short(name[:200]))


def _fitting(name: str) -> list[str]:
    try:
        return [resolve("card", name, store.derived("gpus", _names))]
    except UnknownNameError as e:
        return list(e.near) if e.ambiguous else []


def _has_pci_id(card: Card, pci_id: str) -> bool:
    vendor, _, device = pci_id.lower().removeprefix("0x").rpartition(":")
    vendors = {"10de": "nvidia", "1002": "amd", "8086": "intel"}
    return device.removeprefix("0x") in card.pci_ids and vendors.get(vendor, card.vendor) == (
        card.vendor
    )


def _could_have(card: Card, memory_bytes: int) -> bool:
    """Whether a total that was printed, or a nominal size, can be this card's."""
    if card.shared or card.memory_bytes is None or card.total_bytes is None:
        return True
    return 0.98 * card.total_bytes <= memory_bytes <= 1.01 * card.memory_bytes


def _as_fast(card: Card, bandwidth_gb_s: float) -> bool:
    """Whether a bandwidth that was computed can be this card's; boards differ by a bus' width."""
    known = card.bandwidth_gb_s
    return known is not None and abs(known - bandwidth_gb_s) <= 0.03 * known


def _in_full(card: Card) -> str:
    size = gib(card.memory_bytes) if card.memory_bytes else "unknown size"
    return f"{card.label} ({size})"
