"""The only place that writes to the terminal: data to stdout, talk to stderr.

Views describe what to show as blocks; this module lays them out for the terminal at hand. Nothing
is coloured where output is piped, where ``NO_COLOR`` is set or where the terminal is dumb; a
locale without Unicode gets ASCII lines and bars.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live as RichLive
    from rich.text import Text as RichText

Tone = Literal["plain", "good", "bad", "quiet", "strong"]
_STYLES = {"plain": "", "good": "green", "bad": "red", "quiet": "dim", "strong": "bold"}


@dataclass(frozen=True, slots=True)
class Line:
    """One paragraph of prose, wrapped at the terminal's width."""

    text: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column; where space is short, those with the highest ``rank`` go first."""

    title: str
    right: bool = False
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; ``tones`` colours whole rows, one entry per row."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    tones: Sequence[Tone] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """How much of a budget is used: ``parts`` are bytes by kind, drawn in their order."""

    label: str
    parts: Sequence[int]
    budget: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Bars:
    """One memory bar per device, with the legend for its parts."""

    bars: Sequence[Bar]
    legend: Sequence[str]


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over time in one line, from zero to ``top``; None where nothing was known."""

    label: str
    values: Sequence[int | None]
    top: int
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A line to copy: written raw, never wrapped, never coloured."""

    text: str


Block = Line | Table | Bars | Curve | Command


_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "?")


def plain(text: str) -> str:
    """Text without what a terminal would obey: names come from files and from other programs."""
    return text.translate(_CONTROLS)


def write(text: str, stream: TextIO | None = None) -> None:
    """Write text to stdout (or ``stream``) and make sure it arrived.

    Raises:
        OSError: The stream is closed or full.
    """
    out = sys.stdout if stream is None else stream
    if out is None:
        return
    try:
        out.write(text)
    except UnicodeEncodeError:
        encoding = out.encoding or "ascii"
        out.write(text.encode(encoding, "replace").decode(encoding))
    out.flush()


def write_artifact(text: str) -> None:
    """Write a file's text to stdout to the byte: UTF-8 whatever the locale is.

    Raises:
        OSError: The stream is closed or full.
    """
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        write(text)
        return
    sys.stdout.flush()
    binary.write(text.encode("utf-8", "surrogateescape"))
    binary.flush()


def write_json(document: object) -> None:
    """Write one JSON document: indented for a person's terminal, one line elsewhere."""
    import json

    indent = 2 if _is_terminal(sys.stdout) else None
    write(json.dumps(document, ensure_ascii=True, allow_nan=False, indent=indent) + "\n")


def write_json_line(document: object) -> None:
    """Write one JSON document on one line, one of several."""
    import json

    write(json.dumps(document, ensure_ascii=True, allow_nan=False) + "\n")


class Live:
    """Blocks that are shown again and again in the same place of a terminal; silent elsewhere."""

    def __init__(self) -> None:
        self._live: RichLive | None = None
        if _is_terminal(sys.stdout):
            from rich.console import Console
            from rich.live import Live as RichLive

            console = Console(highlight=False, markup=False, emoji=False)
            self._live = RichLive(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Live:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, blocks: Callable[[], Iterable[Block]]) -> None:
        """Show these blocks now; they are not even made where nobody looks."""
        if self._live is None:
            return
        from rich.console import Group

        console = self._live.console
        parts = [
            part
            for block in blocks()
            if not isinstance(block, Command)
            for part in _render(block, console)
        ]
        self._live.update(Group(*parts), refresh=True)


def talk(text: str) -> None:
    """Say something beside the data, on stderr; silence where nobody can hear it."""
    try:
        write(plain(text) + "\n", sys.stderr)
    except OSError:
        return


class Progress:
    """A bar on stderr while something runs; silent where nobody looks at a terminal."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._shown = _is_terminal(sys.stderr)
        self.at(0.0)

    def at(self, share: float, text: str | None = None) -> None:
        """Show how far it is, from 0 to 1."""
        self._text = text or self._text
        if self._shown:
            done = round(30 * min(max(share, 0.0), 1.0))
            self._put(f"\r[{'#' * done}{'.' * (30 - done)}] {share:4.0%}  {self._text}\x1b[K")

    def end(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._put("\r\x1b[K")

    def _put(self, text: str) -> None:
        try:
            write(text, sys.stderr)
        except OSError:
            self._shown = False


def abandon_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail as well."""
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)
    except (OSError, ValueError, AttributeError):
        return


def show(blocks: Iterable[Block]) -> None:
    """Lay the blocks out for this terminal and write them to stdout."""
    console = _console(sys.stdout)
    for block in blocks:
        if isinstance(block, Command):
            console.file.write(block.text + "\n")
        else:
            for part in _render(block, console):
                console.print(part)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().split("\n")
    write("\n".join(line.rstrip() for line in lines))


def _console(stream: TextIO | None) -> Console:
    from rich.console import Console, detect_legacy_windows

    terminal = _is_terminal(stream) and not detect_legacy_windows()
    return Console(
        file=_Page(encoding=getattr(stream, "encoding", None) or "ascii"),
        width=_width(stream),
        force_terminal=terminal,
        no_color=None if terminal else True,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )


class _Page(StringIO):
    """Text in memory that claims the encoding of the stream it will end in."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:
        return False


def _width(stream: TextIO | None) -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return max(20, int(columns))
    known = (_terminal_width(candidate) for candidate in (stream, sys.stderr, sys.stdin))
    return max(20, next((width for width in known if width), 80))


def _terminal_width(stream: TextIO | None) -> int:
    try:
        return 0 if stream is None else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def _render(block: Line | Table | Bars | Curve, console: Console) -> list[RenderableType]:
    from rich.text import Text

    if isinstance(block, Line):
        return [Text(plain(block.text), style=_STYLES[block.tone], overflow="fold")]
    if isinstance(block, Table):
        return [_table(block, console.width)]
    if isinstance(block, Curve):
        return [_curve(block, console)]
    return _bars(block, console)


def _curve(block: Curve, console: Console) -> RenderableType:
    """The newest values at the right; where there are more than columns, the greatest of each."""
    from rich.text import Text

    steps = " .:-=+*#" if console.options.ascii_only else " ▁▂▃▄▅▆▇█"
    length = max(10, min(60, console.width - len(block.label) - len(block.text) - 6))
    values = [value or 0 for value in block.values]
    each = -(-len(values) // length) or 1
    columns = [max(values[i : i + each]) for i in range(0, len(values), each)]
    top = max(block.top, *columns, 1) if columns else 1
    glyphs = "".join(steps[-(-value * (len(steps) - 1) // top)] for value in columns)
    line = Text(f"{block.label}  ", overflow="fold")
    line.append(glyphs.ljust(length), style="cyan")
    line.append(f"  {block.text}")
    return line


def _table(block: Table, width: int) -> RenderableType:
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    kept = list(range(len(block.columns)))
    need = [
        max([cell_len(c.title), *(cell_len(row[i]) for row in block.rows)])
        for i, c in enumerate(block.columns)
    ]
    while sum(need[i] + 2 for i in kept) - 2 > width:
        last = max(kept, key=lambda i: (block.columns[i].rank, i))
        if block.columns[last].rank == 0:
            break
        kept.remove(last)
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i in kept:
        column = block.columns[i]
        table.add_column(
            Text(column.title), justify="right" if column.right else "left", overflow="fold"
        )
    for number, row in enumerate(block.rows):
        tone = block.tones[number] if block.tones else "plain"
        table.add_row(*(Text(plain(row[i])) for i in kept), style=_STYLES[tone] or None)
    return table


_COLOURS = ("cyan", "magenta", "yellow", "blue")


def _bars(block: Bars, console: Console) -> list[RenderableType]:
    from rich.cells import cell_len
    from rich.text import Text

    ascii_only = console.options.ascii_only
    glyphs = "#=+:" if ascii_only else "█▓▒░"
    empty = "." if ascii_only else "·"
    label = max((cell_len(b.label) for b in block.bars), default=0)
    text = max((cell_len(b.text) for b in block.bars), default=0)
    length = max(10, min(60, console.width - label - text - 6))
    lines: list[RenderableType] = []
    for bar in block.bars:
        line = Text(plain(bar.label).ljust(label) + "  [", overflow="fold")
        _fill(line, bar, length, glyphs, empty)
        line.append("]  " + plain(bar.text), style=_STYLES["bad"] if _over(bar) else "")
        lines.append(line)
    key = Text(" " * (label + 3), style="dim")
    for glyph, colour, name in zip(glyphs, _COLOURS, block.legend, strict=False):
        key.append(glyph, style=colour)
        key.append(f" {name}  ", style="dim")
    lines.append(key)
    return lines


def _over(bar: Bar) -> bool:
    return bar.budget is not None and sum(bar.parts) > bar.budget


def _fill(line: RichText, bar: Bar, length: int, glyphs: str, empty: str) -> None:
    """Draw the parts in proportion to the budget, or to their own sum where they exceed it."""
    whole = max(sum(bar.parts), bar.budget or 0, 1)
    done = used = 0
    for part, glyph, colour in zip(bar.parts, glyphs, _COLOURS, strict=False):
        used += part
        upto = min(length, round(length * used / whole))
        line.append(glyph * (upto - done), style=colour)
        done = upto
    line.append(empty * (length - done), style="dim")
