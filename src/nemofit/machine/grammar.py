"""What the pieces of a description are made of: sizes, rates, additions, and what they said."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from ..catalog.cards import Card
from ..errors import UsageError
from ..units import GIB, KIB, MIB, TIB
from .records import Gpu

EXAMPLE: Final = "write for example '2x RTX 3090, 64 GiB RAM, 16 cores'"
MOST_GPUS: Final = 256

_UNITS: Final = {"k": KIB, "m": MIB, "g": GIB, "t": TIB}
NUMBER: Final = r"\d{1,16}(?:\.\d{1,9})?"
SIZE: Final = rf"(?P<size>{NUMBER})\s*(?:(?P<unit>[kmgt])(?P<binary>i?)b?|bytes)"
CARD_SIZE: Final = rf"(?P<size>{NUMBER})\s*(?P<unit>[mg])(?P<binary>i?)b"
TIMES: Final = r"(?:(?P<count>\d{1,9})\s*[x×*]\s*)"
COUNT: Final = TIMES + "?"
RATE: Final = rf"(?P<rate>{NUMBER})\s*gi?b\s*(?:/\s*s|ps)"
AT: Final = rf"(?:\s*@\s*{RATE})?"
DDR: Final = r"(?P<ddr>(?:lp)?ddr\d\w?)(?:[- ](?P<speed>\d{3,5}))?(?:\s*(?:mt/s|mhz))?"
CHANNELS: Final = r"(?:\s*(?:[x×]\s*(?P<channels>\d{1,2})|(?P<channels2>\d{1,2})[- ]channels?))?"

_ANY_SIZE = rf"{NUMBER}\s*(?:[kmgt]i?b?|bytes)"
_ADDITIONS: Final = (
    ("free", re.compile(rf"(?P<rest>.*)[\s(](?P<value>{_ANY_SIZE}) free\)?", re.IGNORECASE)),
    ("total", re.compile(rf"(?P<rest>.*)[\s(](?P<value>{_ANY_SIZE}) total\)?", re.IGNORECASE)),
    ("pcie", re.compile(r"(?P<rest>.*)\spcie (?P<value>\d(?:\.0)? x\d{1,2})", re.IGNORECASE)),
    (
        "display",
        re.compile(r"(?P<rest>.*)\s(?P<value>with|without|no) (?:a )?display", re.IGNORECASE),
    ),
    ("tflops", re.compile(rf"(?P<rest>.*)\s(?P<value>{NUMBER}) tflops", re.IGNORECASE)),
    (
        "architecture",
        re.compile(r"(?P<rest>.*)\s(?P<value>(?:rdna|cdna|gcn) \d\.\d|xe2?)", re.IGNORECASE),
    ),
    ("capability", re.compile(r"(?P<rest>.*)\scc (?P<value>\d{1,2}\.\d)", re.IGNORECASE)),
)
"""What may be said behind a piece, last one first."""


@dataclass(slots=True)
class Draft:
    """What the pieces have said so far.

    Attributes:
        cards: Parts whose memory is the machine's, with the size and the rate that were given;
            each has a placeholder among ``gpus``.
    """

    cards: list[tuple[Card, int | None, float | None, Additions]] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)
    said: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    basis: str = "given"

    def say(self, what: str, value: object, piece: str) -> None:
        """Keep a value.

        Raises:
            UsageError: Another one was said before.
        """
        if self.said.setdefault(what, value) != value:
            raise UsageError(f"{piece!r} gives the {what} a second time", "say it once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What was said behind a piece; None: nothing. ``tflops`` are of single precision."""

    free: int | None = None
    total: int | None = None
    pcie: tuple[int, int] | None = None
    display: bool | None = None
    tflops: float | None = None
    architecture: str | None = None
    capability: str | None = None

    def names(self) -> set[str]:
        """Those that were said."""
        return {name for name in self.__slots__ if getattr(self, name) is not None}


def additions(piece: str) -> tuple[str, Additions]:
    """A piece without what stands behind it, and that.

    Raises:
        UsageError: Something is said twice, or makes no sense.
    """
    found: dict[str, object] = {}
    rest = f" {piece}"
    while True:
        for name, pattern in _ADDITIONS:
            if m := pattern.fullmatch(rest):
                if name in found:
                    raise UsageError(f"{piece!r} says {name} twice", "say it once")
                found[name] = _value(name, m["value"], piece)
                rest = m["rest"]
                break
        else:
            return rest.strip(), Additions(**found)  # type: ignore[arg-type]


def _value(name: str, text: str, piece: str) -> object:
    if name in ("free", "total"):
        return size_of(text, piece)
    if name == "display":
        return text.lower() == "with"
    if name == "pcie":
        generation, _, lanes = text.lower().partition(" x")
        found = int(generation[0]), int(lanes)
        if not 1 <= found[0] <= 8 or found[1] not in (1, 2, 4, 8, 12, 16, 32):
            raise UsageError(f"{piece!r}: there is no PCIe {text}", "write for example PCIe 4 x16")
        return found
    if name == "tflops":
        if not 0 < float(text) <= 1e6:
            raise UsageError(f"{piece!r} is no computing rate", EXAMPLE)
        return float(text)
    return text.upper() if name == "architecture" else text


def size_of(text: str, piece: str) -> int:
    """Bytes of ``"24 GiB"``, ``"24g"``, ``"123456 bytes"``.

    Raises:
        UsageError: No size that memory has.
    """
    m = re.fullmatch(rf"({NUMBER})\s*(?:([kmgt])i?b?|bytes)", text, re.IGNORECASE)
    size = int(float(m[1]) * _UNITS.get((m[2] or "").lower(), 1)) if m else 0
    if not 0 < size <= 1024 * TIB:
        raise UsageError(f"{piece!r} is no size that memory has", EXAMPLE)
    return size


def bytes_of(match: re.Match[str], piece: str) -> int:
    """The size that a pattern with ``SIZE`` or ``CARD_SIZE`` in it found."""
    unit = match["unit"]
    return size_of(f"{match['size']} {unit}b" if unit else f"{match['size']} bytes", piece)


def rate_of(match: re.Match[str], piece: str) -> float | None:
    """The bandwidth in GB/s that a pattern with ``RATE`` or ``AT`` in it found."""
    if match["rate"] is None:
        return None
    rate = float(match["rate"])
    if not 0 < rate <= 1e6:
        raise UsageError(f"{piece!r} is no bandwidth that memory has", EXAMPLE)
    return rate


def count_of(match: re.Match[str], piece: str) -> int:
    """How many, 1 where it is not said."""
    count = int(match.groupdict().get("count") or 1)
    if not 0 < count <= MOST_GPUS:
        raise UsageError(f"{piece!r}: a machine has 1 to {MOST_GPUS} of them", EXAMPLE)
    return count
