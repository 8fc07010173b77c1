"""Machines that a person saved under a name, and bandwidths that were measured here.

Profiles lie in ``machines/NAME.json`` beside the person's own catalog: the document of ``nemofit
probe --json``. Measurements lie in the cache directory, one file for all machines that share it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from nemofit.errors import DataError, NemofitError, UsageError
from nemofit.machine.records import Host, Machine

from .environment import cache_directory, config_directory

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEVICES: Final = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_MEASUREMENTS: Final = "ram-bandwidth.json"
_MEASURED_LIMIT: Final = 1 << 20
_ABOUT: Final = "RAM bandwidth: "


def path_of(name: str, catalog: str | None) -> Path:
    """Where a profile lies.

    Raises:
        UsageError: A name that could be a path, a file or an option.
    """
    if not NAME.fullmatch(name) or _DEVICES.fullmatch(name) or name.endswith((".json", ".")):
        raise UsageError(
            f"{name!r:.80} is no name for a machine",
            "letters, digits, dots, dashes and underscores, for example --save office",
        )
    return config_directory(catalog) / "machines" / f"{name}.json"


def save(name: str, document: Mapping[str, Any], catalog: str | None) -> Path:
    """Write a probe's document under a name; the one before it is replaced as a whole.

    Raises:
        UsageError: A bad name.
        DataError: The place cannot be written.
    """
    path = path_of(name, catalog)
    _write(path, json.dumps(document, allow_nan=False, indent=1) + "\n")
    return path


def load(name: str, catalog: str | None) -> Machine | None:
    """The machine that was saved under exactly this name, None: there is none.

    Raises:
        DataError: Its file is broken.
    """
    if not NAME.fullmatch(name) or name not in names(catalog):
        return None
    from nemofit.machine.file import read_machine

    return replace(read_machine(path_of(name, catalog)), source=name)


def names(catalog: str | None) -> list[str]:
    """The names of all saved machines, sorted."""
    try:
        files = os.listdir(config_directory(catalog) / "machines")
    except OSError:
        return []
    found = (f.removesuffix(".json") for f in files if f.endswith(".json"))
    return sorted(n for n in found if NAME.fullmatch(n))


def keep_bandwidth(host: Host, gb_s: float, threads: int, date: str) -> None:
    """Remember a measurement of this machine.

    Raises:
        DataError: The cache cannot be written.
    """
    known = _measurements()
    known[_fingerprint(host)] = {"gb_s": gb_s, "threads": threads, "date": date}
    _write(cache_directory() / _MEASUREMENTS, json.dumps(known) + "\n")


def with_measured(machine: Machine) -> Machine:
    """This machine with the bandwidth that was measured on it, if it was."""
    known = _measurements()
    found = known.get(_fingerprint(machine.host)) if known else None
    if not isinstance(found, dict):
        return machine
    gb_s, date, threads = (found.get(k) for k in ("gb_s", "date", "threads"))
    if not isinstance(gb_s, int | float) or not 0 < gb_s < 1e5:
        return machine
    if not (isinstance(date, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", date)):
        return machine
    note = f"{_ABOUT}measured on {date} with {threads} threads (nemofit probe --measure)"
    others = tuple(n for n in machine.host.notes if not n.startswith(_ABOUT))
    host = replace(
        machine.host,
        ram_bandwidth_gb_s=float(gb_s),
        ram_bandwidth_basis="measured",
        notes=(*others, note),
    )
    return replace(machine, host=host)


def _measurements() -> dict[str, Any]:
    try:
        with open(cache_directory() / _MEASUREMENTS, "rb") as f:
            found = json.loads(f.read(_MEASURED_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _fingerprint(host: Host) -> str:
    """Tells machines apart that share a home directory; names nothing about them."""
    import platform
    from hashlib import sha256

    facts = (platform.node(), host.cpu, host.physical_cores, host.ram_total_bytes)
    return sha256(repr(facts).encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    """Replace a file at once, or leave it as it was."""
    import tempfile

    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".", suffix=".part", delete=False
        ) as f:
            temporary = f.name
            f.write(text)
        os.replace(temporary, path)
    except OSError as e:
        if temporary is not None:
            _forget(temporary)
        raise DataError(
            f"{path} cannot be written: {e.strerror}", "mend the folder, or name another: --catalog"
        ) from e


def _forget(file: str) -> None:
    try:
        os.unlink(file)
    except OSError:
        return


def summary(name: str, catalog: str | None) -> tuple[str | None, str | None]:
    """A saved machine in words, or why it cannot be read."""
    from nemofit.machine import describe

    try:
        machine = load(name, catalog)
    except NemofitError as e:
        return None, e.message
    return (describe(machine), None) if machine else (None, "it has gone")
