"""The cache of the hub on this disk, read without network and without huggingface_hub.

``models--OWNER--NAME/refs/main`` names a commit, ``snapshots/COMMIT/`` holds its files, most of
them links into ``blobs/``, where what is still coming lies too. llama.cpp keeps its downloads in
the same layout. Sources: huggingface/huggingface_hub, ``docs/source/en/guides/manage-cache.md``,
``src/huggingface_hub/file_download.py``; ggml-org/llama.cpp, ``common/hf-cache.cpp``,
``common/download.cpp``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .places import Places
from .walk import files_below

_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_PREFIX = "models--"
_PARTIAL = (".incomplete", ".downloadInProgress")


class Present(NamedTuple):
    """Bytes of a repository's files: those that are whole, and those that are not."""

    whole: int
    partial: int


def present(cache: Path, repository: str, wanted: Callable[[str], bool]) -> Present:
    """How much of a repository a cache has, of any commit; nothing where it cannot be read.

    Args:
        cache: Its directory.
        repository: ``owner/name``.
        wanted: Says of a file's name whether it counts.
    """
    folder = cache / _folder(repository)
    whole: dict[str, int] = {}
    for path in files_below(folder / "snapshots"):
        if wanted(path.name):
            whole[path.name] = max(_size(path), whole.get(path.name, 0))
    begun = (p for p in files_below(folder / "blobs") if p.name.endswith(_PARTIAL))
    return Present(sum(whole.values()), sum(map(_size, begun)))


def cached_files(repository: str, places: Places) -> dict[str, Path]:
    """The files of a repository that are on this disk, by their path in it."""
    for cache in places.hub_caches():
        snapshot = current_snapshot(cache / _folder(repository))
        if snapshot is not None:
            return dict(_files(snapshot))
    return {}


def repositories(cache: Path) -> Iterator[tuple[str, Path]]:
    """Every model repository of a cache with the directory of its newest files."""
    try:
        names = sorted(os.listdir(cache))
    except OSError:
        return
    for name in names:
        snapshot = current_snapshot(cache / name) if name.startswith(_PREFIX) else None
        if snapshot is not None:
            yield name.removeprefix(_PREFIX).replace("--", "/"), snapshot


def current_snapshot(folder: Path) -> Path | None:
    """The directory of the commit that ``main`` stands for, else of any other reference."""
    try:
        names = sorted(os.listdir(folder / "refs"), key=lambda name: name != "main")
    except OSError:
        return None
    for name in names:
        try:
            with open(folder / "refs" / name, "rb") as file:
                commit = file.read(64).decode("ascii", "replace").strip()
        except OSError:
            continue
        snapshot = folder / "snapshots" / commit
        if _COMMIT.fullmatch(commit) and snapshot.is_dir():
            return snapshot
    return None


def _folder(repository: str) -> str:
    return _PREFIX + repository.replace("/", "--")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _files(snapshot: Path) -> Iterator[tuple[str, Path]]:
    for path in files_below(snapshot):
        yield path.relative_to(snapshot).as_posix(), path
