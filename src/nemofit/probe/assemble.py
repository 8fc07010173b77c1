"""One machine out of what the vendors' probes tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..machine.records import Gpu, Host, Machine
from .figures import with_figures
from .host import SYSTEMS, meminfo, read_host
from .pci import controllers, pci_name
from .site import Site
from .visible import with_note


def assemble(site: Site) -> Machine:
    """Read host and cards; see :func:`nemofit.probe.probe_machine`."""
    host = read_host(site)
    notes: list[str] = []
    gpus: list[Gpu] = []
    hidden: list[Gpu] = []
    driver = cuda = None
    if site.system == "darwin":
        from .apple import read_apple

        host, found = read_apple(site, host)
        gpus += found
        if not found:
            notes.append("no Apple silicon: cards of Intel Macs are not read")
    else:
        if site.libraries:
            from .nvidia import read_nvidia

            nvidia = read_nvidia(site, host)
            gpus += nvidia.gpus
            hidden += nvidia.hidden
            notes += nvidia.notes
            driver, cuda = nvidia.driver, nvidia.cuda_version
        if site.system == "linux":
            notes += _linux_cards(site, host, gpus, hidden)
        else:
            system = SYSTEMS.get(site.system, site.system)
            notes.append(f"AMD and Intel cards are not read on {system}")
    gpus = [with_figures(g) for g in gpus]
    gpus, spare = _engine_choice(gpus)
    return Machine(
        host=_without_card_memory(site, host, gpus),
        gpus=tuple(gpus),
        driver=driver,
        cuda_version=cuda,
        notes=tuple(notes),
        hidden_gpus=(*hidden, *spare),
    )


def _linux_cards(site: Site, host: Host, gpus: list[Gpu], hidden: list[Gpu]) -> list[str]:
    """Add AMD and Intel cards, and those on the bus that no driver serves."""
    notes: list[str] = []
    on_bus = controllers(site)
    vendors = {c.vendor for c in on_bus}
    if "amd" in vendors or not on_bus:
        from .amd import read_amd

        amd = read_amd(site, host)
        gpus += amd.visible
        hidden += amd.hidden
        notes += amd.notes
    if "intel" in vendors or not on_bus:
        from .intel import read_intel

        intel = read_intel(site, host)
        gpus += intel.visible
        hidden += intel.hidden
        notes += intel.notes
    read = {g.pci_bus_id for g in (*gpus, *hidden)}
    for c in on_bus:
        if c.bus_id not in read:
            listed = pci_name(site, c.pci_id)
            name = f"{c.vendor.upper()} {listed or c.pci_id}"
            gpu = Gpu(name=name, vendor=c.vendor, pci_bus_id=c.bus_id, pci_id=c.pci_id)
            hidden.append(with_note(gpu, "on the bus, and no driver that engines use serves it"))
    return notes


def _engine_choice(gpus: Sequence[Gpu]) -> tuple[list[Gpu], list[Gpu]]:
    """Leave out integrated cards where llama.cpp would: beside a card with memory of its own.

    llama.cpp, src/llama.cpp, llama_prepare_model_devices. An integrated card of which no figures
    are known is left out too: as a rule it is slower than the processor beside it.
    """
    discrete = any(not g.shared and g.error is None for g in gpus)
    kept, spare = [], []
    for g in gpus:
        if g.shared and discrete:
            spare.append(with_note(g, "integrated: not used beside a card with its own memory"))
        elif g.shared and g.card_id is None and g.vendor in ("intel", "amd"):
            spare.append(with_note(g, "integrated, no figures known: the processor is planned for"))
        else:
            kept.append(g)
    return kept, spare


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
