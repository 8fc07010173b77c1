"""Ollama's store on this disk: names, manifests, layers; no server is asked.

A name is a file below ``manifests-v2`` or, of older releases, ``manifests``:
``HOST/NAMESPACE/MODEL/TAG``. The file lists layers, each a blob named by its digest. Source:
ollama/ollama, ``manifest/paths.go``, ``manifest/manifest.go``, ``types/model/name.go``,
``server/images.go``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemofit.catalog.model import Companion, ModelSpec, Origin, Value
from nemofit.catalog.names import near_misses
from nemofit.errors import DataError, HardwareError, UnknownNameError, UsageError

from .gguf.reader import model_of, open_header, shown
from .places import Places

_LAYER = "application/vnd.ollama.image."
_LIST = "application/vnd.ollama.manifest.list.v2+json"
_RUNNERS = ("ollama", "llamacpp")  # of a manifest list, those that load GGUF files
_ROOTS = ("manifests-v2", "manifests")
_PUBLIC = ("registry.ollama.ai", "ollama.com")
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_MAX_MANIFEST = 4 << 20  # bytes
_MAX_PARAMETERS = 1 << 16  # bytes
_MAX_NAMES = 4096


@dataclass(frozen=True, slots=True)
class Name:
    """A model's name with its usual parts filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        """As Ollama itself shows it: what is usual is left out."""
        name = f"{self.model}:{self.tag}"
        if self.host.lower() not in _PUBLIC:
            return f"{self.host}/{self.namespace}/{name}"
        return name if self.namespace == "library" else f"{self.namespace}/{name}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One manifest of a store."""

    name: Name
    path: Path
    store: Path


def parse_name(text: str) -> Name:
    """Read ``[HOST/][NAMESPACE/]MODEL[:TAG]``.

    Raises:
        UsageError: Not such a name.
    """
    rest, colon, tag = text.strip().rpartition(":")
    if not colon or "/" in tag:
        rest, tag = text.strip(), "latest"
    *front, model = rest.split("/")
    parts = [*front[-1:], model, tag]
    host = _HOST.fullmatch(front[0]) if len(front) == 2 else len(front) < 2
    if not host or ".." in text or not all(_PART.fullmatch(part) for part in parts):
        raise UsageError(
            f"{text!r:.200} is not an Ollama name", "write for example ollama:llama3.1:8b"
        )
    return Name(
        front[0] if len(front) == 2 else _PUBLIC[0],
        front[-1] if front else "library",
        model,
        tag,
    )


def read_ollama(text: str, places: Places) -> ModelSpec:
    """Read a model from the local store.

    Args:
        text: What ``ollama run`` takes, without ``ollama:``.
        places: The machine whose stores are searched.

    Raises:
        UsageError: Not a name.
        UnknownNameError: No store has it, and all could be read.
        HardwareError: No store has it, but one could not be read.
        DataError: Its manifest or its file is broken, or holds no GGUF model.
    """
    return model_in(find(parse_name(text), places))


def find(name: Name, places: Places) -> Entry:
    """Look a name up in all stores; errors as of :func:`read_ollama`."""
    unreadable: list[str] = []
    known: dict[str, Entry] = {}
    for store in places.ollama():
        for entry in entries(store, unreadable):
            known.setdefault(str(entry.name).lower(), entry)
    found = known.get(str(name).lower())
    if found is not None:
        return found
    if unreadable:
        raise HardwareError(
            f"ollama:{name} is in no store that can be read; cannot read {', '.join(unreadable)}",
            "join the group of that directory, or name a readable copy with OLLAMA_MODELS",
        )
    near = near_misses(str(name), {f"ollama:{e.name}": (str(e.name),) for e in known.values()})
    raise UnknownNameError(
        "Ollama model",
        str(name),
        near,
        hint=f"ollama pull {name}" if known else "no model is in Ollama's store: ollama pull it",
    )


def is_in_store(store: Path, text: str) -> bool:
    """Whether a store has a model: its manifest is written when all of it is there."""
    try:
        name = parse_name(text)
    except UsageError:
        return False
    parts = (name.host.replace(":", "%3A"), name.namespace, name.model, name.tag)
    return any(store.joinpath(root, *parts).is_file() for root in _ROOTS)


def entries(store: Path, unreadable: list[str]) -> Iterator[Entry]:
    """Every manifest of a store, today's layout before the older one.

    Args:
        store: A directory with ``manifests-v2`` or ``manifests``, or one that is not there.
        unreadable: Takes the directories that could not be listed, with the reason.
    """
    seen: set[str] = set()
    for root in _ROOTS:
        for path in _below(store / root, 4, unreadable):
            host, namespace, model, tag = path.relative_to(store / root).parts
            name = Name(host.replace("%3A", ":"), namespace, model, tag)
            if str(name) not in seen and len(seen) < _MAX_NAMES:
                seen.add(str(name))
                yield Entry(name, path, store)


def _below(directory: Path, depth: int, unreadable: list[str]) -> Iterator[Path]:
    """What lies exactly ``depth`` levels below a directory; what begins with a dot does not."""
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        unreadable.append(f"{shown(str(directory))} ({error.strerror})")
        return
    for name in names:
        if depth == 1:
            yield directory / name
        else:
            yield from _below(directory / name, depth - 1, unreadable)


def model_in(entry: Entry) -> ModelSpec:
    """The model of a manifest.

    Raises:
        DataError: The manifest or its file is broken, leads out of the store, or holds no GGUF.
    """
    layers = layers_of(entry)
    models = [layer for layer in layers if layer.kind == "model"]
    if not models:
        what = "its weights are not GGUF" if layers else "it runs on Ollama's servers"
        raise DataError(
            f"ollama:{entry.name} has no model file on this disk: {what}",
            "pull another tag, or name a .gguf file",
        )
    path = models[0].path
    origin = Origin(
        path=str(path),
        ollama=str(entry.name),
        parameters=_parameters(layers),
        beside=tuple(
            Companion(name=c.path.name, ref=str(c.path), bytes=c.bytes, kind=c.kind)
            for c in layers
            if c.kind in ("projector", "adapter")
        ),
    )
    own = str(entry.name).removesuffix(":latest")
    spec = model_of([f"ollama:{entry.name}"], [open_header(path)], origin, f"ollama:{entry.name}")
    return replace(spec, id=re.sub(r"[/:]", "-", own))


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of a manifest; ``kind`` is the end of its media type: ``model``, ``params``, ..."""

    kind: str
    path: Path
    bytes: int | None


def layers_of(entry: Entry) -> list[Layer]:
    """The layers of a manifest whose media type is Ollama's.

    Raises:
        DataError: The manifest is broken or leads out of the store.
    """
    manifest = _manifest(entry, _inside(entry.path, entry.store, entry))
    if manifest.get("mediaType") == _LIST:
        manifest = _runnable(entry, manifest)
    found = []
    for layer in _records(manifest.get("layers")):
        kind, size = layer.get("mediaType"), layer.get("size")
        if isinstance(kind, str) and kind.startswith(_LAYER):
            path = _blob(entry, layer.get("digest"))
            known = size if isinstance(size, int) and size >= 0 else None
            found.append(Layer(kind.removeprefix(_LAYER).partition(";")[0], path, known))
    return found


def _runnable(entry: Entry, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a list for several runners, the manifest of one that loads GGUF files."""
    children = {str(c.get("runner", "")).lower(): c for c in _records(manifest.get("manifests"))}
    child = next((children[name] for name in _RUNNERS if name in children), None)
    if child is None:
        raise DataError(
            f"ollama:{entry.name} has only weights for {', '.join(sorted(children)) or 'nothing'}",
            "pull another tag, or name a .gguf file",
        )
    if "layers" not in child:
        return _manifest(entry, _blob(entry, child.get("digest")))
    return child


def _manifest(entry: Entry, path: Path) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_MANIFEST + 1)
        found = json.loads(data) if len(data) <= _MAX_MANIFEST else None
    except OSError as error:
        raise _broken(entry, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _broken(entry, "is not JSON of a manifest")
    return found


def _records(value: object) -> list[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _blob(entry: Entry, digest: object) -> Path:
    """The file of a digest, inside the store's ``blobs``."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise _broken(entry, f"has the digest {ascii(digest)[:80]}, which is none")
    blobs = entry.store / "blobs"
    path = blobs / digest.replace(":", "-")
    if not path.exists():
        raise DataError(
            f"ollama:{entry.name} lacks {path.name[:19]}... in {shown(str(blobs))}",
            f"ollama pull {entry.name}",
        )
    return _inside(path, blobs, entry)


def _inside(path: Path, directory: Path, entry: Entry) -> Path:
    """Refuse a link that leads out of the directory."""
    try:
        real = path.resolve(strict=True)
        inside = real.is_relative_to(directory.resolve(strict=True))
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "a loop of links"
        raise _broken(entry, f"cannot be read: {reason}") from error
    if not inside:
        raise _broken(entry, f"leads out of {shown(str(directory))}")
    return path


def _broken(entry: Entry, what: str) -> DataError:
    return DataError(
        f"the manifest of ollama:{entry.name} ({shown(str(entry.path))}) {what}",
        f"ollama rm {entry.name}, then ollama pull {entry.name}",
    )


def _parameters(layers: list[Layer]) -> dict[str, Value]:
    """What the entry sets for every run; a broken layer sets nothing."""
    out: dict[str, Value] = {}
    for layer in layers:
        if layer.kind != "params":
            continue
        try:
            with open(layer.path, "rb") as file:
                found = json.loads(file.read(_MAX_PARAMETERS))
        except (OSError, ValueError, RecursionError):
            continue
        for key, value in found.items() if isinstance(found, dict) else ():
            if isinstance(value, (bool, int, float, str)):
                out[str(key)] = value
            elif isinstance(value, list) and all(isinstance(v, (int, float, str)) for v in value):
                out[str(key)] = tuple(value)
    return out
