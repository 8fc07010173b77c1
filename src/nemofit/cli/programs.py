"""Which of llama.cpp's programs to run, and running it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nemofit.errors import HardwareError, UsageError
from nemofit.probe.engines import find_program
from nemofit.probe.run import Outcome, run

_GET = {
    "darwin": "brew install llama.cpp",
    "win32": "winget install llama.cpp",
}
_RELEASES = "https://github.com/ggml-org/llama.cpp/releases"
_ALL_IN_ONE = "llama"  # one program with the others as its words (llama.cpp, app/llama.cpp)
_DOWNLOADS = ("LLAMA_ARG_HF_", "LLAMA_ARG_MODEL", "LLAMA_ARG_DOCKER_", "LLAMA_ARG_MMPROJ")


def llama_program(name: str, chosen: str | None) -> list[str]:
    """The command that starts one of llama.cpp's programs.

    Args:
        name: ``llama-fit-params``, ``llama-bench``, ``llama-server``.
        chosen: ``--program``: a directory of programs, or one of them; None: the first on PATH,
            or where installers put it.

    Raises:
        UsageError: What was chosen does not exist.
        HardwareError: It is not installed.
    """
    if chosen is None:
        find: Callable[[str], str | None] = find_program
        where = "on PATH or where installers put it"
    else:
        place = _place(chosen)
        if place.is_file() and place.stem == name:
            return [str(place)]
        where = str(place if place.is_dir() else place.parent)
        find = partial(shutil.which, path=where)
        where = f"in {where}"
    if found := find(name):
        return [found]
    if together := find(_ALL_IN_ONE):
        return [together, name.removeprefix("llama-")]
    get = _GET.get(sys.platform)
    raise HardwareError(
        f"{name} was not found {where}",
        f"{f'{get}, or ' if get else ''}unpack a build of {_RELEASES} "
        "and name its directory with --program",
    )


def ask(
    command: Sequence[str], seconds: float, told: Callable[[str], None] | None = None
) -> Outcome:
    """Run one of llama.cpp's programs with this environment, less what makes it download.

    Args:
        command: Program and arguments.
        seconds: Longest it may take.
        told: Called with each line of its stderr.

    Raises:
        HardwareError: It cannot be started, or takes longer than it may.
    """
    environ = {k: v for k, v in os.environ.items() if not k.startswith(_DOWNLOADS)}
    done = run(
        command, seconds=seconds, environ={**environ, "GGML_NO_BACKTRACE": "1"}, on_error_line=told
    )
    if done.timed_out:
        raise HardwareError(
            f"{Path(command[0]).name} did not answer within {seconds:g} s and was ended",
            "a driver may hang: see whether llama-server --list-devices answers",
        )
    return done


def _place(chosen: str) -> Path:
    place = Path(chosen).expanduser()
    try:
        exists = place.exists()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise UsageError(
            f"--program {chosen!r:.200} does not exist", "name llama.cpp's directory of programs"
        )
    return place.absolute()
