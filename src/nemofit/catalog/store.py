"""The facts in ``data/``: found, read once, kept compiled, overridden by a person's own.

    from nemofit.catalog import store

    store.gpus()["nvidia-geforce-rtx-3090"]["bandwidth_gb_s"]

Reading YAML and checking it costs a second and two large imports, so the checked data are kept as
JSON beside a digest of what they were made from: in the wheel (written by ``hatch_build.py``) and,
for a source tree and for personal files, in the cache directory. A digest that differs means that
the file is read again, so a compiled form is never stale.

Nothing here reads the environment: the command line works out the two directories with
:func:`default_personal_directory` and :func:`default_cache_directory` and hands them over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Final, TypeVar

from ..errors import DataError

Entries = Mapping[str, Mapping[str, object]]
T = TypeVar("T")

KINDS: Final = ("models", "quants", "gpus")
FORMAT: Final = 1
"""Raised when the compiled form changes its shape."""

_personal: Path | None = None
_cache: Path | None = None
_loaded: dict[str, Entries] = {}
_derived: dict[tuple[str, object], object] = {}


def models() -> Entries:
    """Model entries by id, shipped and personal."""
    return _entries("models")


def quants() -> Entries:
    """Quantization facts by id, shipped and personal."""
    return _entries("quants")


def gpus() -> Entries:
    """Card entries by id, shipped and personal."""
    return _entries("gpus")


def derived(kind: str, build: Callable[[Entries], T]) -> T:
    """What ``build`` makes of the entries of ``kind``, made once until the next reload."""
    key = kind, build
    if key not in _derived:
        _derived[key] = build(_entries(kind))
    return _derived[key]  # type: ignore[return-value]


def reload() -> None:
    """Forget what was read; the next question reads the files again."""
    _loaded.clear()
    _derived.clear()


def use_personal_catalog(directory: Path | None, *, must_exist: bool = False) -> None:
    """Let ``models.yaml``, ``quants.yaml``, ``gpus.yaml`` there add to and override the shipped.

    An entry with a shipped entry's id replaces that entry as a whole.

    Args:
        directory: None: no personal catalog.
        must_exist: True for a directory that a person named, False for the default one.

    Raises:
        DataError: ``must_exist`` and it is not a directory.
    """
    global _personal
    if directory is not None and must_exist and not _is_directory(directory):
        raise DataError(
            f"catalog directory {str(directory)[:200]!r} does not exist",
            "name a directory that holds models.yaml, quants.yaml or gpus.yaml",
        )
    _personal = directory
    reload()


def use_cache(directory: Path | None) -> None:
    """Keep compiled forms there; None keeps none. Failing to write is harmless."""
    global _cache
    _cache = directory


def default_personal_directory(environ: Mapping[str, str], platform: str, home: Path) -> Path:
    """Where a person's own catalog lies when nothing else is said.

    Args:
        environ: The environment's variables.
        platform: As ``sys.platform``: linux, darwin, win32, ...
        home: The person's home directory.
    """
    if platform == "win32":
        base = _absolute(environ.get("APPDATA"), platform) or home / "AppData" / "Roaming"
    elif platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = _absolute(environ.get("XDG_CONFIG_HOME"), platform) or home / ".config"
    return base / "nemofit"


def default_cache_directory(environ: Mapping[str, str], platform: str, home: Path) -> Path:
    """Where compiled forms are kept when nothing else is said; arguments as above."""
    if platform == "win32":
        local = _absolute(environ.get("LOCALAPPDATA"), platform) or home / "AppData" / "Local"
        return local / "nemofit" / "Cache"
    if platform == "darwin":
        return home / "Library" / "Caches" / "nemofit"
    return (_absolute(environ.get("XDG_CACHE_HOME"), platform) or home / ".cache") / "nemofit"


def data_directory() -> Path:
    """The directory of the shipped YAML: inside an installed package, or the source tree's own."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "_data"
    return packaged if packaged.is_dir() else package.parent.parent / "data"


def compiled(kind: str, raw: bytes, file: str) -> bytes:
    """Read and check one data file and return its compiled form.

    Raises:
        DataError: Names file, line, entry, field and what was expected.
    """
    return _pack(digest(kind, raw), _validated(kind, raw, file))


def digest(kind: str, raw: bytes) -> str:
    """What a compiled form depends on: the data, the rules that check them, and the format."""
    rules = sorted(Path(__file__).parent.glob("*schema*.py"))
    head = f"{FORMAT} {kind}\n".encode()
    return fingerprint(head, *(path.read_bytes() for path in rules), raw, size=16)


def fingerprint(*parts: bytes, size: int = 8) -> str:
    """BLAKE2b of the parts in hexadecimal; ``size`` is in bytes."""
    try:
        from _blake2 import blake2b  # hashlib loads OpenSSL with it, a tenth of a start
    except ImportError:
        from hashlib import blake2b

    h = blake2b(digest_size=size)
    for part in parts:
        h.update(part)
    return h.hexdigest()


def files(kind: str) -> tuple[tuple[Path, Entries], ...]:
    """The files that the entries of ``kind`` come from, a later one counting more."""
    shipped = data_directory()
    found = [(path := shipped / f"{kind}.yaml", _load(kind, path, shipped / f"{kind}.json"))]
    own = _personal / f"{kind}.yaml" if _personal else None
    if own is not None and _is_there(own):
        found.append((own, _load(kind, own, None)))
    return tuple(found)


def _entries(kind: str) -> Entries:
    if kind not in _loaded:
        merged: dict[str, Mapping[str, object]] = {}
        for _, found in files(kind):
            merged.update(found)
        _loaded[kind] = MappingProxyType(merged)
    return _loaded[kind]


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_there(path: Path) -> bool:
    """Whether a file is there; also where one cannot look: reading it then says why."""
    try:
        return path.exists()
    except OSError:
        return True


def _load(kind: str, path: Path, built: Path | None) -> dict[str, Mapping[str, object]]:
    from .yaml_load import read_bytes

    raw = read_bytes(path)
    key = digest(kind, raw)
    kept = _kept_at(kind, path)
    for candidate in (built, kept):
        if candidate is not None and (found := _unpack(candidate, key)) is not None:
            return found
    entries = _validated(kind, raw, str(path))
    if kept is not None:
        _keep(kept, _pack(key, entries))
    return entries  # type: ignore[return-value]


def _validated(kind: str, raw: bytes, file: str) -> dict[str, object]:
    from importlib import import_module

    from .yaml_load import parse

    schema = import_module(f"{__package__}.schema_{kind}")
    found: dict[str, object] = schema.validate(parse(raw, file), file)
    return found


def _pack(key: str, entries: Mapping[str, object]) -> bytes:
    whole = {"digest": key, "entries": entries}
    return json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _unpack(path: Path, key: str) -> dict[str, Mapping[str, object]] | None:
    try:
        whole = json.loads(path.read_bytes())
        if whole["digest"] == key and isinstance(whole["entries"], dict):
            return whole["entries"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _kept_at(kind: str, path: Path) -> Path | None:
    """One file per place, so that edits replace their predecessor instead of piling up."""
    if _cache is None:
        return None
    place = fingerprint(str(path.absolute()).encode(errors="surrogateescape"))
    return _cache / f"{kind}-{place}.json"


def _keep(path: Path, packed: bytes) -> None:
    from os import replace
    from tempfile import NamedTemporaryFile

    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as f:
            part = Path(f.name)
            f.write(packed)
        replace(part, path)
    except OSError:
        if part is not None:
            _discard(part)


def _discard(path: Path) -> None:
    from contextlib import suppress

    with suppress(OSError):
        path.unlink()


def _absolute(value: str | None, platform: str) -> Path | None:
    """A directory from the environment; the XDG rules tell to ignore a relative one."""
    kind: type[PurePath] = PureWindowsPath if platform == "win32" else PurePosixPath
    return Path(value) if value and kind(value).is_absolute() else None
