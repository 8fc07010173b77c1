"""Valid headers to begin with: every architecture of the catalog, one block of each."""

from __future__ import annotations

import struct
from pathlib import Path

from benchmarks.accuracy.sparse import converted_types, cut

from nemofit.catalog.models import all_models
from nemofit.formats.gguf.writer import write_sparse

_BLOCKS = 1


def seeds(directory: Path) -> list[bytes]:
    """Headers of a few KiB; one of each architecture, and small ones of every version and order."""
    found = [_tiny(version, order) for version in (2, 3) for order in "<>"]
    path = directory / "seed.gguf"
    for card in {c.architecture: c for c in all_models()}.values():
        model = cut(card.spec(), _BLOCKS)
        write_sparse(path, model, converted_types(model))
        found.append(_header(path))
    path.unlink()
    return found


def _header(path: Path) -> bytes:
    from nemofit.formats.gguf.header import read_header

    with path.open("rb") as file:
        end = read_header(file, path.name).data_offset
        file.seek(0)
        return file.read(end)


def _tiny(version: int, order: str) -> bytes:
    """A llama of one block with a vocabulary, lists of every kind and a long text."""
    pairs = [
        _pair(order, "general.architecture", 8, "llama"),
        _pair(order, "general.alignment", 4, 32),
        _pair(order, "general.file_type", 4, 1),
        _pair(order, "llama.block_count", 4, 1),
        _pair(order, "llama.context_length", 10, 2048),
        _pair(order, "llama.embedding_length", 4, 64),
        _pair(order, "llama.feed_forward_length", 5, [96]),
        _pair(order, "llama.attention.head_count", 4, 4),
        _pair(order, "llama.attention.head_count_kv", 5, [2]),
        _pair(order, "llama.attention.layer_norm_rms_epsilon", 6, 1e-5),
        _pair(order, "llama.rope.scaling.type", 8, "yarn"),
        _pair(order, "llama.use_parallel_residual", 7, True),
        _pair(order, "tokenizer.ggml.tokens", 8, ["a", "", "ccc"]),
        _pair(order, "tokenizer.ggml.scores", 6, [0.0, 1.0, 2.0]),
        _pair(order, "tokenizer.chat_template", 8, "x" * 1500),
    ]
    shapes = {
        "token_embd.weight": (64, 3),
        "output_norm.weight": (64,),
        "blk.0.attn_norm.weight": (64,),
        "blk.0.attn_q.weight": (64, 64),
        "blk.0.attn_k.weight": (64, 32),
        "blk.0.attn_v.weight": (64, 32),
        "blk.0.attn_output.weight": (64, 64),
        "blk.0.ffn_norm.weight": (64,),
        "blk.0.ffn_gate.weight": (64, 96),
        "blk.0.ffn_up.weight": (64, 96),
        "blk.0.ffn_down.weight": (96, 64),
    }
    infos, offset = b"", 0
    for name, shape in shapes.items():
        infos += _text(order, name) + struct.pack(f"{order}I{len(shape)}Q", len(shape), *shape)
        infos += struct.pack(order + "IQ", 0, offset)
        offset += 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
    head = b"GGUF" + struct.pack(order + "IQQ", version, len(shapes), len(pairs))
    whole = head + b"".join(pairs) + infos
    return whole + bytes(-len(whole) % 32)


def _pair(order: str, key: str, kind: int, value: object) -> bytes:
    values = value if isinstance(value, list) else [value]
    head = struct.pack(order + "IIQ", 9, kind, len(values))
    start = head if isinstance(value, list) else struct.pack(order + "I", kind)
    return _text(order, key) + start + b"".join(_value(order, kind, v) for v in values)


def _value(order: str, kind: int, value: object) -> bytes:
    if kind == 8:
        return _text(order, str(value))
    return struct.pack(order + {4: "I", 5: "i", 6: "f", 7: "?", 10: "Q"}[kind], value)


def _text(order: str, text: str) -> bytes:
    return struct.pack(order + "Q", len(text)) + text.encode()
