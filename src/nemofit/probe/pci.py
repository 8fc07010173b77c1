"""Display controllers on the PCI bus, and what the system's own lists call them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .site import Site, whole

VENDORS = {0x10DE: "nvidia", 0x1002: "amd", 0x8086: "intel"}
_LISTS = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
_LIST_LIMIT = 1 << 22
_DISPLAY, _ACCELERATOR = 0x03, 0x12


@dataclass(frozen=True, slots=True)
class Controller:
    """A graphics or compute device: sysfs address, vendor, ``"10de:2684"``."""

    bus_id: str
    vendor: str
    pci_id: str


def controllers(site: Site) -> list[Controller]:
    """Every NVIDIA, AMD and Intel display controller or accelerator that the bus shows."""
    base = "/sys/bus/pci/devices"
    found = []
    for name in site.names(base):
        vendor = site.number(f"{base}/{name}/vendor")
        kind = site.number(f"{base}/{name}/class")
        device = site.number(f"{base}/{name}/device")
        if vendor in VENDORS and kind is not None and device is not None:
            wanted = kind >> 16 == _DISPLAY or (kind >> 16 == _ACCELERATOR and vendor == 0x1002)
            if wanted:
                pci_id = f"{vendor:04x}:{device:04x}"
                found.append(Controller(name.lower(), VENDORS[vendor], pci_id))
    return found


def pci_name(site: Site, pci_id: str) -> str | None:
    """A device's name in the system's pci.ids, None where the list or the entry is missing."""
    vendor, _, device = pci_id.partition(":")
    for path in _LISTS:
        text = site.text(path, _LIST_LIMIT)
        if text is None:
            continue
        text = "\n" + text
        start = text.find(f"\n{vendor} ")
        end = _next_vendor(text, start + 1)
        at = text.find(f"\n\t{device} ", start, end) if start >= 0 else -1
        if at >= 0:
            entry = text[at:].split("\n", 2)[1].strip().partition(" ")[2].strip()
            product = re.search(r"\[(.+)\]", entry)
            return product[1] if product else entry
    return None


def _next_vendor(text: str, start: int) -> int:
    """Where the entries of the vendor at ``start`` end: the next line without indent."""
    at = text.find("\n", start)
    while at >= 0 and text[at + 1 : at + 2] in ("\t", "#", "\n"):
        at = text.find("\n", at + 1)
    return len(text) if at < 0 else at


def link(site: Site, folder: str) -> tuple[int | None, int | None]:
    """PCIe generation and lanes that a device's sysfs folder gives as the best possible."""
    speed = (site.text(f"{folder}/max_link_speed") or "").partition(" ")[0]
    generations = {"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "8": 3, "16.0": 4, "32.0": 5, "64.0": 6}
    lanes = whole(site.text(f"{folder}/max_link_width"))
    return generations.get(speed), lanes if lanes and lanes <= 32 else None


def connected(site: Site, card: str) -> bool | None:
    """Whether a screen is lit through a DRM card, None where it has no connectors."""
    base = "/sys/class/drm"
    states = [
        site.text(f"{base}/{name}/enabled")
        for name in site.names(base)
        if name.startswith(f"{card}-")
    ]
    known = [s for s in states if s is not None]
    return "enabled" in known if known else None


def uevent(site: Site, folder: str) -> dict[str, str]:
    """``uevent`` of a device: DRIVER, PCI_ID, PCI_SLOT_NAME."""
    lines = (site.text(f"{folder}/uevent") or "").splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}
