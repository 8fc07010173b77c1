"""What lies already in a directory that engines download to from the Hugging Face hub.

The layout is huggingface_hub's, which llama.cpp shares: ``models--OWNER--NAME/snapshots/COMMIT/``
has the files that are whole, ``blobs/`` what is still coming (huggingface_hub, constants.py and
file_download.py; ggml-org/llama.cpp, common/hf-cache.cpp and common/download.cpp).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_PARTIAL = (".incomplete", ".downloadInProgress")
_MOST = 10_000
"""Files that are looked at: far more than any repository has."""


class Present(NamedTuple):
    """Bytes of a repository's files: those that are whole, and those that are not."""

    whole: int
    partial: int


def present(directory: Path, repository: str, wanted: Callable[[str], bool]) -> Present:
    """How much of a repository is there; nothing where it cannot be read.

    Args:
        directory: Of the cache.
        repository: ``owner/name``.
        wanted: Says of a file's name whether it counts.
    """
    root = directory / ("models--" + repository.replace("/", "--"))
    files: dict[str, int] = {}
    for path in _files(root / "snapshots"):
        if wanted(path.name):
            size = _size(path)
            if size is not None:
                files[path.name] = max(size, files.get(path.name, 0))
    parts = (_size(p) or 0 for p in _files(root / "blobs") if p.name.endswith(_PARTIAL))
    return Present(sum(files.values()), sum(parts))


def _files(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, _, names in os.walk(root):
        found += [Path(folder) / name for name in names]
        if len(found) > _MOST:
            break
    return found[:_MOST]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
