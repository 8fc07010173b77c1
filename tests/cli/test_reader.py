"""The quick reader and typer read the same line the same way, or the quick one leaves it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.cli.options import OPTIONS
from nemofit.cli.reader import read
from nemofit.cli.table import COMMANDS
from nemofit.cli.typed import parse

VALUES = ["8k", "nemotron", "-", "-1", "a b", "1,1", "", "--json"]


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its options, each with some value, arguments anywhere."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    entry = COMMANDS[name]
    words: list[list[str]] = []
    for key in draw(st.lists(st.sampled_from(entry.options), unique=True, max_size=6)):
        option = OPTIONS[key]
        if not option.flags:
            words.append([draw(st.sampled_from(["nemotron", "x.gguf"]))])
            continue
        flag = draw(st.sampled_from([*option.flags, *([option.off] if option.off else [])]))
        if option.metavar is None:
            words.append([flag])
        elif draw(st.booleans()) and flag.startswith("--"):
            words.append([f"{flag}={draw(st.sampled_from(VALUES))}"])
        else:
            words.append([flag, draw(st.sampled_from(VALUES))])
    return [name, *(word for group in words for word in group)]


@given(lines())
@settings(deadline=None, max_examples=60)
def test_both_agree(line: list[str]) -> None:
    """Where the quick reader has an answer, typer has the same one."""
    quick = read(line, {})
    if quick is not None:
        assert parse(line) == quick


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["--help"],
        ["plan", "--help"],
        ["plan", "-h"],
        ["plan"],
        ["dance"],
        ["plan", "x", "-c"],
        ["plan", "x", "--contxt", "8k"],
        ["plan", "x", "y"],
        ["plan", "x", "--json=yes"],
        ["recommend", "x"],
    ],
    ids=" ".join,
)
def test_what_is_not_usual_is_left_to_typer(line: list[str]) -> None:
    """Help, mistakes and abbreviations."""
    assert read(line, {}) is None


def test_the_environment_speaks_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory and a switch; what is typed comes first."""
    monkeypatch.setenv("NEMOFIT_CATALOG", "/facts")
    monkeypatch.setenv("NEMOFIT_DEBUG", "1")
    line = ["plan", "x", "--json"]
    expected = parse(line)
    environment = {"NEMOFIT_CATALOG": "/facts", "NEMOFIT_DEBUG": "1"}
    assert expected == read(line, environment)
    assert isinstance(expected, tuple)
    assert (expected[1].catalog, expected[1].debug) == ("/facts", True)
    typed = read([*line, "--catalog", "/mine"], environment)
    assert typed is not None
    assert typed[1].catalog == "/mine"
