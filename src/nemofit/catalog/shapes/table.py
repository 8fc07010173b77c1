"""One row per architecture: which pieces its files hold, and in which blocks.

The rules are those of ggml-org/llama.cpp: ``src/models/<architecture>.cpp`` says what a file may
hold, ``conversion/`` what the converter writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .dims import Dims, Layer, Rule
from .pieces import Piece, Shapes, attention, experts, feed_forward, norm, sparse

Root = Callable[[Dims], Shapes]


def never(d: Dims) -> tuple[bool, ...]:
    return (False,) * d.blocks


def all_sparse(d: Dims) -> tuple[bool, ...]:
    """Every block has experts, if the model has any."""
    return (d.experts > 0,) * d.blocks


def head(d: Dims) -> Shapes:
    """Token embedding, final norm and, unless it shares the embedding, the output matrix."""
    out: Shapes = [("token_embd.weight", (d.embd, d.vocab)), ("output_norm.weight", (d.embd,))]
    if not d.flag("tied_embeddings"):
        out.append(("output.weight", (d.embd, d.vocab)))
    return out


def rope_factors(d: Dims) -> Shapes:
    """The frequency factors of Llama 3.1 and later."""
    return [("rope_freqs.weight", (d.rot // 2,))] if d.flag("rope_factors") else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How an architecture's files are made up.

    Attributes:
        root: Tensors outside the blocks.
        block: The pieces of a block, in order.
        sparse, recurrent, sliding: Which blocks have experts, a recurrent mixer, a window.
    """

    root: tuple[Root, ...] = (head,)
    block: tuple[Piece, ...]
    sparse: Rule = never
    recurrent: Rule = never
    sliding: Rule = never

    def layers(self, d: Dims) -> list[Layer]:
        heads = d.per_block("attention.head_count", 0)
        kv_heads = (
            d.per_block("attention.head_count_kv")
            if ("attention.head_count_kv" in d.metadata)
            else heads
        )
        ff = d.per_block("feed_forward_length", 0)
        used = d.number("expert_used_count", 1)
        expert_ff = d.per_block("expert_feed_forward_length", ff[0] // used)
        nextn = (False,) * (d.blocks - d.nextn) + (True,) * d.nextn
        return [
            Layer(*values)
            for values in zip(
                heads, kv_heads, ff, expert_ff,
                self.sparse(d), self.recurrent(d), self.sliding(d), nextn,
                strict=True,
            )
        ]  # fmt: skip


ATTN_NORM = norm("attn_norm")
FFN_NORM = norm("ffn_norm")

ROWS: dict[str, Row] = {
    "llama": Row(
        root=(head, rope_factors),
        block=(
            ATTN_NORM,
            attention(),
            FFN_NORM,
            sparse(experts(as_wide_as_dense=True), feed_forward()),
        ),
        sparse=all_sparse,
    ),
    "qwen2": Row(
        block=(ATTN_NORM, attention(qkv_bias=True, out_bias=False), FFN_NORM, feed_forward()),
    ),
    "qwen3": Row(
        block=(ATTN_NORM, attention(qk_norm=True), FFN_NORM, feed_forward()),
    ),
    "qwen3moe": Row(
        block=(ATTN_NORM, attention(qk_norm=True), FFN_NORM, experts()),
        sparse=all_sparse,
    ),
}
