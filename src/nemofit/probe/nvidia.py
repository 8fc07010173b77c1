"""NVIDIA cards, through NVML: every card by itself, so that a sick one never hides the others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from ..machine.records import Gpu, Holder, Host
from . import nvml
from .figures import cores_per_sm, physical, share
from .nvml import Asker, CardError, DriverError
from .site import Site, Waiting
from .visible import Candidate, cuda_view, with_note

_MAX_CARDS = 256
_MAX_LINKS = 36  # NVML_NVLINK_MAX_LINKS, nvml.h 13
_MAX_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_NOT_AVAILABLE = (1 << 64) - 1
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h

# CUDA C++ programming guide, appendix "Compute capabilities".
ARCHITECTURES = {
    "5": "Maxwell", "6": "Pascal", "7.0": "Volta", "7.2": "Volta", "7.5": "Turing", "8": "Ampere",
    "8.9": "Ada Lovelace", "9": "Hopper", "10": "Blackwell", "11": "Blackwell", "12": "Blackwell",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvidia:
    """What NVML told: cards that a run would use, cards it would not, and why."""

    gpus: tuple[Gpu, ...] = ()
    hidden: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda_version: str | None = None
    notes: tuple[str, ...] = ()


def read_nvidia(site: Site, host: Host, load: Callable[[], ModuleType] = nvml.load) -> Nvidia:
    """Ask the driver, for at most ``site.deadline_s`` seconds.

    Args:
        host: Its memory is what cards without their own memory share.
        load: Gives the initialized binding.
    """
    end = time.monotonic() + site.deadline_s
    try:
        binding = Waiting(load).result(site.deadline_s)
        system = Waiting(lambda: _system(binding)).result(end - time.monotonic())
    except DriverError as e:
        return Nvidia(notes=(_driver_note(site, str(e)),))
    except TimeoutError:
        return Nvidia(notes=(f"NVIDIA: {_no_answer(site)}; restart the machine",))
    except Exception as e:
        return Nvidia(notes=(f"NVIDIA: unreadable answers ({type(e).__name__}: {e})",))
    driver, cuda, count, notes = system
    waiting = [Waiting(_card_reader(binding, n, site, host)) for n in range(min(count, _MAX_CARDS))]
    candidates = [c for n, w in enumerate(waiting) for c in _patiently(w, n, end, site)]
    if not any(w.unfinished for w in waiting):
        _shut_down(binding, end)
    view = cuda_view(candidates, site.environ)
    return Nvidia(
        gpus=view.visible,
        hidden=view.hidden,
        driver=driver,
        cuda_version=cuda,
        notes=(*notes, *view.notes),
    )


def _patiently(
    waiting: Waiting[list[Candidate]], index: int, end: float, site: Site
) -> list[Candidate]:
    """What a card answers; whatever goes wrong with it stays with it."""
    try:
        return waiting.result(end - time.monotonic())
    except TimeoutError:
        return [_failed(index, _no_answer(site))]
    except Exception as e:
        return [_failed(index, f"unreadable answers ({type(e).__name__}: {e})")]


def _no_answer(site: Site) -> str:
    return f"the driver did not answer within {site.deadline_s:g} s"


def _driver_note(site: Site, why: str) -> str:
    version = nvml.module_version(site)
    return f"NVIDIA: {why}" + (f" (kernel module {version} is loaded)" if version else "")


def _system(binding: ModuleType) -> tuple[str | None, str | None, int, tuple[str, ...]]:
    ask = Asker(binding)
    driver = ask.text("driver version", "nvmlSystemGetDriverVersion")
    cuda = ask("CUDA version", "nvmlSystemGetCudaDriverVersion_v2")
    count = ask("number of cards", "nvmlDeviceGetCount") or 0
    name = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None
    notes = ask.notes()
    if not notes and not count:
        notes = ("the driver answers and shows no card (in a container: start it with --gpus all)",)
    return driver, name, count, tuple(f"NVIDIA: {note}" for note in notes)


def _shut_down(binding: ModuleType, end: float) -> None:
    try:
        Waiting(binding.nvmlShutdown).result(end - time.monotonic())
    except (TimeoutError, binding.NVMLError):
        return


def _card_reader(
    binding: ModuleType, index: int, site: Site, host: Host
) -> Callable[[], list[Candidate]]:
    def read() -> list[Candidate]:
        ask = Asker(binding)
        card = Gpu(name=f"NVIDIA GPU {index}", vendor="nvidia", index=index)
        try:
            handle = ask("card", "nvmlDeviceGetHandleByIndex", index)
            if handle is None:
                return [_failed(index, "; ".join(ask.unknown))]
            for step in (_named, _addressed, _capable):
                card = step(ask, handle, card)
            if _mig_enabled(ask, handle):
                return _slices(ask, handle, card, host)
            return [_whole_card(ask, handle, card, site, host)]
        except CardError as e:
            sick = replace(card, total_bytes=None, free_bytes=None, error=str(e))
            return [Candidate(gpu=sick, card=index)]

    return read


def _failed(index: int, why: str) -> Candidate:
    gpu = Gpu(name=f"NVIDIA GPU {index}", vendor="nvidia", index=index, error=why)
    return Candidate(gpu=gpu, card=index)


def _named(ask: Asker, handle: object, card: Gpu) -> Gpu:
    """Name and addresses come first: they are worth having even when the rest fails."""
    name = ask.text("name", "nvmlDeviceGetName", handle) or card.name
    return replace(card, name=name, uuid=ask.text("UUID", "nvmlDeviceGetUUID", handle))


def _addressed(ask: Asker, handle: object, card: Gpu) -> Gpu:
    pci = ask("PCI address", "nvmlDeviceGetPciInfo", handle)
    if pci is None:
        return card
    bus = pci.busId.decode() if isinstance(pci.busId, bytes) else str(pci.busId)
    device = int(pci.pciDeviceId)
    pci_id = f"{device & 0xFFFF:04x}:{device >> 16:04x}" if device else None
    return replace(card, pci_bus_id=bus_id(bus), pci_id=pci_id)


def _capable(ask: Asker, handle: object, card: Gpu) -> Gpu:
    capability = ask("compute capability", "nvmlDeviceGetCudaComputeCapability", handle)
    if not capability:
        return card
    text = f"{capability[0]}.{capability[1]}"
    return replace(card, compute_capability=text, architecture=_by_capability(ARCHITECTURES, text))


def bus_id(text: str) -> str:
    """NVML's ``00000000:1A:00.0`` as sysfs writes it, ``0000:1a:00.0``."""
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if domain.startswith("0000") else text.lower()


def _by_capability(table: dict[str, Any], capability: str) -> Any | None:
    return table.get(capability, table.get(capability.partition(".")[0]))


def _whole_card(ask: Asker, handle: object, card: Gpu, site: Site, host: Host) -> Candidate:
    card = _memory(ask, handle, card, host)
    mode = ask("", "nvmlDeviceGetVirtualizationMode", handle)
    milliwatts = ask("power limit", "nvmlDeviceGetPowerManagementLimit", handle)
    display = ask("display", "nvmlDeviceGetDisplayActive", handle)
    numa = ask("", "nvmlDeviceGetNumaNodeId", handle)
    bar1 = ask("", "nvmlDeviceGetBAR1MemoryInfo", handle)
    cores = ask("", "nvmlDeviceGetNumGpuCores", handle)
    sm_mhz = ask("", "nvmlDeviceGetMaxClockInfo", handle, _CLOCK_SM)
    card = replace(
        card,
        virtual=None if mode is None else mode == 2,
        power_w=milliwatts / 1000 if milliwatts else None,
        display=None if display is None else bool(display),
        numa_node=numa if numa is not None and numa >= 0 else None,
        bar1_bytes=int(bar1.bar1Total) or None if bar1 is not None else None,
        cores=cores or None,
        holders=_holders(ask, handle, card, site),
        nvlink_links=_nvlink(ask, handle),
    )
    card = _link(ask, handle, _computed_figures(ask, handle, card, sm_mhz))
    if card.virtual:
        card = with_note(card, "a vGPU: memory is what its profile gives")
    return Candidate(
        gpu=replace(card, notes=(*card.notes, *ask.notes())),
        card=card.index or 0,
        speed=float((cores or 0) * (sm_mhz or 0)),
    )


def _memory(ask: Asker, handle: object, card: Gpu, host: Host) -> Gpu:
    """Fill in total, reserved and free; a card that has none of its own shares the host's."""
    version = getattr(ask.nvml, "nvmlMemory_v2", None)
    reserved: int | None = None
    info = None
    if version is not None:
        info = ask("", "nvmlDeviceGetMemoryInfo", handle, version=version)
        reserved = int(info.reserved) if info is not None else None
    if info is None:
        info = ask("", "nvmlDeviceGetMemoryInfo", handle)
    code = ask.code
    if info is not None and info.total:
        total, free = int(info.total), int(info.free)
        if reserved is None:
            ask.unknown.setdefault(nvml.reason(nvml.FUNCTION_NOT_FOUND), []).append(
                "reserved memory"
            )
        usable = _usable(total, reserved)
        if usable <= 0 or free > total:
            return replace(card, error=f"nonsensical memory: {total} in total, {free} free")
        return replace(
            card, total_bytes=usable, free_bytes=min(free, usable), reserved_bytes=reserved
        )
    if info is None and (code != nvml.NOT_SUPPORTED or card.mig_profile):
        return replace(card, error=f"memory cannot be read: {nvml.reason(code)}")
    bar1 = ask("", "nvmlDeviceGetBAR1MemoryInfo", handle)
    if bar1 is not None and bar1.bar1Total:
        ask.unknown.setdefault(nvml.reason(nvml.NOT_SUPPORTED), []).append("memory")
        return card
    return replace(
        with_note(card, "memory is the host's: the driver reports none of the card's own"),
        shared=True,
        integrated=True,
        total_bytes=host.ram_total_bytes,
        free_bytes=host.ram_available_bytes,
    )


def _usable(total: int, reserved: int | None) -> int:
    """What an engine can have of the total; a driver too old to tell is met with the worst case."""
    if reserved is not None:
        return total - reserved
    from ..catalog.cards import total_of_nvml

    return total_of_nvml(total)


def _link(ask: Asker, handle: object, card: Gpu) -> Gpu:
    if card.shared:
        return card
    gen = ask("PCIe generation", "nvmlDeviceGetMaxPcieLinkGeneration", handle)
    lanes = ask("PCIe lanes", "nvmlDeviceGetMaxPcieLinkWidth", handle)
    gen_now = ask("", "nvmlDeviceGetCurrPcieLinkGeneration", handle)
    lanes_now = ask("", "nvmlDeviceGetCurrPcieLinkWidth", handle)
    if lanes and lanes_now and lanes_now < lanes:
        card = with_note(
            card, f"PCIe runs {lanes_now} of {lanes} lanes now: idle, or a narrow slot"
        )
    if gen and gen_now and gen_now < gen:
        card = with_note(
            card,
            f"PCIe runs at generation {gen_now} of {gen} now: an idle card slows down; "
            "if it stays so under load, look at riser and firmware settings",
        )
    return replace(
        card,
        pcie_gen=gen or None,
        pcie_lanes=lanes or None,
        pcie_gen_now=gen_now or None,
        pcie_lanes_now=lanes_now or None,
    )


def _computed_figures(ask: Asker, handle: object, card: Gpu, sm_mhz: int | None) -> Gpu:
    """Bandwidth and compute from bus width, clocks and cores, for cards that no table knows.

    Two transfers per reported memory clock hold for GDDR5 to GDDR7 and HBM as NVML counts. The
    clock limit lies above what a card sustains: 0.8 of it. Matrix units give at least twice the
    vector rate from compute capability 7.0 on.
    """
    bits = ask("", "nvmlDeviceGetMemoryBusWidth", handle)
    memory_mhz = ask("", "nvmlDeviceGetMaxClockInfo", handle, _CLOCK_MEMORY)
    bandwidth = round(bits * memory_mhz * 2 / 8 / 1000, 1) if bits and memory_mhz else None
    fp32 = round(0.8 * card.cores * sm_mhz * 2 / 1e6, 1) if card.cores and sm_mhz else None
    matrix = card.compute_capability is not None and float(card.compute_capability) >= 7
    fp16 = round(fp32 * 2, 1) if fp32 and matrix else fp32
    return replace(card, bandwidth_gb_s=bandwidth, fp32_tflops=fp32, fp16_tflops=fp16)


def _nvlink(ask: Asker, handle: object) -> int | None:
    active = 0
    for link in range(_MAX_LINKS):
        state = ask("", "nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            return None if link == 0 and ask.code != nvml.NOT_SUPPORTED else active
        active += state == 1
    return active


def _holders(ask: Asker, handle: object, card: Gpu, site: Site) -> tuple[Holder, ...]:
    """Processes that hold memory, largest first; one on several lists counts once."""
    held: dict[int, int | None] = {}
    known = False
    for kind in ("Compute", "Graphics", "MPSCompute"):
        name = f"nvmlDeviceGet{kind}RunningProcesses"
        listed = ask("", name, handle)
        if listed is None and ask.code == nvml.FUNCTION_NOT_FOUND:
            listed = ask("", f"{name}_v2", handle)
        if any(p.pid > _MAX_PID for p in listed or ()) and site.system == "linux":
            ask.code, listed = nvml.STRUCTURES_DIFFER, None
        known = known or listed is not None
        for p in listed or ():
            size = p.usedGpuMemory
            if size in (None, _NOT_AVAILABLE) or (card.total_bytes and size > card.total_bytes):
                size = None
            held[int(p.pid)] = max(held.get(int(p.pid)) or 0, size or 0) or None
    if not known:
        ask.unknown.setdefault(nvml.reason(ask.code), []).append("processes")
    named = _sees_all_processes(site)
    holders = [
        Holder(pid=pid, name=site.text(f"/proc/{pid}/comm") if named else None, bytes=size)
        for pid, size in held.items()
    ]
    return tuple(sorted(holders, key=lambda h: -(h.bytes or 0)))


def _sees_all_processes(site: Site) -> bool:
    """Whether process ids are the host's; in a container they would name the wrong program."""
    import os

    try:
        return os.readlink(site.path("/proc/self/ns/pid")) == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _mig_enabled(ask: Asker, handle: object) -> bool:
    mode = ask("", "nvmlDeviceGetMigMode", handle)
    return mode is not None and mode[0] == 1


def _slices(ask: Asker, handle: object, card: Gpu, host: Host) -> list[Candidate]:
    """The MIG slices of a card, each a device of its own."""
    cores = ask("", "nvmlDeviceGetNumGpuCores", handle)
    sm_mhz = ask("", "nvmlDeviceGetMaxClockInfo", handle, _CLOCK_SM)
    card = replace(card, cores=cores or None)
    card = _link(ask, handle, _computed_figures(ask, handle, card, sm_mhz))
    whole = ask("", "nvmlDeviceGetMemoryInfo", handle)  # needs privileges while MIG is on
    found = []
    for n in range(ask("MIG slices", "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        child = ask("", "nvmlDeviceGetMigDeviceHandleByIndex", handle, n)
        if child is not None:
            memory = int(whole.total) if whole is not None else None
            found.append(_slice(Asker(ask.nvml), child, card, memory, host))
    if found:
        return found
    why = "; ".join(ask.notes()) or "create one: nvidia-smi mig -cgi <profile> -C"
    error = f"MIG is on and no slice can be used: {why}"
    return [Candidate(gpu=replace(card, error=error), card=card.index or 0)]


def _slice(ask: Asker, child: object, card: Gpu, memory: int | None, host: Host) -> Candidate:
    """One slice: the card's address, its own memory, its share of bandwidth and compute."""
    name = ask.text("", "nvmlDeviceGetName", child) or card.name
    attributes = ask("", "nvmlDeviceGetAttributes", child)
    m = re.search(r"\bMIG (\S+)", name)
    profile = m[1] if m else None
    if profile is None and attributes is not None:
        gigabytes = round(attributes.memorySizeMB / 1024)
        profile = f"{attributes.gpuInstanceSliceCount}g.{gigabytes}gb"
    base = re.sub(r"\s*\bMIG \S+.*$", "", name)
    gpu = replace(
        card,
        name=f"{base} MIG {profile}" if profile else f"{base} MIG",
        uuid=ask.text("UUID", "nvmlDeviceGetUUID", child),
        parent_uuid=card.uuid,
        mig_profile=profile or "unknown",
        cores=_slice_cores(card, attributes),
    )
    gpu = _memory(ask, child, gpu, host)
    gpu = replace(
        gpu,
        bandwidth_gb_s=share(card.bandwidth_gb_s, physical(gpu), memory),
        fp16_tflops=share(card.fp16_tflops, gpu.cores, card.cores),
        fp32_tflops=share(card.fp32_tflops, gpu.cores, card.cores),
        notes=(*gpu.notes, *ask.notes()),
    )
    ids = [ask("", f"nvmlDeviceGet{kind}InstanceId", child) for kind in ("Gpu", "Compute")]
    return Candidate(
        gpu=gpu,
        card=card.index or 0,
        instance=(-1 if ids[0] is None else ids[0], -1 if ids[1] is None else ids[1]),
    )


def _slice_cores(card: Gpu, attributes: Any | None) -> int | None:
    if attributes is None or card.compute_capability is None:
        return None
    return int(attributes.multiprocessorCount) * cores_per_sm(card.compute_capability) or None
