"""How wide a range must be: nine of ten measurements that the constants had not seen lay inside.

The factors are the 4th and 96th percentile of measured over estimated speed when whole devices
and whole model families are left out of the calibration, by kind of run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .families import Figures
from .fitted import ROWS, SPREADS
from .work import HOST, Work

UNSEEN_FAMILY = 1.2
"""Further factor where no card of the family has a published speed."""

SEVERAL_STREAMS = "streams"


def kind_of(works: Sequence[Work], figures: Mapping[int, Figures]) -> str:
    """cpu, partial (GPUs and host), multi (several GPUs) or the only GPU's own: apple or gpu."""
    gpus = [w.device for w in works if w.device != HOST]
    if not gpus:
        return "cpu"
    if len(gpus) < len(works):
        return "partial"
    if len(gpus) > 1:
        return "multi"
    return "apple" if figures[gpus[0]].family.startswith("apple") else "gpu"


def names_of(phase: str, kind: str, sparse: bool) -> tuple[str, str]:
    """Keys of ``SPREADS`` for a kind of run: its own, and that of all where too few are known."""
    if kind == SEVERAL_STREAMS:
        return f"{phase}/{kind}", phase
    return f"{phase}/{kind}/{'moe' if sparse else 'dense'}", phase


def spread(
    phase: str, kind: str, sparse: bool, streams: int, figures: Mapping[int, Figures]
) -> tuple[float, float]:
    """Factors from the likely speed to the low and to the high one.

    Args:
        phase: decode or prefill.
        kind: From :func:`kind_of`.
        sparse: The model has routed experts.
        streams: Several of them have factors of their own when decoding.
        figures: Devices; a family without measurements widens the range.
    """
    if streams > 1 and phase == "decode":
        kind = SEVERAL_STREAMS
    low, high = next(SPREADS[n] for n in names_of(phase, kind, sparse) if n in SPREADS)
    if unmeasured(figures):
        low, high = low / UNSEEN_FAMILY, high * UNSEEN_FAMILY
    return low, high


def unmeasured(figures: Mapping[int, Figures]) -> tuple[str, ...]:
    """Families of these GPUs of which no card has a published speed."""
    families = (f.family for device, f in figures.items() if device != HOST)
    return tuple(f for f in dict.fromkeys(families) if not ROWS.get(f))
