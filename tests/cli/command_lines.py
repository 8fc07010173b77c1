"""What a command line ends with, and machines to ask about."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Said:
    """What a command line ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Say = Callable[..., Said]

TWO_CARDS = "2x RTX 3090, 64 GiB RAM"
NO_CARD = "16 GiB RAM, 8 cores"
