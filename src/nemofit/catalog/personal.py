"""Write an entry into a person's own ``models.yaml`` and leave the rest of the file as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, HardwareError, UsageError
from . import store
from .yaml_load import parse, read_bytes

FILE = "models.yaml"


def with_entry(path: Path, id: str, entry: Mapping[str, Any], source: str, replace: bool) -> str:
    """The file's text with one entry more.

    Args:
        path: ``models.yaml``; it may not exist yet.
        id: Of the entry; also the key of its source.
        entry: Its fields, without ``source``.
        source: What a person can open to check the figures.
        replace: Whether an entry of that id may be replaced.

    Raises:
        UsageError: There is one of that id and ``replace`` is False.
        DataError: The file, or the new entry, is not valid; the file is as it was.
    """
    text = _text(path)
    parsed = parse(text.encode(), str(path))
    if parsed is not None:
        store.compiled("models", text.encode(), str(path))  # not ours to add to a broken file
    known = parsed.get("models") if isinstance(parsed, dict) else None
    if isinstance(known, dict) and id in known and not replace:
        raise UsageError(
            f"{path} has an entry {id!r} already", "--force replaces it, --name names the new one"
        )
    text = _set(text, path, "sources", id, source)
    text = _set(text, path, "models", id, {**entry, "source": [id]})
    store.compiled("models", text.encode(), str(path))
    return text


def write(path: Path, text: str) -> None:
    """Replace the file in one step: either all of it is new or nothing has changed.

    Raises:
        HardwareError: It cannot be written.
    """
    from tempfile import NamedTemporaryFile

    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()
        with NamedTemporaryFile(dir=target.parent, prefix=".models-", delete=False) as file:
            part = Path(file.name)
            file.write(text.encode())
        part.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o644)
        os.replace(part, target)
    except OSError as error:
        if part is not None:
            part.unlink(missing_ok=True)
        raise HardwareError(
            f"cannot write {path}: {error.strerror or error}", "name another place with --catalog"
        ) from error


def dump(entry: object, indent: int = 0) -> str:
    """Fields as YAML, block style, in their own order."""
    import yaml

    plain = yaml.safe_dump(
        entry, sort_keys=False, allow_unicode=True, default_flow_style=False, width=96 - indent
    )
    return "".join(" " * indent + line for line in plain.splitlines(keepends=True))


def _text(path: Path) -> str:
    if not path.exists():
        return ""
    return read_bytes(path).decode("utf-8-sig", "replace")


def _set(text: str, path: Path, section: str, key: str, value: object) -> str:
    """``text`` with ``section.key`` added as the section's first entry, or replaced."""
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    pairs = {} if root is None else {k.value: (k, v) for k, v in root.value}
    if section not in pairs:
        return "".join(lines) + f"{section}:\n" + dump({key: value}, 2)
    name, node = pairs[section]
    line = name.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):  # nothing behind the colon
        return "".join([*lines[:line], dump({key: value}, 2), *lines[line:]])
    if node.flow_style:
        raise DataError(
            f"{path} line {line}: '{section}' is written in braces", "write one entry per line"
        )
    children = [k for k, _ in node.value]
    first = children[0].start_mark
    fresh = dump({key: value}, first.column)
    for child, after in zip(children, [*children[1:], None], strict=True):
        if child.value == key:
            start = child.start_mark.line
            end = after.start_mark.line if after else _end(lines, start, first.column)
            return "".join([*lines[:start], fresh, *lines[end:]])
    return "".join([*lines[: first.line], fresh, *lines[first.line :]])


def _end(lines: list[str], start: int, column: int) -> int:
    """The line behind the last entry of a section: where text stands at the entry's column again,
    or before it; comments and empty lines in between stay."""
    end = start + 1
    for i in range(start + 1, len(lines)):
        content = lines[i].strip()
        if content and not content.startswith("#"):
            if len(lines[i]) - len(lines[i].lstrip()) <= column and not content.startswith("- "):
                break
            end = i + 1
    return end
