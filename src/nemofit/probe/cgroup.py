"""What control groups leave of the machine: the tightest limit of the own group and its ancestors.

Version 1 and 2, and hosts that mount both. Rules: Documentation/admin-guide/cgroup-v2.rst and
cgroup-v1/memory.rst of the Linux kernel. Reclaimable page cache (``inactive_file``) is given back,
as Kubernetes counts a working set.
"""

from __future__ import annotations

from dataclasses import dataclass

from .site import Site, whole

_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A limit in bytes, what it leaves now, and the group that sets it."""

    limit_bytes: int
    room_bytes: int
    group: str


def memory_limit(site: Site) -> tuple[MemoryLimit | None, int | None]:
    """The group that leaves least, and the least limit of all in bytes; (None, None): no limit."""
    found = _hierarchy(site, "memory")
    if found is None:
        return None, None
    version, folders = found
    read = _memory_v1 if version == 1 else _memory_v2
    limits = [m for level, folder in enumerate(folders) if (m := read(site, folder, level))]
    if not limits:
        return None, None
    return min(limits, key=lambda m: m.room_bytes), min(m.limit_bytes for m in limits)


def cpu_quota(site: Site) -> float | None:
    """Cores' worth of time that the tightest group allows, None: no quota."""
    found = _hierarchy(site, "cpu")
    if found is None:
        return None
    quotas = []
    version, folders = found
    for folder in folders:
        if version == 1:
            quota = site.number(f"{folder}/cpu.cfs_quota_us")
            period = site.number(f"{folder}/cpu.cfs_period_us")
        else:
            words = (site.text(f"{folder}/cpu.max") or "").split()
            quota, period = (whole(words[0]), whole(words[1])) if len(words) == 2 else (None, None)
        if quota and period and quota > 0 and period > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def _memory_v2(site: Site, folder: str, level: int) -> MemoryLimit | None:
    del level
    limits = [site.number(f"{folder}/{name}") for name in ("memory.max", "memory.high")]
    limit = min((n for n in limits if n is not None), default=_UNLIMITED)
    used = site.number(f"{folder}/memory.current")
    return _leaves(folder, limit, used, _stat(site, folder).get("inactive_file"))


def _memory_v1(site: Site, folder: str, level: int) -> MemoryLimit | None:
    if level and site.number(f"{folder}/memory.use_hierarchy") == 0:
        return None
    limit = site.number(f"{folder}/memory.limit_in_bytes")
    stat = _stat(site, folder)
    cache = stat.get("total_inactive_file", stat.get("inactive_file"))
    used = site.number(f"{folder}/memory.usage_in_bytes")
    return _leaves(folder, _UNLIMITED if limit is None else limit, used, cache)


def _leaves(folder: str, limit: int, used: int | None, cache: int | None) -> MemoryLimit | None:
    if not 0 <= limit < _UNLIMITED:
        return None
    working_set = max(0, (used or 0) - (cache or 0))
    return MemoryLimit(limit, max(0, limit - working_set), folder)


def _stat(site: Site, folder: str) -> dict[str, int]:
    pairs = (line.split() for line in (site.text(f"{folder}/memory.stat") or "").splitlines())
    return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].isdigit()}


def _hierarchy(site: Site, controller: str) -> tuple[int, tuple[str, ...]] | None:
    """Version, and the folders of the own group from itself up to the top of its mount."""
    paths: dict[str, str] = {}
    for line in (site.text("/proc/self/cgroup") or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            for name in fields[1].split(","):
                paths[name] = fields[2]
    version = 1 if controller in paths else 2
    path = paths.get(controller, paths.get(""))
    if path is None:
        return None
    for line in (site.text("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        holds = kind[0] == "cgroup2" if version == 2 else controller in kind[2].split(",")
        if holds and kind[0].startswith("cgroup"):
            return version, _upwards(_unescape(fields[4]), _unescape(fields[3]), path)
    return None


def _upwards(mount: str, top: str, path: str) -> tuple[str, ...]:
    """Folders from ``path`` up to ``mount``, whose own group is ``top``.

    A container may see its host's path, or one with ``..``, that is not below its mount; then the
    mount itself is the nearest group that can be read.
    """
    top = top.rstrip("/")
    inside = path[len(top) :] if path == top or path.startswith(top + "/") else ""
    steps = [s for s in inside.split("/") if s]
    if ".." in steps:
        steps = []
    return tuple("/".join([mount.rstrip("/"), *steps[:n]]) for n in range(len(steps), -1, -1))


def _unescape(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
