"""AMD cards on Linux, from sysfs alone: amdgpu's memory files and the KFD topology that ROCm uses.

Files: Documentation/gpu/amdgpu of the Linux kernel. An APU is one pool of system memory; which
part of it ROCm allocates from is the kernel's choice (``apu_prefer_gtt``, drivers/gpu/drm/amd).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from ..machine.records import Gpu, Host
from .pci import connected, link, pci_name, uevent
from .site import Site, whole
from .visible import View, rocm_view

_DRM = "/sys/class/drm"
_NODES = "/sys/class/kfd/kfd/topology/nodes"
_NAMES = ("/usr/share/libdrm/amdgpu.ids", "/opt/amdgpu/share/libdrm/amdgpu.ids")
# Targets that the LLVM AMDGPU usage guide lists as APU; gpu_metrics tells where it is readable.
_APU_TARGETS = {
    "gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037", "gfx1103",
    "gfx1150", "gfx1151", "gfx1152", "gfx1153",
}  # fmt: skip
_ARCHITECTURES = (
    ("gfx90a", "CDNA 2.0"), ("gfx908", "CDNA 1.0"), ("gfx94", "CDNA 3.0"), ("gfx950", "CDNA 4.0"),
    ("gfx906", "GCN 5.1"), ("gfx9", "GCN 5.0"), ("gfx8", "GCN 4.0"), ("gfx103", "RDNA 2.0"),
    ("gfx10", "RDNA 1.0"), ("gfx115", "RDNA 3.5"), ("gfx11", "RDNA 3.0"), ("gfx12", "RDNA 4.0"),
)  # fmt: skip
_GTT_FIRST_KERNEL = (6, 10)


@dataclass(frozen=True, slots=True)
class _Node:
    """A GPU in the KFD topology: order, target, and memory that ROCm shows, in bytes."""

    order: int
    gfx: str | None
    memory_bytes: int | None
    cores: int | None


def read_amd(site: Site, host: Host) -> View:
    """Every card that the amdgpu driver serves, filtered as ROCm filters."""
    nodes = _kfd_nodes(site)
    cards = []
    for card in site.names(_DRM):
        folder = f"{_DRM}/{card}/device"
        if re.fullmatch(r"card\d+", card) and site.number(f"{folder}/vendor") == 0x1002:
            address = uevent(site, folder).get("PCI_SLOT_NAME", "").lower() or None
            node = nodes.get(address or "")
            gpu = _card(site, card, folder, address, node, host)
            cards.append((node.order if node else 1 << 16, address or "", gpu))
    cards.sort(key=lambda c: c[:2])
    gpus = [replace(gpu, index=n) for n, (_, _, gpu) in enumerate(cards)]
    view = rocm_view(gpus, site.environ)
    return View(view.visible, view.hidden, (*view.notes, *_access(site, gpus)))


def _access(site: Site, gpus: list[Gpu]) -> tuple[str, ...]:
    if not gpus or os.access(site.path("/dev/kfd"), os.R_OK | os.W_OK):
        return ()
    if not os.path.exists(site.path("/dev/kfd")):
        return ("AMD: there is no /dev/kfd, so ROCm cannot run here; Vulkan may",)
    return ("AMD: /dev/kfd may not be opened: add yourself to the group render (usermod -aG)",)


def _card(
    site: Site, card: str, folder: str, address: str | None, node: _Node | None, host: Host
) -> Gpu:
    device = site.number(f"{folder}/device")
    pci_id = f"1002:{device:04x}" if device is not None else None
    gfx = node.gfx if node else None
    gen, lanes = link(site, folder)
    unique = site.text(f"{folder}/unique_id")
    gpu = Gpu(
        name=_name(site, folder, device, pci_id),
        vendor="amd",
        backend="rocm",
        architecture=next((a for t, a in _ARCHITECTURES if gfx and gfx.startswith(t)), None),
        uuid=f"GPU-{unique.removeprefix('0x')}" if unique else None,
        pci_bus_id=address,
        pcie_gen=gen,
        pcie_lanes=lanes,
        power_w=_power(site, folder),
        display=connected(site, card),
        pci_id=pci_id,
        cores=node.cores if node else None,
        gfx_target=gfx,
        notes=() if node else ("gfx target: the KFD topology does not list this card",),
    )
    return _memory(site, folder, gpu, node, host)


def _memory(site: Site, folder: str, gpu: Gpu, node: _Node | None, host: Host) -> Gpu:
    vram = site.number(f"{folder}/mem_info_vram_total")
    used = site.number(f"{folder}/mem_info_vram_used")
    if not vram:
        driver = uevent(site, folder).get("DRIVER", "none")
        return replace(gpu, error=f"memory cannot be read: the driver is {driver}, not amdgpu")
    if not _is_apu(site, folder, gpu):
        free = max(0, vram - used) if used is not None else None
        return _noted(replace(gpu, total_bytes=vram, free_bytes=free), free)
    gpu = replace(gpu, name=_name_in_processor(host) or gpu.name, integrated=True)
    gtt = site.number(f"{folder}/mem_info_gtt_total") or 0
    if not (vram < gtt and _kernel(site) >= _GTT_FIRST_KERNEL):
        free = max(0, vram - used) if used is not None else None
        note = "an APU: ROCm takes its memory from the share that the firmware sets aside"
        gpu = replace(gpu, total_bytes=vram, free_bytes=free, notes=(*gpu.notes, note))
        return _noted(gpu, free)
    pool = node.memory_bytes if node and node.memory_bytes else gtt
    total = min(n for n in (pool, gtt, host.ram_total_bytes) if n)
    taken = site.number(f"{folder}/mem_info_gtt_used") or 0
    available = host.ram_available_bytes
    free = max(0, total - taken)
    note = (
        "an APU: ROCm takes its memory from the host's; ttm.pages_limit and amdgpu.gttsize cap it"
    )
    return replace(
        gpu,
        shared=True,
        total_bytes=total,
        free_bytes=free if available is None else min(free, available),
        notes=(*gpu.notes, note),
    )


def _noted(gpu: Gpu, free: int | None) -> Gpu:
    if free is not None:
        return gpu
    return replace(gpu, notes=(*gpu.notes, "free memory: amdgpu does not report what is used"))


def _is_apu(site: Site, folder: str, gpu: Gpu) -> bool:
    """By the layout of gpu_metrics (1.x cards, 2.x and 3.x APUs), else by the target."""
    try:
        with open(site.path(f"{folder}/gpu_metrics"), "rb") as f:
            header = f.read(4)
    except OSError:
        header = b""
    if len(header) == 4 and header[2] in (1, 2, 3) and gpu.gfx_target != "gfx942":
        return header[2] != 1
    return gpu.gfx_target in _APU_TARGETS


def _kernel(site: Site) -> tuple[int, int]:
    m = re.match(r"(\d+)\.(\d+)", site.text("/proc/sys/kernel/osrelease") or "")
    return (int(m[1]), int(m[2])) if m else (0, 0)


def _power(site: Site, folder: str) -> float | None:
    for name in site.names(f"{folder}/hwmon"):
        cap = site.number(f"{folder}/hwmon/{name}/power1_cap")
        if cap:
            return cap / 1e6
    return None


def _name(site: Site, folder: str, device: int | None, pci_id: str | None) -> str:
    product = site.text(f"{folder}/product_name")
    if product:
        return product if product.startswith("AMD") else f"AMD {product}"
    revision = site.number(f"{folder}/revision")
    for path in _NAMES:
        for line in (site.text(path, 1 << 20) or "").splitlines():
            fields = [f.strip() for f in line.split(",", 2)]
            if len(fields) == 3 and not line.startswith("#"):
                known = whole(f"0x{fields[0]}"), whole(f"0x{fields[1]}")
                if known == (device, revision):
                    return fields[2]
    listed = pci_name(site, pci_id) if pci_id else None
    return f"AMD {listed}" if listed else f"AMD GPU {pci_id or 'unknown'}"


def _name_in_processor(host: Host) -> str | None:
    """``AMD Ryzen 7 7840HS w/ Radeon 780M Graphics`` names the card that the lists do not."""
    m = re.search(r"\b(?:w/|with)\s+(Radeon .+)$", host.cpu or "")
    return f"AMD {m[1].strip()}" if m else None


def _kfd_nodes(site: Site) -> dict[str, _Node]:
    """PCI address -> node, for the GPUs among the topology's nodes."""
    nodes = {}
    for name in site.names(_NODES):
        facts = _properties(site, f"{_NODES}/{name}/properties")
        if not name.isdigit() or not facts.get("simd_count"):
            continue
        location, domain = facts.get("location_id", 0), facts.get("domain", 0)
        bus, slot = location >> 8 & 0xFF, location & 0xFF
        address = f"{domain:04x}:{bus:02x}:{slot >> 3:02x}.{slot & 7}"
        banks = [
            _properties(site, f"{_NODES}/{name}/mem_banks/{bank}/properties")
            for bank in site.names(f"{_NODES}/{name}/mem_banks")
        ]
        local = sum(b.get("size_in_bytes", 0) for b in banks if b.get("heap_type") in (1, 2))
        nodes[address] = _Node(
            order=int(name),
            gfx=_target(facts.get("gfx_target_version", 0)),
            memory_bytes=local or None,
            cores=facts["simd_count"] // facts.get("simd_per_cu", 2) * 64
            if facts.get("simd_per_cu")
            else None,
        )
    return nodes


def _properties(site: Site, path: str) -> dict[str, int]:
    pairs = (line.split() for line in (site.text(path) or "").splitlines())
    return {p[0]: n for p in pairs if len(p) == 2 and (n := whole(p[1])) is not None}


def _target(version: int) -> str | None:
    """``110501`` -> ``gfx1151``, ``90010`` -> ``gfx90a``."""
    if version <= 0:
        return None
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
