"""From what a person names to a model: a catalog name, or a file."""

from __future__ import annotations

import os

from nemofit.catalog.model import ModelSpec
from nemofit.errors import NemofitError, UnknownNameError


def load_model(ref: str | os.PathLike[str]) -> ModelSpec:
    """Find the model that ``ref`` names.

    Args:
        ref: A catalog name or alias ("nemotron"), or the path of a .gguf file, any of a split set.

    Returns:
        The catalog's shape without tensor types, or the file's model with its own.

    Raises:
        UnknownNameError: Neither a name of the catalog nor a file.
        DataError: The file cannot be read as a model.
        NemofitError: A kind of reference that is not understood yet.
    """
    name = os.fspath(ref)
    if not isinstance(ref, str) or name.lower().endswith(".gguf"):
        from .gguf.reader import read_gguf

        return read_gguf(name)
    if name.startswith(("hf:", "ollama:")):
        kind = name.partition(":")[0]
        raise NemofitError(
            f"{name!r:.200}: {kind}: references are not supported in this version",
            "use a catalog name (nemofit list models) or the path of a downloaded .gguf file",
        )
    from nemofit.catalog.models import find_model

    try:
        return find_model(name).spec()
    except UnknownNameError:
        if os.path.isfile(name):
            from .gguf.reader import read_gguf

            return read_gguf(name)
        raise
