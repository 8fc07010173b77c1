"""What the parts of a block have in common.

A piece is a function of the model's sizes and of the block's that lists the tensors of one part of
a block: names without the ``blk.N.`` prefix, shapes in ggml's order (row length first). A tensor
that some models of an architecture lack has a setting: True, False, the name of the metadata flag
that says so, or a function of the model's sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from .dims import Dims, Layer

Shapes = list[tuple[str, tuple[int, ...]]]
Piece = Callable[[Dims, Layer], Shapes]
Root = Callable[[Dims], Shapes]
Setting = bool | str | Callable[[Dims], bool]
Field = Literal["kv_heads", "ff", "sparse", "recurrent", "sliding", "nextn", "mark"]


def present(d: Dims, setting: Setting) -> bool:
    """Resolve a setting for one model."""
    if isinstance(setting, str):
        return d.flag(setting)
    return setting(d) if callable(setting) else setting


def linear(name: str, rows: int, width: int, bias: bool = False) -> Shapes:
    """A matrix from ``rows`` inputs to ``width`` outputs, maybe with a bias."""
    out: Shapes = [(f"{name}.weight", (rows, width))]
    if bias:
        out.append((f"{name}.bias", (width,)))
    return out


def joined(pieces: Iterable[Piece], d: Dims, b: Layer) -> Shapes:
    return [tensor for piece in pieces for tensor in piece(d, b)]


def when(field: Field, *pieces: Piece) -> Piece:
    """Pieces of blocks where the field is set."""
    return lambda d, b: joined(pieces, d, b) if getattr(b, field) else []


def unless(field: Field, *pieces: Piece) -> Piece:
    """Pieces of blocks where the field is not set."""
    return lambda d, b: [] if getattr(b, field) else joined(pieces, d, b)


def norm(name: str, bias: Setting = False, given: Setting = True) -> Piece:
    """A norm over the embedding."""

    def shapes(d: Dims, _: Layer) -> Shapes:
        if not present(d, given):
            return []
        out: Shapes = [(f"{name}.weight", (d.embd,))]
        if present(d, bias):
            out.append((f"{name}.bias", (d.embd,)))
        return out

    return shapes


def vector(name: str, *, size: int | None = None) -> Piece:
    """One tensor of ``size`` elements, or as long as the embedding."""
    return lambda d, _: [(name, (d.embd if size is None else size,))]


def next_tokens(*, head_norm: bool = True, out_norm: bool = False) -> Piece:
    """What an appended block adds to predict further tokens.

    Args:
        head_norm: A norm of its own before the output matrix.
        out_norm: A norm of the block's output.
    """

    def shapes(d: Dims, _: Layer) -> Shapes:
        out: Shapes = [
            ("nextn.eh_proj.weight", (2 * d.embd, d.embd)),
            ("nextn.enorm.weight", (d.embd,)),
            ("nextn.hnorm.weight", (d.embd,)),
        ]
        if d.flag("nextn_embedding"):
            out.append(("nextn.embed_tokens.weight", (d.embd, d.vocab)))
        if d.flag("nextn_output"):
            out.append(("nextn.shared_head_head.weight", (d.embd, d.vocab)))
        if head_norm:
            out.append(("nextn.shared_head_norm.weight", (d.embd,)))
        if out_norm:
            out.append(("layer_output_norm.weight", (d.embd,)))
        return out

    return when("nextn", shapes)
