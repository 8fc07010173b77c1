"""Memory modules: tables built after the specification from what owners' dmidecode printed."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nemofit.probe import probe
from nemofit.probe.host import read_host
from nemofit.probe.memory import TABLE, read_modules
from nemofit.probe.site import Site

Slot = tuple[str, str, int, int, int, int]
"""Locator, bank locator, type, width, MB, configured MT/s."""
MakeSite = Callable[..., Site]
DDR4, DDR5, LPDDR5 = 0x1A, 0x22, 0x23


def structure(kind: int, body: bytes, *strings: str) -> bytes:
    """Header, formatted part, strings, two zeros (DSP0134, "Structure standards")."""
    texts = b"".join(s.encode() + b"\0" for s in strings) or b"\0"
    return struct.pack("<BBH", kind, 4 + len(body), 1) + body + texts + b"\0"


def device(slot: Slot, rated: int = 4800) -> bytes:
    """Type 17 in the 40 bytes of version 2.8."""
    locator, bank, kind, width, megabytes, configured = slot
    large = megabytes >= 0x7FFF
    body = struct.pack(
        "<HHHHHBBBBBHHBBBBBIHHHH",
        0x10, 0xFFFE, width, width, 0x7FFF if large else megabytes, 9, 0, 1, 2, kind, 0x80,
        rated if megabytes else 0, 3, 4, 5, 6, 1, megabytes if large else 0, configured, 0, 0, 0,
    )  # fmt: skip
    return structure(17, body, locator, bank, "maker", "serial", "tag", "part")


def table(slots: Sequence[Slot]) -> bytes:
    start = structure(0, bytes(20), "maker", "version") + structure(16, bytes(19))
    return start + b"".join(map(device, slots)) + structure(127, b"")


RYZEN: list[Slot] = [
    ("DIMM 0", "P0 CHANNEL A", 2, 0xFFFF, 0, 0),
    ("DIMM 1", "P0 CHANNEL A", DDR5, 64, 16384, 6000),
    ("DIMM 0", "P0 CHANNEL B", 2, 0xFFFF, 0, 0),
    ("DIMM 1", "P0 CHANNEL B", DDR5, 64, 16384, 6000),
]
FOUR_MODULES: list[Slot] = [
    (f"DIMM {n}", f"P0 CHANNEL {c}", DDR5, 64, 32768, 4200) for c in "AB" for n in (0, 1)
]
STRIX_HALO: list[Slot] = [
    ("DIMM 0", f"P0 CHANNEL {c}", LPDDR5, 32, 16384, 8000) for c in "ABCDEFGH"
]
RAPTOR_LAKE: list[Slot] = [
    ("Controller0-DIMMA2", "BANK 0", DDR5, 64, 32768, 5200),
    ("Controller1-DIMMB2", "BANK 0", DDR5, 64, 32768, 5200),
]
TWO_SOCKETS: list[Slot] = [
    (f"P{p + 1}-DIMM{c}1", f"P{p}_Node0_Channel{n}_Dimm0", DDR4, 64, 16384, 2933)
    for p in (0, 1)
    for n, c in enumerate("ABCDEF")
]


@pytest.mark.parametrize(
    ("slots", "kind", "speed", "channels", "gb_s"),
    [
        (RYZEN, "DDR5", 6000, 2, 96.0),  # Ryzen 9 7950X, cyring/CoreFreq issue 378
        (FOUR_MODULES, "DDR5", 4200, 2, 67.2),  # its first module: noonghunna/club-3090 issue 1130
        (STRIX_HALO, "LPDDR5", 8000, 8, 256.0),  # Ryzen AI Max+ 395, cyring/CoreFreq issue 561
        (RAPTOR_LAKE, "DDR5", 5200, 2, 83.2),  # slots as ckb-next/ckb-next issue 1220 shows one
        (TWO_SOCKETS, "DDR4", 2933, 12, 140.784),  # six channels each: Intel ARK, 140.8 GB/s
    ],
    ids=["two", "four on two channels", "soldered", "two controllers", "two sockets"],
)
def test_modules(
    site: MakeSite, slots: list[Slot], kind: str, speed: int, channels: int, gb_s: float
) -> None:
    """The peak is the processor's published one where its rated memory is in."""
    host = read_host(site({TABLE: table(slots)}))
    assert (host.ram_type, host.ram_speed_mt_s, host.ram_channels) == (kind, speed, channels)
    assert host.ram_bandwidth_gb_s == pytest.approx(gb_s)
    assert host.ram_bandwidth_basis == "theoretical"


def test_slots_that_name_no_channel(site: MakeSite) -> None:
    """As HP counts them (strizhechenko/netutils-linux issue 210): the speed is known, no more."""
    slots = [(f"PROC  2 DIMM {n} ", "Not Specified", 0x18, 64, 4096, 1067) for n in (12, 9)]
    host = read_host(site({TABLE: table(slots)}))
    assert (host.ram_type, host.ram_speed_mt_s, host.ram_channels) == ("DDR3", 1067, None)
    assert host.ram_bandwidth_gb_s is None


def test_the_slowest_module_counts_and_an_unknown_speed_is_unknown(site: MakeSite) -> None:
    slow: Slot = ("DIMM 1", "P0 CHANNEL B", DDR5, 64, 16384, 4800)
    assert read_host(site({TABLE: table([RYZEN[1], slow])})).ram_bandwidth_gb_s == 76.8
    old = [device((*slot[:5], 0), rated=0xFFFF) for slot in (RYZEN[1], RYZEN[3])]
    found, _ = read_modules(site({TABLE: b"".join(old)}))
    assert found is not None
    assert (found.channels, found.mega_transfers, found.gb_s) == (2, None, None)


@pytest.mark.parametrize("cut", [0, 3, 30, 57, 100, 150, 200])
def test_tables_that_are_cut_short(site: MakeSite, cut: int) -> None:
    found, why = read_modules(site({TABLE: table(RYZEN)[:cut]}))
    assert (found is None) == (why is not None)


@pytest.mark.parametrize("junk", [b"\x11\x00" * 50, b"\x11\xff" + b"\0" * 20, os.urandom(4096)])
def test_junk_is_no_module(site: MakeSite, junk: bytes) -> None:
    found, _ = read_modules(site({TABLE: junk}))
    assert found is None or found.gb_s is None or found.gb_s < 10_000


def test_without_permission(site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case: the reason, and what helps."""
    machine = site({TABLE: table(RYZEN)})
    if os.geteuid() == 0:

        def denied(path: str, *_args: object, **_more: object) -> object:
            assert str(path).endswith("DMI")
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", denied)
    else:
        Path(machine.path(TABLE)).chmod(0)
    found, why = read_modules(machine)
    assert found is None
    assert "only root" in (why or "")


def test_without_tables(site: MakeSite) -> None:
    """ARM boards, containers."""
    found, why = read_modules(site())
    assert found is None
    assert "no tables" in (why or "")
    machine = probe(site())
    assert machine.host.ram_bandwidth_gb_s is None
    assert any("probe --measure" in n for n in machine.host.notes)
