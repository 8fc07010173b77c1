"""A machine as JSON: what ``nemofit probe --json`` writes and ``--machine FILE`` reads.

    {"schema": "nemofit/probe/1", "nemofit": "0.1.0", "host": {...}, "gpus": [{...}], ...}

Files come from strangers: every field is checked, what a newer release adds is left out, and a file
of a newer version of the schema is refused.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Final, TypeVar, Union

from ..errors import DataError
from .records import Machine

SCHEMA: Final = "nemofit/probe/1"
MAX_BYTES: Final = 8 << 20
MAX_ITEMS: Final = 10_000
"""Entries of one list, characters of one text."""

_HINT: Final = "make it anew with: nemofit probe --json > machine.json"
_VERSION: Final = re.compile(r"nemofit/probe/(\d{1,6})")
T = TypeVar("T")


def machine_to_json(machine: Machine) -> dict[str, Any]:
    """The machine as plain data that :func:`machine_from_json` reads back equal."""
    plain: dict[str, Any] = asdict(machine)
    return plain


def machine_from_json(obj: object, file: str = "machine file") -> Machine:
    """Read a machine from parsed JSON: the whole document of ``nemofit probe --json``.

    Args:
        obj: The document, with or without its envelope; the machine may stand under ``machine``.
        file: Its name, for messages.

    Raises:
        DataError: A newer schema, or a field that is broken; names the field.
    """
    if not isinstance(obj, Mapping):
        raise DataError(f"{file}: expected a JSON object, found {_shown(obj)}", _HINT)
    schema = obj.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise _other_schema(schema, file)
    body = obj.get("machine", obj)
    if not isinstance(body, Mapping) or not ("host" in body or "gpus" in body):
        raise DataError(f"{file} describes no machine: neither host nor gpus are in it", _HINT)
    machine = _record(Machine, body, file, "")
    for where, gpus in (("gpus", machine.gpus), ("hidden_gpus", machine.hidden_gpus)):
        for i, gpu in enumerate(gpus):
            free, total = gpu.free_bytes, gpu.total_bytes
            if free is not None and total is not None and free > total:
                raise DataError(
                    f"{file}: {where}[{i}].free_bytes: {free} is more than its total of {total}",
                    _HINT,
                )
    return machine


def read_machine(path: Path) -> Machine:
    """Read a machine file; its path becomes the machine's ``source``.

    Raises:
        DataError: Not readable, not JSON, too large, or not a machine.
    """
    from ..catalog.yaml_load import read_bytes

    raw = read_bytes(path, MAX_BYTES)
    try:
        obj = json.loads(raw)
    except (ValueError, RecursionError) as e:
        at = f" line {e.lineno}" if isinstance(e, json.JSONDecodeError) else ""
        raise DataError(f"{path}{at} is not JSON", _HINT) from None
    return replace(machine_from_json(obj, str(path)), source=str(path))


def _other_schema(schema: object, file: str) -> DataError:
    version = _VERSION.fullmatch(schema) if isinstance(schema, str) else None
    if version is not None and int(version[1]) > 1:
        return DataError(
            f"{file} is {schema}, written by a newer nemofit; this one reads {SCHEMA}",
            "update nemofit, or make the file anew with this one: nemofit probe --json",
        )
    return DataError(f"{file}: schema is {_shown(schema)}, expected {SCHEMA!r}", _HINT)


def _record(record: type[T], obj: object, file: str, where: str) -> T:
    if not isinstance(obj, Mapping):
        raise _broken(file, where, "an object", obj)
    kinds = typing.get_type_hints(record)
    values = {}
    for field in fields(record):  # type: ignore[arg-type]
        path = f"{where}.{field.name}" if where else field.name
        if field.name in obj:
            values[field.name] = _value(kinds[field.name], obj[field.name], file, path)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise DataError(f"{file}: {path} is missing", _HINT)
    return record(**values)


def _value(kind: Any, value: object, file: str, where: str) -> Any:
    if typing.get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
            raise _broken(file, where, "a list", value)
        item = typing.get_args(kind)[0]
        return tuple(_value(item, v, file, f"{where}[{i}]") for i, v in enumerate(value))
    if is_dataclass(kind):
        return _record(typing.cast("type[Any]", kind), value, file, where)
    return _scalar(kind, value, file, where)


def _scalar(kind: type, value: object, file: str, where: str) -> object:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise _broken(file, where, "true or false", value)
    if kind is str:
        if isinstance(value, str) and len(value) <= MAX_ITEMS:
            return value
        raise _broken(file, where, "text", value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        if kind is float and isfinite(value):
            return float(value)
        if kind is int and isinstance(value, int):
            return value
    raise _broken(file, where, "a number" if kind is float else "a whole number", value)


def _broken(file: str, where: str, expected: str, found: object) -> DataError:
    return DataError(f"{file}: {where}: expected {expected}, found {_shown(found)}", _HINT)


def _shown(value: object) -> str:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    text = kinds.get(type(value)) or repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
