"""Processes that hold memory of AMD and Intel cards, as the kernel's DRM clients tell it.

Source: Documentation/gpu/drm-usage-stats.rst of the Linux kernel. Without root only a person's own
processes can be read.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ..machine.records import Gpu, Holder
from ..units import KIB, MIB
from .site import Site

_MOST_LINKS: Final = 50_000
"""Open files looked at; a scan of 1,600 takes about 10 ms."""
_UNITS: Final = {"": 1, "KiB": KIB, "MiB": MIB}
_OWN: Final = re.compile(r"vram\d*|local\d*")
_SHARED: Final = re.compile(r"vram\d*|gtt")
_SIZE: Final = re.compile(
    r"^drm-(resident|memory|total)-([a-z]+\d*):\s*(\d{1,18})(?:\s+(KiB|MiB))?\s*$", re.MULTILINE
)
_ORDER: Final = {"total": 0, "memory": 1, "resident": 2}
"""The later, the better it tells what lies there now."""


def with_holders(site: Site, gpus: list[Gpu]) -> list[Gpu]:
    """The cards with the processes that hold their memory, largest first."""
    wanted = {g.pci_bus_id: g for g in gpus if g.vendor in ("amd", "intel") and g.pci_bus_id}
    if not wanted:
        return gpus
    held: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for pid, address, regions in _clients(site):
        gpu = wanted.get(address)
        if gpu is not None:
            counted = _SHARED if gpu.shared else _OWN
            held[address][pid] += sum(n for r, n in regions.items() if counted.fullmatch(r))
    return [replace(g, holders=_holders(site, held.get(g.pci_bus_id or "", {}))) for g in gpus]


def _holders(site: Site, sizes: dict[int, int]) -> tuple[Holder, ...]:
    found = (
        Holder(pid=pid, name=site.text(f"/proc/{pid}/comm"), bytes=size)
        for pid, size in sizes.items()
        if size
    )
    return tuple(sorted(found, key=lambda h: (-(h.bytes or 0), h.pid)))


def _clients(site: Site) -> Iterator[tuple[int, str, dict[str, int]]]:
    """Process, card's address and bytes by region; a client that several processes share once."""
    seen: set[tuple[str, str]] = set()
    links = 0
    for name in site.names("/proc"):
        if not name.isdecimal():
            continue
        for number in site.names(f"/proc/{name}/fd"):
            links += 1
            if links > _MOST_LINKS:
                return
            if not _is_drm(site, f"/proc/{name}/fd/{number}"):
                continue
            text = site.text(f"/proc/{name}/fdinfo/{number}") or ""
            facts = dict(re.findall(r"^(drm-pdev|drm-client-id):\s*(\S+)\s*$", text, re.MULTILINE))
            client = facts.get("drm-pdev", ""), facts.get("drm-client-id", "")
            if all(client) and client not in seen:
                seen.add(client)
                yield int(name), client[0].lower(), _regions(text)


def _is_drm(site: Site, link: str) -> bool:
    try:
        return os.readlink(site.path(link)).startswith("/dev/dri/")
    except OSError:
        return False


def _regions(text: str) -> dict[str, int]:
    """Bytes by region: what is resident, else what the older key says, else all that it made."""
    best: dict[str, tuple[int, int]] = {}
    for key, region, number, unit in _SIZE.findall(text):
        said = _ORDER[key], int(number) * _UNITS[unit]
        if region not in best or said[0] > best[region][0]:
            best[region] = said
    return {region: size for region, (_, size) in best.items()}
