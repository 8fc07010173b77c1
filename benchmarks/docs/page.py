"""Read a page, run its examples, and write it again with what they print now.

A fenced block is treated as the words behind its fence say:

    ```console                  lines that begin with ``$ `` are typed, the rest is what they print
    ```python                   run; a ```text block right behind it is what it prints
    ```LANGUAGE file=NAME       written to NAME before the blocks below it run
    ```console not-run WHY      left as it is; WHY is one of :data:`REASONS`

In an output a line ``...`` stands for any lines. All blocks of a page run in one empty directory,
with an empty home, 80 columns and no colour. Other blocks, ``sh`` among them, are text to copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .shell import Shell

REASONS = {"this-machine": "the output belongs to the machine that the page names"}
ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
REST = "..."
_FENCE = re.compile(r"```(\S*) ?(.*)")
_RUN = ("console", "python")


@dataclass(slots=True)
class Block:
    """A fenced block, or the text between two of them where ``language`` is None.

    Attributes:
        language: Behind the fence.
        words: What follows it.
        lines: Without the fences.
        at: Line number of the first of them, from 1.
    """

    language: str | None
    words: str
    lines: list[str]
    at: int

    @property
    def file(self) -> str | None:
        """The file that the block is written to."""
        return self.words.removeprefix("file=") if self.words.startswith("file=") else None

    @property
    def reason(self) -> str | None:
        """Why the block is not run; None: it is."""
        return self.words.removeprefix("not-run ") if self.words.startswith("not-run ") else None

    @property
    def runs(self) -> bool:
        """Whether it is an example to run."""
        return self.language in _RUN and not self.words

    def text(self) -> str:
        """As the page has it."""
        body = "".join(f"{line}\n" for line in self.lines)
        if self.language is None:
            return body
        fence = f"```{self.language} {self.words}".rstrip()
        return f"{fence}\n{body}```\n"


def blocks(text: str) -> list[Block]:
    """Take a page apart; the texts of its blocks together are the page."""
    found = [Block(None, "", [], 1)]
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.fullmatch(line)
        inside = found[-1].language is not None
        if fence is None or (inside and line != "```"):
            found[-1].lines.append(line)
        elif inside:
            found.append(Block(None, "", [], number + 1))
        else:
            found.append(Block(fence[1], fence[2], [], number + 1))
    return found


def fresh(text: str, shell: Shell) -> str:
    """Run a page's examples and return the page with what they printed."""
    made = blocks(text)
    for number, block in enumerate(made):
        if block.file is not None:
            shell.write(block.file, "".join(f"{line}\n" for line in block.lines))
        elif block.runs and block.language == "console":
            block.lines = list(_typed(block.lines, shell))
        elif block.runs:
            printed = shell.python("\n".join(block.lines), block.at)
            shown = _shown(made[number + 1 : number + 3])
            if shown is not None:
                shown.lines = settled(shown.lines, printed)
            elif printed:
                raise ValueError(f"line {block.at}: a ```text block has to follow: {printed}")
    return "".join(block.text() for block in made)


def commands(lines: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """What is typed in a console block, and what the page shows below it."""
    typed: list[str] = []
    shown: list[str] = []
    for line in lines:
        if typed and typed[-1].endswith("\\") and not shown:
            typed.append(line)
        elif line.startswith("$ "):
            if typed:
                yield typed, shown
            typed, shown = [line], []
        elif typed:
            shown.append(line)
        else:
            raise ValueError(f"{line!r} stands above the first line that begins with '$ '")
    yield typed, shown


def _typed(lines: Sequence[str], shell: Shell) -> Iterator[str]:
    for typed, shown in commands(lines):
        line = "\n".join(typed).removeprefix("$ ")
        end = next((i for i in range(len(shown), 0, -1) if shown[i - 1]), 0)
        yield from typed
        yield from settled(shown[:end], shell.type(line, shown[:end]))
        yield from shown[end:]


def _shown(following: Sequence[Block]) -> Block | None:
    """The output block right behind an example, with nothing but blank lines between."""
    match following:
        case [Block(language=None) as between, Block(language="text") as shown]:
            return None if any(between.lines) else shown
    return None


def settled(shown: list[str], printed: list[str]) -> list[str]:
    """What the page shows where that is still true, otherwise what was printed.

    A new output is cut where the old one was: as many lines above and below the ``...``.
    """
    if matches(shown, printed):
        return shown
    if shown.count(REST) != 1:
        return printed
    above = shown.index(REST)
    below = len(shown) - above - 1
    if above + below >= len(printed):
        return printed
    return [*printed[:above], REST, *printed[len(printed) - below :]]


def matches(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether an output is what is shown, where ``...`` stands for any lines."""
    if REST not in shown:
        return list(shown) == list(printed)
    above = list(shown).index(REST)
    rest = list(shown[above + 1 :])
    if list(printed[:above]) != list(shown[:above]):
        return False
    return any(matches(rest, printed[i:]) for i in range(above, len(printed) + 1))
