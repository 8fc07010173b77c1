"""Read the header of a safetensors file: names, dtypes, shapes and places, none of the data.

    with open(path, "rb") as file:
        header = read_header(LocalFile(file), path.name)

A file is eight bytes of length, that many bytes of JSON, then the tensors without a gap. Source of
the format: huggingface/safetensors, ``README.md`` and ``safetensors/src/tensor.rs``, whose checks
are made here too. Whatever the file claims, time and memory are bounded: the header is read through
a window of 1 MiB and no entry of it may be longer than 64 KiB.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, NoReturn, TypeGuard

from nemofit.errors import DataError
from nemofit.formats.ranged import Ranged
from nemofit.units import MIB

MAX_HEADER = 100_000_000
"""Bytes of the longest header, the format's own limit."""
MAX_TENSORS = 1 << 17
MAX_METADATA = 16 * MIB
"""Bytes of the longest ``__metadata__``, which is passed over."""
MAX_RANK = 16
_MAX_TEXTS = 1 << 14
_WINDOW = MIB
_REACH = 1 << 16

BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element of the dtypes that are known; of others the offsets tell the size."""

_OPEN, _CLOSE, _COMMA = re.compile(rb"\{\s*"), re.compile(rb"\s*\}\s*"), re.compile(rb"\s*,\s*")
_KEY = re.compile(rb'\s*("(?:[^"\\]|\\.){0,2048}")\s*:\s*', re.DOTALL)
# An entry as nearly every writer puts it; any other order of its keys takes the long way.
_ENTRY = re.compile(
    rb'"([^"\\\x00-\x1f]{1,2048})"\s*:\s*\{\s*'
    rb'"dtype"\s*:\s*"([A-Za-z0-9_]{1,32})"\s*,\s*'
    rb'"shape"\s*:\s*\[((?:\d{1,18}(?:\s*,\s*\d{1,18}){0,15})?)\]\s*,\s*'
    rb'"data_offsets"\s*:\s*\[\s*(\d{1,18})\s*,\s*(\d{1,18})\s*\]\s*\}\s*'
)
_TEXT_PART = re.compile(rb'(?:[^"\\]+|\\.){1,4096}', re.DOTALL)
_QUOTE = re.compile(rb'\s*"')
_COLON = re.compile(rb"\s*:\s*")
_PADDING = re.compile(rb"\s*")
_OTHER_FILES = {
    b"GGUF": "a GGUF file",
    b"PK\x03\x04": "a PyTorch checkpoint or a zip archive",
    b"\x80\x02": "a PyTorch checkpoint",
    b"vers": "a Git LFS pointer, not the file itself",
    b"<!DO": "a web page, not a model",
    b"<htm": "a web page, not a model",
}


class Entry(NamedTuple):
    """One tensor as the header lists it.

    Attributes:
        name: As in the file.
        dtype: ``BF16``, ``F8_E4M3``, ...; may be one that is not in :data:`BITS`.
        shape: Elements per dimension, as the writer's library counts them: row length last.
        begin, end: Place of its data, bytes from the end of the header.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """All that is read of a file.

    Attributes:
        tensors: In the order of their data.
        file_bytes: Size of the file.
        header_bytes: Length of the JSON and the eight bytes before it.
    """

    tensors: tuple[Entry, ...]
    file_bytes: int
    header_bytes: int


def read_header(source: Ranged, name: str) -> Header:
    """Read the header of one file.

    Args:
        source: The file; only the header's bytes are asked for.
        name: What messages call it.

    Raises:
        DataError: Not a safetensors file, damaged, or incomplete.
    """
    size = source.size
    start = source.read(0, min(source.window(8, 8), size))
    if len(start) < 8:
        _refuse(name, f"has {len(start)} bytes, fewer than the eight that say a header's length")
    length = struct.unpack_from("<Q", start)[0]
    for magic, what in _OTHER_FILES.items():
        if start.startswith(magic):
            raise DataError(f"{name} is {what}", "name a .safetensors file")
    if not 2 <= length <= MAX_HEADER:
        _refuse(name, f"claims a header of {length} bytes, not 2 to {MAX_HEADER}")
    if length > size - 8:
        _refuse(name, f"is cut off: its header ends at byte {length + 8}, it has {size}")
    entries = _Scanner(source, name, length + 8, start).entries()
    entries.sort(key=lambda e: (e.begin, e.end))
    _check_places(name, entries, size - 8 - length)
    return Header(tuple(entries), size, length + 8)


def _check_places(name: str, entries: list[Entry], data: int) -> None:
    """Refuse tensors that overlap, leave a hole, or are not as large as their shape says."""
    at = 0
    for e in entries:
        if e.begin != at or e.end < e.begin:
            what = "overlaps the one before it" if e.begin < at else "leaves a hole before it"
            what = "ends before it begins" if e.end < e.begin else what
            _refuse(name, f"puts tensor {_shown(e.name)} at {e.begin} to {e.end}: it {what}")
        at = e.end
        bits = BITS.get(e.dtype)
        if bits is not None and prod(e.shape) * bits != (e.end - e.begin) * 8:
            _refuse(
                name,
                f"gives tensor {_shown(e.name)} {e.bytes} bytes for"
                f" {e.dtype} {list(e.shape)!s:.120}",
            )
    if at > data:
        raise DataError(
            f"{name} is incomplete: its tensors take {at} bytes, it has {data} after its header",
            "finish the download, or download it again",
        )
    if at < data:
        _refuse(name, f"has {data - at} bytes that belong to no tensor")


def _refuse(name: str, what: str) -> NoReturn:
    raise DataError(
        f"{name} {what}", "the file is damaged or not a safetensors file: download it again"
    )


def _shown(text: str) -> str:
    return ascii(text[:80])


class _Scanner:
    """A window that moves over the JSON; what is behind is forgotten."""

    def __init__(self, source: Ranged, name: str, end: int, start: bytes) -> None:
        self._source = source
        self._name = name
        self._end = end
        self._text = start[:end]
        self._behind = 0
        self._at = 8

    def entries(self) -> list[Entry]:
        out: list[Entry] = []
        seen: set[str] = set()
        if self._take(_OPEN) is None:
            self._fail("does not begin with {")
        while self._take(_CLOSE) is None:
            if seen and self._take(_COMMA) is None:
                self._fail("lacks a comma")
            found = self._take(_ENTRY)
            entry = self._usual(found) if found is not None else self._unusual()
            key = "__metadata__" if entry is None else entry.name
            if key in seen:
                self._fail(f"has the key {_shown(key)} twice")
            seen.add(key)
            if entry is not None:
                if not entry.name.isprintable():
                    self._fail(f"has a name with unprintable characters, {_shown(entry.name)}")
                out.append(entry)
            if len(out) > MAX_TENSORS:
                self._fail(f"lists more than {MAX_TENSORS} tensors")
        while self._place < self._end:
            if not self._take(_PADDING).group():  # type: ignore[union-attr]
                self._fail("has something after its last }")
        return out

    def _usual(self, found: re.Match[bytes]) -> Entry:
        name, dtype, shape, begin, end = found.groups()
        try:
            text = name.decode()
        except UnicodeDecodeError:
            self._fail("has a name that is not UTF-8")
        sides = tuple(map(int, shape.split(b","))) if shape else ()
        return Entry(text, dtype.decode(), sides, int(begin), int(end))

    def _unusual(self) -> Entry | None:
        """An entry in another form; None once ``__metadata__`` is passed over."""
        key = self._take(_KEY)
        if key is None:
            self._fail("has something that is no entry")
        try:
            name = json.loads(key.group(1).decode())
        except ValueError:
            self._fail("has a name that is no UTF-8 text")
        if name == "__metadata__":
            self._pass_metadata()
            return None
        value = self._object(name)
        dtype, shape, place = (value.get(k) for k in ("dtype", "shape", "data_offsets"))
        if (
            not isinstance(dtype, str)
            or not _are_numbers(shape)
            or not _are_numbers(place)
            or len(place) != 2
        ):
            self._fail(f"says of tensor {_shown(name)} {value!r:.80}")
        is_word = dtype.isascii() and dtype.isprintable() and len(dtype) <= 32
        if len(shape) > MAX_RANK or min((*shape, *place)) < 0 or not is_word:
            self._fail(f"gives tensor {_shown(name)} an impossible shape, place or dtype")
        return Entry(name, dtype, tuple(shape), *place)

    def _object(self, name: str) -> dict[str, Any]:
        """A small JSON object at the current place."""
        text = self._text[self._at : self._at + _REACH].decode("latin-1")
        try:
            value, end = _JSON.raw_decode(text)
        except (ValueError, RecursionError):
            self._fail(f"has no JSON object for tensor {_shown(name)}")
        if not isinstance(value, dict):
            self._fail(f"has {value!r:.40} for tensor {_shown(name)}, not an object")
        self._at += end
        return value

    def _pass_metadata(self) -> None:
        """Pass over an object of texts."""
        start = self._place
        if self._take(_OPEN) is None:
            self._fail("has a __metadata__ that is no object")
        for count in range(_MAX_TEXTS):
            if self._take(_CLOSE) is not None:
                return
            if count and self._take(_COMMA) is None:
                self._fail("lacks a comma in __metadata__")
            self._pass_text(start)
            if self._take(_COLON) is None:
                self._fail("lacks a colon in __metadata__")
            self._pass_text(start)
        self._fail(f"has more than {_MAX_TEXTS} texts in __metadata__")

    def _pass_text(self, start: int) -> None:
        if self._take(_QUOTE) is None:
            self._fail("has a __metadata__ that is not of texts")
        while True:
            while self._take(_TEXT_PART) is not None:
                if self._place - start > MAX_METADATA:
                    self._fail(f"has a __metadata__ of more than {MAX_METADATA} bytes")
            if self._take(_QUOTE) is not None:
                return
            if self._is_whole:
                self._fail("has a text without an end")

    @property
    def _place(self) -> int:
        """Bytes of the file that are behind."""
        return self._behind + self._at

    @property
    def _is_whole(self) -> bool:
        """Whether the window reaches to the header's end."""
        return self._behind + len(self._text) == self._end

    def _take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        if len(self._text) - self._at < _REACH and not self._is_whole:
            self._fill()
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _fill(self) -> None:
        begin = self._behind + len(self._text)
        wanted = min(_WINDOW, self._end - begin)
        more = self._source.read(begin, wanted)
        if len(more) < wanted:
            self._fail("became shorter while it was read")
        self._behind += self._at
        self._text = self._text[self._at :] + more
        self._at = 0

    def _fail(self, what: str) -> NoReturn:
        _refuse(self._name, f"{what} (byte {self._place})")


def _are_numbers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(x) is int for x in value)


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a key is there twice")
    return out


def _whole(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number is too long")
    return int(digits)


_JSON = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_whole)
