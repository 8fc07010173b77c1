"""Token mixers with a state of fixed size."""

from __future__ import annotations

from .dims import Dims, Layer
from .pieces import Piece, Setting, Shapes, linear, present


def mamba(*, norms: bool = False) -> Piece:
    """Mamba's selective state space.

    Args:
        norms: Norms of time step, B and C.
    """

    def shapes(d: Dims, _: Layer) -> Shapes:
        conv, inner = d.number("ssm.conv_kernel"), d.number("ssm.inner_size")
        state, rank = d.number("ssm.state_size"), d.number("ssm.time_step_rank")
        out: Shapes = [
            ("ssm_in.weight", (d.embd, 2 * inner)),
            ("ssm_conv1d.weight", (conv, inner)),
            ("ssm_conv1d.bias", (inner,)),
            ("ssm_x.weight", (inner, rank + 2 * state)),
            ("ssm_dt.weight", (rank, inner)),
            ("ssm_dt.bias", (inner,)),
            ("ssm_a", (state, inner)),
            ("ssm_d", (inner,)),
            ("ssm_out.weight", (inner, d.embd)),
        ]
        if norms:
            out += [
                ("ssm_dt_norm.weight", (rank,)),
                ("ssm_b_norm.weight", (state,)),
                ("ssm_c_norm.weight", (state,)),
            ]
        return out

    return shapes


def mamba2(*, norm: Setting = True) -> Piece:
    """Mamba 2: heads that share B and C in groups.

    Args:
        norm: A grouped norm before the output.
    """

    def shapes(d: Dims, _: Layer) -> Shapes:
        inner, heads = d.number("ssm.inner_size"), d.number("ssm.time_step_rank")
        groups = d.number("ssm.group_count")
        mixed = inner + 2 * groups * d.number("ssm.state_size")
        out: Shapes = [
            ("ssm_in.weight", (d.embd, inner + mixed + heads)),
            ("ssm_conv1d.weight", (d.number("ssm.conv_kernel"), mixed)),
            ("ssm_conv1d.bias", (mixed,)),
            ("ssm_dt.bias", (heads,)),
            ("ssm_a", (1, heads)),
            ("ssm_d", (1, heads)),
            ("ssm_out.weight", (inner, d.embd)),
        ]
        if present(d, norm):
            out.append(("ssm_norm.weight", (inner // groups, groups)))
        return out

    return shapes


def gated_delta_net(*, fused_rates: bool) -> Piece:
    """Qwen's gated delta net.

    Args:
        fused_rates: Beta and alpha are one matrix.
    """

    def shapes(d: Dims, _: Layer) -> Shapes:
        length, heads = d.number("ssm.state_size"), d.number("ssm.time_step_rank")
        value = length * heads
        mixed = 2 * length * d.number("ssm.group_count") + value
        rates = {"ssm_ba": 2 * heads} if fused_rates else {"ssm_beta": heads, "ssm_alpha": heads}
        out: Shapes = [
            ("attn_qkv.weight", (d.embd, mixed)),
            ("attn_gate.weight", (d.embd, value)),
            ("ssm_conv1d.weight", (d.number("ssm.conv_kernel"), mixed)),
            ("ssm_dt.bias", (heads,)),
            ("ssm_a", (heads,)),
            ("ssm_norm.weight", (length,)),
            ("ssm_out.weight", (value, d.embd)),
        ]
        return out + [(f"{name}.weight", (d.embd, width)) for name, width in rates.items()]

    return shapes


def kimi_delta_attention(*, full_rank_gate: bool) -> Piece:
    """Kimi's delta attention.

    Args:
        full_rank_gate: The output gate is one matrix, not a product of two.
    """

    def shapes(d: Dims, b: Layer) -> Shapes:
        length, conv = d.number("kda.head_dim"), d.number("ssm.conv_kernel")
        inner = length * b.heads
        out: Shapes = []
        for part in ("q", "k", "v"):
            out.append((f"ssm_conv1d_{part}.weight", (conv, 1, inner, 1)))
            out += linear(f"attn_{part}", d.embd, inner)
        out += linear("ssm_f_a", d.embd, length) + linear("ssm_f_b", length, inner)
        out += linear("ssm_beta", d.embd, b.heads)
        out.append(("ssm_a", (b.heads,) if full_rank_gate else (1, b.heads, 1, 1)))
        out.append(("ssm_dt.bias", (inner,)))
        if full_rank_gate:
            out += linear("ssm_g", d.embd, inner)
        else:
            out += linear("ssm_g_a", d.embd, length) + linear("ssm_g_b", length, inner)
        out.append(("ssm_norm.weight", (length,)))
        return out + linear("attn_output", inner, d.embd)

    return shapes


def short_convolution(d: Dims, _: Layer) -> Shapes:
    """LFM2's gated short convolution."""
    return [
        ("shortconv.conv.weight", (d.number("shortconv.l_cache"), d.embd)),
        ("shortconv.in_proj.weight", (d.embd, 3 * d.embd)),
        ("shortconv.out_proj.weight", (d.embd, d.embd)),
    ]
