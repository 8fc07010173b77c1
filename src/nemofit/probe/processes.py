"""Processes of engines: which run, how they were started, and what memory they hold."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_FIELDS = re.compile(r"^(RssAnon|RssFile|RssShmem|Pss_File):\s+(\d+) kB$", re.MULTILINE)
_MOST_ARGUMENTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process: what it is called, its command line, and its parent's name."""

    pid: int
    name: str
    command: tuple[str, ...]
    parent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Bytes of a process and its children in the host's memory.

    Attributes:
        resident: All of it, mapped pages of files included.
        allocated: What cannot be given back: anonymous and shared memory. None: not known.
        mapped: Pages of files, which the system drops when it needs room: the weights of a model
            that is mapped. A page that several processes have counts once. None: not known.
    """

    resident: int
    allocated: int | None = None
    mapped: int | None = None


def running(names: Sequence[str]) -> tuple[Running, ...]:
    """Processes of these programs that this user may look at, oldest first."""
    import psutil

    found = []
    for process in psutil.process_iter(["pid", "name", "cmdline", "create_time"]):
        known = process.info
        name = (known["name"] or "").removesuffix(".exe")
        if name not in names or not known["cmdline"]:
            continue
        try:
            above = process.parent()
            parent = above.name().removesuffix(".exe") if above else None
        except psutil.Error:
            parent = None
        one = Running(
            pid=known["pid"],
            name=name,
            command=tuple(known["cmdline"][:_MOST_ARGUMENTS]),
            parent=parent,
        )
        found.append((known["create_time"] or 0.0, one))
    return tuple(process for _, process in sorted(found, key=lambda pair: pair[0]))


def memory_of(pid: int) -> ProcessMemory | None:
    """What a process and everything that it started hold now; None: it has ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.Error:
        return None
    resident = 0
    kinds = {"allocated": 0, "mapped": 0}
    told = True
    for member in family:
        try:
            resident += member.memory_info().rss
        except psutil.Error:
            continue
        parts = _parts(member.pid)
        told = told and bool(parts)
        kinds["allocated"] += parts.get("RssAnon", 0) + parts.get("RssShmem", 0)
        kinds["mapped"] += parts.get("Pss_File", parts.get("RssFile", 0))
    if not told:
        return ProcessMemory(resident=resident)
    return ProcessMemory(resident=resident, **kinds)


def family_of(pid: int) -> frozenset[int]:
    """A process and everything that it started."""
    import psutil

    try:
        return frozenset((pid, *(c.pid for c in psutil.Process(pid).children(recursive=True))))
    except psutil.Error:
        return frozenset((pid,))


def log_of(pid: int) -> str | None:
    """The file that a process of this machine writes its output into; None: none, or not known."""
    for descriptor in (2, 1):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if stat.S_ISREG(os.stat(path).st_mode):
                return path
        except OSError:
            continue
    return None


def _parts(pid: int) -> dict[str, int]:
    """Linux's own account; empty elsewhere and where it may not be read."""
    return {name: 1024 * int(kib) for text in _accounts(pid) for name, kib in _FIELDS.findall(text)}


def _accounts(pid: int) -> Iterator[Any]:
    for name in ("status", "smaps_rollup"):
        try:
            with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
                yield file.read(1 << 16)
        except OSError:
            continue
