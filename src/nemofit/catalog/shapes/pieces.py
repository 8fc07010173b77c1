"""The pieces that models are made of: each lists the tensors of one part of a block.

A piece is a function of the model's sizes and of the block's; it gives names without the
``blk.N.`` prefix and shapes in ggml's order. Where a tensor may be absent, a setting is True,
False, or the name of the metadata flag that says so.
"""

from __future__ import annotations

from collections.abc import Callable

from .dims import Dims, Layer

Shapes = list[tuple[str, tuple[int, ...]]]
Piece = Callable[[Dims, Layer], Shapes]
Setting = bool | str


def present(d: Dims, setting: Setting) -> bool:
    return d.flag(setting) if isinstance(setting, str) else setting


def norm(name: str, bias: Setting = False) -> Piece:
    """A layer norm over the embedding."""

    def shapes(d: Dims, _: Layer) -> Shapes:
        out: Shapes = [(f"{name}.weight", (d.embd,))]
        if present(d, bias):
            out.append((f"{name}.bias", (d.embd,)))
        return out

    return shapes


def attention(
    *,
    qkv_bias: Setting = "attention_bias",
    out_bias: Setting = "attention_output_bias",
    qk_norm: Setting = False,
) -> Piece:
    """Grouped-query attention.

    Args:
        qkv_bias: Biases of the three projections.
        out_bias: Bias of the output projection.
        qk_norm: Norms over each head of Q and K.
    """

    def shapes(d: Dims, b: Layer) -> Shapes:
        q, k, v = d.key * b.heads, d.key * b.kv_heads, d.value * b.kv_heads
        out: Shapes = []
        for name, width in (("attn_q", q), ("attn_k", k), ("attn_v", v)):
            out.append((f"{name}.weight", (d.embd, width)))
            if present(d, qkv_bias):
                out.append((f"{name}.bias", (width,)))
        out.append(("attn_output.weight", (d.value * b.heads, d.embd)))
        if present(d, out_bias):
            out.append(("attn_output.bias", (d.embd,)))
        if present(d, qk_norm):
            out += [("attn_q_norm.weight", (d.key,)), ("attn_k_norm.weight", (d.key,))]
        return out

    return shapes


def feed_forward(*, bias: Setting = "feed_forward_bias") -> Piece:
    """A gated feed-forward."""

    def shapes(d: Dims, b: Layer) -> Shapes:
        out: Shapes = [
            ("ffn_gate.weight", (d.embd, b.ff)),
            ("ffn_up.weight", (d.embd, b.ff)),
            ("ffn_down.weight", (b.ff, d.embd)),
        ]
        if present(d, bias):
            out += [
                ("ffn_gate.bias", (b.ff,)),
                ("ffn_up.bias", (b.ff,)),
                ("ffn_down.bias", (d.embd,)),
            ]
        return out

    return shapes


def experts(*, as_wide_as_dense: bool = False) -> Piece:
    """A router and gated experts.

    Args:
        as_wide_as_dense: An expert is ``feed_forward_length`` wide.
    """

    def shapes(d: Dims, b: Layer) -> Shapes:
        width = b.ff if as_wide_as_dense else b.expert_ff
        return [
            ("ffn_gate_inp.weight", (d.embd, d.experts)),
            ("ffn_gate_exps.weight", (d.embd, width, d.experts)),
            ("ffn_up_exps.weight", (d.embd, width, d.experts)),
            ("ffn_down_exps.weight", (width, d.embd, d.experts)),
        ]

    return shapes


def sparse(yes: Piece, no: Piece) -> Piece:
    """One piece in mixture-of-experts blocks, another in dense ones."""
    return lambda d, b: yes(d, b) if b.sparse else no(d, b)
