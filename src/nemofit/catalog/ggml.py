"""ggml's tensor types and llama.cpp's file types, as ``data/quants.yaml`` lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import cast

from ..errors import DataError, UnknownNameError
from . import store
from .clauses import Clause, parse_rules


@dataclass(frozen=True, slots=True)
class GgmlType:
    """How one row of a tensor is stored.

    Attributes:
        name: ggml's name in upper case: ``Q4_K``.
        id: Number of the type in a GGUF file.
        block: Elements per block; a row is a multiple of it.
        bytes: Bytes per block.
        fallback: The type that llama-quantize takes for a row that is no multiple of the block.
    """

    name: str
    id: int
    block: int
    bytes: int
    fallback: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FileType:
    """One of the mixtures that llama-quantize makes.

    Attributes:
        name: llama.cpp's name: ``Q4_K_M``.
        id: Number of the file type in a GGUF file (LLAMA_FTYPE).
        type: The ggml type of every tensor that no rule names.
        mixture: The frame around the rules: float, standard, low_bit or experts.
        needs_imatrix: llama-quantize makes no such file of a usual model without an importance
            matrix. The size is the same question with an answer all the same.
        aliases: Other names that llama-quantize takes.
        rules: Kind of tensor -> clauses, the first that holds gives the type.
    """

    name: str
    id: int
    type: str
    mixture: str
    needs_imatrix: bool
    aliases: tuple[str, ...] = ()
    rules: Mapping[str, tuple[Clause, ...]] = field(default_factory=dict, repr=False)


def ggml_types() -> Mapping[str, GgmlType]:
    """Every ggml type by name."""
    return store.derived("quants", _ggml_types)


def ggml_type(name: str) -> GgmlType:
    """The ggml type ``name``, in upper or lower case.

    Raises:
        UnknownNameError: No such type.
    """
    types = ggml_types()
    found = types.get(name) or types.get(name.upper())
    if found is None:
        from .names import near_misses

        raise UnknownNameError("tensor type", name, near_misses(name, dict.fromkeys(types, ())))
    return found


def row_bytes(type_name: str, elements: int) -> int:
    """Bytes of one row.

    Raises:
        DataError: The row is no multiple of the type's block.
    """
    t = ggml_types().get(type_name) or ggml_type(type_name)
    blocks, rest = divmod(elements, t.block)
    if rest or elements < 0:
        raise DataError(
            f"a row of {elements} elements is no multiple of {t.block}, the block of {t.name}",
            "check the shape and the type of the tensor",
        )
    return blocks * t.bytes


def tensor_bytes(type_name: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor.

    Args:
        type_name: ggml type.
        shape: Elements per dimension, row length first.

    Raises:
        DataError: The row is no multiple of the type's block.
    """
    return row_bytes(type_name, shape[0]) * prod(shape[1:]) if shape else 0


def file_types() -> Mapping[str, FileType]:
    """Every file type by name, in the order of the catalog: best quality first."""
    return store.derived("quants", _file_types)


def find_file_type(name: str) -> FileType:
    """The file type that a person named; case and punctuation do not matter.

    Raises:
        UnknownNameError: Not known; carries the near misses.
    """
    types = file_types()
    found = types.get(name)
    if found is None:
        from .names import resolve

        found = types[resolve("quantization", name, {n: t.aliases for n, t in types.items()})]
    return found


def section(entries: store.Entries, name: str) -> dict[str, Mapping[str, object]]:
    """The entries of one section of the quants data by their own names."""
    prefix = name + "/"
    return {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}


def _ggml_types(entries: store.Entries) -> Mapping[str, GgmlType]:
    types = {n: GgmlType(n, **e) for n, e in section(entries, "ggml_types").items()}  # type: ignore[arg-type]
    for t in types.values():
        _check(t.fallback or t.name, types, f"ggml_types {t.name!r}: fallback")
    return types


def _file_types(entries: store.Entries) -> Mapping[str, FileType]:
    known = _ggml_types(entries)
    out = {}
    for name, entry in section(entries, "file_types").items():
        fields = {**entry, "rules": parse_rules(cast("Mapping[str, list[str]]", entry["rules"]))}
        fields["aliases"] = tuple(cast("list[str]", entry["aliases"]))
        out[name] = FileType(name, **fields)  # type: ignore[arg-type]
        for used in (out[name].type, *(c.type for r in out[name].rules.values() for c in r)):
            _check(used, known, f"file_types {name!r}")
    return out


def _check(name: str, types: Mapping[str, GgmlType], where: str) -> None:
    if name not in types:
        raise DataError(
            f"quants.yaml: {where}: tensor type {name!r} is not listed in ggml_types",
            "add it there or correct the name",
        )
