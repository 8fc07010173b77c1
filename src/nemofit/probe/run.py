"""Run somebody else's program: never longer, and never with more output, than was allowed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from nemofit.errors import HardwareError

OUTPUT_LIMIT = 4 << 20
_LONGEST_LINE = 4096
_KILLED = 9
_LEFTOVER_S = 2.0  # for a pipe that a grandchild still holds open


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended.

    Attributes:
        code: Exit status; negative: the signal that ended it.
        out, err: What it printed, up to the limit.
        timed_out: It was ended because it took too long.
        cut: It printed more than was kept.
        why: What went wrong, in words that follow the program's name; None: it ended by itself
            with status 0.
    """

    code: int
    out: str
    err: str
    timed_out: bool = False
    cut: bool = False
    why: str | None = None

    @property
    def text(self) -> str:
        """Both outputs, stderr last."""
        return self.out + self.err


def run(
    command: Sequence[str],
    *,
    seconds: float,
    environ: Mapping[str, str] | None = None,
    limit: int = OUTPUT_LIMIT,
    on_error_line: Callable[[str], None] | None = None,
) -> Outcome:
    """Run a program to its end and keep what it prints.

    It has no input and a process group of its own, which ends with it however this call ends.

    Args:
        command: Program and arguments.
        seconds: Longest it may take.
        environ: Its environment; None: this process's.
        limit: Bytes that are kept of each of its outputs; the rest is read and thrown away.
        on_error_line: Called with each line that it writes to stderr, from another thread.

    Raises:
        HardwareError: It cannot be started.
    """
    process = _started(command, environ)
    timed_out = False
    try:
        readers = [
            _Reader(process.stdout, limit),
            _Reader(process.stderr, limit, on_error_line),
        ]
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
    finally:
        _end(process)
    for reader in readers:
        reader.thread.join(_LEFTOVER_S)
        reader.pipe.close()
    out, err = (bytes(r.kept).decode("utf-8", "replace") for r in readers)
    code = -_KILLED if process.returncode is None else process.returncode
    cut = any(r.cut for r in readers)
    why = f"ended with status {code}" if code > 0 else f"was ended by signal {-code}"
    if cut:
        why = f"printed more than {limit >> 10} KiB"
    elif timed_out:
        why = f"gave no answer within {seconds:g} s"
    return Outcome(
        code=code,
        out=out,
        err=err,
        timed_out=timed_out,
        cut=cut,
        why=why if code or cut or timed_out else None,
    )


def _started(command: Sequence[str], environ: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Start a program with pipes for both outputs and a process group of its own.

    Raises:
        HardwareError: It cannot be started.
    """
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environ is None else dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HardwareError(
            f"{command[0]} cannot be started: {reason}",
            "name another one with --program, or install it again",
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and everything that it started, and take its status."""
    if os.name == "posix":
        import signal

        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LEFTOVER_S)  # not even a kill ends what waits for a device


class _Reader:
    """Reads a pipe to its end in a thread of its own and keeps the beginning."""

    def __init__(
        self, pipe: IO[bytes] | None, limit: int, tell: Callable[[str], None] | None = None
    ) -> None:
        assert pipe is not None
        self._tell = tell
        self._line = bytearray()
        self.kept = bytearray()
        self.cut = False
        self.pipe = pipe
        self._limit = limit
        self.thread = threading.Thread(target=self._read, name="nemofit-run", daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            while part := os.read(self.pipe.fileno(), 1 << 16):
                room = max(0, self._limit - len(self.kept))
                self.kept += part[:room]
                self.cut = self.cut or len(part) > room
                if self._tell is not None:
                    self._lines(part, self._tell)
        except (OSError, ValueError):
            return

    def _lines(self, part: bytes, tell: Callable[[str], None]) -> None:
        *whole, rest = (bytes(self._line) + part).split(b"\n")
        self._line = bytearray(rest[:_LONGEST_LINE])
        for line in whole:
            tell(line[:_LONGEST_LINE].decode("utf-8", "replace"))
