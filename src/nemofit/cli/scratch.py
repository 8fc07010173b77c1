"""A private directory for a moment, gone however the command ends."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemofit.errors import HardwareError

_ENDINGS = ("SIGTERM", "SIGHUP", "SIGBREAK")


@contextmanager
def directory() -> Iterator[Path]:
    """A new directory that only this user can enter, removed at the end of the block.

    Raises:
        HardwareError: No directory for temporary files can be written.
    """
    with ending_like_ctrl_c():
        try:
            made = tempfile.TemporaryDirectory(prefix="nemofit-")
        except OSError as error:
            reason = error.strerror or error
            raise HardwareError(
                f"no temporary directory can be made: {reason}",
                "set TMPDIR to a directory that you can write",
            ) from error
        with made as path:
            yield Path(path)


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """Let a request to end unwind the block like Ctrl-C does, so that it can clean up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    for name in _ENDINGS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
