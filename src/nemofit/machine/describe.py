"""A machine in the words that ``--machine`` takes: the same words give the same budgets and speeds.

>>> from nemofit.machine import parse_machine
>>> describe(parse_machine("2x RTX 3090 + 65536 MiB RAM + linux"))
'2x RTX 3090, 64 GiB RAM, linux'

What the grammar has no words for (addresses, holders, notes) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from ..errors import NemofitError
from ..units import GIB, KIB, MIB
from .parse import parse_machine
from .records import Gpu, Host, Machine


def describe(machine: Machine) -> str:
    """The text; :func:`parse_machine` reads it back."""
    words = [w for g in machine.gpus if g.error is None and (w := _gpu(g, machine.host))]
    counted = ((text, len(list(same))) for text, same in groupby(words))
    pieces = [f"{count}x {text}" if count > 1 else text for text, count in counted]
    shared = any(g.shared and g.card_id for g in machine.gpus)
    return ", ".join([*pieces, *_host(machine.host, shared)]) or "no GPU"


def _gpu(gpu: Gpu, host: Host) -> str | None:
    """A card's name and what differs from a card of that name; None: there is nothing to say."""
    rate = f" @ {gpu.bandwidth_gb_s:.9g} GB/s" if gpu.bandwidth_gb_s else ""
    for name in _names(gpu, host):
        for words in (name, name + rate):
            try:
                gpus = parse_machine(words).gpus
            except NemofitError:
                continue
            if len(gpus) == 1 and _same(gpus[0], gpu):
                return words + _more(gpu, gpus[0])
    return None


def _same(named: Gpu, gpu: Gpu) -> bool:
    return (named.card_id, named.vendor, named.shared, named.bandwidth_gb_s) == (
        gpu.card_id, gpu.vendor, gpu.shared, gpu.bandwidth_gb_s,
    )  # fmt: skip


def _names(gpu: Gpu, host: Host) -> Iterator[str]:
    """Names to try, the shortest first."""
    from ..catalog.cards import all_cards

    card = all_cards().get(gpu.card_id) if gpu.card_id else None
    if card is not None:
        names = (*card.aliases[:1], card.name, *card.aliases[1:])
        if gpu.mig_profile:
            yield from (f"{name} MIG {gpu.mig_profile}" for name in names)
        elif gpu.shared and host.ram_total_bytes is not None:
            yield from (f"{name} {size_words(host.ram_total_bytes)}" for name in names)
        else:
            yield from names
    elif gpu.total_bytes:
        vendor = "" if gpu.vendor == "unknown" else f"{_VENDORS.get(gpu.vendor, '')} "
        yield f"{size_words(gpu.total_bytes)} {vendor}GPU"


_VENDORS = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"}


def _more(gpu: Gpu, named: Gpu) -> str:
    """What has to be said behind the name."""
    words = []
    if gpu.fp32_tflops and gpu.fp32_tflops != named.fp32_tflops:
        words.append(f"{gpu.fp32_tflops:.9g} TFLOPS")
    if gpu.vendor in ("amd", "intel") and gpu.architecture != named.architecture:
        words.append(gpu.architecture or "")
    if gpu.compute_capability and gpu.compute_capability != named.compute_capability:
        words.append(f"cc {gpu.compute_capability}")
    link = (gpu.pcie_gen, gpu.pcie_lanes)
    if all(link) and link != (named.pcie_gen, named.pcie_lanes):
        words.append(f"PCIe {gpu.pcie_gen} x{gpu.pcie_lanes}")
    if gpu.display is not None and gpu.display != named.display:
        words.append("with display" if gpu.display else "without display")
    if gpu.total_bytes is not None and gpu.total_bytes != named.total_bytes:
        words.append(f"{size_words(gpu.total_bytes)} total")
    if gpu.free_bytes is not None:
        words.append(f"{size_words(gpu.free_bytes)} free")
    return "".join(f" {w}" for w in words)


def _host(host: Host, shared: bool) -> Iterator[str]:
    free = host.ram_available_bytes
    left = "" if free is None else f" {size_words(free)} free"
    if host.memory_limit_bytes is not None:
        yield f"limit {size_words(host.memory_limit_bytes)}"
    if host.memory_limit_bytes is None and host.ram_total_bytes is not None and not shared:
        yield f"{size_words(host.ram_total_bytes)} RAM{left}"
    elif left:
        yield f"RAM{left}"
    if host.ram_bandwidth_gb_s is not None:
        basis = host.ram_bandwidth_basis or "given"
        yield f"RAM {host.ram_bandwidth_gb_s:.9g} GB/s {basis}"
    if host.cpu:
        yield _processor(host.cpu)
    if host.physical_cores is not None:
        yield f"{host.physical_cores} cores"
    if host.os in ("linux", "windows", "macos"):
        yield host.os


def _processor(name: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in name)
    plain = " ".join(re.sub(r"[,;+]+", " ", printable).split())[:200]
    try:
        host = parse_machine(plain).host
    except NemofitError:
        return f"CPU: {plain}"
    return plain if host.cpu == plain else f"CPU: {plain}"


def size_words(size: int) -> str:
    """A size in the largest unit that says it exactly."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"
