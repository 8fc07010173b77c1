"""Memory over time: of one process and its children, in the host and on every card.

NVIDIA's driver tells what each process holds on a card (NVML); where it does not, and for AMD's
cards (sysfs, ``mem_info_vram_used``), what all programs together hold there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from . import nvml
from .processes import ProcessMemory, family_of, memory_of
from .site import Site, Waiting, this_site

_NOT_AVAILABLE = 2**64 - 1
_DEADLINE_S = 10.0
_CARD = re.compile(r"card\d{1,3}")
_AMD = 0x1002


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """What is held on a card: by the process and its children, or by all programs together."""

    name: str
    used_bytes: int | None
    whose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One moment.

    Attributes:
        host: None: the process has ended.
        gpus: One per card, in the driver's order.
    """

    host: ProcessMemory | None
    gpus: tuple[GpuUse, ...]


class Sampler:
    """Asks about one process again and again.

    Args:
        pid: The process.
        site: Where the cards are read; None: this machine.
    """

    def __init__(self, pid: int, site: Site | None = None) -> None:
        self.pid = pid
        self.notes: list[str] = []
        self._site = site or this_site()
        self._binding: ModuleType | None = None
        self._cards: list[tuple[str, Any]] = []
        try:
            Waiting(self._open).result(_DEADLINE_S)
        except nvml.DriverError:
            self._cards = []
        except TimeoutError:
            self._binding, self._cards = None, []
            self.notes.append(f"NVIDIA's driver gives no answer within {_DEADLINE_S:g} s")
        self._amd = self._amd_cards()

    def sample(self) -> Sample:
        """What is held now."""
        host = memory_of(self.pid)
        pids = family_of(self.pid)
        gpus = [self._nvidia_use(name, handle, pids) for name, handle in self._cards]
        gpus += [self._amd_use(name, folder) for name, folder in self._amd]
        return Sample(host=host, gpus=tuple(gpus))

    def close(self) -> None:
        """Let go of the driver."""
        if self._binding is not None:
            nvml.Asker(self._binding)("", "nvmlShutdown")
            self._binding = None

    def _open(self) -> None:
        nvml.find_library()
        binding = nvml.load()
        ask = nvml.Asker(binding)
        self._binding = binding
        for index in range(ask("", "nvmlDeviceGetCount") or 0):
            handle = ask("", "nvmlDeviceGetHandleByIndex", index)
            if handle is not None:
                name = ask.text("", "nvmlDeviceGetName", handle)
                self._cards.append((name or f"NVIDIA GPU {index}", handle))

    def _nvidia_use(self, name: str, handle: object, pids: frozenset[int]) -> GpuUse:
        assert self._binding is not None
        ask = nvml.Asker(self._binding)
        try:
            held = dict(_held(ask, handle))
            own = [size for pid, size in held.items() if pid in pids]
            if own and None not in own:
                total = sum(size for size in own if size is not None)
                return GpuUse(name=name, used_bytes=total, whose="process")
            if held and not own and None not in held.values():
                return GpuUse(name=name, used_bytes=0, whose="process")
            info = ask("", "nvmlDeviceGetMemoryInfo", handle)
        except nvml.CardError:
            return GpuUse(name=name, used_bytes=None, whose="card")
        used = int(info.used) if info is not None and info.total else None
        return GpuUse(name=name, used_bytes=used, whose="card")

    def _amd_cards(self) -> list[tuple[str, str]]:
        folders = [f"/sys/class/drm/{n}/device" for n in self._site.names("/sys/class/drm")
                   if _CARD.fullmatch(n)]  # fmt: skip
        return [
            (f"AMD GPU {number}", folder)
            for number, folder in enumerate(
                f for f in folders
                if self._site.number(f"{f}/vendor") == _AMD
                and self._site.number(f"{f}/mem_info_vram_used") is not None
            )
        ]  # fmt: skip

    def _amd_use(self, name: str, folder: str) -> GpuUse:
        used = self._site.number(f"{folder}/mem_info_vram_used")
        return GpuUse(name=name, used_bytes=used, whose="card")


def _held(ask: nvml.Asker, handle: object) -> Sequence[tuple[int, int | None]]:
    out: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        for process in ask("", f"nvmlDeviceGet{kind}RunningProcesses", handle) or ():
            size = process.usedGpuMemory
            known = size is not None and size != _NOT_AVAILABLE
            out[int(process.pid)] = int(size) if known else None
    return list(out.items())


def sample_until(
    sampler: Sampler, ended: Callable[[], bool], each: Callable[[Sample], None]
) -> None:
    """Sample until the process ends or ``ended`` says so; ``ended`` waits between two samples."""
    while True:
        found = sampler.sample()
        if found.host is None:
            return
        each(found)
        if ended():
            return
