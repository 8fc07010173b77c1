"""The command edge's one table: from what went wrong to a message and an exit code."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from nemofit.errors import NemofitError

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Failure:
    """What to tell and how to end."""

    message: str
    hint: str | None
    exit_code: int


def _told(error: BaseException) -> Failure:
    assert isinstance(error, NemofitError)
    return Failure(error.message, error.hint, error.exit_code)


def _system(error: BaseException) -> Failure:
    assert isinstance(error, OSError)
    reason = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    hint = "free some space, or write elsewhere" if error.errno == errno.ENOSPC else None
    return Failure(f"{where}{reason}", hint, 1)


def _memory(_: BaseException) -> Failure:
    return Failure("out of memory", "close other programs and try again", 1)


def _unexpected(error: BaseException) -> Failure:
    return Failure(
        f"unexpected {type(error).__name__}: {error}",
        "run again with --debug and report what it prints",
        1,
    )


_TABLE: tuple[tuple[type[BaseException], Callable[[BaseException], Failure]], ...] = (
    (NemofitError, _told),
    (OSError, _system),
    (MemoryError, _memory),
    (Exception, _unexpected),
)


def failure(error: BaseException) -> Failure:
    """Find the message and the exit code of an error."""
    return next(tell(error) for kind, tell in _TABLE if isinstance(error, kind))
