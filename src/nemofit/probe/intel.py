"""Intel cards on Linux: sysfs for what they are, the DRM query ioctls for their memory.

Structures and numbers: include/uapi/drm/xe_drm.h and i915_drm.h of the Linux kernel. Without
CAP_PERFMON the kernel hides use: xe then says 0 used, i915 all free. Both mean unknown.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, replace

from ..machine.records import Gpu, Host
from .pci import connected, link, pci_name, uevent
from .site import Site, Waiting
from .visible import View, oneapi_view

_DRM = "/sys/class/drm"
_QUERY_LIMIT = 1 << 16

_XE_QUERY = 0xC0286440  # DRM_IOWR(0x40 + DRM_XE_DEVICE_QUERY, struct drm_xe_device_query)
_XE_MEM_REGIONS = 1
_XE_STRUCT = struct.Struct("=QIIQ16x")  # extensions, query, size, data
_XE_HEAD = struct.Struct("=II")
_XE_REGION = struct.Struct("=HHIQQ64x")  # class, instance, page size, total, used

_I915_QUERY = 0xC0106479  # DRM_IOWR(0x40 + DRM_I915_QUERY, struct drm_i915_query)
_I915_MEMORY_REGIONS = 4
_I915_STRUCT = struct.Struct("=IIQ")  # items, flags, pointer
_I915_ITEM = struct.Struct("=QiIQ")  # id, length, flags, pointer
_I915_HEAD = struct.Struct("=I12x")
_I915_REGION = struct.Struct("=HHIQQ64x")  # class, instance, reserved, probed, unallocated

_DEVICE_MEMORY = 1  # class of both drivers; 0 is system memory


@dataclass(frozen=True, slots=True)
class Region:
    """Memory that a card can use, in bytes; ``free`` None: hidden from this user."""

    on_card: bool
    total: int
    free: int | None


def read_intel(site: Site, host: Host) -> View:
    """Every card that xe or i915 serves, filtered as Level Zero filters."""
    gpus = []
    for card in site.names(_DRM):
        folder = f"{_DRM}/{card}/device"
        if re.fullmatch(r"card\d+", card) and site.number(f"{folder}/vendor") == 0x8086:
            gpus.append(_card(site, card, folder, host))
    gpus.sort(key=lambda g: (g.shared, g.pci_bus_id or ""))
    return oneapi_view([replace(g, index=n) for n, g in enumerate(gpus)], site.environ)


def _card(site: Site, card: str, folder: str, host: Host) -> Gpu:
    event = uevent(site, folder)
    driver = event.get("DRIVER", "none")
    device = site.number(f"{folder}/device")
    pci_id = f"8086:{device:04x}" if device is not None else None
    listed = pci_name(site, pci_id) if pci_id else None
    gen, lanes = link(site, folder)
    gpu = Gpu(
        name=f"Intel {listed}" if listed else f"Intel GPU {pci_id or 'unknown'}",
        vendor="intel",
        backend="sycl",
        pci_bus_id=event.get("PCI_SLOT_NAME", "").lower() or None,
        pcie_gen=gen,
        pcie_lanes=lanes,
        display=connected(site, card),
        pci_id=pci_id,
    )
    node = next((n for n in site.names(f"{folder}/drm") if n.startswith("renderD")), None)
    if driver not in ("xe", "i915") or node is None:
        return replace(gpu, error=f"memory cannot be read: driver {driver}, no render node")
    try:
        path = site.path(f"/dev/dri/{node}")
        regions = Waiting(lambda: query(path, driver)).result(min(5.0, site.deadline_s))
    except TimeoutError:
        return replace(gpu, error=f"the {driver} driver did not answer")
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or str(e)
        return replace(
            gpu,
            notes=(f"memory: /dev/dri/{node} cannot be asked ({why}); join the group render",),
        )
    return _memory(gpu, regions, host)


def _memory(gpu: Gpu, regions: list[Region], host: Host) -> Gpu:
    own = [r for r in regions if r.on_card]
    if not own:
        return replace(
            gpu,
            shared=True,
            integrated=True,
            total_bytes=host.ram_total_bytes,
            free_bytes=host.ram_available_bytes,
            pcie_gen=None,
            pcie_lanes=None,
            notes=("integrated: memory is the host's",),
        )
    free = [r.free for r in own]
    known = [f for f in free if f is not None]
    note = "free memory: the kernel hides it from users without CAP_PERFMON"
    return replace(
        gpu,
        total_bytes=sum(r.total for r in own),
        free_bytes=sum(known) if len(known) == len(free) else None,
        notes=() if len(known) == len(free) else (note,),
    )


def query(path: str, driver: str) -> list[Region]:
    """Ask a render node for its memory regions.

    Args:
        path: The node, ``/dev/dri/renderD128``.
        driver: ``"xe"`` or ``"i915"``.

    Raises:
        OSError: The node cannot be opened or asked.
        ValueError: The answer is not the structure it should be.
    """
    node = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _xe(node) if driver == "xe" else _i915(node)
    except struct.error as e:
        raise ValueError(f"the answer of {driver} is cut short") from e
    finally:
        os.close(node)


def _xe(node: int) -> list[Region]:
    import ctypes
    import fcntl

    ask = bytearray(_XE_STRUCT.pack(0, _XE_MEM_REGIONS, 0, 0))
    fcntl.ioctl(node, _XE_QUERY, ask)
    size = _sensible(_XE_STRUCT.unpack(ask)[2])
    answer = ctypes.create_string_buffer(size)
    ask = bytearray(_XE_STRUCT.pack(0, _XE_MEM_REGIONS, size, ctypes.addressof(answer)))
    fcntl.ioctl(node, _XE_QUERY, ask)
    count = _XE_HEAD.unpack_from(answer.raw)[0]
    regions = []
    for n in range(min(count, size // _XE_REGION.size)):
        at = _XE_HEAD.size + n * _XE_REGION.size
        kind, _, _, total, used = _XE_REGION.unpack_from(answer.raw, at)
        free = max(0, total - used) if used else None
        regions.append(Region(kind == _DEVICE_MEMORY, total, free))
    return regions


def _i915(node: int) -> list[Region]:
    import ctypes
    import fcntl

    def item(length: int, data: int) -> int:
        """Ask for one item, give the length that the kernel answers."""
        entry = ctypes.create_string_buffer(_I915_ITEM.size)
        _I915_ITEM.pack_into(entry, 0, _I915_MEMORY_REGIONS, length, 0, data)
        ask = bytearray(_I915_STRUCT.pack(1, 0, ctypes.addressof(entry)))
        fcntl.ioctl(node, _I915_QUERY, ask)
        return int(_I915_ITEM.unpack(entry.raw)[1])

    size = _sensible(item(0, 0))
    answer = ctypes.create_string_buffer(size)
    _sensible(item(size, ctypes.addressof(answer)))
    count = _I915_HEAD.unpack_from(answer.raw)[0]
    regions = []
    for n in range(min(count, size // _I915_REGION.size)):
        at = _I915_HEAD.size + n * _I915_REGION.size
        kind, _, _, total, left = _I915_REGION.unpack_from(answer.raw, at)
        regions.append(Region(kind == _DEVICE_MEMORY, total, left if left < total else None))
    return regions


def _sensible(size: int) -> int:
    if size < 0:
        raise OSError(-size, os.strerror(-size))
    if not _XE_HEAD.size <= size <= _QUERY_LIMIT:
        raise ValueError(f"the kernel offers an answer of {size} bytes")
    return size
