"""Break a valid header in the ways that a damaged or a hostile file could be broken."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from .spots import Layout, layout

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_EDGES = (
    0, 1, 2, 3, 4, 5, 8, 9, 13, 31, 32, 33, 127, 128, 255, 256, 512, 513, 1023, 1024, 1025, 4096,
    4097, 65535, 1 << 17, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 62) + 1,
    (1 << 63) - 1, 1 << 63, (1 << 63) + 1, (1 << 64) - 2, (1 << 64) - 1,
)  # fmt: skip
_MAGICS = (b"GGML", b"ggml", b"lmgg", b"fmgg", b"tjgg", b"algg", b"PK\3\4", b"vers", b"<!DO",
           b"FUGG", b"\0\0\0\0", b"GGU", b"")  # fmt: skip
_TEXTS = (
    b"", b"\0", b"\xff\xfe", b"\n", b"clip", b"adapter", b"general.architecture", b"llama",
    b"token_embd.weight", b"split.count", b"general.alignment", b"x" * 2000,
)  # fmt: skip
_LONGEST = 1 << 16  # bytes: mutants stay small, so that a million take minutes


def mutant(seed: Layout, rng: random.Random) -> bytes:
    """One broken header: one to four breakages of ``seed``."""
    at = seed
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
        at = parts(_broken(at, rng))
    return _broken(at, rng)


def parts(data: bytes) -> Layout:
    """The parts of a header; of one that is not whole, the bytes alone."""
    return _layout(data) or Layout(data)


def _broken(at: Layout, rng: random.Random) -> bytes:
    return rng.choice(_ALL if at.numbers else _ANYHOW)(at, rng)[:_LONGEST]


def _layout(data: bytes) -> Layout | None:
    """The parts of a header that is still whole; None: bytes alone are left to break."""
    try:
        return layout(data) if len(data) < _LONGEST else None
    except (IndexError, KeyError, RecursionError):
        return None


def _cut(at: Layout, rng: random.Random) -> bytes:
    return at.data[: rng.randrange(len(at.data) + 1)]


def _flip(at: Layout, rng: random.Random) -> bytes:
    data = bytearray(at.data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _overwrite(at: Layout, rng: random.Random) -> bytes:
    start = rng.randrange(len(at.data) + 1)
    some = rng.randbytes(rng.choice((1, 2, 4, 8, 64)))
    return at.data[:start] + some + at.data[start + len(some) :]


def _insert(at: Layout, rng: random.Random) -> bytes:
    start = rng.randrange(len(at.data) + 1)
    return at.data[:start] + rng.randbytes(rng.choice((1, 4, 8, 40))) + at.data[start:]


def _remove(at: Layout, rng: random.Random) -> bytes:
    start = rng.randrange(len(at.data) + 1)
    return at.data[:start] + at.data[start + rng.choice((1, 4, 8, 40)) :]


def _magic(at: Layout, rng: random.Random) -> bytes:
    return rng.choice(_MAGICS) + at.data[4:]


def _swap_order(at: Layout, rng: random.Random) -> bytes:
    """The version, or every number, in the other byte order."""
    data = bytearray(at.data)
    for start, width in at.numbers if rng.random() < 0.5 else at.numbers[:1]:
        data[start : start + width] = data[start : start + width][::-1]
    return bytes(data)


def _number(at: Layout, rng: random.Random) -> bytes:
    """A count, length, type, dimension or offset that is on or beyond a limit."""
    start, width = rng.choice(at.numbers)
    value = rng.choice((*_EDGES, len(at.data), len(at.data) - start, rng.getrandbits(64)))
    code = at.order + _CODES[width]
    return (
        at.data[:start]
        + struct.pack(code, value & ((1 << 8 * width) - 1))
        + at.data[start + width :]
    )


def _nudge(at: Layout, rng: random.Random) -> bytes:
    """A number off by one."""
    start, width = rng.choice(at.numbers)
    code = at.order + _CODES[width]
    value = struct.unpack_from(code, at.data, start)[0] + rng.choice((-1, 1))
    return (
        at.data[:start]
        + struct.pack(code, value & ((1 << 8 * width) - 1))
        + at.data[start + width :]
    )


def _text(at: Layout, rng: random.Random) -> bytes:
    """Another text in a text's place: another of the same file, or one that means something."""
    start, end = rng.choice(at.texts)
    other = rng.choice(at.texts)
    new = at.data[slice(*other)] if rng.random() < 0.5 else rng.choice(_TEXTS)
    head = at.data[: start - 8] + struct.pack(at.order + "Q", len(new))
    return head + new + at.data[end:]


def _repeat_pair(at: Layout, rng: random.Random) -> bytes:
    return _repeat(at, rng, at.pairs, 16)


def _repeat_tensor(at: Layout, rng: random.Random) -> bytes:
    return _repeat(at, rng, at.tensors, 8)


def _repeat(at: Layout, rng: random.Random, parts: list[tuple[int, int]], count: int) -> bytes:
    if not parts:
        return at.data
    start, end = rng.choice(parts)
    return _counted(at, count, 1, at.data[:end] + at.data[start:end] + at.data[end:])


def _drop(at: Layout, rng: random.Random) -> bytes:
    """A key or a tensor less, with the count to match."""
    parts, count = (at.pairs, 16) if rng.random() < 0.5 else (at.tensors, 8)
    if not parts:
        return at.data
    start, end = rng.choice(parts)
    return _counted(at, count, -1, at.data[:start] + at.data[end:])


def _counted(at: Layout, where: int, more: int, data: bytes) -> bytes:
    n = struct.unpack_from(at.order + "Q", data, where)[0] + more
    return data[:where] + struct.pack(at.order + "Q", n & ((1 << 64) - 1)) + data[where + 8 :]


def _nest(at: Layout, rng: random.Random) -> bytes:
    """Arrays of arrays of arrays, up to a thousand deep."""
    key = struct.pack(at.order + "Q", 6) + b"nested" + struct.pack(at.order + "I", 9)
    deep = struct.pack(at.order + "IQ", 9, 1) * rng.choice((1, 2, 10, 1000))
    last = struct.pack(at.order + "IQI", 4, 1, 7)
    return _counted(at, 16, 1, at.data[:24] + key + deep + last + at.data[24:])


_ANYHOW: tuple[Callable[[Layout, random.Random], bytes], ...] = (
    _cut, _flip, _overwrite, _insert, _remove, _magic,
)  # fmt: skip
_ALL = (
    *_ANYHOW, _number, _number, _number, _number, _nudge, _text, _text, _repeat_pair,
    _repeat_tensor, _drop, _nest, _swap_order,
)  # fmt: skip
