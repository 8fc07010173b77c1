"""The files beside a model's: in its directory, its repository or its entry in Ollama's store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from nemofit.catalog.model import Companion, ModelSpec

from .gguf.reader import shard_names

_MOST = 4096
"""Files of a directory that are looked at."""


def companions_near(model: ModelSpec) -> tuple[Companion, ...]:
    """List the other GGUF files where ``model`` lies; one for each set of files.

    Nothing is opened: a file's header says whether it is a projector, an adapter or a draft model
    (:func:`nemofit.formats.load.headers_at`), and whether it belongs to this model.

    Returns:
        By name. Empty for a catalog shape, for a plain address, and where the directory cannot be
        listed.
    """
    origin = model.origin
    if origin is None:
        return ()
    if origin.beside or origin.repository or origin.ollama or origin.path is None:
        return origin.beside
    own = Path(origin.path)
    names = set(shard_names(own.name))
    return tuple(c for c in _files(own.parent) if c.name not in names)


def _files(directory: Path) -> list[Companion]:
    found: dict[str, int] = {}
    try:
        with os.scandir(directory) as entries:
            for _, entry in zip(range(_MOST), entries, strict=False):
                if entry.name.lower().endswith(".gguf") and entry.is_file():
                    found[entry.name] = entry.stat().st_size
    except OSError:
        return []
    return companions(found, lambda name: str(directory / name))


def companions(sizes: Mapping[str, int | None], ref: Callable[[str], str]) -> list[Companion]:
    """One record for each file or whole set among ``sizes``, by name.

    Args:
        sizes: Bytes of every GGUF file by name, None where not known.
        ref: What opens a file of that name.
    """
    out = []
    for name in sorted(sizes):
        names = shard_names(name)
        if name != names[0] or any(n not in sizes for n in names):
            continue
        parts = [sizes[n] for n in names]
        known = [n for n in parts if n is not None]
        size = sum(known) if len(known) == len(parts) else None
        out.append(Companion(name=name, ref=ref(name), bytes=size, kind=kind_of(name)))
    return out


def kind_of(name: str) -> str | None:
    """What a file's name gives away: llama.cpp takes every ``mmproj`` for a projector.

    Source: ``common/download.cpp`` of llama.cpp (find_best_mmproj).
    """
    return "projector" if "mmproj" in name.rpartition("/")[2].lower() else None
