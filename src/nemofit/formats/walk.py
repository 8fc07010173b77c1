"""Walk directories that strangers filled: bounded in depth and count, no loop of links followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

DEPTH = 8
MOST = 20_000
"""Entries that are looked at."""


def files_below(directory: Path, ending: str = "", depth: int = DEPTH) -> Iterator[Path]:
    """Every regular file below a directory whose name has an ending, by name.

    A link to a file counts as that file; a directory is entered once, however many links lead
    there. What cannot be listed is passed over.
    """
    left = MOST
    seen: set[tuple[int, int]] = set()
    waiting = [(directory, 0)]
    while waiting:
        folder, level = waiting.pop()
        try:
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in seen:
                continue
            seen.add((here.st_dev, here.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        below = []
        for entry in entries:
            left -= 1
            if left < 0:
                return
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:
                continue
            if is_folder:
                below.append((folder / entry.name, level + 1))
            elif is_file and entry.name.lower().endswith(ending):
                yield folder / entry.name
        if level < depth:
            waiting += reversed(below)
