"""Token mixers that attend: grouped-query, multi-head latent, compressed."""

from __future__ import annotations

from typing import Literal

from .dims import Dims, Layer
from .pieces import Piece, Setting, Shapes, linear, present
from .rules import split_compression


def attention(
    *,
    qkv_bias: Setting = "attention_bias",
    out_bias: Setting = "attention_output_bias",
    norms: Setting = False,
    norm_over: Literal["head", "heads", "all"] = "head",
    fused: bool = False,
    gated: bool = False,
    sinks: Setting = False,
) -> Piece:
    """Grouped-query attention.

    Args:
        qkv_bias, out_bias: Biases of the projections.
        norms: Norms of Q and K.
        norm_over: What such a norm is for: any one head, each head, or all heads at once.
        fused: Q, K and V are one tensor.
        gated: Q carries an output gate and is twice as wide.
        sinks: A learned sink for each head.
    """

    def shapes(d: Dims, b: Layer) -> Shapes:
        key, value = d.key(b), d.value(b)
        q, k, v = key * b.heads, key * b.kv_heads, value * b.kv_heads
        bias = present(d, qkv_bias)
        if fused:
            out = linear("attn_qkv", d.embd, q + k + v, bias)
        else:
            out = linear("attn_q", d.embd, 2 * q if gated else q, bias)
            out += linear("attn_k", d.embd, k, bias)
            out += linear("attn_v", d.embd, v, bias)
        out += linear("attn_output", value * b.heads, d.embd, present(d, out_bias))
        if present(d, norms):
            out += _qk_norms(norm_over, key, b)
        if present(d, sinks):
            out.append(("attn_sinks.weight", (b.heads,)))
        return out

    return shapes


def _qk_norms(over: str, key: int, b: Layer) -> Shapes:
    out: Shapes = []
    for name, heads in (("attn_q_norm", b.heads), ("attn_k_norm", b.kv_heads)):
        shape = {"head": (key,), "heads": (key, heads), "all": (key * heads,)}[over]
        out.append((f"{name}.weight", shape))
    return out


def head_gate(d: Dims, b: Layer) -> Shapes:
    """An output gate for each head."""
    return [("attn_gate.weight", (d.embd, b.heads))]


def sinks(_: Dims, b: Layer) -> Shapes:
    """A learned sink for each head."""
    return [("attn_sinks.weight", (b.heads,))]


def attention_or_linear(d: Dims, b: Layer) -> Shapes:
    """Deci's blocks: attention, a matrix in its place (heads but no KV heads), or nothing."""
    if b.kv_heads:
        return [("attn_norm.weight", (d.embd,)), *_PLAIN(d, b)]
    if b.heads:
        return [("attn_norm.weight", (d.embd,)), ("attn_output.weight", (d.embd, d.embd))]
    return []


_PLAIN = attention()


def shared_kv_attention(d: Dims, b: Layer) -> Shapes:
    """Gemma 4's attention: K and V may come from another block, V may be taken from K."""
    key = d.key(b)
    out = linear("attn_q", d.embd, key * b.heads)
    out += linear("attn_output", key * b.heads, d.embd)
    out.append(("attn_q_norm.weight", (key,)))
    if b.mark:
        return out
    out += linear("attn_k", d.embd, key * b.kv_heads)
    if b.sliding or not d.flag("attention_k_is_v"):
        out += linear("attn_v", d.embd, key * b.kv_heads)
    return [*out, ("attn_k_norm.weight", (key,))]


def latent_attention(*, split: bool = True, gate: bool = False) -> Piece:
    """Multi-head latent attention.

    Args:
        split: The expansion of the latent is split into K and V per head, as converters write it.
        gate: A gate on the output, as wide as it.
    """

    def shapes(d: Dims, b: Layer) -> Shapes:
        key = d.number("attention.key_length_mla", None if split else d.full_key)
        value = d.number("attention.value_length_mla", None if split else d.full_value)
        latent = d.number("attention.kv_lora_rank")
        q_latent = d.number("attention.q_lora_rank", 0, 0)
        if q_latent:
            out = linear("attn_q_a", d.embd, q_latent)
            out.append(("attn_q_a_norm.weight", (q_latent,)))
            out += linear("attn_q_b", q_latent, b.heads * key)
        else:
            out = linear("attn_q", d.embd, b.heads * key)
        out += linear("attn_kv_a_mqa", d.embd, latent + d.rot)
        out.append(("attn_kv_a_norm.weight", (latent,)))
        if split:
            out.append(("attn_k_b.weight", (key - d.rot, latent, b.heads)))
            out.append(("attn_v_b.weight", (latent, value, b.heads)))
        else:
            out += linear("attn_kv_b", latent, b.heads * (key - d.rot + value))
        if gate:
            out += linear("attn_gate", d.embd, b.heads * value)
        return out + linear("attn_output", b.heads * value, d.embd)

    return shapes


def indexer(d: Dims, _: Layer) -> Shapes:
    """DeepSeek's index of the tokens worth attending to."""
    heads = d.number("attention.indexer.head_count")
    length = d.number("attention.indexer.key_length")
    return [
        ("indexer.k_norm.weight", (length,)),
        ("indexer.k_norm.bias", (length,)),
        ("indexer.proj.weight", (d.embd, heads)),
        ("indexer.attn_k.weight", (d.embd, length)),
        ("indexer.attn_q_b.weight", (d.number("attention.q_lora_rank"), heads * length)),
    ]


def block_indexer(d: Dims, _: Layer) -> Shapes:
    """MiniMax's index of the blocks worth attending to."""
    heads = d.number("attention.indexer.head_count")
    length = d.number("attention.indexer.key_length")
    return [
        ("indexer.q_proj.weight", (d.embd, heads * length)),
        ("indexer.k_proj.weight", (d.embd, length)),
        ("indexer.q_norm.weight", (length,)),
        ("indexer.k_norm.weight", (length,)),
    ]


def compressed_attention(d: Dims, b: Layer) -> Shapes:
    """DeepSeek V4: one shared head of K and V, compressed by the block's ratio, grouped output."""
    q_latent = d.number("attention.q_lora_rank")
    groups = d.number("attention.output_group_count")
    out_latent = d.number("attention.output_lora_rank") * groups
    key = d.full_key
    out: Shapes = [
        ("attn_sinks.weight", (b.heads,)),
        ("attn_q_a.weight", (d.embd, q_latent)),
        ("attn_q_a_norm.weight", (q_latent,)),
        ("attn_q_b.weight", (q_latent, b.heads * key)),
        ("attn_kv.weight", (d.embd, key)),
        ("attn_kv_a_norm.weight", (key,)),
        ("attn_output_a.weight", (b.heads * key // groups, out_latent)),
        ("attn_output_b.weight", (out_latent, d.embd)),
    ]
    ratio, _ = split_compression(b.mark)
    if ratio:
        out += _compressor("attn", d, key, ratio)
    if ratio == _INDEXED_RATIO:
        heads = d.number("attention.indexer.head_count")
        length = d.number("attention.indexer.key_length")
        out += linear("indexer.proj", d.embd, heads)
        out += linear("indexer.attn_q_b", q_latent, heads * length)
        out += _compressor("indexer", d, length, ratio)
    return out


_INDEXED_RATIO = 4  # ggml-org/llama.cpp src/models/deepseek4.cpp: this ratio alone is indexed


def _compressor(prefix: str, d: Dims, length: int, ratio: int) -> Shapes:
    width = 2 * length if ratio == _INDEXED_RATIO else length
    return [
        (f"{prefix}_compressor_kv.weight", (d.embd, width)),
        (f"{prefix}_compressor_gate.weight", (d.embd, width)),
        (f"{prefix}_compressor_ape.weight", (width, ratio)),
        (f"{prefix}_compressor_norm.weight", (length,)),
    ]


def hyper_connections(d: Dims, _: Layer) -> Shapes:
    """DeepSeek V4's several residual streams, mixed around attention and feed-forward."""
    n = d.number("hyper_connection.count")
    mix = (2 + n) * n
    return [
        (f"hc_{part}_{name}.weight", shape)
        for part in ("attn", "ffn")
        for name, shape in (("fn", (n * d.embd, mix)), ("base", (mix,)), ("scale", (3,)))
    ]
