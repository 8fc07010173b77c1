"""Ask a program or a server of this machine one question, within limits of time and size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .site import Waiting

PROGRAM_S = 5.0
"""A CUDA build that wakes the driver takes two seconds to print its version."""
SERVER_S = 1.0
ANSWER_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a program printed, both streams together, and how it ended.

    Attributes:
        code: Exit status, negative for a signal; None where it did not start or did not end.
        why: What went wrong, None: it ended by itself with status 0.
    """

    text: str = ""
    code: int | None = None
    why: str | None = None


def ask_program(
    command: Sequence[str],
    seconds: float = PROGRAM_S,
    limit: int = ANSWER_LIMIT,
    environ: Mapping[str, str] | None = None,
) -> Said:
    """Run a program for at most ``seconds`` and keep at most ``limit`` bytes of what it prints.

    It gets no input, and whatever it started ends with it.

    Args:
        environ: Its whole environment, None: this process's.
    """
    import subprocess
    import time

    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if environ is None else dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as e:
        return Said(why=f"cannot be started: {getattr(e, 'strerror', None) or e}")
    end = time.monotonic() + seconds
    stream = process.stdout
    assert stream is not None
    parts: list[bytes] = []

    def read() -> None:
        left = limit
        while left > 0 and (part := os.read(stream.fileno(), min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)

    why = None
    try:
        Waiting(read).result(end - time.monotonic())
        if sum(map(len, parts)) >= limit:
            why = f"printed more than {limit >> 10} KiB"
        else:
            process.wait(max(0.0, end - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        why = f"gave no answer within {seconds:g} s"
    except OSError as e:
        why = f"cannot be read: {e.strerror}"
    _end(process)
    text = b"".join(parts).decode("utf-8", "replace")
    if why is not None:
        return Said(text=text, why=why)
    code = process.returncode
    ended = None if code == 0 else f"was ended by signal {-code}" if code < 0 else None
    return Said(text=text, code=code, why=ended or (f"ended with status {code}" if code else None))


def _end(process: object) -> None:
    """End the program with all that it started, and take its status."""
    import signal
    import subprocess

    assert isinstance(process, subprocess.Popen)
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except OSError:
        pass  # it has ended already
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        return  # not even a kill ends it: it waits for a device
    assert process.stdout is not None
    process.stdout.close()


def ask_server(host: str, port: int, path: str, seconds: float = SERVER_S) -> object | None:
    """The JSON that a server on this machine answers, None where there is none.

    Args:
        host: An address of this machine; nothing else is asked.
    """
    if host not in ("127.0.0.1", "::1"):
        raise ValueError(host)

    def ask() -> object | None:
        import json
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection(host, port, timeout=seconds)
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read(ANSWER_LIMIT + 1)
            if answer.status != 200 or len(body) > ANSWER_LIMIT:
                return None
            found: object = json.loads(body)
            return found
        except (OSError, HTTPException, ValueError, RecursionError):
            return None
        finally:
            connection.close()

    try:
        return Waiting(ask).result(seconds)
    except TimeoutError:
        return None
