"""From what a person names to a model: a catalog name, a file, an address, a repository, a store.

| Form | Read by |
|---|---|
| ``nemotron`` | the catalog |
| ``model.gguf``, any file of a set, or any path of a file | :mod:`.gguf.reader` |
| a directory with ``config.json``, a .safetensors file | :mod:`.safetensors.reader` |
| ``https://...`` | :mod:`.web` |
| ``hf:owner/repo[:quant or file]`` | :mod:`.hub` |
| ``ollama:name[:tag]`` | :mod:`.ollama` |
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nemofit.catalog.model import ModelSpec
from nemofit.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    from .gguf.header import Header
    from .places import Places

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CHECKPOINT_FILES = (".safetensors", ".safetensors.index.json")
_SHOWN = 5


def load_model(ref: str | os.PathLike[str]) -> ModelSpec:
    """Find the model that ``ref`` names.

    Args:
        ref: A catalog name or alias ("nemotron"); the path of a .gguf file, any of a split set; an
            ``https://`` address of such a file; ``hf:owner/repo``, ``hf:owner/repo:Q4_K_M`` or
            ``hf:owner/repo:file.gguf``; ``ollama:name[:tag]`` from the store on this disk; or a
            checkpoint: a directory with config.json, a .safetensors file in it or its index, or a
            model of the Hugging Face cache. Of a file far away only the header is read.

    Returns:
        The catalog's shape without tensor types, the file's model with its own, or a checkpoint's
        shape with what is stored as ``checkpoint``.

    Raises:
        UnknownNameError: Not a name of the catalog, no such file in the repository or store.
        DataError: The file cannot be read as a model.
        HardwareError: A server or a directory could not be read.
    """
    from .places import Places

    return load(ref, Places.here())


def load(ref: str | os.PathLike[str], places: Places) -> ModelSpec:
    """The same for the machine that ``places`` describes."""
    name = os.fspath(ref)
    is_path = not isinstance(ref, str) or name.startswith((".", "/", "~")) or name.endswith("/")
    if (is_path or name.endswith(_CHECKPOINT_FILES)) and _is_checkpoint(name):
        return _checkpoint(name)
    if not isinstance(ref, str):
        return _file(name)
    if name.startswith("ollama:"):
        from .ollama import read_ollama

        return read_ollama(name.removeprefix("ollama:"), places)
    if name.startswith("hf:"):
        from .hub import read_hub

        return read_hub(name, places)
    if name.startswith(("http://", "https://")):
        from .web import read_url

        return read_url(name, places)
    if name.lower().endswith(".gguf"):
        return _file(name)
    from nemofit.catalog.models import find_model

    try:
        return find_model(name).spec()
    except UnknownNameError as error:
        if _is_checkpoint(name):
            return _checkpoint(name)
        if os.path.lexists(name) and name:
            return _file(name)
        if not error.near and _REPOSITORY.fullmatch(name):
            error.hint = f"for a repository on the hub write hf:{name}"
        raise


def headers_at(ref: str, places: Places) -> list[Header]:
    """Read the header of any GGUF file, a projector or an adapter too; of a set, all of them.

    Args:
        ref: A path, an address or ``hf:owner/repo:file.gguf``, as a companion's ``ref``.
        places: The machine that is asked.

    Raises:
        NemofitError: As :func:`load_model`.
    """
    if ref.startswith("hf:"):
        from .hub import hub_headers

        return hub_headers(ref, places)
    if ref.startswith(("http://", "https://")):
        from .web import read_headers

        return read_headers(ref, places)[1]
    from .gguf.reader import open_header, shards

    return [open_header(path) for path in shards(Path(ref))]


def _is_checkpoint(name: str) -> bool:
    """Whether a path names a checkpoint: its directory, one of its files, or its index."""
    if name.startswith(("hf:", "http://", "https://")):
        return False
    if name.endswith(_CHECKPOINT_FILES):
        return True
    path = Path(name)
    try:
        return (path / "config.json").is_file() or (path / "snapshots").is_dir()
    except (OSError, ValueError):
        return False


def _checkpoint(name: str) -> ModelSpec:
    from .safetensors.reader import read_checkpoint

    return read_checkpoint(Path(name))


def _file(name: str) -> ModelSpec:
    from .gguf.reader import read_gguf

    try:
        return read_gguf(name)
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            near = _near(name)
            error.hint = f"did you mean: {', '.join(near)}" if near else error.hint
        elif os.path.isdir(name):
            found = _gguf_in(name)
            error.hint = f"name a file in it: {', '.join(found[:_SHOWN])}" if found else error.hint
        raise


def _near(name: str) -> list[str]:
    """Files in the same directory whose names resemble a missing one's."""
    from nemofit.catalog.names import near_misses

    directory, own = os.path.split(name)
    there = _gguf_in(directory or ".")
    near = near_misses(own, dict.fromkeys(there, ()))
    return [os.path.join(directory, file) for file in near]


def _gguf_in(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except (OSError, ValueError):
        return []
    return sorted(n for n in names if n.lower().endswith(".gguf") and n.isprintable())
