"""Text for every terminal: narrow and wide, coloured or not, with and without Unicode."""

from __future__ import annotations

import io
import sys
from itertools import product

import pytest
from command_lines import TWO_CARDS, Say
from rich.cells import cell_len

from nemofit.cli import output
from nemofit.cli.output import Bar, Bars, Column, Command, Line, Table

COMMANDS = (
    ("recommend", "-m", "llama-3.1-8b", "-c", "8k", "--machine", TWO_CARDS),
    ("plan", "nemotron", "-q", "Q4_K_M", "--machine", TWO_CARDS),
    ("check", "llama-3.2-1b", "-c", "4096", "--machine", TWO_CARDS),
    ("list", "models"),
    ("list", "gpus"),
)


class Terminal(io.TextIOWrapper):
    """A stream with an encoding that may claim to be a terminal."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize(("args", "width"), list(product(COMMANDS, (80, 200))))
def test_no_line_is_wider_than_the_terminal(
    args: tuple[str, ...], width: int, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 and at 200 columns; only the command to copy may be longer, it is never wrapped."""
    monkeypatch.setenv("COLUMNS", str(width))
    lines = say(*args).out.splitlines()
    for line in lines:
        assert cell_len(line) <= width or line.startswith("llama-server ")


def test_a_wide_terminal_shows_more(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns that found no room at 80 are there at 200."""
    monkeypatch.setenv("COLUMNS", "80")
    narrow = say(*COMMANDS[0]).out
    monkeypatch.setenv("COLUMNS", "200")
    wide = say(*COMMANDS[0]).out
    assert "Score" in wide
    assert "Score" not in narrow
    for title in ("Quant", "Context", "tokens/s"):
        assert title in narrow


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_every_locale_can_show_it(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Unicode the bars are ASCII; with it they are blocks; nothing fails."""
    stream = Terminal(encoding, terminal=False)
    monkeypatch.setattr(sys, "stdout", stream)
    bars = Bars([Bar("GPU 0", (60, 20, 10, 5), 100, "95 of 100")], ("a", "b", "c", "d"))
    output.show([Line("größer → besser"), Table([Column("x")], [["✓"]]), bars])
    assert ("█" in stream.text) == (encoding == "utf-8")
    assert ("#" in stream.text) == (encoding != "utf-8")


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets it; a pipe, a dumb terminal and NO_COLOR do not."""

    def shown(*, terminal: bool, **environment: str) -> str:
        stream = Terminal("utf-8", terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        output.show([Line("well", "good")])
        return stream.text

    assert "\x1b[32m" in shown(terminal=True)
    assert shown(terminal=False) == "well\n"
    assert shown(terminal=True, TERM="dumb") == "well\n"
    assert "32m" not in shown(terminal=True, NO_COLOR="1")


def test_a_command_is_never_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than any terminal, with brackets and markup in it: written as it is."""
    stream = Terminal("utf-8", terminal=True)
    monkeypatch.setattr(sys, "stdout", stream)
    command = "llama-server -m '[red]model[/red].gguf' " + "x" * 300
    output.show([Command(command)])
    assert command + "\n" == stream.text


def test_a_bar_shows_parts_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the budget in two equal parts fills half of the bar, a quarter each."""
    stream = Terminal("ascii", terminal=False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "59")
    output.show([Bars([Bar("a", (25, 25), 100, "half")], ("x", "y"))])
    bar = stream.text.split("[")[1].split("]")[0]
    assert bar.count("#") == bar.count("=") == len(bar) // 4
    assert bar.count(".") == len(bar) // 2


def test_a_bar_over_budget_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the budget does not run over the edge."""
    stream = Terminal("ascii", terminal=False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "60")
    output.show([Bars([Bar("a", (150, 50), 100, "200 of 100")], ("x", "y"))])
    bar = stream.text.split("[")[1].split("]")[0]
    assert "." not in bar


def test_json_for_a_person_is_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets lines, a pipe gets one line."""
    for terminal, lines in ((True, 3), (False, 1)):
        stream = Terminal("utf-8", terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        output.write_json({"a": 1})
        assert lines == len(stream.text.splitlines())
