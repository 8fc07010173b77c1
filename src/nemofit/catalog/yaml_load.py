"""Read a YAML file that a stranger may have written: plain data, line numbers, hard limits.

Scalars follow YAML 1.2's core schema, so that what is written is what is read: ``no`` is the
language Norwegian and ``2024-10-15`` is text, never a boolean or a date object. Mapping keys are
always text. Tags, merge keys and several documents in one file are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any, Final

from ..errors import DataError

MAX_BYTES: Final = 4 << 20
"""Size of one file; the largest shipped one is below a tenth of it."""
MAX_DEPTH: Final = 24
MAX_NODES: Final = 400_000
"""Values in one file after every alias has been followed, so that aliases cannot multiply."""
MAX_ALIASES: Final = 1000

_INTEGER = re.compile(r"[-+]?[0-9][0-9_]{0,29}")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_CONSTANTS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Lines(dict[str, object]):
    """A mapping that remembers where each of its keys stands in the file.

    Attributes:
        lines: Key -> line number, from 1.
    """

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        DataError: It cannot be read, is no regular file (a pipe would hang), or is too large.
    """
    from stat import S_ISREG

    try:
        if not S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is not a regular file", "name a YAML file")
        with path.open("rb") as f:
            raw = f.read(limit + 1)
    except OSError as e:
        raise DataError(
            f"{path} cannot be read: {e.strerror or e}", "check the path and rights"
        ) from e
    if len(raw) > limit:
        raise DataError(f"{path} is larger than {limit} bytes", "a catalog file has to be smaller")
    return raw


def parse(raw: bytes, file: str) -> object:
    """Turn YAML bytes into dicts (:class:`Lines`), lists, str, int, float, bool and None.

    Args:
        raw: The file's bytes, UTF-8.
        file: The file's name, for messages.

    Raises:
        DataError: Not UTF-8, not YAML, a duplicate key, a tag, or beyond a limit; names the line.
    """
    import yaml

    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise _error(file, line, f"byte {raw[e.start]:#04x} is not UTF-8 text") from e
    loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(yaml.parse(text, Loader=loader), file).document()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        problem = e.problem or e.context or "no YAML"
        raise _error(file, mark.line + 1 if mark else None, f"not YAML: {problem}") from e
    except yaml.YAMLError as e:
        raise _error(file, None, f"not YAML: {str(e).splitlines()[0]}") from e


def line_of(raw: object, location: tuple[str | int, ...]) -> int | None:
    """The line of the deepest part of ``location`` that exists in parsed data, None if unknown."""
    line = None
    for step in location:
        if isinstance(raw, Lines) and step in raw:
            line = raw.lines[str(step)]
            raw = raw[str(step)]
        elif isinstance(raw, list) and isinstance(step, int) and step < len(raw):
            raw = raw[step]
            if isinstance(raw, Lines) and raw.lines:
                line = min(raw.lines.values())
        else:
            break
    return line


def _error(file: str, line: int | None, what: str) -> DataError:
    where = f"{file} line {line}" if line else file
    return DataError(f"{where}: {what}", "correct that place; docs/catalog.md shows the form")


class _Builder:
    """Builds values from the parser's events, so that limits hold before anything is built."""

    def __init__(self, events: Iterator[Any], file: str) -> None:  # PyYAML types no event
        self.events = events
        self.file = file
        self.nodes = 0
        self.aliases = 0
        self.anchors: dict[str, tuple[object, int]] = {}

    def fail(self, event: Any, what: str) -> DataError:
        return _error(self.file, _line(event), what)

    def document(self) -> object:
        from yaml import events as ev

        value: object = None
        documents = 0
        for event in self.events:
            if isinstance(event, ev.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.fail(event, "a second document starts here; one file holds one")
            elif isinstance(event, ev.NodeEvent):
                value = self.node(event, 0)
        return value

    def count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.fail(event, f"more than {MAX_NODES} values (aliases followed)")

    def node(self, event: Any, depth: int) -> object:
        from yaml import events as ev

        if isinstance(event, ev.AliasEvent):
            return self.alias(event)
        if event.tag is not None:
            raise self.fail(event, f"the tag {event.tag[:60]!r} has no place here")
        before = self.nodes
        self.count(event, 1)
        value: object
        if isinstance(event, ev.ScalarEvent):
            value = _scalar(event.value) if event.implicit[0] else event.value
        elif depth >= MAX_DEPTH:
            raise self.fail(event, f"nested more than {MAX_DEPTH} deep")
        elif isinstance(event, ev.SequenceStartEvent):
            value = self.sequence(depth + 1)
        else:
            value = self.mapping(depth + 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = value, self.nodes - before
        return value

    def alias(self, event: Any) -> object:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise self.fail(event, f"more than {MAX_ALIASES} aliases")
        if event.anchor not in self.anchors:
            raise self.fail(event, f"*{event.anchor[:60]} names nothing that is complete before it")
        value, nodes = self.anchors[event.anchor]
        self.count(event, nodes)
        return value

    def sequence(self, depth: int) -> list[object]:
        from yaml.events import SequenceEndEvent

        out: list[object] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            out.append(self.node(event, depth))
        return out

    def mapping(self, depth: int) -> Lines:
        from yaml.events import MappingEndEvent, ScalarEvent

        out = Lines()
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise self.fail(event, "a key has to be plain text")
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise self.fail(event, "merge keys (<<) are not read; write the fields out")
            if key in out:
                first = out.lines[key]
                raise self.fail(event, f"{key[:60]!r} is already defined in line {first}")
            self.count(event, 1)
            out.lines[key] = _line(event)
            out[key] = self.node(next(self.events), depth)
        return out


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _scalar(text: str) -> object:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if len(text) < 60 and _FLOAT.fullmatch(text) and isfinite(x := float(text.replace("_", ""))):
        return x
    return text
