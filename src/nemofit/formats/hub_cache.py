"""The cache of the hub on this disk, read without network and without huggingface_hub.

``models--OWNER--NAME/refs/main`` names a commit, ``snapshots/COMMIT/`` holds its files, most of
them links into ``blobs/``. llama.cpp keeps its downloads in the same layout. Sources:
huggingface/huggingface_hub, ``docs/source/en/guides/manage-cache.md``; ggml-org/llama.cpp,
``common/hf-cache.cpp``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .places import Places
from .walk import files_below

_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_PREFIX = "models--"


def cached_files(repository: str, places: Places) -> dict[str, Path]:
    """The files of a repository that are on this disk, by their path in it."""
    folder = _PREFIX + repository.replace("/", "--")
    for cache in places.hub_caches():
        snapshot = current_snapshot(cache / folder)
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


def _files(snapshot: Path) -> Iterator[tuple[str, Path]]:
    for path in files_below(snapshot):
        yield path.relative_to(snapshot).as_posix(), path
