"""Between a model file and the catalog: the entry that a header makes, and where the two differ."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemofit.catalog.ggml import file_types
from nemofit.catalog.model import ModelSpec, Value
from nemofit.catalog.shapes import tensors_of
from nemofit.errors import DataError

_KEY = re.compile(r"[a-z0-9_]{1,60}(\.[a-z0-9_]{1,60}){0,3}")
_ID = re.compile(r"[^a-z0-9._-]+")
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a catalog entry and a file say differently.

    Attributes:
        what: ``key`` or ``tensor``.
        name: Its name.
        catalog: What the catalog says; None: nothing.
        file: What the file says; None: nothing.
    """

    what: str
    name: str
    catalog: str | None
    file: str | None


def plain_name(model: ModelSpec) -> str:
    """A file's name without the file type at its end."""
    for file_type in sorted(file_types(), key=len, reverse=True):
        if model.id.lower().endswith(("-" + file_type.lower(), "." + file_type.lower())):
            return model.id[: -len(file_type) - 1]
    return model.id


def plain_id(model: ModelSpec) -> str:
    """A catalog id for a file: its plain name as ids are written."""
    name = _ID.sub("-", plain_name(model).lower())
    return name.strip("-._")[:_LONGEST_ID] or model.architecture


def shape_of(model: ModelSpec) -> dict[str, Any]:
    """The ``metadata`` of a catalog entry with the very tensors of a model that was read.

    Flags that GGUF does not hold (``tied_embeddings``, ``rope_factors``, ...) are found from the
    tensors: each flag that the architecture asks for is set where that brings the lists closer.

    Raises:
        DataError: The architecture is not known, or its tensors cannot be told by metadata alone.
    """
    metadata = {k: v for k, v in model.metadata.items() if _KEY.fullmatch(k)}
    metadata["tied_embeddings"] = not any(t.name == "output.weight" for t in model.tensors)
    apart = _apart(model, metadata)
    while apart:
        asked = _Asked(metadata)
        tensors_of(model.architecture, asked)
        found = [(_apart(model, {**metadata, flag: True}), flag) for flag in sorted(asked.flags)]
        best, flag = min(found, default=(apart, ""))
        if best >= apart:
            raise DataError(
                f"{model.id} has other tensors than {model.architecture} models of the catalog: "
                + "; ".join(f"{d.name} ({d.file or 'missing'})" for d in _tensors(model, metadata)),
                "use the file itself: nemofit plan FILE.gguf",
            )
        metadata[flag] = True
        apart = best
    return {key: list(v) if isinstance(v, tuple) else v for key, v in metadata.items()}


def differences(entry: ModelSpec, model: ModelSpec) -> tuple[Difference, ...]:
    """Every key and tensor in which a catalog shape and a model that was read differ.

    Keys that only the file has are left out where the tensors are the same: an entry states what
    decides sizes, a file also how to rotate and to scale. Types of tensors are the file's own.
    """
    found = []
    if entry.architecture != model.architecture:
        found.append(Difference("key", "architecture", entry.architecture, model.architecture))
    for key, value in entry.metadata.items():
        if isinstance(value, bool) and key not in model.metadata:
            continue  # a flag of the catalog, which the tensors prove
        said = model.metadata.get(key)
        if not _is_same(value, said, model):
            found.append(Difference("key", key, _shown(value), _shown(said)))
    names = {t.name: t.shape for t in entry.tensors}
    own = {t.name: t.shape for t in model.tensors}
    found += [
        Difference("tensor", name, _shown(names.get(name)), _shown(own.get(name)))
        for name in sorted(names.keys() | own.keys())
        if names.get(name) != own.get(name)
    ]
    return tuple(found)


def _is_same(value: Value, said: Value | None, model: ModelSpec) -> bool:
    """Whether two values mean the same: one number for all blocks, or floats of 32 bits."""
    if isinstance(value, tuple) != isinstance(said, tuple) and said is not None:
        blocks = model.integer("block_count")
        value = value if isinstance(value, tuple) else (value,) * blocks
        said = said if isinstance(said, tuple) else (said,) * blocks
    return _stored(value) == _stored(said)


def _stored(value: Value | None) -> object:
    if isinstance(value, tuple):
        return [_stored(v) for v in value]
    if isinstance(value, float):
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def _shown(value: object) -> str | None:
    if isinstance(value, tuple):
        return "x".join(map(str, value)) if len(value) <= 4 else f"{list(value)!r:.80}"
    return None if value is None else str(value)


def _apart(model: ModelSpec, metadata: Mapping[str, Value]) -> int:
    """In how many tensors the metadata's list and the model's own differ."""
    made = {(t.name, t.shape) for t in tensors_of(model.architecture, metadata)}
    return len(made ^ {(t.name, t.shape) for t in model.tensors})


def _tensors(model: ModelSpec, metadata: Mapping[str, Value]) -> tuple[Difference, ...]:
    """The first few tensors that differ."""
    made = ModelSpec(
        id=model.id,
        architecture=model.architecture,
        metadata=metadata,
        tensors=tensors_of(model.architecture, metadata),
    )
    return tuple(d for d in differences(made, model) if d.what == "tensor")[:3]


class _Asked(dict[str, Value]):
    """Metadata that remember which keys were asked for and not there."""

    def __init__(self, metadata: Mapping[str, Value]) -> None:
        super().__init__(metadata)
        self.flags: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self and default is False:
            self.flags.add(key)
        return super().get(key, default)
