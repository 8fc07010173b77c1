"""What an installed program says of its own flags, asked once and then remembered."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from nemofit.errors import HardwareError

from .run import run

_SECONDS = 10.0
_LIMIT = 1 << 20
_SHORTEST = 200
"""Characters; a help text is longer, a message about a missing library is not."""

_INSTEAD = "install it again, or remove it from the PATH to print commands for today's builds"


def program_help(path: str, cache: Path | None = None) -> str:
    """The text of ``PROGRAM --help``.

    It is kept in ``cache`` for as long as the program's file stays what it is.

    Raises:
        HardwareError: It crashes, hangs or says nothing.
    """
    kept = None if cache is None else cache / "help" / f"{_fingerprint(path)}.json"
    if kept is not None and (text := _kept(kept)) is not None:
        return text
    try:
        said = run([path, "--help"], seconds=_SECONDS, limit=_LIMIT)
    except HardwareError as error:
        raise HardwareError(error.message, _INSTEAD) from error
    if len(said.text) < _SHORTEST or said.timed_out or said.cut:
        last = said.text.strip().splitlines()[-1:] or [""]
        why = said.why or "printed no help"
        raise HardwareError(
            f"{path} --help {why}" + (f": {last[0][:200]}" if last[0] else ""), _INSTEAD
        )
    if kept is not None:
        _keep(kept, said.text)
    return said.text


def _fingerprint(path: str) -> str:
    try:
        status = os.stat(path)
        what = f"{os.path.realpath(path)}\0{status.st_mtime_ns}\0{status.st_size}"
    except OSError:
        what = path
    return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _kept(file: Path) -> str | None:
    try:
        text = json.loads(file.read_bytes()[: _LIMIT * 2])
    except (OSError, ValueError):
        return None
    return text if isinstance(text, str) else None


def _keep(file: Path, text: str) -> None:
    """Written beside and moved into place; a cache that cannot be written is none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.{os.getpid()}")
        fresh.write_text(json.dumps(text))
        fresh.replace(file)
    except OSError:
        return
