"""Build GGUF bytes by hand, field by field, with any field wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?",
         U64: "Q", I64: "q", F64: "d"}  # fmt: skip

Pair = tuple[str, int, object]
Info = tuple[str, Sequence[int], int, int]


def text(s: str, order: str = "<") -> bytes:
    data = s.encode()
    return struct.pack(order + "Q", len(data)) + data


def value(kind: int, v: object, order: str = "<") -> bytes:
    if kind == STRING:
        return text(str(v), order)
    return struct.pack(order + CODES[kind], v)


def pair(key: str, kind: int, v: object, order: str = "<") -> bytes:
    """One key; a list becomes an array of ``kind``."""
    if isinstance(v, list):
        head = struct.pack(order + "IIQ", ARRAY, kind, len(v))
        return text(key, order) + head + b"".join(value(kind, x, order) for x in v)
    return text(key, order) + struct.pack(order + "I", kind) + value(kind, v, order)


def info(name: str, shape: Sequence[int], kind: int, offset: int, order: str = "<") -> bytes:
    dims = struct.pack(f"{order}I{len(shape)}Q", len(shape), *shape)
    return text(name, order) + dims + struct.pack(order + "IQ", kind, offset)


def start(n_tensors: int, n_pairs: int, version: int = 3, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(order + "IQQ", version, n_tensors, n_pairs)


def gguf(
    pairs: Sequence[Pair],
    infos: Sequence[Info] = (),
    data: int = 0,
    version: int = 3,
    order: str = "<",
    alignment: int = 32,
) -> bytes:
    """A whole file with ``data`` bytes of tensors, all zero."""
    head = start(len(infos), len(pairs), version, order)
    head += b"".join(pair(*p, order) for p in pairs) + b"".join(info(*i, order) for i in infos)
    return head + b"\0" * (-len(head) % alignment + data)


SMALL: list[Pair] = [
    ("general.architecture", STRING, "llama"),
    ("general.file_type", U32, 15),
    ("llama.block_count", U32, 2),
    ("llama.embedding_length", U32, 256),
    ("llama.attention.head_count_kv", I32, [4, 8]),
    ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
    ("llama.rope.scaling.type", STRING, "yarn"),
    ("tokenizer.ggml.tokens", STRING, ["a", "", "ccc"]),
    ("tokenizer.ggml.scores", F32, [0.0, 1.0, 2.0]),
    ("tokenizer.chat_template", STRING, "x" * 5000),
]
TENSORS: list[Info] = [
    ("token_embd.weight", (256, 3), 12, 0),  # Q4_K: 3 rows of 144 bytes
    ("output_norm.weight", (256,), 0, 448),  # F32: 1024 bytes
]
DATA = 448 + 1024
"""A llama of two blocks with three tokens."""
