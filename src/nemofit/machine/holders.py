"""Who holds memory of a card, and the machine with a program closed.

for held in holding(machine):
    held.words                      # 'firefox holds 1.30 GiB on GPU 0'
    without(machine, held)          # what is free once it is closed
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Final

from ..units import MIB, gib
from .records import Gpu, Machine

LEAST_HELD: Final = 64 * MIB
"""Less than this is not worth closing anything for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the processes of one name hold.

    Attributes:
        name: The program's, as the kernel has it; "process 4711" where it is hidden.
        bytes: On each card, by its place among the machine's cards.
        processes: How many there are.
    """

    name: str
    bytes: tuple[tuple[int, int], ...]
    processes: int

    @property
    def total(self) -> int:
        """Over all cards."""
        return sum(n for _, n in self.bytes)

    @property
    def words(self) -> str:
        """One sentence without a stop."""
        places = " and ".join(f"{gib(n)} on GPU {i}" for i, n in self.bytes)
        return f"{self.name} holds {places}"


def holding(machine: Machine) -> tuple[Held, ...]:
    """Programs that hold memory of the machine's cards, the largest first.

    Processes whose share the driver does not tell are left out.
    """
    sizes: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    pids: dict[str, set[int]] = defaultdict(set)
    for i, gpu in enumerate(machine.gpus):
        for holder in gpu.holders:
            if holder.bytes:
                name = holder.name or f"process {holder.pid}"
                sizes[name][i] += holder.bytes
                pids[name].add(holder.pid)
    found = (
        Held(name=name, bytes=tuple(sorted(held.items())), processes=len(pids[name]))
        for name, held in sizes.items()
    )
    kept = (h for h in found if h.total >= LEAST_HELD)
    return tuple(sorted(kept, key=lambda h: (-h.total, h.name)))


def without(machine: Machine, *closed: Held) -> Machine:
    """The machine once these programs have ended: their memory is free, up to the card's total."""
    gpus = list(machine.gpus)
    for held in closed:
        for i, size in held.bytes:
            gpus[i] = _freed(gpus[i], size, held.name)
    return replace(machine, gpus=tuple(gpus))


def _freed(gpu: Gpu, size: int, name: str) -> Gpu:
    left = tuple(h for h in gpu.holders if (h.name or f"process {h.pid}") != name)
    if gpu.free_bytes is None:
        return replace(gpu, holders=left)
    free = gpu.free_bytes + size
    if gpu.total_bytes is not None:
        free = min(free, gpu.total_bytes)
    return replace(gpu, free_bytes=free, holders=left)
