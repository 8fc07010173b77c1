"""Write a GGUF file whose header is true and whose tensor data is a hole.

llama.cpp sizes, dry-runs and even loads such a file, and it takes a few KiB of disk however large
the model: the whole of Llama 3.1 70B at F16 is 132 GiB of size and 44 KiB of blocks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Literal

from nemofit.catalog.ggml import find_file_type, ggml_type, tensor_bytes
from nemofit.catalog.model import ModelSpec, Value
from nemofit.errors import DataError, HardwareError, UsageError
from nemofit.units import MIB, gib

from . import keys as k

_PACK = {
    k.U32: struct.Struct("<I"),
    k.I32: struct.Struct("<i"),
    k.F32: struct.Struct("<f"),
    k.BOOL: struct.Struct("<?"),
    k.U64: struct.Struct("<Q"),
    k.I64: struct.Struct("<q"),
}
_HOLE_PROBE = 64 * MIB
_MAX_DIMS = 4  # GGML_MAX_DIMS


def write_sparse(
    path: Path,
    model: ModelSpec,
    types: Sequence[str],
    *,
    vocabulary: Literal["none", "dummy"] = "none",
) -> int:
    """Write ``model`` as a GGUF v3 file without its data.

    Args:
        path: File to create or replace.
        model: Its architecture, metadata and tensor shapes; ``file_type`` is written if set.
        types: A ggml type for each of ``model.tensors``.
        vocabulary: "none" writes only ``vocab_size``; "dummy" writes that many made-up tokens, as
            large a header as a real file's.

    Returns:
        The file's size in bytes, which is the real file's less its vocabulary.

    Raises:
        UsageError: The types do not match the tensors.
        UnknownNameError: A type or the file type is not known.
        DataError: A tensor's rows do not divide into blocks of its type.
        HardwareError: The disk keeps no holes and lacks the room, or cannot be written.
    """
    if len(types) != len(model.tensors):
        raise UsageError(f"{len(types)} tensor types for {len(model.tensors)} tensors")
    sizes = [_padded(tensor_bytes(t, x.shape)) for t, x in zip(types, model.tensors, strict=True)]
    header = _header(model, types, sizes, vocabulary)
    size = len(header) + sum(sizes)
    try:
        with open(path, "wb") as file:
            file.write(header)
            file.flush()
            _make_hole(file, path, size)
    except (OSError, HardwareError) as error:
        with contextlib.suppress(OSError):
            path.unlink()
        if isinstance(error, HardwareError):
            raise
        raise HardwareError(
            f"cannot write {path}: {error.strerror or error}", "name another directory"
        ) from error
    return size


def _make_hole(file: BinaryIO, path: Path, size: int) -> None:
    """Extend ``file`` to ``size`` bytes without filling the disk."""
    start = file.tell()
    file.truncate(min(size, start + _HOLE_PROBE))
    blocks = getattr(os.fstat(file.fileno()), "st_blocks", None)
    is_sparse = blocks is not None and blocks * 512 <= start + MIB
    if not is_sparse and size > (free := shutil.disk_usage(path.parent).free) // 2:
        raise HardwareError(
            f"{path.parent} keeps no sparse files and has {gib(free)} free; {gib(size)} are needed",
            "use a directory on another file system, for example by setting TMPDIR",
        )
    file.truncate(size)


def _header(model: ModelSpec, types: Sequence[str], sizes: Sequence[int], vocabulary: str) -> bytes:
    pairs = [*_general(model, types), *_own(model), *_tokenizer(model, vocabulary)]
    out = BytesIO()
    out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(model.tensors), len(pairs)))
    for key, kind, value in pairs:
        out.write(_string(key))
        out.write(_value(kind, value))
    offsets = accumulate(sizes, initial=0)
    for tensor, type_name, offset in zip(model.tensors, types, offsets, strict=False):
        n = len(tensor.shape)
        if not 1 <= n <= _MAX_DIMS:
            raise DataError(f"tensor {tensor.name} of {model.id} has {n} dimensions, not 1 to 4")
        out.write(_string(tensor.name))
        out.write(struct.pack(f"<I{n}QIQ", n, *tensor.shape, ggml_type(type_name).id, offset))
    return out.getvalue().ljust(_padded(out.tell()), b"\0")


_Pair = tuple[str, int, Value]


def _general(model: ModelSpec, types: Sequence[str]) -> Iterable[_Pair]:
    yield "general.architecture", k.STRING, model.architecture
    yield "general.name", k.STRING, model.id
    if model.file_type is not None:
        yield "general.file_type", k.U32, find_file_type(model.file_type).id
    if any(t not in ("F32", "F16", "BF16") for t in types):
        yield "general.quantization_version", k.U32, 2


def _own(model: ModelSpec) -> Iterable[_Pair]:
    for key, value in k.file_metadata(model).items():
        full = key if key.startswith(k.UNPREFIXED) else f"{model.architecture}.{key}"
        yield full, k.value_type(key, value), value


def _tokenizer(model: ModelSpec, vocabulary: str) -> Iterable[_Pair]:
    if kinds := model.integer(k.TOKEN_KINDS):
        yield f"tokenizer.ggml.{k.TOKEN_KINDS}", k.U32, kinds
    if vocabulary == "none":
        yield "tokenizer.ggml.model", k.STRING, "no_vocab"
        return
    n = model.integer("vocab_size")
    yield "tokenizer.ggml.model", k.STRING, "gpt2"
    yield "tokenizer.ggml.pre", k.STRING, "llama-bpe"
    yield "tokenizer.ggml.tokens", k.STRING, tuple(f"<token{i:>8}>" for i in range(n))
    yield "tokenizer.ggml.token_type", k.I32, (1,) * n
    yield "tokenizer.ggml.merges", k.STRING, tuple(f"<merge{i:>7}> x" for i in range(2 * n))
    yield "tokenizer.ggml.bos_token_id", k.U32, 0
    yield "tokenizer.ggml.eos_token_id", k.U32, 1


def _value(kind: int, value: Value) -> bytes:
    if isinstance(value, tuple):
        items = b"".join(_scalar(kind, v) for v in value)
        return struct.pack("<IIQ", k.ARRAY, kind, len(value)) + items
    return struct.pack("<I", kind) + _scalar(kind, value)


def _scalar(kind: int, value: bool | int | float | str) -> bytes:
    if kind == k.STRING:
        return _string(str(value))
    number = float(value) if kind == k.F32 else bool(value) if kind == k.BOOL else int(value)
    return _PACK[kind].pack(number)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(n: int) -> int:
    return -(-n // k.ALIGNMENT) * k.ALIGNMENT
