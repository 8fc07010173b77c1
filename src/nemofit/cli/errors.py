"""The command edge's one table: from what went wrong to a message and an exit code."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NamedTuple

from nemofit.errors import NemofitError, UsageError

INTERRUPTED = 130


class Failure(NamedTuple):
    """What to tell and how to end."""

    message: str
    hint: str | None
    exit_code: int


def _told(error: Any) -> Failure:
    return Failure(error.message, error.hint, error.exit_code)


def _mistyped(error: Any) -> Failure:
    """An error of typer's about the command line."""
    path = getattr(getattr(error, "ctx", None), "command_path", None) or "nemofit"
    return Failure(error.format_message(), f"{path} --help", UsageError.exit_code)


def _system(error: Any) -> Failure:
    reason = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    hint = "free some space, or write elsewhere" if error.errno == errno.ENOSPC else None
    return Failure(f"{where}{reason}", hint, 1)


def _memory(_: Any) -> Failure:
    return Failure("out of memory", "close other programs and try again", 1)


def _unexpected(error: Any) -> Failure:
    return Failure(
        f"unexpected {type(error).__name__}: {error}",
        "run again with --debug and report what it prints",
        1,
    )


_TABLE: tuple[tuple[Callable[[BaseException], bool], Callable[[Any], Failure]], ...] = (
    (lambda error: isinstance(error, NemofitError), _told),
    (lambda error: hasattr(error, "format_message"), _mistyped),
    (lambda error: isinstance(error, OSError), _system),
    (lambda error: isinstance(error, MemoryError), _memory),
    (lambda _: True, _unexpected),
)


def failure(error: BaseException) -> Failure:
    """Find the message and the exit code of an error."""
    return next(tell(error) for holds, tell in _TABLE if holds(error))
