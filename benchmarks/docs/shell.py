"""Where the examples run: an empty directory and home, the real command line, a real shell."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import nemofit
from nemofit.__main__ import main
from nemofit.catalog import store

PASSING = ("note: working out the catalog",)
"""Said only the first time that something is asked."""
_SOURCE = Path(nemofit.__file__).parents[1]
_FIELD = re.compile(r"\.([a-z][a-z0-9_]*)")


class Shell:
    """Runs the examples of one page.

    Args:
        place: An empty directory.
        cache: The cache directory, which several pages may share.
    """

    def __init__(self, place: Path, cache: Path) -> None:
        self.place = place / "work"
        self.code = 0
        self._names: dict[str, object] = {"__name__": "example"}
        home, programs = place / "home", place / "bin"
        for directory in (self.place, home, programs):
            directory.mkdir(parents=True)
        program = programs / "nemofit"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nemofit "$@"\n')
        program.chmod(0o755)
        self._environment = {
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(_SOURCE),
            "PYTHONIOENCODING": "utf-8",
            "HOME": str(home),
            "USERPROFILE": str(home),
            "XDG_CACHE_HOME": str(cache),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }

    def write(self, name: str, text: str) -> None:
        """Put a file where the examples run."""
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def type(self, line: str, shown: Sequence[str]) -> list[str]:
        """Run one line and return what it printed, data and talk together.

        Where jq is missing, the fields that a recipe names are looked up in the document instead,
        and ``shown`` is taken for what it would have printed.
        """
        command, pipe, rest = line.replace("\\\n", "").partition(" | ")
        if not command.startswith("nemofit ") or _needs_shell(command):
            return _lines(self._outside(line))
        args = shlex.split(command)[1:]
        if not pipe:
            return _lines(self._inside(args))
        talk = _Page()
        data = self._inside(args, talk)
        if rest.startswith("jq ") and shutil.which("jq") is None:
            _look_up(rest, data)
            return list(shown)
        return _lines(talk.getvalue() + self._outside(rest, data))

    def python(self, text: str, at: int) -> list[str]:
        """Run Python and return what it printed; the names live on in the page's next block."""
        printed = _Page()
        with self._within(), redirect_stdout(printed):
            exec(compile("\n" * (at - 1) + text, "example", "exec"), self._names)
        return _lines(printed.getvalue())

    def _inside(self, args: Sequence[str], talk: StringIO | None = None) -> str:
        """What the command line prints in this process; what it says beside it goes to ``talk``."""
        printed = _Page()
        with self._within(), redirect_stdout(printed), redirect_stderr(talk or printed):
            self.code = main(args)
        store.use_personal_catalog(None)
        return printed.getvalue()

    def _outside(self, line: str, data: str = "") -> str:
        """What a shell prints that is given a line, the last exit code and data to read."""
        done = subprocess.run(
            ["bash", "-c", f"(exit {self.code})\n{line}"],
            cwd=self.place,
            env={**os.environ, **self._environment},
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        self.code = done.returncode
        return done.stdout

    @contextmanager
    def _within(self) -> Iterator[None]:
        before, at, collecting = dict(os.environ), Path.cwd(), gc.get_threshold()
        gc.set_threshold(100_000, 20, 20)  # as a process of its own has it, see __main__
        os.environ.update(self._environment)
        for name in ("NEMOFIT_CATALOG", "NEMOFIT_DEBUG", "FORCE_COLOR"):
            os.environ.pop(name, None)
        os.chdir(self.place)
        try:
            yield
        finally:
            os.chdir(at)
            os.environ.clear()
            os.environ.update(before)
            gc.set_threshold(*collecting)


class _Page(StringIO):
    """Text in memory that, like a terminal of today, takes every character."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith(PASSING)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _needs_shell(line: str) -> bool:
    """Whether a line has a pipe, a list, a redirection or a variable in it."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    return "$" in line or any(set(word) <= set("|&;<>()") for word in words if word)


def _look_up(recipe: str, data: str) -> None:
    """The small form of a jq recipe: every field that it names is in the document."""
    missing = set(_FIELD.findall(recipe)) - set(_keys(json.loads(data)))
    if missing:
        raise ValueError(f"{recipe}: not in the document: {', '.join(sorted(missing))}")


def _keys(value: object) -> Iterator[str]:
    """Every key of a document, at any depth."""
    inner = value if isinstance(value, list) else []
    if isinstance(value, dict):
        yield from value
        inner = list(value.values())
    for one in inner:
        yield from _keys(one)
