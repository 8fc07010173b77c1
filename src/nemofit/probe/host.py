"""The host: memory that a new process could have, cores, operating system, container, disk.

On Linux from /proc, /sys and the control groups alone; elsewhere, and where /proc cannot be read,
from psutil.
"""

from __future__ import annotations

import os
import re

from ..errors import HardwareError
from ..machine.records import Host
from ..units import KIB, gib
from .cgroup import memory_limit
from .cpu import read_cpu
from .memory import read_modules
from .site import Site

SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}


def read_host(site: Site) -> Host:
    """Everything beside the GPUs."""
    if site.system == "linux":
        facts = meminfo(site.text("/proc/meminfo") or "")
        if "MemTotal" in facts:
            return _linux(site, facts)
    return _psutil(site)


def disk_free(path: str | os.PathLike[str]) -> int:
    """Bytes that this user may still write where ``path`` is or would be made.

    Raises:
        HardwareError: No folder on the way to ``path`` can be read.
    """
    place = os.path.abspath(os.fspath(path))
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    try:
        if hasattr(os, "statvfs"):
            fs = os.statvfs(place)
            return fs.f_bavail * fs.f_frsize
        import shutil

        return shutil.disk_usage(place).free
    except OSError as e:
        raise HardwareError(
            f"free disk space at {place} cannot be read: {e.strerror}", "name another folder"
        ) from e


def meminfo(text: str) -> dict[str, int]:
    """``/proc/meminfo`` or a node's part of it: name -> bytes."""
    pattern = r"^(?:Node\s+\d+\s+)?([\w()]+):\s+(\d+)\s+kB\s*$"
    return {m[1]: int(m[2]) * KIB for m in re.finditer(pattern, text, re.MULTILINE)}


def _linux(site: Site, memory: dict[str, int]) -> Host:
    notes: list[str] = []
    total, available = memory["MemTotal"], _available(memory, notes)
    tightest, limit = memory_limit(site)
    if limit is not None and limit >= total:
        limit = None
    if tightest is not None and tightest.room_bytes < available:
        available = tightest.room_bytes
        notes.append(
            f"memory is limited by the control group {tightest.group}: "
            f"{gib(tightest.limit_bytes)}, of which {gib(available)} are left"
        )
    wsl = _wsl(site)
    if wsl:
        notes.append(
            f"WSL{wsl}: memory is what Windows lends this system ([wsl2] memory= in .wslconfig)"
        )
    cpu = read_cpu(site)
    if cpu.physical_cores is None:
        notes.append("physical cores: the kernel does not show the processor's topology")
    modules, why = read_modules(site)
    if why is not None:
        notes.append(f"RAM type, speed and channels: {why}")
    return Host(
        os="linux",
        os_version=_distribution(site),
        cpu=cpu.name,
        physical_cores=cpu.physical_cores,
        logical_cores=cpu.logical_cores,
        ram_total_bytes=total if limit is None else limit,
        ram_available_bytes=available,
        notes=tuple(notes),
        memory_limit_bytes=limit,
        swap_total_bytes=memory.get("SwapTotal"),
        swap_free_bytes=memory.get("SwapFree"),
        architecture=_architecture(),
        cpu_features=cpu.features,
        cpu_quota=cpu.quota,
        numa_nodes=_numa_nodes(site),
        container=_container(site),
        wsl=wsl,
        ram_bandwidth_gb_s=modules.gb_s if modules else None,
        ram_bandwidth_basis="theoretical" if modules and modules.gb_s else None,
        ram_type=modules.kind if modules else None,
        ram_speed_mt_s=modules.mega_transfers if modules else None,
        ram_channels=modules.channels if modules else None,
    )


def _available(memory: dict[str, int], notes: list[str]) -> int:
    if "MemAvailable" in memory:
        return min(memory["MemAvailable"], memory["MemTotal"])
    # Kernels before 3.14: free memory and the cache that can be dropped.
    notes.append("available memory is estimated: this kernel does not report MemAvailable")
    parts = [memory.get(name, 0) for name in ("MemFree", "Buffers", "Cached")]
    return max(0, min(sum(parts) - memory.get("Shmem", 0), memory["MemTotal"]))


def _psutil(site: Site) -> Host:
    notes: list[str] = []
    try:
        import psutil

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        cores, threads = psutil.cpu_count(logical=False), psutil.cpu_count()
    except (ImportError, OSError, RuntimeError) as e:
        return Host(
            os=SYSTEMS.get(site.system, site.system),
            architecture=_architecture(),
            notes=(f"memory and cores cannot be read: {e}",),
        )
    if cores is None:
        notes.append("physical cores: the system does not tell them")
    return Host(
        os=SYSTEMS.get(site.system, site.system),
        os_version=_release(),
        cpu=site.environ.get("PROCESSOR_IDENTIFIER"),
        physical_cores=cores,
        logical_cores=threads,
        ram_total_bytes=memory.total,
        ram_available_bytes=memory.available,
        notes=tuple(notes),
        swap_total_bytes=swap.total,
        swap_free_bytes=swap.free,
        architecture=_architecture(),
    )


def _architecture() -> str | None:
    if hasattr(os, "uname"):
        return os.uname().machine
    import platform

    return platform.machine() or None


def _release() -> str:
    import platform

    mac = platform.mac_ver()[0]
    return f"macOS {mac}" if mac else f"{platform.system()} {platform.version()}"


def _distribution(site: Site) -> str | None:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        m = re.search(r'^PRETTY_NAME=["\']?(.*?)["\']?\s*$', site.text(path) or "", re.MULTILINE)
        if m:
            return m[1]
    return None


def _wsl(site: Site) -> int | None:
    release = site.text("/proc/sys/kernel/osrelease") or ""
    if "microsoft" not in release.lower():
        return None
    return 1 if "Microsoft" in release and "WSL2" not in release else 2


def _container(site: Site) -> str | None:
    groups = site.text("/proc/self/cgroup") or ""
    if "KUBERNETES_SERVICE_HOST" in site.environ or "kubepods" in groups:
        return "kubernetes"
    if os.path.exists(site.path("/.dockerenv")) or "/docker" in groups:
        return "docker"
    if os.path.exists(site.path("/run/.containerenv")) or "/libpod" in groups:
        return "podman"
    named = site.environ.get("container", "")
    if "/lxc" in groups or named == "lxc":
        return "lxc"
    return "container" if named or "containerd" in groups else None


def _numa_nodes(site: Site) -> int | None:
    """Nodes that have processors; others hold only memory (CXL, a GPU's)."""
    base = "/sys/devices/system/node"
    nodes = [n for n in site.names(base) if re.fullmatch(r"node\d+", n)]
    return sum(1 for n in nodes if site.text(f"{base}/{n}/cpulist")) or None
