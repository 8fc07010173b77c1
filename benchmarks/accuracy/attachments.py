"""Projectors and adapters of published shapes, their data a hole."""

from __future__ import annotations

import struct
from pathlib import Path

from nemofit.catalog.ggml import ggml_type, tensor_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.formats.gguf.keys import ARRAY, BOOL, F32, STRING, U32

Row = tuple[str, tuple[int, ...], str]
Pair = tuple[str, int, object]
_CODES = {U32: "<I", F32: "<f", BOOL: "<?"}


def write(path: Path, pairs: list[Pair], rows: list[Row]) -> Path:
    """Write a file whose tensors lie one behind the other, aligned to 32 bytes."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(rows), len(pairs)) + b"".join(map(_pair, pairs))
    offset = 0
    for name, shape, kind in rows:
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", ggml_type(kind).id, offset)
        offset += -(-tensor_bytes(kind, shape) // 32) * 32
    head += bytes(-len(head) % 32)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + offset)
    return path


def _pair(pair: Pair) -> bytes:
    key, kind, value = pair
    values = value if isinstance(value, list) else [value]
    is_list = isinstance(value, list)
    start = struct.pack("<IIQ", ARRAY, kind, len(values)) if is_list else struct.pack("<I", kind)
    return (
        _text(key)
        + start
        + b"".join(
            _text(str(v)) if kind == STRING else struct.pack(_CODES[kind], v) for v in values
        )
    )


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gemma3(path: Path, width: int = 2560) -> Path:
    """The projector of Gemma 3 4B: SigLIP at 896 pixels, 4096 patches; published at 851 MB."""
    rows = _encoder(1152, 4304, 27, is_gated=False, has_bias=True)
    rows += [
        ("v.position_embd.weight", (1152, 4096), "F32"),
        ("v.post_ln.weight", (1152,), "F32"),
        ("v.post_ln.bias", (1152,), "F32"),
        ("mm.input_projection.weight", (width, 1152), "F16"),
        ("mm.soft_emb_norm.weight", (1152,), "F32"),
    ]
    return write(path, _pairs("gemma3", 896, 1152, 4304, 27, width, "gelu"), rows)


def tiny(path: Path, width: int) -> Path:
    """A projector of one small block, for a server that has to send it."""
    rows = _encoder(64, 128, 1, is_gated=False, has_bias=False)
    rows.append(("mm.input_projection.weight", (width, 64), "F16"))
    return write(path, _pairs("gemma3", 56, 64, 128, 1, width, "gelu"), rows)


def pixtral(path: Path, width: int = 5120) -> Path:
    """The projector of Mistral Small 3.2: 24 gated blocks, images of any size."""
    rows = _encoder(1024, 4096, 24, is_gated=True, has_bias=False)
    rows += [
        ("v.pre_ln.weight", (1024,), "F32"),
        ("mm.1.weight", (1024, width), "F16"),
        ("mm.2.weight", (width, width), "F16"),
        ("mm.input_norm.weight", (1024,), "F32"),
        ("mm.patch_merger.weight", (4096, 1024), "F16"),
        ("v.token_embd.img_break", (width,), "F32"),
    ]
    pairs = _pairs("pixtral", 1540, 1024, 4096, 24, width, "silu")
    return write(path, [*pairs, ("clip.vision.spatial_merge_size", U32, 2)], rows)


def lora(path: Path, model: ModelSpec, rank: int = 64) -> Path:
    """An adapter of every matrix in a model's blocks."""
    rows: list[Row] = []
    for t in model.tensors:
        if t.name.startswith("blk.") and t.name.endswith(".weight") and len(t.shape) == 2:
            rows.append((f"{t.name}.lora_a", (t.shape[0], rank), "F16"))
            rows.append((f"{t.name}.lora_b", (rank, t.shape[1]), "F16"))
    pairs: list[Pair] = [
        ("general.architecture", STRING, model.architecture),
        ("general.type", STRING, "adapter"),
        ("adapter.type", STRING, "lora"),
        ("adapter.lora.alpha", F32, 16.0),
    ]
    return write(path, pairs, rows)


def _encoder(width: int, wide: int, blocks: int, is_gated: bool, has_bias: bool) -> list[Row]:
    square = [(n, (width, width)) for n in ("attn_q", "attn_k", "attn_v", "attn_out")]
    forward = [("ffn_up", (width, wide)), ("ffn_down", (wide, width))]
    forward += [("ffn_gate", (width, wide))] if is_gated else []
    rows: list[Row] = [("v.patch_embd.weight", (14, 14, 3, width), "F32")]
    if has_bias:
        rows.append(("v.patch_embd.bias", (width,), "F32"))
    for i in range(blocks):
        for name, shape in square + forward:
            rows.append((f"v.blk.{i}.{name}.weight", shape, "F16"))
            if has_bias:
                rows.append((f"v.blk.{i}.{name}.bias", (shape[1],), "F32"))
        for name in ("ln1", "ln2"):
            rows.append((f"v.blk.{i}.{name}.weight", (width,), "F32"))
            if has_bias:
                rows.append((f"v.blk.{i}.{name}.bias", (width,), "F32"))
    return rows


def _pairs(
    kind: str, size: int, width: int, wide: int, blocks: int, out: int, activation: str
) -> list[Pair]:
    vision = "clip.vision."
    return [
        ("general.architecture", STRING, "clip"),
        ("general.type", STRING, "mmproj"),
        ("clip.has_vision_encoder", BOOL, True),
        ("clip.projector_type", STRING, kind),
        (f"clip.use_{activation}", BOOL, True),
        (vision + "image_size", U32, size),
        (vision + "patch_size", U32, 14),
        (vision + "embedding_length", U32, width),
        (vision + "feed_forward_length", U32, wide),
        (vision + "projection_dim", U32, out),
        (vision + "block_count", U32, blocks),
        (vision + "attention.head_count", U32, 16),
        (vision + "attention.layer_norm_epsilon", F32, 1e-6),
        (vision + "image_mean", F32, [0.5, 0.5, 0.5]),
        (vision + "image_std", F32, [0.5, 0.5, 0.5]),
    ]
