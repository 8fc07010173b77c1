"""The files of a checkpoint: which of a directory's files belong to it, and how they are opened.

What a checkpoint needs of the place where it lies is :class:`Folder`, so that a repository that is
read over the network is one too.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from nemofit.errors import DataError
from nemofit.formats.gguf.reader import shown
from nemofit.formats.hub_cache import current_snapshot
from nemofit.formats.ranged import LocalFile, Ranged
from nemofit.units import MIB

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_FILES = 1024
_MAX_CONFIG = 8 * MIB
_MAX_INDEX = 128 * MIB
_MAX_LISTED = 1 << 20

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_WEIGHT_MAP = re.compile(rb'"weight_map"\s*:\s*\{\s*')
_PLACE = re.compile(rb'\s*"(?:[^"\\]|\\.){0,2048}"\s*:\s*"([^"\\\x00-\x1f]{1,512})"\s*(,|\})', re.S)


class Folder(Protocol):
    """A place that holds a checkpoint.

    Attributes:
        name: What messages call it.
    """

    name: str

    def files(self) -> Collection[str]:
        """Names of the files in it, relative to it."""

    def open(self, file: str) -> AbstractContextManager[Ranged]:
        """Open one of them.

        Raises:
            DataError: It cannot be read.
        """


class LocalFolder:
    """A directory on this machine.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = shown(path.name or str(path))

    def files(self) -> Collection[str]:
        try:
            return frozenset(os.listdir(self.path))
        except (OSError, ValueError) as error:
            raise _unreadable(self.path, error) from error

    @contextmanager
    def open(self, file: str) -> Iterator[Ranged]:
        path = self.path / file
        try:
            # A pipe would wait for a writer: looked at before it is opened.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise DataError(f"{str(path)!r:.200} is no file", "name a checkpoint's directory")
            with open(path, "rb") as stream:
                yield LocalFile(stream)
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise _unreadable(path, error) from error


def snapshot(path: Path) -> Path:
    """The directory with the files, where ``path`` is a model of the Hugging Face cache."""
    revisions = path / "snapshots"
    if not revisions.is_dir() or (path / CONFIG).exists():
        return path
    current = current_snapshot(path)
    found = [current] if current else [p for p in revisions.iterdir() if p.is_dir()]
    if len(found) != 1:
        raise DataError(
            f"{shown(path.name)} holds {len(found)} snapshots", "name one of its snapshots/"
        )
    return found[0]


def model_id(path: Path) -> str:
    """What a checkpoint in that directory is called."""
    for parent in (path, *path.parents):
        if parent.name.startswith("models--"):
            return parent.name.rpartition("--")[2]
    return path.resolve().name


def read_json(folder: Folder, file: str) -> dict[str, Any]:
    """Read a small JSON file of a checkpoint.

    Raises:
        DataError: No such file, too large, or no JSON object.
    """
    where = f"{folder.name}/{file}"
    with folder.open(file) as source:
        data = source.read(0, min(source.size, _MAX_CONFIG + 1))
    if len(data) > _MAX_CONFIG:
        raise DataError(f"{where} has more than {_MAX_CONFIG} bytes", "check the file")
    try:
        value = json.loads(data.decode(), parse_int=_whole)
    except (ValueError, RecursionError) as error:
        what = str(error)[:120] or "nested too deeply"
        raise DataError(f"{where} is no JSON: {what}", "download the file again") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} holds {value!r:.40}, not an object", "download the file again")
    return value


def weight_files(folder: Folder) -> tuple[str, ...]:
    """The safetensors files of the checkpoint in a folder, in order.

    One file, else those that the index names, else all that are there, as the libraries look for
    them: huggingface/transformers, ``src/transformers/modeling_utils.py``
    (_get_resolved_checkpoint_files).

    Raises:
        DataError: There are none, some are missing, or the index points out of the folder.
    """
    present = folder.files()
    if SINGLE in present:
        return (SINGLE,)
    if INDEX in present:
        return _complete(folder, present, read_index(folder, INDEX), INDEX)
    found = sorted(f for f in present if f.endswith(".safetensors") and "adapter" not in f)
    named = [f for f in found if f.startswith("model")]
    found = named or found
    if not found:
        other = any(f.endswith((".bin", ".pt", ".pth", ".ckpt")) for f in present)
        raise DataError(
            f"{folder.name} holds no .safetensors file"
            + (", only pickled weights, which are never opened" if other else ""),
            "convert the weights to safetensors first" if other else "finish the download",
        )
    parts = [m for f in found if (m := _SHARD.fullmatch(f))]
    if not parts:
        return tuple(found)
    stem, _, count = parts[0].groups()
    if int(count) > MAX_FILES:
        raise DataError(f"{parts[0].group()} claims to be one of {int(count)} files", "rename it")
    whole = [f"{stem}-{i:05d}-of-{count}.safetensors" for i in range(1, int(count) + 1)]
    return _complete(folder, present, whole, "the number in their names")


def read_index(folder: Folder, file: str) -> list[str]:
    """The files that an index names, in order.

    Raises:
        DataError: Not such an index, or a file outside the folder.
    """
    where = f"{folder.name}/{file}"
    with folder.open(file) as source:
        data = source.read(0, min(source.size, _MAX_INDEX + 1))
    start = _WEIGHT_MAP.search(data)
    if len(data) > _MAX_INDEX or start is None:
        what = "is too large" if start else "has no weight_map"
        raise DataError(f"{where} {what}", "download the index again")
    files: dict[str, None] = {}
    at = start.end()
    for _ in range(_MAX_LISTED):
        pair = _PLACE.match(data, at)
        if pair is None:
            raise DataError(
                f"{where} is damaged at byte {at}, in its weight_map", "download the index again"
            )
        files[_inside(where, pair.group(1))] = None
        if len(files) > MAX_FILES:
            raise DataError(f"{where} names more than {MAX_FILES} files", "check the index")
        at = pair.end()
        if pair.group(2) == b"}":
            return sorted(files)
    raise DataError(f"{where} lists more than {_MAX_LISTED} tensors", "check the index")


def _inside(where: str, name: bytes) -> str:
    """A file's name, if it stays in the folder."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise DataError(f"{where} names a file that is not UTF-8", "check the index") from None
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or ":" in text:
        raise DataError(
            f"{where} names {shown(text)!r}, a file outside of the directory",
            "do not load this checkpoint: its index points elsewhere",
        )
    return text


def _complete(
    folder: Folder, present: Collection[str], wanted: list[str], by: str
) -> tuple[str, ...]:
    missing = [f for f in wanted if f not in present and not _nested(folder, f)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"{folder.name} lacks {len(missing)} of the {len(wanted)} files that {by} names:"
            f" {', '.join(map(shown, missing[:3]))}{more}",
            "finish the download",
        )
    return tuple(wanted)


def _nested(folder: Folder, file: str) -> bool:
    """Whether a file of a subdirectory is there."""
    return isinstance(folder, LocalFolder) and "/" in file and (folder.path / file).is_file()


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(f"cannot read {str(path)!r:.200}: {reason}", "check the path")


def _whole(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number of more than 20 digits")
    return int(digits)
