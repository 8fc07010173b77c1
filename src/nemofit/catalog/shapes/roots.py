"""Tensors outside the blocks."""

from __future__ import annotations

from typing import Literal

from .dims import Dims
from .pieces import Root, Setting, Shapes, linear, present


def head(
    *,
    output: Literal["unless tied", "always", "never"] = "unless tied",
    norm: str | None = "output_norm",
    norm_bias: bool = False,
    output_bias: bool = False,
) -> Root:
    """Token embedding, final norm and output matrix.

    Args:
        output: Whether the output matrix is a tensor of its own; "unless tied" asks the metadata
            flag ``tied_embeddings``.
        norm: Name of the final norm, None without one.
        norm_bias, output_bias: Biases of the norm and of the output.
    """

    def shapes(d: Dims) -> Shapes:
        out: Shapes = [("token_embd.weight", (d.embd, d.vocab))]
        if norm:
            out.append((f"{norm}.weight", (d.embd,)))
        if norm and norm_bias:
            out.append((f"{norm}.bias", (d.embd,)))
        tied = output == "never" or (output == "unless tied" and d.flag("tied_embeddings"))
        return out if tied else out + linear("output", d.embd, d.vocab, output_bias)

    return shapes


def rope_factors(d: Dims) -> Shapes:
    """Frequency factors, as Llama 3.1 has them."""
    return [("rope_freqs.weight", (d.rot // 2,))] if d.flag("rope_factors") else []


def rope_factors_of_head(given: Setting) -> Root:
    """Frequency factors over half of a whole head."""
    return lambda d: [("rope_freqs.weight", (d.full_key // 2,))] if present(d, given) else []


def long_rope_factors(d: Dims) -> Shapes:
    """Two sets of frequency factors, for short and for long contexts."""
    if not d.flag("rope_factors_long_short"):
        return []
    return [(f"rope_factors_{kind}.weight", (d.rot // 2,)) for kind in ("long", "short")]


def encoder(*, positions: bool = False, norm_bias: bool = True, output_norm: bool = False) -> Root:
    """Embeddings of tokens, their types and maybe positions, and a norm.

    Args:
        positions: Positions are learned, ``context_length`` of them.
        norm_bias: The norm has a bias.
        output_norm: A norm after the last block.
    """

    def shapes(d: Dims) -> Shapes:
        out: Shapes = [("token_embd.weight", (d.embd, d.vocab))]
        if types := d.number("token_type_count", 0, 0):
            out.append(("token_types.weight", (d.embd, types)))
        if positions:
            out.append(("position_embd.weight", (d.embd, d.number("context_length"))))
        out.append(("token_embd_norm.weight", (d.embd,)))
        if norm_bias:
            out.append(("token_embd_norm.bias", (d.embd,)))
        if output_norm:
            out.append(("output_norm.weight", (d.embd,)))
        return out

    return shapes


def dense_outputs(d: Dims) -> Shapes:
    """Two dense layers after the pooling, where the metadata states their sizes."""
    out: Shapes = []
    if width := d.number("dense_2_feat_out", 0, 0):
        out.append(("dense_2.weight", (d.embd, width)))
    if width := d.number("dense_3_feat_in", 0, 0):
        out.append(("dense_3.weight", (width, d.embd)))
    return out


def per_layer_width(d: Dims) -> int:
    """Elements that each block gets from a table of its own; 0 without one."""
    return d.number("embedding_length_per_layer_input", 0, 0)


def per_layer_embedding(d: Dims) -> Shapes:
    """Gemma's token embedding for each block."""
    width = per_layer_width(d) * d.blocks
    if not width:
        return []
    return [
        ("per_layer_token_embd.weight", (width, d.vocab)),
        ("per_layer_model_proj.weight", (d.embd, width)),
        ("per_layer_proj_norm.weight", (per_layer_width(d),)),
    ]


def alternating_streams(d: Dims) -> int:
    """Gemma 3n's residual streams, of which one is active in a block."""
    return d.number("altup.num_inputs", 4)


def stream_projections(d: Dims) -> Shapes:
    shape = (d.embd, d.embd, alternating_streams(d) - 1)
    return [("altup_proj.weight", shape), ("altup_unembd_proj.weight", shape)]


def hyper_connection_head(d: Dims) -> Shapes:
    """DeepSeek V4's merge of the residual streams."""
    n = d.number("hyper_connection.count")
    return [
        ("output_hc_fn.weight", (n * d.embd, n)),
        ("output_hc_base.weight", (n,)),
        ("output_hc_scale.weight", (1,)),
    ]


def residual_score(d: Dims) -> Shapes:
    """Kimi K3's score of the residuals across blocks."""
    return [("output_res_score.weight", (d.embd,))] if residual_blocks(d) else []


def residual_blocks(d: Dims) -> bool:
    return d.number("attn_res.block_size", 0, 0) > 0
