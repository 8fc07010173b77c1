"""What each device of a machine offers: free memory now, less a reserve.

>>> from nemofit.machine import parse_machine
>>> budgets(parse_machine("2x RTX 3090, 64 GiB RAM")).gpus
(24758976512, 24758976512)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError
from ..units import GIB, MIB, gib
from .records import Gpu, Host, Machine

Reserve = int | Sequence[int] | Mapping[int | None, int] | None

# Left free on a card beside what a plan counts (weights, cache, buffers, CUDA context). The measure
# is llama.cpp's own default margin of 1024 MiB per device (common/common.h, fit_params_target),
# which has to cover everything that it does not count.

DISPLAY_RESERVE: Final = 1024 * MIB
"""A card that drives a display: what is open grows by hundreds of MiB after the count."""
COMPUTE_RESERVE: Final = 256 * MIB
"""A card without a display: only the engine's pools, which grow with use by tens to a few hundred
MiB (ggml-cuda.cu, ggml_cuda_pool_vmm; 32 MiB of cuBLAS workspace)."""
UNKNOWN_RESERVE: Final = 512 * MIB
"""A described card, or one that does not say: in between."""

HOST_RESERVE: Final = 1 * GIB
"""For the programs that run already, and the engine's own code and buffers on the host."""
SYSTEM_BYTES: Final = {"windows": 4 * GIB, "macos": 4 * GIB}
"""What an idle system takes, for a machine that only its installed memory is known of: Windows 11
asks for 4 GiB (its system requirements); macOS idles at about as much. Anywhere else 2 GiB: the
Debian installation guide asks for that much with a desktop (section 3.4)."""
SYSTEM_BYTES_ELSEWHERE: Final = 2 * GIB
SHOWN_SHARE: Final = 0.97
"""Of the installed memory, what Linux shows as MemTotal: 62.6 of 64 GiB, 121.6 of 128."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Bytes that a plan may use.

    Attributes:
        gpus: Per GPU, in the machine's order; 0 where nothing can be placed or nothing is known.
        host: Host memory, None where it is not known; then it is not checked.
        shared: Per GPU, whether its bytes are taken out of ``host`` as well.
        reserves: What was left free on each GPU.
        notes: One line for everything that was assumed.
    """

    gpus: tuple[int, ...]
    host: int | None
    shared: tuple[bool, ...]
    reserves: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def short(self, gpus: Sequence[int], host: int = 0) -> tuple[tuple[int, ...], int]:
        """By how many bytes a use exceeds each GPU, and the host; 0: it fits there.

        A byte on a GPU that shares the host's memory counts against the GPU and against the host,
        so that one pool is never promised twice.

        Args:
            gpus: Bytes wanted per GPU, in order; GPUs left out get nothing.
            host: Bytes wanted on the host.
        """
        over = tuple(
            max(0, use - offer) for use, offer in zip(gpus, self.gpus, strict=False)
        ) + tuple(use for use in gpus[len(self.gpus) :])
        if self.host is None:
            return over, 0
        drawn = sum(use for use, shared in zip(gpus, self.shared, strict=False) if shared)
        return over, max(0, host + drawn - self.host)

    def fits(self, gpus: Sequence[int], host: int = 0) -> bool:
        """Whether a use exceeds nothing; arguments as of :meth:`short`."""
        if not gpus:
            return self.host is None or host <= self.host
        over, host_over = self.short(gpus, host)
        return host_over == 0 and not any(over)


def budgets(
    machine: Machine,
    reserve_bytes: Reserve = None,
    assume_idle: bool = False,
) -> Budgets:
    """Work out what a machine offers.

    Args:
        machine: Probed or described.
        reserve_bytes: To leave free on every GPU, on each, or by its number (None: all others);
            None: by the card's role.
        assume_idle: Count the memory of the idle machine instead of what is free now.

    Raises:
        UsageError: As of :func:`reserves_of`.
    """
    notes: list[str] = []
    host = _host(machine.host, assume_idle, notes)
    reserves = reserves_of(machine.gpus, reserve_bytes)
    offers = []
    for gpu, reserve in zip(machine.gpus, reserves, strict=True):
        memory = _memory(gpu, assume_idle)
        if memory is None:
            notes.append(f"{gpu.name}: {gpu.error or 'its memory is not known'}; not used")
        offer = max(0, (memory or 0) - reserve)
        if gpu.shared and host is not None:
            offer = min(offer, host)
        offers.append(offer)
    shared = tuple(gpu.shared for gpu in machine.gpus)
    return Budgets(
        gpus=tuple(offers), host=host, shared=shared, reserves=reserves, notes=tuple(notes)
    )


def default_reserve(gpu: Gpu) -> int:
    """Bytes to leave free on a card, by its role."""
    if gpu.display is None:
        return UNKNOWN_RESERVE
    return DISPLAY_RESERVE if gpu.display else COMPUTE_RESERVE


def reserves_of(gpus: Sequence[Gpu], asked: Reserve) -> tuple[int, ...]:
    """Bytes to leave free on each card: what was asked for, else by its role.

    Raises:
        UsageError: A reserve is negative, or is for a card that there is not.
    """
    if asked is None:
        return tuple(default_reserve(g) for g in gpus)
    if isinstance(asked, Mapping):
        strange = sorted(i for i in asked if i is not None and not 0 <= i < len(gpus))
        if strange:
            raise UsageError(
                f"a reserve for GPU {strange[0]}, and there are {len(gpus)} GPUs",
                "nemofit probe numbers them from 0",
            )
        each = tuple(
            asked.get(i, asked.get(None, default_reserve(gpu))) for i, gpu in enumerate(gpus)
        )
    else:
        each = (asked,) * len(gpus) if isinstance(asked, int) else tuple(asked)
    if len(each) != len(gpus):
        raise UsageError(
            f"{len(each)} reserves for {len(gpus)} GPUs", "give one for all, or one for each GPU"
        )
    if any(r < 0 for r in each):
        raise UsageError(f"a reserve of {min(each)} bytes", "write for example 1GiB, or 0 for none")
    return each


def _memory(gpu: Gpu, assume_idle: bool) -> int | None:
    """Total or free memory, whichever counts; None where the card cannot be used."""
    if gpu.error is not None and gpu.free_bytes is None and gpu.total_bytes is None:
        return None
    first, second = gpu.free_bytes, gpu.total_bytes
    if assume_idle:
        first, second = second, first
    return second if first is None else first


def _host(host: Host, assume_idle: bool, notes: list[str]) -> int | None:
    if host.ram_available_bytes is not None and not assume_idle:
        return max(0, host.ram_available_bytes - HOST_RESERVE)
    total = host.ram_total_bytes
    if total is None:
        notes.append("host memory is not known and was not checked")
        return None
    if host.memory_limit_bytes is not None and host.memory_limit_bytes <= total:
        return max(0, total - HOST_RESERVE)
    system = SYSTEM_BYTES.get(host.os, SYSTEM_BYTES_ELSEWHERE)
    offer = max(0, int(total * SHOWN_SHARE) - system)
    notes.append(f"host: {gib(total)} less what an idle system takes leaves {gib(offer)}")
    return offer
