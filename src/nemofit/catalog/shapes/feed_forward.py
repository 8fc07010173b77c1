"""Feed-forward parts: dense, experts, shared experts."""

from __future__ import annotations

from collections.abc import Callable

from .dims import Dims, Layer
from .pieces import Piece, Setting, Shapes, linear, present
from .rules import split_compression

Width = Callable[[Dims, Layer], int]

_SIGMOID = 2  # LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID, ggml-org/llama.cpp src/llama-hparams.h


def feed_forward(
    *,
    gate: bool = True,
    up_factor: int = 1,
    bias: Setting = "feed_forward_bias",
    down_bias: Setting | None = None,
) -> Piece:
    """A dense feed-forward.

    Args:
        gate: It has a gate matrix of its own.
        up_factor: 2 where gate and up are one tensor.
        bias: Biases of gate and up, and of down unless ``down_bias`` is given.
        down_bias: Bias of down.
    """

    def shapes(d: Dims, b: Layer) -> Shapes:
        has_bias = present(d, bias)
        out = linear("ffn_gate", d.embd, b.ff, has_bias) if gate else []
        out += linear("ffn_up", d.embd, b.ff * up_factor, has_bias)
        return out + linear(
            "ffn_down", b.ff, d.embd, has_bias if down_bias is None else present(d, down_bias)
        )

    return shapes


def sigmoid_router(d: Dims) -> bool:
    """Routers by sigmoid come with a bias that balances the load; ``expert_bias`` overrules."""
    return d.flag("expert_bias", d.number("expert_gating_func", 0, 0) == _SIGMOID)


def model_width(d: Dims, _: Layer) -> int:
    return d.embd


def expert_width(_: Dims, b: Layer) -> int:
    return b.expert_ff


def dense_width(_: Dims, b: Layer) -> int:
    return b.ff


def experts(
    width: Width = expert_width,
    *,
    inner: Width = model_width,
    gate: bool = True,
    fused: bool = False,
    biases: bool = False,
    router_bias: Setting = False,
) -> Piece:
    """A router and its experts.

    Args:
        width: Width of one expert.
        inner: Length of the vectors that the experts work on.
        gate: An expert has a gate matrix.
        fused: Gate and up are one tensor.
        biases: Router and experts have biases.
        router_bias: A bias of the router that serves for the choice only.
    """
    matrices = ("ffn_gate_up_exps",) if fused else ("ffn_gate_exps",) * gate + ("ffn_up_exps",)

    def shapes(d: Dims, b: Layer) -> Shapes:
        n, ff, length = d.experts, width(d, b), inner(d, b)
        out = linear("ffn_gate_inp", d.embd, n, biases)
        if present(d, router_bias):
            out.append(("exp_probs_b.bias", (n,)))
        for name in matrices:
            out.append((f"{name}.weight", (length, 2 * ff if fused else ff, n)))
        out.append(("ffn_down_exps.weight", (ff, length, n)))
        if biases:
            out += [(f"{name}.bias", (ff, n)) for name in matrices]
            out.append(("ffn_down_exps.bias", (d.embd, n)))
        return out

    return shapes


def shared_by_count(d: Dims, b: Layer) -> int:
    """``expert_shared_count`` experts as one."""
    return d.number("expert_shared_count", 0, 0) * b.expert_ff


def at_least_one_shared(d: Dims, b: Layer) -> int:
    return (d.number("expert_shared_count", 1, 0) or 1) * b.expert_ff


def shared_as_stated(d: Dims, _: Layer) -> int:
    """``expert_shared_feed_forward_length``; none without it."""
    return d.number("expert_shared_feed_forward_length", 0, 0)


def shared_or_dense(d: Dims, b: Layer) -> int:
    return shared_as_stated(d, b) or b.ff


def shared_or_expert(d: Dims, b: Layer) -> int:
    return shared_as_stated(d, b) or b.expert_ff


def several_shared_or_expert(d: Dims, b: Layer) -> int:
    return shared_or_expert(d, b) * d.number("expert_shared_count", 0, 0)


def shared_or_by_count(d: Dims, b: Layer) -> int:
    count = d.number("expert_shared_count", 0, 0)
    return count and (shared_as_stated(d, b) or count * b.expert_ff)


def shared_experts(width: Width, *, gate: bool = True, weighed: bool = False) -> Piece:
    """The expert that every token passes, if it has a width.

    Args:
        gate: It has a gate matrix.
        weighed: Its output is weighed by a vector.
    """

    def shapes(d: Dims, b: Layer) -> Shapes:
        ff = width(d, b)
        if not ff:
            return []
        out: Shapes = [("ffn_gate_inp_shexp.weight", (d.embd,))] if weighed else []
        if gate:
            out += linear("ffn_gate_shexp", d.embd, ff)
        return out + linear("ffn_up_shexp", d.embd, ff) + linear("ffn_down_shexp", ff, d.embd)

    return shapes


def latent_width(key: str) -> Width:
    """The length that ``key`` states, else the embedding's."""
    return lambda d, _: d.number(key, 0, 0) or d.embd


def latent_projections(key: str, name: str, *, norm: bool = False) -> Piece:
    """To the experts' shorter vectors and back, where ``key`` states their length."""

    def shapes(d: Dims, _: Layer) -> Shapes:
        length = d.number(key, 0, 0)
        if not length:
            return []
        out = linear(f"{name}_down", d.embd, length) + linear(f"{name}_up", length, d.embd)
        if norm:
            out.append((f"{name}_norm.weight", (length,)))
        return out

    return shapes


def hashed_experts(d: Dims, b: Layer) -> Shapes:
    """DeepSeek V4's experts: the first blocks route by a table over the vocabulary."""
    _, hashed = split_compression(b.mark)
    routing: Shapes = (
        [("ffn_gate_tid2eid.weight", (d.number("expert_used_count"), d.vocab))]
        if hashed
        else [("exp_probs_b.bias", (d.experts,))]
    )
    return routing + _GATED_EXPERTS(d, b)


_GATED_EXPERTS = experts()


def gemma_experts(d: Dims, b: Layer) -> Shapes:
    """Gemma 4's experts beside the dense feed-forward, with scales and norms of their own."""
    if not b.sparse:
        return []
    return [
        *_FUSED_EXPERTS(d, b),
        ("ffn_gate_inp.scale", (d.embd,)),
        ("ffn_down_exps.scale", (d.experts,)),
        ("pre_ffw_norm_2.weight", (d.embd,)),
        ("post_ffw_norm_1.weight", (d.embd,)),
        ("post_ffw_norm_2.weight", (d.embd,)),
    ]


_FUSED_EXPERTS = experts(fused=True)
