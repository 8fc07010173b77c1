"""Bytes by place, wherever they lie: what a header reader needs of a file or of a server."""

from __future__ import annotations

import os
from typing import BinaryIO, Protocol

from nemofit.units import MIB

_WINDOW = MIB


class Ranged(Protocol):
    """Something whose bytes can be asked for from any place on."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, at: int, n: int) -> bytes:
        """``n`` bytes from ``at`` on; fewer only where the end comes first."""

    def window(self, n: int, known: int) -> int:
        """How many bytes to ask for at once.

        Args:
            n: Bytes that are needed.
            known: Bytes that the header has at least, as far as it has been understood.
        """


class LocalFile:
    """An open file: reading ahead costs nothing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)

    def read(self, at: int, n: int) -> bytes:
        self._file.seek(at)
        return self._file.read(n)

    def window(self, n: int, known: int) -> int:  # noqa: ARG002
        return max(n, _WINDOW)
