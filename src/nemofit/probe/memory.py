"""Memory modules from the firmware's tables: type, speed and channels, where they may be read.

Linux shows the tables to root alone. Layout: DMTF DSP0134 (SMBIOS), structure type 17, "Memory
Device". The tables name slots in the board maker's words; channels are counted only where every
module's words tell its channel.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .site import Site

TABLE = "/sys/firmware/dmi/tables/DMI"
_LIMIT = 1 << 20
_MEMORY_DEVICE, _END = 17, 127
_TYPES = {
    0x18: "DDR3", 0x1A: "DDR4", 0x1D: "LPDDR3", 0x1E: "LPDDR4", 0x22: "DDR5", 0x23: "LPDDR5",
}  # fmt: skip
_UNKNOWN = 0xFFFF
_CHANNEL = (
    re.compile(r"channel[ _-]?([a-z]|\d{1,2})(?![a-z])"),
    re.compile(r"dimm[ _-]?([a-p])\d?\b"),
)
_CONTROLLER = re.compile(r"(?:controller|\bmc)[ _-]?(\d)")
_SOCKET = re.compile(r"(?:\b|_)(?:p|cpu|proc|processor|socket)[ _-]?(\d)(?!\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """What is installed; None: the tables do not tell.

    Attributes:
        kind: "DDR5", "LPDDR5", ...
        mega_transfers: Of the slowest module, as it is configured.
        channels: Filled, of all sockets.
        gb_s: Peak of one socket: with several, of the one with most.
    """

    count: int
    kind: str | None
    mega_transfers: int | None
    channels: int | None
    gb_s: float | None


@dataclass(frozen=True, slots=True)
class _Module:
    kind: int
    bits: int
    mega_transfers: int | None
    place: str


def read_modules(site: Site) -> tuple[Modules | None, str | None]:
    """The modules, or why they are not known."""
    path = site.path(TABLE)
    try:
        with open(path, "rb") as f:
            table = f.read(_LIMIT)
    except PermissionError:
        return None, "only root may read the firmware's tables"
    except OSError:
        return None, "this system shows no tables of the firmware"
    modules = list(_modules(table))
    if not modules:
        return None, "the firmware's tables list no module"
    return _summary(modules), None


def _summary(modules: list[_Module]) -> Modules:
    kinds = {_TYPES.get(m.kind) for m in modules}
    speeds = [m.mega_transfers for m in modules]
    known = [s for s in speeds if s]
    slowest = min(known) if len(known) == len(speeds) else None
    widths: dict[tuple[str, str, str], int] = {}
    for m in modules:
        channel = _channel(m.place)
        if channel is None or not 8 <= m.bits <= 128:
            return Modules(
                count=len(modules),
                kind=_one(kinds),
                mega_transfers=slowest,
                channels=None,
                gb_s=None,
            )
        widths[channel] = max(widths.get(channel, 0), m.bits)
    sockets = {c[0] for c in widths}
    bits = max(sum(w for c, w in widths.items() if c[0] == socket) for socket in sockets)
    return Modules(
        count=len(modules),
        kind=_one(kinds),
        mega_transfers=slowest,
        channels=len(widths),
        gb_s=bits / 8 * slowest / 1000 if slowest else None,
    )


def _one(kinds: set[str | None]) -> str | None:
    return next(iter(kinds)) if len(kinds) == 1 else None


def _channel(place: str) -> tuple[str, str, str] | None:
    """Socket, controller and channel in the words for a slot, None where no channel is named."""
    found = next((m for pattern in _CHANNEL if (m := pattern.search(place))), None)
    if found is None:
        return None
    controller, socket = _CONTROLLER.search(place), _SOCKET.search(place)
    return socket[1] if socket else "", controller[1] if controller else "", found[1]


def _modules(table: bytes) -> Iterator[_Module]:
    """Installed modules; a structure that is cut short ends the reading."""
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        end = table.find(b"\0\0", at + length)
        if length < 4 or kind == _END or end < 0:
            return
        if kind == _MEMORY_DEVICE:
            strings = table[at + length : end].split(b"\0")
            module = _module(table[at : at + length], strings)
            if module is not None:
                yield module
        at = end + 2


def _module(record: bytes, strings: list[bytes]) -> _Module | None:
    if len(record) < 0x17:
        return None
    bits, size = struct.unpack_from("<HH", record, 0x0A)
    if size == 0:
        return None  # an empty slot
    rated = struct.unpack_from("<H", record, 0x15)[0]
    configured = struct.unpack_from("<H", record, 0x20)[0] if len(record) >= 0x22 else 0
    speed = configured if configured not in (0, _UNKNOWN) else rated
    words = (_string(strings, record[n]) for n in (0x10, 0x11))
    return _Module(
        kind=record[0x12],
        bits=bits,
        mega_transfers=speed if 100 <= speed < _UNKNOWN else None,
        place=" ".join(words).lower(),
    )


def _string(strings: list[bytes], number: int) -> str:
    found = strings[number - 1] if 0 < number <= len(strings) else b""
    return found[:64].decode("latin-1")
