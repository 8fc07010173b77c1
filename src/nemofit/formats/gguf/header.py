"""Read a GGUF header: every key, type and shape, none of the vocabulary and none of the data.

    with open(path, "rb") as file:
        header = read_header(file, path.name)

Versions 2 and 3, either byte order. Source of the format: ``ggml/src/gguf.cpp`` and
``docs/gguf.md`` of ggml-org. Whatever the file claims, time and memory are bounded: a header is at
most :data:`MAX_HEADER` bytes and is read through a window, from a file or from a server.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from math import prod
from typing import BinaryIO, NoReturn

from nemofit.catalog.model import Scalar, Value
from nemofit.errors import DataError
from nemofit.units import MIB

from ..ranged import LocalFile, Ranged
from . import keys as k

MAX_HEADER = 128 * MIB
"""Bytes of the largest header that is read; a vocabulary of 262144 tokens takes 16 MiB."""
MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 17
MAX_LIST = 4096
"""Values of the longest list that is kept; no model has more than 512 blocks."""
MAX_VALUES = 1 << 18
"""Values of all lists that are kept."""
MAX_TEXT = 1024
"""Bytes of the longest text that is kept; no key is longer."""
_MAX_NAME = 128  # bytes; GGML_MAX_NAME is 64, forks use 128
_MAX_ELEMENTS = (1 << 63) - 1
_LEAST_PAIR = 13  # bytes: the lengths of an empty key, its type, one byte of value
_LEAST_TENSOR = 32  # bytes: the length of an empty name, one dimension, type and offset

_CODES = {k.U8: "B", k.I8: "b", k.U16: "H", k.I16: "h", k.U32: "I", k.I32: "i",
          k.F32: "f", k.BOOL: "B", k.U64: "Q", k.I64: "q", k.F64: "d"}  # fmt: skip
_OTHER_FILES = {
    b"ggml": "a GGML file from before August 2023",
    b"lmgg": "a GGML file from before August 2023",
    b"fmgg": "a GGML file from before August 2023",
    b"tjgg": "a GGML file from before August 2023",
    b"algg": "a LoRA adapter from before 2024",
    b"PK\x03\x04": "a PyTorch checkpoint or a zip archive",
    b"vers": "a Git LFS pointer, not the file itself",
    b"<!DO": "a web page, not a model",
    b"<htm": "a web page, not a model",
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header lists it.

    Attributes:
        name: As in the file.
        shape: Elements per dimension, row length first.
        type: Number of the ggml type.
        offset: Bytes from ``Header.data_offset`` to its data.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(slots=True)
class Header:
    """All that a GGUF file says before its data.

    Attributes:
        version: 2 or 3.
        is_big_endian: Byte order of the file.
        values: Keys with a number, a yes or no, a text or a list of numbers. Vocabulary, lists of
            texts and texts above 1 KiB are left out.
        lengths: Number of elements of every list, kept or not.
        tensors: In file order.
        data_offset: Where the tensors' data begins, bytes.
        alignment: Of every tensor's data, bytes.
        file_bytes: Size of the file.
    """

    version: int
    is_big_endian: bool
    values: dict[str, Value] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    tensors: tuple[TensorInfo, ...] = ()
    data_offset: int = 0
    alignment: int = k.ALIGNMENT
    file_bytes: int = 0


def read_header(file: BinaryIO, name: str) -> Header:
    """Read the header of an open file.

    Args:
        file: Binary, seekable, at any position.
        name: For messages.

    Raises:
        DataError: Not a GGUF file, damaged, cut off, or beyond any model.
        OSError: As the file raises it.
    """
    return header_of(LocalFile(file), name)


def header_of(source: Ranged, name: str) -> Header:
    """Read the header of anything that gives byte ranges; arguments and errors as above."""
    r = _Reader(source, name)
    version, n_tensors, n_keys = _start(r)
    header = Header(version, r.order == ">", file_bytes=r.size)
    if n_keys > min(MAX_KEYS, r.size // _LEAST_PAIR):
        r.fail(f"claims {n_keys} keys")
    if n_tensors > min(MAX_TENSORS, r.size // _LEAST_TENSOR):
        r.fail(f"claims {n_tensors} tensors")
    r.ahead = n_keys * _LEAST_PAIR + n_tensors * _LEAST_TENSOR
    for _ in range(n_keys):
        r.ahead -= _LEAST_PAIR
        _read_pair(r, header)
    header.alignment = _alignment(r, header)
    seen: set[str] = set()
    header.tensors = tuple(_tensor(r, seen, header.alignment) for _ in range(n_tensors))
    header.data_offset = -(-r.at // header.alignment) * header.alignment
    return header


def _start(r: _Reader) -> tuple[int, int, int]:
    magic = r.take(4)
    if magic != b"GGUF":
        what = _OTHER_FILES.get(magic, f"no GGUF file: it begins with {magic!r}")
        raise DataError(f"{r.name} is {what}", "name a .gguf file, or download it again")
    version = r.integer("I")
    if version & 0xFFFF == 0:
        r.swap_bytes()
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in (2, 3):
        raise DataError(
            f"{r.name} is GGUF version {version}; versions 2 and 3 are understood",
            "get a newer copy of the model" if version < 2 else "update nemofit",
        )
    return version, r.integer("Q"), r.integer("Q")


def _read_pair(r: _Reader, header: Header) -> None:
    key = r.printable("a key", MAX_TEXT)
    if not key:
        r.fail("has an empty key")
    if key in header.values or key in header.lengths:
        r.fail(f"has the key {key!r:.80} twice")
    kind = r.integer("I")
    if kind == k.ARRAY:
        kind, count = r.integer("I"), r.integer("Q")
        header.lengths[key] = count
        if (values := _list(r, key, kind, count)) is not None:
            header.values[key] = values
        return
    if kind == k.STRING:
        # The place of a text too long to keep stays marked, to see a second one.
        text = r.optional_text(key)
        header.lengths.update({key: 1} if text is None else {})
        header.values.update({} if text is None else {key: text})
        return
    header.values[key] = _scalar(r.numbers(key, kind, 1)[0], kind)


def _list(r: _Reader, key: str, kind: int, count: int) -> tuple[Scalar, ...] | None:
    if kind == k.STRING:
        r.skip_texts(key, count)
        return None
    if count > MAX_LIST or key.startswith("tokenizer."):
        r.skip_numbers(key, kind, count)
        return None
    r.kept += count
    if r.kept > MAX_VALUES:
        r.fail(f"has lists of more than {MAX_VALUES} values")
    return tuple(_scalar(v, kind) for v in r.numbers(key, kind, count))


def _scalar(value: float, kind: int) -> Scalar:
    if kind == k.BOOL:
        return value != 0
    return shortest(value) if kind == k.F32 else value


def shortest(value: float) -> float:
    """Return the shortest decimal that is the same 32-bit float: 1e-05, not 9.9999997e-06."""
    if value != value or value in (float("inf"), float("-inf")):
        return value
    for digits in (6, 7, 8):
        near = float(f"{value:.{digits}g}")
        try:
            if struct.unpack("<f", struct.pack("<f", near))[0] == value:
                return near
        except OverflowError:
            continue
    return value


def _alignment(r: _Reader, header: Header) -> int:
    value = header.values.get("general.alignment", k.ALIGNMENT)
    if not isinstance(value, int) or not 0 < value <= MAX_HEADER or value & (value - 1):
        r.fail(f"has the alignment {value!r:.80}, which is no power of two")
    return value


def _tensor(r: _Reader, seen: set[str], alignment: int) -> TensorInfo:
    r.ahead -= _LEAST_TENSOR
    name = r.printable("a tensor name", _MAX_NAME)
    if name in seen:
        r.fail(f"has the tensor {name!r} twice")
    seen.add(name)
    n = r.integer("I")
    if not 1 <= n <= 4:
        r.fail(f"says that tensor {name!r} has {n} dimensions, not 1 to 4")
    shape = r.unpack(f"{n}q")
    if min(shape) < 1 or prod(shape) > _MAX_ELEMENTS:
        r.fail(f"gives tensor {name!r} the impossible shape {list(shape)}")
    kind, offset = r.integer("I"), r.integer("Q")
    if offset % alignment:
        r.fail(f"puts tensor {name!r} at {offset}, which is no multiple of {alignment}")
    return TensorInfo(name, shape, kind, offset)


class _Reader:
    """A window that moves over the source; every step is checked against the source's size.

    ``ahead`` are the bytes that the header must still have after what is being read: a source
    that is slow to ask takes its windows from that.
    """

    def __init__(self, source: Ranged, name: str) -> None:
        self.name = name
        self.order = "<"
        self.kept = 0
        self.ahead = 0
        self.size = source.size
        self._source = source
        self._limit = min(self.size, MAX_HEADER)
        self._window = b""
        self._start = 0
        self._at = 0
        self._formats: dict[str, struct.Struct] = {}

    @property
    def at(self) -> int:
        """Bytes of the file that are behind."""
        return self._start + self._at

    def fail(self, what: str) -> NoReturn:
        raise DataError(
            f"{self.name} {what} (byte {self.at})",
            "the file is damaged or not a model: download it again",
        )

    def swap_bytes(self) -> None:
        """Read numbers in big-endian order from here on."""
        self.order = ">"
        self._formats.clear()

    def take(self, n: int) -> bytes:
        self._need(n)
        self._at += n
        return self._window[self._at - n : self._at]

    def unpack(self, code: str) -> tuple[int, ...]:
        form = self._formats.get(code)
        if form is None:
            form = self._formats[code] = struct.Struct(self.order + code)
        self._need(form.size)
        self._at += form.size
        return form.unpack_from(self._window, self._at - form.size)

    def integer(self, code: str) -> int:
        return self.unpack(code)[0]

    def printable(self, what: str, longest: int) -> str:
        """Read a name that messages may hold: what would move a terminal's cursor is refused."""
        n = self.integer("Q")
        if n > longest:
            self.fail(f"has {what} of {n} bytes")
        name = self.take(n).decode("utf-8", "replace")
        if not name.isprintable():
            self.fail(f"has {what} with unprintable characters, {name!r:.80}")
        return name

    def optional_text(self, key: str) -> str | None:
        """Read a text, or pass over one that is too long to keep."""
        n = self.integer("Q")
        if n <= MAX_TEXT:
            return self.take(n).decode("utf-8", "replace")
        self._pass(n, key)
        return None

    def numbers(self, key: str, kind: int, count: int) -> tuple[int, ...]:
        return self.unpack(f"{count}{self._code(key, kind)}") if count else ()

    def skip_numbers(self, key: str, kind: int, count: int) -> None:
        self._pass(count * struct.calcsize("=" + self._code(key, kind)), key)

    def skip_texts(self, key: str, count: int) -> None:
        """Pass over ``count`` texts: nearly all of the time that a header takes."""
        if count * 8 > self._limit - self.at:
            self.fail(f"claims {count} texts in {key!r:.80}")
        length = struct.Struct(self.order + "Q").unpack_from
        while count:
            self._need(8, 8 * count)
            window, at, passed = self._window, self._at, 0
            with contextlib.suppress(struct.error, OverflowError):  # the end of the window
                for passed in range(count):  # noqa: B007
                    at += 8 + length(window, at)[0]
                passed = count
            count -= passed
            self._at = min(at, len(window))
            self._pass(at - self._at, key)

    def _code(self, key: str, kind: int) -> str:
        code = _CODES.get(kind)
        if code is None:
            self.fail(f"has a value of type {kind} in {key!r:.80}")
        return code

    def _pass(self, n: int, key: str) -> None:
        if n > self._limit - self.at:
            self.fail(f"claims {n} bytes in {key!r:.80}, more than it has")
        self._at += n

    def _need(self, n: int, known: int = 0) -> None:
        """Make ``n`` bytes available at the current place, where ``known`` follow at least."""
        if self._at + n <= len(self._window):
            return
        if n > self._limit - self.at:
            kind = "is cut off" if self._limit == self.size else "has a header beyond any model's"
            self.fail(f"{kind}: {n} bytes are wanted, {self._limit - self.at} are left")
        self._start += self._at
        self._at = 0
        least = self._start + max(n, known) + self.ahead
        wanted = min(self._source.window(n, least), self._limit - self._start)
        self._window = self._source.read(self._start, wanted)
        if len(self._window) < n:
            self.fail("became shorter while it was read")
