"""Validate the entries of a data file and say where and why one is broken.

A schema module describes one entry as a pydantic model and hands the rest to :func:`entries`:

    def validate(raw: object, file: str) -> dict[str, object]:
        return entries(section(raw, file, "gpus"), file, "gpus", CardEntry)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DataError
from .yaml_load import line_of

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


def section(raw: object, file: str, name: str, *, required: bool = True) -> dict[str, object]:
    """The mapping ``name`` at the top of a data file; empty when it may be missing and is.

    Raises:
        DataError: The file or the section is not a mapping, or the section is missing.
    """
    if not isinstance(raw, dict):
        raise DataError(
            f"{file}: expected fields at the top, found {_kind(raw)}", f"begin it with '{name}:'"
        )
    found = raw.get(name)
    if found is None and (name in raw or not required):
        return {}
    if not isinstance(found, dict):
        what = f"expected entries by id, found {_kind(found)}" if name in raw else "is missing"
        raise DataError(f"{place(raw, file, (name,))}: {what}", f"write '{name}:' and the entries")
    return found


def entries(
    raw: dict[str, object], file: str, name: str, model: type[BaseModel]
) -> dict[str, object]:
    """Validate every entry of a section; unset fields are left out of the result.

    Raises:
        DataError: Names file, line, entry, field and what was expected.
    """
    from pydantic import ValidationError

    out: dict[str, object] = {}
    for key, fields in raw.items():
        try:
            entry = model.model_validate(fields)
        except ValidationError as e:
            raise broken(e, raw, file, name, key) from None
        out[key] = entry.model_dump(mode="json", exclude_none=True)
    return out


def broken(
    error: ValidationError, raw: dict[str, object], file: str, name: str, key: str
) -> DataError:
    """The first complaint of pydantic about entry ``key`` of section ``name`` as one line."""
    first, *others = error.errors(include_url=False)
    location = first["loc"]
    field = ".".join(str(step) for step in location)
    shown = repr(first["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "extra_forbidden":
        message = "is not a field that is known"
    else:
        message = f"{message[:1].lower()}{message[1:]}, found {shown}"
    more = f" (and {len(others)} more)" if others else ""
    where = place(raw, file, (key, *location))
    return DataError(
        f"{where}: {name} {key!r}{': ' + field if field else ''}: {message}{more}",
        "correct that field; docs/catalog.md lists the fields",
    )


def place(raw: object, file: str, location: tuple[str | int, ...]) -> str:
    """``file line N`` where the line is known, else ``file``."""
    line = line_of(raw, location)
    return f"{file} line {line}" if line else file


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "fields"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else f"{value!r:.60}"
