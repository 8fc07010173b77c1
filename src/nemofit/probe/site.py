"""Where a probe reads: a root of files, an environment, a system. Tests hand in another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nemofit.errors import HardwareError

T = TypeVar("T")
Run = Callable[[Sequence[str]], "str | None"]

DEADLINE_S = 30.0  # eight cards without persistence mode take most of it to wake
_TEXT_LIMIT = 1 << 18


def run_command(command: Sequence[str]) -> str | None:
    """What a command prints, or None where it is missing, fails to start or takes over 5 s."""
    from .run import run

    try:
        done = run(command, seconds=5)
    except HardwareError:
        return None
    return None if done.timed_out else done.out


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One machine to read.

    Attributes:
        root: Folder that stands for ``/``.
        environ: The environment of the run that is planned.
        system: As ``sys.platform`` says it.
        libraries: Whether driver libraries of this process may be asked (NVML, Metal).
        run: Runs a command and gives its output or None.
        deadline_s: Seconds after which a driver that does not answer is given up.
        python_path: Folders in which this Python finds its packages.
    """

    root: str = "/"
    environ: Mapping[str, str] = field(default_factory=dict)
    system: str = "linux"
    libraries: bool = False
    run: Run = run_command
    deadline_s: float = DEADLINE_S
    python_path: tuple[str, ...] = ()

    def path(self, path: str) -> str:
        """The place of an absolute path below the root."""
        return os.path.join(self.root, path.lstrip("/"))

    def text(self, path: str, limit: int = _TEXT_LIMIT) -> str | None:
        """The first ``limit`` bytes of a file without surrounding blanks, None where unreadable."""
        try:
            with open(self.path(path), "rb", buffering=0) as f:
                parts: list[bytes] = []
                while limit > 0 and (part := f.read(limit)):
                    parts.append(part)
                    limit -= len(part)
        except OSError:
            return None
        return b"".join(parts).decode("utf-8", "replace").strip("\0 \t\r\n")

    def number(self, path: str) -> int | None:
        """A file that holds one whole number, decimal or 0x; None for anything else."""
        return whole(self.text(path, 64))

    def names(self, path: str) -> list[str]:
        """The sorted names in a folder, [] where there is none."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []


def this_site() -> Site:
    """This machine as a run started from this process would see it."""
    import sys

    return Site(
        environ=os.environ, system=sys.platform, libraries=True, python_path=tuple(sys.path)
    )


def whole(text: str | None) -> int | None:
    """A whole number, decimal or 0x, or None."""
    try:
        return int(text, 0) if text else None
    except ValueError:
        return None


class Waiting(Generic[T]):
    """A call in a thread of its own, which a hung driver cannot keep from being given up.

    The thread is a daemon: neither the probe nor the end of the program waits for it.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        import threading

        self._result: list[T] = []
        self._error: list[BaseException] = []

        def work() -> None:
            try:
                self._result.append(call())
            except Exception as e:
                self._error.append(e)

        self._thread = threading.Thread(target=work, name="nemofit-probe", daemon=True)
        self._thread.start()

    @property
    def unfinished(self) -> bool:
        """Whether the call still runs."""
        return self._thread.is_alive()

    def result(self, seconds: float) -> T:
        """What the call gave.

        Raises:
            TimeoutError: It did not answer in time.
            Exception: What the call raised.
        """
        self._thread.join(max(0.0, seconds))
        if self._error:
            raise self._error[0]
        if not self._result:
            raise TimeoutError
        return self._result[0]
