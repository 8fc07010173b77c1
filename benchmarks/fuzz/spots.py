"""Where the numbers, texts, keys and tensors of a GGUF header lie, so that each can be hit."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_WIDTH = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9


@dataclass(slots=True)
class Layout:
    """A header's parts as offsets into its bytes.

    Attributes:
        data: The header.
        order: Byte order, ``<`` or ``>``.
        numbers: Offset and width of every count, length, type, dimension and offset.
        texts: Start and end of every text.
        pairs: Start and end of every key with its value.
        tensors: Start and end of every tensor's entry.
    """

    data: bytes
    order: str = "<"
    numbers: list[tuple[int, int]] = field(default_factory=list)
    texts: list[tuple[int, int]] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    tensors: list[tuple[int, int]] = field(default_factory=list)


def layout(data: bytes) -> Layout:
    """Walk a header that is whole; version 2 and 3, either byte order.

    Raises:
        IndexError: It is not.
        KeyError: A value is of a kind that is not known.
    """
    big = data[4:6] == b"\0\0"
    walk = _Walk(Layout(data, ">" if big else "<"))
    walk.number(4, at=4)
    n_tensors, n_pairs = walk.number(8), walk.number(8)
    for _ in range(n_pairs):
        start = walk.at
        walk.text()
        walk.value(walk.number(4))
        walk.found.pairs.append((start, walk.at))
    for _ in range(n_tensors):
        start = walk.at
        walk.text()
        for _ in range(walk.number(4)):
            walk.number(8)
        walk.number(4)
        walk.number(8)
        walk.found.tensors.append((start, walk.at))
    return walk.found


class _Walk:
    def __init__(self, found: Layout) -> None:
        self.found = found
        self.at = 0

    def number(self, width: int, at: int | None = None) -> int:
        start = self.at if at is None else at
        self.at = start + width
        if self.at > len(self.found.data):
            raise IndexError
        self.found.numbers.append((start, width))
        code = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
        value: int = struct.unpack_from(self.found.order + code, self.found.data, start)[0]
        return value

    def text(self) -> None:
        n = self.number(8)
        self.found.texts.append((self.at, self.at + n))
        self.at += n
        if self.at > len(self.found.data):
            raise IndexError

    def value(self, kind: int) -> None:
        if kind == _ARRAY:
            kind, n = self.number(4), self.number(8)
            for _ in range(n):
                self.value(kind)
        elif kind == _STRING:
            self.text()
        else:
            self.number(_WIDTH[kind])
