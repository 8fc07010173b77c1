"""Headers against the real library, and headers that lie."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.errors import DataError
from nemofit.formats.ranged import LocalFile
from nemofit.formats.safetensors.header import BITS, MAX_HEADER, Header, read_header

from .build import entries, file_bytes, llama

GOOD = entries(llama(layers=1))


def read(data: bytes) -> Header:
    return read_header(LocalFile(io.BytesIO(data)), "model.safetensors")


def test_what_the_library_writes_is_read(tmp_path: Any) -> None:
    numpy = pytest.importorskip("numpy", reason="the extra dev is not installed")
    library = pytest.importorskip("safetensors.numpy", reason="the extra dev is not installed")
    path = tmp_path / "x.safetensors"
    tensors = {
        "a": numpy.zeros((2, 3), numpy.float16),
        'quoted "name" \\ é 漢': numpy.zeros((0, 4), numpy.float32),
        "scalar": numpy.ones((), numpy.int64),
        "many": numpy.zeros((1, 2, 1, 2, 1, 2), numpy.uint8),
    }
    library.save_file(tensors, path, metadata={"format": "pt", "long": 'x\\"\n' * 100_000})
    with open(path, "rb") as file:
        header = read_header(LocalFile(file), "x")
    assert {t.name: t.shape for t in header.tensors} == {n: a.shape for n, a in tensors.items()}
    assert {t.name: t.bytes for t in header.tensors} == {n: a.nbytes for n, a in tensors.items()}
    assert header.file_bytes == path.stat().st_size


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\t", " :\n ")])
def test_any_layout_of_the_json_is_read(separators: tuple[str, str]) -> None:
    turned = {
        name: dict(reversed(e.items())) if i % 2 else e for i, (name, e) in enumerate(GOOD.items())
    }
    text = json.dumps({"__metadata__": {"a": "b"}, **turned}, separators=separators).encode()
    data = file_bytes(text + b" " * 5, max(e["data_offsets"][1] for e in GOOD.values()))
    assert [t.name for t in read(data).tensors] == list(GOOD)


def test_an_unknown_dtype_is_as_large_as_its_place() -> None:
    header = {"a": {"dtype": "F2_E1M0", "shape": [8], "data_offsets": [0, 2]}}
    tensor = read(file_bytes(header)).tensors[0]
    assert (tensor.dtype, tensor.bytes) == ("F2_E1M0", 2)
    assert tensor.dtype not in BITS


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "has 0 bytes"),
        (b"\0" * 8, "claims a header of 0 bytes"),
        (struct.pack("<Q", MAX_HEADER + 1) + b"{}", "claims a header of 100000001"),
        (struct.pack("<Q", 1 << 63) + b"{}", "claims a header of"),
        (struct.pack("<Q", 50) + b"{}", "is cut off"),
        (b"GGUF\3\0\0\0", "is a GGUF file"),
        (b"version https://git-lfs", "Git LFS"),
        (b"<!DOCTYPE html>", "a web page"),
        (file_bytes(b"  {}"), "does not begin"),
        (file_bytes(b"[]"), "does not begin"),
        (file_bytes(b"{} x"), "after its last"),
        (file_bytes(b"{"), "claims a header of 1 bytes"),
        (file_bytes(b"{,"), "no entry"),
        (file_bytes(b'{"a"'), "no entry"),
        (file_bytes(b'{"a":'), "no JSON object"),
        (file_bytes(b'{"a":' + b"[" * 60000), "no JSON object"),
        (file_bytes(b'{"a":[[1]]}'), "not an object"),
        (file_bytes(b'{"a":{"shape":[' + b"9" * 5000 + b"]}}"), "no JSON object"),
        (file_bytes(b'{"a":{"dtype":"F32","dtype":"F16"}}'), "no JSON object"),
        (file_bytes(b'{"\xff":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4), "UTF-8"),
        (file_bytes(b'{"\xff":{"shape":[],"dtype":"F32","data_offsets":[0,4]}}', 4), "UTF-8"),
        (file_bytes(b'{"__metadata__":[]}'), "no object"),
        (file_bytes(b'{"__metadata__":{"a":1}}'), "not of texts"),
        (file_bytes(b'{"__metadata__":{"a":"1}}'), "without an end"),
        (file_bytes(b'{"__metadata__":{},"__metadata__":{}}'), "twice"),
        (file_bytes(json.dumps(one()).encode()[:-1] + b"," + json.dumps(one()).encode()[1:], 8),
         "twice"),
        (file_bytes(one(shape=[3])), "gives tensor 'a' 8 bytes for F32"),
        (file_bytes(one(shape=[-2])), "impossible shape"),
        (file_bytes(one(shape=[True, 2])), "says of tensor"),
        (file_bytes(one(shape=[1 << 62, 1 << 62, 1 << 62])), "8 bytes for F32"),
        (file_bytes(one(shape=[1.5])), "says of tensor"),
        (file_bytes(one(shape=[1] * 40)), "impossible shape"),
        (file_bytes(one(dtype=3)), "says of tensor"),
        (file_bytes(one(dtype="BF1\x8c6")), "impossible"),  # found by fuzzing: it stands in notes
        (file_bytes(one(dtype="\x1b[2J")), "impossible"),
        (file_bytes({"lm\x7fhead": one()["a"]}, 8), "unprintable"),
        (file_bytes(one(data_offsets=[0])), "says of tensor"),
        (file_bytes(one(data_offsets=[4, 12])), "leaves a hole"),
        (file_bytes(one(data_offsets=[8, 0], shape=[0])), "ends before it begins"),
        (file_bytes(one(), 4), "is incomplete"),
        (file_bytes(one(), 9), "belong to no tensor"),
        (file_bytes(one() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}),
         "overlaps"),
    ],
)  # fmt: skip
def test_lies_are_named_in_one_line(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read(data)
    assert "\n" not in caught.value.message and caught.value.hint
    assert len(caught.value.message) < 400


def test_the_real_library_refuses_the_same_lies() -> None:
    """Of each kind that the format itself forbids."""
    library = pytest.importorskip("safetensors", reason="the extra dev is not installed")
    for header in (one(shape=[3]), one(data_offsets=[4, 12]), one(shape=[-2])):
        with pytest.raises(library.SafetensorError):
            library.deserialize(file_bytes(header))
    for data in (file_bytes(one(), 4), file_bytes(one(), 9), b"", file_bytes(b"{")):
        with pytest.raises(library.SafetensorError):
            library.deserialize(data)


def test_a_shrinking_file_is_an_error() -> None:
    class Shrinking(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            return super().read(n)[:20]

    with pytest.raises(DataError, match="became shorter"):
        read_header(LocalFile(Shrinking(file_bytes(GOOD))), "x")


def test_a_large_header_takes_little_memory() -> None:
    """25 000 experts' scales: 4 MB of JSON."""
    shapes = {
        f"model.layers.{i % 61}.mlp.experts.{i}.gate_proj.weight_scale_inv": ("U8", [1])
        for i in range(25_000)
    }
    data = io.BytesIO(file_bytes(entries(shapes)))
    tracemalloc.start()
    header = read_header(LocalFile(data), "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(header.tensors) == len(shapes)
    assert peak < 24 << 20


@pytest.mark.parametrize(
    "piece", [b"[],", b'"":"",', b"\\\\", b"  ", b'"a', b"{", b"9", b'"a":{},'], ids=repr
)
def test_endless_junk_is_given_up_soon(piece: bytes) -> None:
    """A megabyte and more of each, in the places where a reader could be kept busy."""
    junk = piece * ((2 << 20) // len(piece))
    for start in (
        b"{",
        b'{"__metadata__":{',
        b'{"__metadata__":{"k":"',
        b'{"a":',
        b'{"a":{"shape":[',
    ):
        tracemalloc.start()
        with pytest.raises(DataError):
            read(file_bytes(start + junk))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 << 20


VALID = file_bytes({"__metadata__": {"format": "pt"}, **GOOD})
_HEADER = VALID[: 8 + struct.unpack("<Q", VALID[:8])[0]]


@settings(max_examples=400, deadline=1000)
@given(st.data())
def test_mutated_headers_are_read_or_refused(data: st.DataObject) -> None:
    """Cut, flipped, doubled and spliced anywhere: a header or one line, within a second."""
    header = bytearray(_HEADER)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(header) - 1, 0)))
        kind = data.draw(st.sampled_from(["byte", "cut", "text", "double"]))
        if kind == "byte" and header:
            header[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del header[at : at + data.draw(st.integers(1, 40))]
        elif kind == "double":
            header[at:at] = header[at : at + data.draw(st.integers(1, 400))]
        else:
            pieces = [b'"', b"{", b"}", b"[", b"]", b",", b"-1", b"99999999999999999999", b"\xff",
                      b"\\u0000", b"null", b"1e999", b'"a":', b"\\"]  # fmt: skip
            header[at:at] = data.draw(st.sampled_from(pieces))
    if data.draw(st.booleans()) and len(header) >= 8:
        header[:8] = struct.pack("<Q", max(len(header) - 8, 0))
    try:
        found = read(bytes(header) + VALID[len(_HEADER) :])
    except DataError as error:
        assert "\n" not in error.message
    else:
        assert sum(t.bytes for t in found.tensors) + found.header_bytes == found.file_bytes
