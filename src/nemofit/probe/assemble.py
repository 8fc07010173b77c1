"""One machine out of what the vendors' probes tell.

Each vendor's module is loaded only where there is something for it to read: on a machine without a
GPU that is most of the time a probe takes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..machine.records import Gpu, Host, Machine
from .host import SYSTEMS, meminfo, read_host
from .nvml import DriverError, find_library
from .pci import controllers, pci_name
from .site import Site


@dataclass(slots=True)
class _Found:
    """Cards that a run would use, cards that it would not, and what there is to say."""

    gpus: list[Gpu] = field(default_factory=list)
    hidden: list[Gpu] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    driver: str | None = None
    cuda_version: str | None = None


def assemble(site: Site) -> Machine:
    """Read host and cards; see :func:`nemofit.probe.probe_machine`."""
    host = read_host(site)
    found = _Found()
    if site.system == "darwin":
        host = _apple(site, host, found)
    else:
        _nvidia(site, host, found)
        if site.system == "linux":
            _amd_and_intel(site, host, found)
            _unserved(site, found)
        else:
            system = SYSTEMS.get(site.system, site.system)
            found.notes.append(f"AMD and Intel cards are not read on {system}")
    if found.gpus:
        from .figures import with_figures

        _choose_as_engines_do(found, [with_figures(g) for g in found.gpus])
    host = _without_card_memory(site, host, found.gpus)
    return Machine(
        host=_with_bandwidth(host, found.gpus),
        gpus=tuple(found.gpus),
        driver=found.driver,
        cuda_version=found.cuda_version,
        notes=tuple(found.notes),
        hidden_gpus=tuple(found.hidden),
    )


def _apple(site: Site, host: Host, found: _Found) -> Host:
    from .apple import read_apple

    host, gpus = read_apple(site, host)
    found.gpus += gpus
    if not gpus:
        found.notes.append("no Apple silicon: cards of Intel Macs are not read")
    return host


def _nvidia(site: Site, host: Host, found: _Found) -> None:
    if not site.libraries:
        return
    if site.system == "linux":
        try:
            find_library()
        except DriverError as e:
            found.notes.append(f"NVIDIA: {e}")
            return
    from .nvidia import read_nvidia

    nvidia = read_nvidia(site, host)
    found.gpus += nvidia.gpus
    found.hidden += nvidia.hidden
    found.notes += nvidia.notes
    found.driver, found.cuda_version = nvidia.driver, nvidia.cuda_version


def _amd_and_intel(site: Site, host: Host, found: _Found) -> None:
    base = "/sys/class/drm"
    cards = [c for c in site.names(base) if re.fullmatch(r"card\d+", c)]
    vendors = {site.number(f"{base}/{c}/device/vendor") for c in cards}
    views = []
    if 0x1002 in vendors:
        from .amd import read_amd

        views.append(read_amd(site, host))
    if 0x8086 in vendors:
        from .intel import read_intel

        views.append(read_intel(site, host))
    if not views:
        return
    from .clients import with_holders

    for view in views:
        found.gpus += with_holders(site, list(view.visible))
        found.hidden += view.hidden
        found.notes += view.notes


def _unserved(site: Site, found: _Found) -> None:
    """Name cards on the bus that no driver of those above serves."""
    read = {g.pci_bus_id for g in (*found.gpus, *found.hidden)}
    for c in controllers(site):
        if c.bus_id not in read:
            listed = pci_name(site, c.pci_id)
            gpu = Gpu(
                name=f"{c.vendor.upper()} {listed or c.pci_id}",
                vendor=c.vendor,
                pci_bus_id=c.bus_id,
                pci_id=c.pci_id,
                notes=("on the bus, and no driver that engines use serves it",),
            )
            found.hidden.append(gpu)


def _choose_as_engines_do(found: _Found, gpus: Sequence[Gpu]) -> None:
    """Leave out integrated cards where llama.cpp would: beside a card with memory of its own.

    llama.cpp, src/llama.cpp, llama_prepare_model_devices. An integrated card of which no figures
    are known is left out too: as a rule it is slower than the processor beside it.
    """
    from .visible import with_note

    discrete = any(not g.integrated and g.error is None for g in gpus)
    found.gpus = []
    for g in gpus:
        if g.integrated and discrete:
            why = "integrated: not used beside a card with its own memory"
            found.hidden.append(with_note(g, why))
        elif g.integrated and g.card_id is None and g.vendor != "nvidia":
            why = "integrated, no figures known: the processor is planned for"
            found.hidden.append(with_note(g, why))
        else:
            found.gpus.append(g)


def _without_card_memory(site: Site, host: Host, gpus: Sequence[Gpu]) -> Host:
    """Take card memory that the kernel counts as RAM out of the host's (GH200 and the like)."""
    for node in sorted({g.numa_node for g in gpus if g.numa_node is not None and not g.shared}):
        base = f"/sys/devices/system/node/node{node}"
        facts = meminfo(site.text(f"{base}/meminfo") or "")
        total = facts.get("MemTotal", 0)
        if not total or site.text(f"{base}/cpulist") or host.ram_total_bytes is None:
            continue
        free = facts.get("MemFree", 0)
        note = f"NUMA node {node} is card memory and not counted as RAM"
        host = replace(
            host,
            ram_total_bytes=max(0, host.ram_total_bytes - total),
            ram_available_bytes=max(0, (host.ram_available_bytes or 0) - free),
            notes=(*host.notes, note),
        )
    return host


def _with_bandwidth(host: Host, gpus: Sequence[Gpu]) -> Host:
    """Where processor and card share one memory, the card's entry tells how fast it is."""
    rates = [g.bandwidth_gb_s for g in gpus if g.shared and g.card_id and g.bandwidth_gb_s]
    if rates:
        return replace(host, ram_bandwidth_gb_s=rates[0], ram_bandwidth_basis="published")
    if host.ram_bandwidth_gb_s is not None:
        return host
    note = "RAM bandwidth: the system does not tell it; nemofit probe --measure measures it"
    return replace(host, notes=(*host.notes, note))
