"""From a placement and a machine to tokens per second, as ranges with reasons."""

from __future__ import annotations

from .estimate import estimate_speed
from .records import Range, Speed

__all__ = ["Range", "Speed", "estimate_speed"]
