"""How fast this machine's memory is: copies in several threads, for less than two seconds.

A copy of n bytes counts as 2n, n read and n written, as the STREAM benchmark counts its copy
(J. D. McCalpin, www.cs.virginia.edu/stream). The C library copies such sizes past the caches
("non-temporal", glibc sysdeps/x86/dl-cacheinfo.h), so that these are the bytes that memory moves.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from ..errors import HardwareError
from ..units import GIB, MIB
from .site import Site

MOST_THREADS = 64
MOST_BYTES = 2 * GIB
LEAST_BYTES = 256 * MIB
TIMES_THE_CACHE = 8
SHARE_OF_FREE = 4
SECONDS = 1.0
"""For copying; touching the memory for the first time comes before that."""
LEAST_PASSES = 3
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """The best pass: GB/s (10^9 bytes read and written), with how many threads, over how much."""

    gb_s: float
    threads: int
    bytes: int
    passes: int


def measure(site: Site, threads: int | None, available_bytes: int | None) -> Bandwidth:
    """Copy memory in threads that start together, and count the best pass.

    Args:
        site: Its caches tell how much has to be copied.
        threads: As many as there are cores; None: unknown.
        available_bytes: A quarter of it is used at most; None: unknown.

    Raises:
        HardwareError: There is too little memory to tell it from the caches.
    """
    import os

    count = max(1, min(threads or os.cpu_count() or 1, MOST_THREADS))
    wanted = max(LEAST_BYTES, TIMES_THE_CACHE * caches(site))
    room = (available_bytes or 4 * GIB) // SHARE_OF_FREE
    total = min(wanted, MOST_BYTES, room)
    if total < LEAST_BYTES:
        raise HardwareError(
            f"RAM bandwidth cannot be measured: {room >> 20} MiB may be used for it and "
            f"{LEAST_BYTES >> 20} are needed",
            "close something first",
        )
    return _copy(count, total // (2 * count) // 4096 * 4096)


def caches(site: Site) -> int:
    """Bytes of all last-level caches; 0: unknown."""
    base = "/sys/devices/system/cpu"
    found: dict[str, int] = {}
    for cpu in site.names(base):
        if not re.fullmatch(r"cpu\d+", cpu):
            continue
        last = next(
            (f"{base}/{cpu}/cache/index{n}" for n in (3, 2)
             if site.text(f"{base}/{cpu}/cache/index{n}/size")), None,
        )  # fmt: skip
        m = re.fullmatch(r"(\d{1,9})([KM])", site.text(f"{last}/size") or "") if last else None
        if m:
            shared = site.text(f"{last}/shared_cpu_list") or cpu
            found[shared] = int(m[1]) << (20 if m[2] == "M" else 10)
    return sum(found.values())


def _copy(count: int, size: int) -> Bandwidth:
    """``count`` threads copy ``size`` bytes each, again and again; the best pass counts."""
    import ctypes
    import mmap
    import threading

    starts, ends = [0.0] * count, [0.0] * count
    failed: list[BaseException] = []
    passes: list[float] = []
    end: float | None = None
    stop = False

    def between() -> None:
        """Runs in one thread while all the others wait for the next pass."""
        nonlocal end, stop
        now = time.perf_counter()
        if end is None:
            end = now + SECONDS
            return
        passes.append(max(ends) - min(starts))
        stop = now > end and len(passes) >= LEAST_PASSES

    barrier = threading.Barrier(count, between)

    def work(n: int) -> None:
        try:
            source, target = ((ctypes.c_char * size).from_buffer(mmap.mmap(-1, size)) for _ in "st")
            ctypes.memset(source, 1, size)  # the first touch places a page near its core
            ctypes.memset(target, 2, size)
            while True:
                barrier.wait(_PATIENCE_S)
                if stop:
                    return
                starts[n] = time.perf_counter()
                ctypes.memmove(target, source, size)  # other threads run meanwhile
                ends[n] = time.perf_counter()
        except (OSError, MemoryError, threading.BrokenBarrierError) as e:
            failed.append(e)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed or not passes:
        raise HardwareError(
            "RAM bandwidth cannot be measured: there is not enough memory", "close something first"
        )
    best = min(passes)
    return Bandwidth(
        gb_s=round(2 * size * count / best / 1e9, 1),
        threads=count,
        bytes=2 * size * count,
        passes=len(passes),
    )
