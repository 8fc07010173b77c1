"""Sizes: bytes inside, GiB for people, GB only for files as a hub shows them.

>>> gib(42520398752)
'39.60 GiB'
>>> parse_size("24 GiB")
25769803776
>>> parse_context("8k")
8192
"""

from __future__ import annotations

import re

from .errors import UsageError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

_UNITS = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": TIB, "tib": TIB, "tb": 1000**4,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_CONTEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([km]?)\s*", re.IGNORECASE)


def gib(n: int) -> str:
    """Format bytes as GiB with two decimals."""
    return f"{n / GIB:.2f} GiB"


def mib(n: int) -> str:
    """Format bytes as MiB with two decimals, as llama.cpp logs them."""
    return f"{n / MIB:.2f} MiB"


def gb(n: int) -> str:
    """Format a file's bytes as GB (10^9), the unit of model hubs."""
    return f"{n / 1e9:.2f} GB"


def rate(x: float) -> str:
    """Format a speed with two significant digits or all before the point, never in exponents."""
    return f"{x:.0f}" if x >= 9.95 else f"{x:.1f}" if x >= 0.95 else f"{x:.2f}"


def parse_size(text: str) -> int:
    """Read a size such as ``"24 GiB"``, ``"48GB"`` or ``"512M"`` into bytes.

    A bare letter means the binary unit, as memory is sold and as engines count it.

    Raises:
        UsageError: The text is not a size.
    """
    m = _SIZE.fullmatch(text)
    unit = _UNITS.get(m.group(2).lower()) if m else None
    if m is None or unit is None:
        raise UsageError(f"{text!r} is not a size", "write for example 24GiB, 48GB or 512MiB")
    return int(float(m.group(1)) * unit)


def article(name: str) -> str:
    """``a`` or ``an`` before a name that is read letter by letter: ``an f16``, ``a q8_0``."""
    return "an" if name[:1].lower() in "aefhilmnorsx8" else "a"


def parse_context(text: str) -> int:
    """Read a number of tokens: ``"8192"``, ``"8k"`` (8192), ``"1M"`` (1048576).

    Raises:
        UsageError: The text is not a count of at least 1.
    """
    m = _CONTEXT.fullmatch(text)
    n = float(m.group(1)) * {"": 1, "k": KIB, "m": MIB}[m.group(2).lower()] if m else 0.0
    if n < 1 or n != int(n):
        raise UsageError(
            f"context {text!r} is not a number of tokens", "write for example 8192 or 8k"
        )
    return int(n)
