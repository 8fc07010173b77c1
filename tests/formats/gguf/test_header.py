"""What a header says is read; what it only claims is refused, soon and without memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.errors import DataError
from nemofit.formats.gguf.header import Header, TensorInfo, read_header, shortest

from . import build
from .build import ARRAY, BOOL, DATA, F32, F64, I16, SMALL, STRING, TENSORS, U8, U32, U64

HUGE = (1 << 63, (1 << 64) - 1, 1 << 40)


def read(data: bytes) -> Header:
    return read_header(io.BytesIO(data), "x.gguf")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [2, 3])
def test_reads_both_versions_in_both_byte_orders(version: int, order: str) -> None:
    header = read(build.gguf(SMALL, TENSORS, DATA, version, order))
    assert header.version == version
    assert header.is_big_endian == (order == ">")
    assert header.values == {
        "general.architecture": "llama",
        "general.file_type": 15,
        "llama.block_count": 2,
        "llama.embedding_length": 256,
        "llama.attention.head_count_kv": (4, 8),
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.scaling.type": "yarn",
    }
    assert header.lengths["tokenizer.ggml.tokens"] == 3
    assert header.tensors == (
        TensorInfo("token_embd.weight", (256, 3), 12, 0),
        TensorInfo("output_norm.weight", (256,), 0, 448),
    )
    assert header.data_offset % 32 == 0
    assert header.file_bytes == header.data_offset + DATA


def test_reads_every_kind_of_number() -> None:
    pairs = [("a", U8, 255), ("b", build.I8, -1), ("c", I16, -300), ("d", BOOL, True),
             ("e", U64, 1 << 60), ("f", F64, 0.1), ("g", F32, 0.1), ("h", BOOL, [True, False]),
             ("i", U32, [])]  # fmt: skip
    values = read(build.gguf(pairs)).values
    assert list(values.values()) == [255, -1, -300, True, 1 << 60, 0.1, 0.1, (True, False), ()]
    assert values["d"] is True


def test_the_shortest_decimal_is_the_same_float() -> None:
    for value in (1e-5, 1e-6, 500000.0, 0.1, 3.4028234663852886e38, 1.1754943508222875e-38, 0.0):
        stored = struct.unpack("<f", struct.pack("<f", value))[0]
        assert struct.pack("<f", shortest(stored)) == struct.pack("<f", value)
    assert shortest(struct.unpack("<f", struct.pack("<f", 1e-5))[0]) == 1e-5
    assert shortest(float("inf")) == float("inf")


def test_vocabularies_larger_than_the_window_are_passed_over() -> None:
    tokens = [f"token {i:06}" * (1 + i % 40) for i in range(9000)]
    tokens[4321] = "y" * (3 << 20)
    pairs = [*SMALL[:-3], ("tokenizer.ggml.tokens", STRING, tokens), ("z", U32, 7)]
    header = read(build.gguf(pairs, TENSORS, DATA))
    assert header.lengths["tokenizer.ggml.tokens"] == len(tokens)
    assert header.values["z"] == 7
    assert header.tensors[1].name == "output_norm.weight"


def test_every_cut_is_refused() -> None:
    whole = build.gguf(SMALL, TENSORS)
    end = read(whole).data_offset - 32
    for n in range(0, end, 7):
        with pytest.raises(DataError, match=r"x\.gguf .*"):
            read(whole[:n])


@pytest.mark.parametrize("n", HUGE)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: build.start(n, 0), id="tensors"),
        pytest.param(lambda n: build.start(0, n), id="keys"),
        pytest.param(lambda n: build.start(0, 1) + struct.pack("<Q", n) + b"a", id="key"),
        pytest.param(
            lambda n: build.start(0, 1) + build.text("a") + struct.pack("<IQ", STRING, n), id="text"
        ),
        pytest.param(
            lambda n: build.start(0, 1) + build.text("a") + struct.pack("<IIQ", ARRAY, STRING, n),
            id="texts",
        ),
        pytest.param(
            lambda n: (
                build.start(0, 1) + build.text("a") + struct.pack("<IIQQ", ARRAY, STRING, 3, n)
            ),
            id="text in a list",
        ),
        pytest.param(
            lambda n: build.start(0, 1) + build.text("a") + struct.pack("<IIQ", ARRAY, U64, n),
            id="numbers",
        ),
        pytest.param(lambda n: build.start(1, 0) + struct.pack("<Q", n), id="tensor name"),
    ],
)
def test_impossible_counts_are_refused_without_memory(make: Callable[[int], bytes], n: int) -> None:
    data = make(n) + b"\0" * 4096
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut off"),
        (b"\x80\x02ccopy", "no GGUF file"),
        (b"PK\x03\x04" + b"\0" * 40, "PyTorch"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"<!DOCTYPE html>", "web page"),
        (b"ggml" + b"\0" * 40, "August 2023"),
        (build.start(0, 0, version=1), "version 1"),
        (build.start(0, 0, version=4), "version 4"),
        (build.start(0, 0, version=0), "version 0"),
        (build.gguf([("", U32, 1)]), "empty key"),
        (build.gguf([("a", U32, 1), ("a", U32, 2)]), "twice"),
        (build.gguf([("a", STRING, "x" * 2000), ("a", U32, 2)]), "twice"),
        (build.gguf([("general.alignment", U32, 0)]), "alignment"),
        (build.gguf([("general.alignment", U32, 48)]), "alignment"),
        (build.gguf([("general.alignment", STRING, "32")]), "alignment"),
        (build.start(0, 1) + build.text("a") + struct.pack("<IQ", 13, 0), "type 13"),
        (build.start(0, 1) + build.text("a") + struct.pack("<IIQI", 9, 9, 1, 4), "type 9"),
        (build.start(0, 1) + build.text("a") + struct.pack("<IIQI", 9, 77, 9999, 4), "type 77"),
        (build.gguf([], [("w", (), 0, 0)]), "0 dimensions"),
        (build.gguf([], [("w", (1, 1, 1, 1, 1), 0, 0)]), "5 dimensions"),
        (build.gguf([], [("w", (32, 0), 0, 0)]), "shape"),
        (build.gguf([], [("w", ((1 << 64) - 1,), 0, 0)]), "shape"),
        (build.gguf([], [("w", (1 << 32, 1 << 32), 0, 0)]), "shape"),
        (build.gguf([], [("w", (32,), 0, 0), ("w", (32,), 0, 128)]), "twice"),
        (build.gguf([], [("w", (32,), 0, 16)]), "multiple of 32"),
    ],
)
def test_says_what_is_wrong(data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(data)
    assert "x.gguf" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


class Zeros(io.RawIOBase):
    """A header followed by a hole of a terabyte."""

    def __init__(self, head: bytes) -> None:
        self.head, self.at = head, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset if whence == 0 else 1 << 40
        return self.at

    def read(self, n: int = -1) -> bytes:
        data = self.head[self.at : self.at + n]
        self.at += n
        return data + b"\0" * (n - len(data))


def test_a_hole_of_a_terabyte_ends_soon() -> None:
    one = build.start(0, 1) + build.text("tokenizer.ggml.tokens")
    head = one + struct.pack("<IIQ", ARRAY, STRING, 1 << 36)
    with pytest.raises(DataError, match="texts"):
        read_header(Zeros(head), "x.gguf")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="empty key"):
        read_header(Zeros(build.start(0, 1 << 14)), "x.gguf")  # type: ignore[arg-type]


WHOLE = build.gguf(SMALL, TENSORS, 32)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(WHOLE) - 1),
            st.one_of(
                st.binary(min_size=1, max_size=9),
                st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f", b"\x09\0\0\0"]),
            ),
        ),
        max_size=4,
    ),
    st.integers(0, len(WHOLE)),
)
def test_no_damage_raises_anything_but_data_error(
    damage: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(WHOLE)
    for at, what in damage:
        data[at : at + len(what)] = what
    try:
        read(bytes(data[: max(cut, len(WHOLE) // 2)]))
    except DataError as error:
        assert "\n" not in error.message
