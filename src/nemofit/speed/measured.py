"""What was measured on this machine, and how it corrects the estimates for it.

A measurement tells how much of its bandwidth a device really reaches, how fast it multiplies, and,
once models of different size were measured, what it spends beside: three factors per device on
:class:`.families.Figures`, so that every model and setting profits. What is left for a model that
was measured itself is kept beside them.

The ranges are those that remained on published machines when each model was estimated after
correction by the others measured there: ``python -m benchmarks.speed.own``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nemofit.catalog.model import ModelSpec
from nemofit.machine.records import Gpu, Host, Machine

from .families import Figures
from .fitted import VALUES
from .work import HOST, Work

REMAINING = {
    "decode/same": (0.885, 1.107),
    "decode/other": (0.758, 1.273),
    "prefill/same": (0.734, 1.358),
    "prefill/other": (0.712, 1.483),
}
"""Factors from the likely speed to the low and high one, where the same model or another one was
measured on the machine: 4th and 96th percentile of 377, 229, 194 and 83 published rows."""

LEAST, MOST = 0.005, 5.0
"""A factor above is no property of a device but of another model; below, nothing was measured."""

MODEL_OF_SPEED = f"{zlib.crc32(repr(VALUES).encode()):08x}"
"""Names the constants that the corrections are relative to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Factors on what the model of speed expects of one device.

    Attributes:
        read: On the bandwidth that reading weights and cache reaches.
        arithmetic: On the rate of matrix products and attention over a prompt.
        overhead: On the time that an operation takes beside its reading and arithmetic.
        phases: What was measured on it: decode, prefill.
    """

    read: float = 1.0
    arithmetic: float = 1.0
    overhead: float = 1.0
    phases: frozenset[str] = frozenset()

    def applied(self, f: Figures) -> Figures:
        """A device's figures as they were found to be."""
        on_host = f.family == "cpu"
        return replace(
            f,
            bandwidth=f.bandwidth * self.read,
            clocks=f.clocks * (self.arithmetic if on_host else self.read),
            kernel=f.kernel * self.overhead,
            matrix=f.matrix * self.arithmetic,
            matrix_16=f.matrix_16 * self.arithmetic,
            attend=f.attend * self.arithmetic,
            assumed=() if "decode" in self.phases else f.assumed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """All that was measured on one host.

    Attributes:
        host: From :func:`host_key`.
        devices: Corrections by device, from :func:`device_key`; the host's under "host".
        models: What is left for a model, measured over corrected, by "phase/devices/model".
        date: Of the latest measurement, as ISO 8601 says it.
        model_of_speed: What the corrections are relative to.
    """

    host: str
    devices: Mapping[str, Correction] = field(default_factory=dict)
    models: Mapping[str, float] = field(default_factory=dict)
    date: str = ""
    model_of_speed: str = MODEL_OF_SPEED

    def correction(
        self, figures: Mapping[int, Figures], keys: Mapping[int, str]
    ) -> dict[int, Figures]:
        """The figures of every device, corrected where it was measured."""
        return {
            device: self.devices[keys[device]].applied(f) if keys[device] in self.devices else f
            for device, f in figures.items()
        }


_current: list[Calibration] = []


def use(calibration: Calibration | None) -> None:
    """From now on estimate with what was measured; None: with the model of speed alone."""
    _current[:] = [] if calibration is None else [calibration]


def current() -> Calibration | None:
    """What is in use."""
    return _current[0] if _current else None


def matching(host: Host) -> Calibration | None:
    """What was measured on this host; None: nothing, or with other hardware or constants."""
    found = current()
    if found is None or found.host != host_key(host) or found.model_of_speed != MODEL_OF_SPEED:
        return None
    return found


def mismatch(machine: Machine) -> str | None:
    """Why what was measured is not used for a probed machine; None: it is, or there is nothing."""
    found = current()
    if found is None or machine.source != "probe":
        return None
    if found.host != host_key(machine.host):
        return f"the calibration of {found.date[:10]} was made on other hardware: not used"
    if found.model_of_speed != MODEL_OF_SPEED:
        return f"the calibration of {found.date[:10]} is from another version: calibrate again"
    return None


def host_key(host: Host) -> str:
    """What makes a host the same for its speed: processor and cores."""
    return f"{host.cpu or 'unknown'}, {host.physical_cores or '?'} cores, {host.os}"


def device_key(gpu: Gpu) -> str:
    """What makes a card the same for its speed."""
    return f"{gpu.name}, {gpu.backend}"


def device_keys(gpus: Sequence[Gpu]) -> dict[int, str]:
    """The keys of all devices, the host's as -1."""
    return {HOST: "host", **{i: device_key(gpu) for i, gpu in enumerate(gpus)}}


def model_key(phase: str, works: Iterable[Work], keys: Mapping[int, str], model: ModelSpec) -> str:
    """Names a model on the devices that it runs on."""
    on = "+".join(sorted({keys[w.device] for w in works}))
    return f"{phase}/{on}/{model.architecture}-{model.parameters}"


@dataclass(frozen=True, slots=True)
class Known:
    """What a calibration says about one phase of a run.

    Attributes:
        factor: On the corrected time.
        range: From the likely speed to the low and the high one.
    """

    factor: float
    range: tuple[float, float]


def known(
    calibration: Calibration,
    phase: str,
    works: Sequence[Work],
    keys: Mapping[int, str],
    model: ModelSpec,
) -> Known | None:
    """What was measured that concerns this run; None: a device of it was not measured."""
    for work in works:
        correction = calibration.devices.get(keys[work.device])
        if correction is None or phase not in correction.phases:
            return None
    left = calibration.models.get(model_key(phase, works, keys, model))
    return Known(1.0 / (left or 1.0), REMAINING[f"{phase}/{'same' if left else 'other'}"])


def nearer(own: tuple[float, float], usual: tuple[float, float]) -> tuple[float, float]:
    """The nearer end of two ranges on either side: both hold."""
    return max(own[0], usual[0]), min(own[1], usual[1])


def within(factor: float) -> bool:
    """Whether a factor can be a property of a device."""
    return math.isfinite(factor) and LEAST <= factor <= MOST
