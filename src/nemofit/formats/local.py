"""What is already on this disk: every model file of every store, each once.

Sources of the places: :mod:`.places`. A file that lies in two stores, as the same file or as a copy
with the same digest in its name, is one model with two places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from nemofit.catalog.model import ModelSpec, Origin
from nemofit.errors import NemofitError

from .gguf.header import Header
from .gguf.reader import id_of, missing_error, model_of, open_header, shard_names, shown
from .hub_cache import cached_files, repositories
from .hub_files import is_checkpoint, launch_tag
from .ollama import entries, layers_of
from .places import Places
from .walk import files_below

MOST = 2000
"""Models that are read."""
_DIGEST = re.compile(r"(?:sha256-)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a model lies.

    Attributes:
        store: ``ollama``, ``hub``, ``lm-studio``, ``llama.cpp`` or ``directory``.
        path: Its file; of a set the first; of a checkpoint its directory.
        ref: What nemofit takes as the model there.
    """

    store: str
    path: str
    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """One model on this disk.

    Attributes:
        id: Its name.
        kind: ``model``, ``projector``, ``adapter``, another ``general.type``, or ``checkpoint``.
        architecture, parameters, file_type: None where they could not be read.
        bytes: Of all its files, once.
        files: How many there are.
        copies: How many of its places have bytes of their own.
        places: In the order that they are searched.
        error: Why it cannot be run, None: it can.
    """

    id: str
    kind: str
    architecture: str | None
    parameters: int | None
    file_type: str | None
    bytes: int
    files: int
    copies: int
    places: tuple[Place, ...]
    error: str | None = None


@dataclass(slots=True)
class _Found:
    """Files that a store has, before they are read."""

    place: Place
    name: str
    files: list[Path]
    error: NemofitError | None = None
    inode: tuple[int, int] | None = None
    digest: str | None = None
    same: list[_Found] = field(default_factory=list)


def local_models(places: Places) -> tuple[list[LocalModel], list[str]]:
    """List the models of all stores on a machine.

    Returns:
        The models by name, and notes on what could not be looked at. A broken file is a model with
        its ``error``.
    """
    notes: list[str] = []
    groups = _merged(_found(places, notes))
    if len(groups) > MOST:
        notes.append(f"only the first {MOST} of {len(groups)} models are shown")
    models = [_read(group) for group in groups[:MOST]]
    models += _checkpoints(places)
    return sorted(models, key=lambda m: (m.kind != "model", m.id.lower())), notes


def _found(places: Places, notes: list[str]) -> Iterator[_Found]:
    yield from _in_ollama(places, notes)
    for cache in places.hub_caches():
        for repository, snapshot in repositories(cache):
            yield from _in_repository(repository, snapshot)
    for folder in places.lm_studio():
        yield from _in_folder("lm-studio", files_below(folder, ".gguf"))
    yield from _in_folder("llama.cpp", files_below(places.llama_cache(), ".gguf", 0))
    yield from _in_folder("directory", files_below(places.current, ".gguf", 0))


def _in_ollama(places: Places, notes: list[str]) -> Iterator[_Found]:
    unreadable: list[str] = []
    for store in places.ollama():
        for entry in entries(store, unreadable):
            ref = f"ollama:{entry.name}"
            try:
                layers = layers_of(entry)
            except NemofitError as error:
                place = Place(store="ollama", path=str(entry.path), ref=ref)
                yield _Found(place, str(entry.name), [], error)
                continue
            for layer in layers:
                if layer.kind in ("model", "projector", "adapter"):
                    place = Place(store="ollama", path=str(layer.path), ref=ref)
                    yield _identified(_Found(place, str(entry.name), [layer.path]))
    notes += [f"cannot read {text}" for text in unreadable]


def _in_repository(repository: str, snapshot: Path) -> Iterator[_Found]:
    paths = [path for path in files_below(snapshot) if path.name.lower().endswith(".gguf")]
    names = [path.relative_to(snapshot).as_posix() for path in paths]
    for found in _in_folder("hub", paths):
        name = Path(found.place.path).relative_to(snapshot).as_posix()
        ref = f"hf:{repository}:{launch_tag(name, names) or name}"
        yield replace(found, place=replace(found.place, ref=ref))


def _in_folder(store: str, paths: Iterable[Path]) -> Iterator[_Found]:
    """One for each file or set; a set that lacks files is broken."""
    sets: dict[Path, list[Path]] = {}
    for path in paths:
        sets.setdefault(path.with_name(_names(path.name)[0]), []).append(path)
    for first, files in sets.items():
        there, names = {path.name for path in files}, _names(first.name)
        missing = [name for name in names if name not in there]
        where = f"download them into {str(first.parent)!r}"
        place = Place(store=store, path=str(files[0]), ref=str(files[0]))
        error = missing_error(missing, len(names), where) if missing else None
        yield _identified(_Found(place, first.name, sorted(files), error))


def _names(name: str) -> list[str]:
    """The files of a set; one with an impossible number of them stands alone."""
    try:
        return shard_names(name)
    except NemofitError:
        return [name]


def _identified(found: _Found) -> _Found:
    """With what tells whether another store has the very same file."""
    try:
        real = found.files[0].resolve(strict=True)
        status = os.stat(real)
    except (OSError, RuntimeError):
        return found
    digest = _DIGEST.fullmatch(real.name)
    found.inode = status.st_dev, status.st_ino
    found.digest = digest.group(1) if digest else None
    return found


def _merged(all_found: Iterable[_Found]) -> list[_Found]:
    by_key: dict[object, _Found] = {}
    groups = []
    for found in all_found:
        keys = [key for key in (found.inode, found.digest) if key is not None]
        first = next((by_key[key] for key in keys if key in by_key), None)
        if first is None:
            groups.append(found)
        else:
            first.same.append(found)
        for key in keys:
            by_key.setdefault(key, first or found)
    return groups


def _read(found: _Found) -> LocalModel:
    everywhere = [found, *found.same]
    inodes = {other.inode for other in everywhere}
    model = LocalModel(
        id=shown(id_of(found.name)),
        kind="model",
        architecture=None,
        parameters=None,
        file_type=None,
        bytes=sum(map(_size, found.files)),
        files=len(found.files),
        copies=len(inodes),
        places=tuple(dict.fromkeys(other.place for other in everywhere)),
        error=found.error.message if found.error else None,
    )
    if found.error is not None:
        return model
    try:
        headers = [open_header(path) for path in found.files]
        kind = _kind(headers[0])
        if kind != "model":
            return replace(model, kind=kind)
        spec = model_of([shown(path.name) for path in found.files], headers, Origin())
    except NemofitError as error:
        return replace(model, error=error.message)
    return replace(
        model,
        architecture=spec.architecture,
        parameters=spec.parameters,
        file_type=spec.file_type,
    )


def _kind(header: Header) -> str:
    kind = header.values.get("general.type", "model")
    if header.values.get("general.architecture") == "clip" or kind == "mmproj":
        return "projector"
    return kind if isinstance(kind, str) and kind.isprintable() else "model"


def _checkpoints(places: Places) -> Iterator[LocalModel]:
    """Repositories of the hub's cache that hold safetensors files."""
    offline = replace(places, environ={**places.environ, "HF_HUB_OFFLINE": "1"})
    for cache in places.hub_caches():
        for repository, snapshot in repositories(cache):
            files = cached_files(repository, places)
            if not is_checkpoint(files):
                continue
            ref = f"hf:{repository}"
            spec, error = _checkpoint(ref, offline)
            stored = [file for path, file in files.items() if path.endswith(".safetensors")]
            yield LocalModel(
                id=repository.rpartition("/")[2],
                kind="checkpoint",
                architecture=spec.architecture if spec else None,
                parameters=spec.parameters if spec else None,
                file_type=None,
                bytes=sum(map(_size, stored)),
                files=len(stored),
                copies=1,
                places=(Place(store="hub", path=str(snapshot), ref=ref),),
                error=error,
            )


def _checkpoint(ref: str, places: Places) -> tuple[ModelSpec | None, str | None]:
    from .load import load

    try:
        return load(ref, places), None
    except NemofitError as error:
        return None, error.message


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
