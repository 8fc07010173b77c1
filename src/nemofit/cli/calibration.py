"""The file that keeps what was measured on this machine."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nemofit import __version__
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import DataError, HardwareError, NemofitError
from nemofit.formats.load import load_model
from nemofit.speed import measured as speeds
from nemofit.speed.calibrate import Measured

from . import output

_SCHEMA = "nemofit/calibration/1"
_MOST_BYTES = 1 << 20
_MOST_MEASUREMENTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One measurement as it is kept: enough to load the model again and to show what it was."""

    ref: str
    model: str
    quant: str | None
    phase: str
    tokens: int
    depth: int
    speed: float
    expected: float | None
    engine: str
    date: str
    config: Mapping[str, Any]

    def measured(self) -> Measured:
        """The same with its model.

        Raises:
            NemofitError: The model is not there any more.
        """
        knobs: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in self.config.items()
        }
        knobs["override_tensors"] = ()
        return Measured(
            model=load_model(self.ref),
            quant=self.quant,
            config=RunConfig(**knobs),
            phase=self.phase,
            tokens=self.tokens,
            depth=self.depth,
            speed=self.speed,
            date=self.date,
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """New measurements: of which model, by which name it is found again, by which engine."""

    measured: tuple[Measured, ...]
    ref: str
    model: ModelSpec
    engine: str
    notes: tuple[str, ...] = ()


def kept(m: Measured, ref: str, model: ModelSpec, engine: str, expected: float | None) -> Kept:
    """What to keep of a measurement."""
    return Kept(
        ref=ref,
        model=model.id,
        quant=m.quant,
        phase=m.phase,
        tokens=m.tokens,
        depth=m.depth,
        speed=m.speed,
        expected=expected,
        engine=engine,
        date=m.date,
        config=asdict(m.config),
    )


def use(path: Path) -> None:
    """Estimate with what the file keeps; a file that cannot be read is said and left out."""
    try:
        speeds.use(read(path)[0])
    except DataError as error:
        speeds.use(None)
        output.talk(f"note: {error.message}: not used; nemofit calibrate --forget removes it")


def read(path: Path) -> tuple[speeds.Calibration, tuple[Kept, ...]]:
    """Read the file.

    Raises:
        DataError: It is damaged or not this program's.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        document: Any = json.loads(data) if len(data) <= _MOST_BYTES else {}
        return _calibration(document), tuple(_kept(m) for m in document["measurements"])
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}", "check the file"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is no calibration of this version", "nemofit calibrate --forget removes it"
        ) from error


def write(path: Path, found: speeds.Calibration, measurements: tuple[Kept, ...]) -> None:
    """Write the file, whole or not at all.

    Raises:
        HardwareError: It cannot be written.
    """
    document = {
        "schema": _SCHEMA,
        "nemofit": __version__,
        "host": found.host,
        "date": found.date,
        "model_of_speed": found.model_of_speed,
        "devices": {
            key: {**asdict(c), "phases": sorted(c.phases)} for key, c in found.devices.items()
        },
        "models": dict(found.models),
        "measurements": [asdict(m) for m in measurements[-_MOST_MEASUREMENTS:]],
    }
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        reason = error.strerror or error
        raise HardwareError(
            f"cannot write {path}: {reason}", "check the directory's permissions and space"
        ) from error


def again(measurements: tuple[Kept, ...]) -> tuple[list[Measured], list[Kept], list[str]]:
    """Earlier measurements with their models; those whose model is gone are named and dropped."""
    found, still, notes = [], [], list[str]()
    for one in measurements:
        try:
            found.append(one.measured())
        except (NemofitError, TypeError):
            notes.append(f"{one.model} is not here any more: its earlier measurement is dropped")
            continue
        still.append(one)
    return found, still, list(dict.fromkeys(notes))


def _calibration(d: Any) -> speeds.Calibration:
    if d["schema"] != _SCHEMA:
        raise ValueError(d["schema"])
    devices = {}
    for key, c in d["devices"].items():
        factors = {name: float(c[name]) for name in ("read", "arithmetic", "overhead")}
        if not all(speeds.within(f) for f in factors.values()):
            raise ValueError(key)
        devices[str(key)] = speeds.Correction(**factors, phases=frozenset(map(str, c["phases"])))
    models = {str(k): float(v) for k, v in d["models"].items()}
    if not all(math.isfinite(v) and 1e-3 < v < 1e3 for v in models.values()):
        raise ValueError("models")
    return speeds.Calibration(
        host=str(d["host"]),
        devices=devices,
        models=models,
        date=str(d["date"])[:40],
        model_of_speed=str(d["model_of_speed"]),
    )


def _kept(entry: Any) -> Kept:
    return Kept(**{field.name: entry[field.name] for field in fields(Kept)})
