"""From the tokens' embeddings to one per sequence, where the engine runs for embeddings.

Source: llama-graph.cpp (build_pooling, build_dense_out), llama.cpp 0c1e570.
"""

from __future__ import annotations

from . import ops
from .context import Context
from .ops import T

_NONE, MEAN, _RANK = 0, 1, 4  # llama.h: llama_pooling_type; 2 and 3 take one token's row


def pool(ctx: Context, x: T, ranks_by: int = 0) -> None:
    """Draw what follows the last norm, nothing when the engine does not run for embeddings.

    Args:
        ranks_by: How a classifier pools where the metadata does not say.
    """
    if not ctx.shape.embeddings:
        return
    kind = ctx.model.integer("pooling_type")
    if kind == MEAN:
        x = _mean(ctx, x)
    elif kind == _RANK:
        x = _rank(ctx, x, ranks_by)
    elif kind != _NONE:
        x = _row(ctx, x)
    _keep(ctx, x)
    second, third = ctx.root("dense_2"), ctx.root("dense_3")
    if second is not None:
        x = ctx.linear(second, x, ctx.weights.get("dense_2.bias"))
    if third is not None:
        x = ops.mul_mat(third, x)
    _keep(ctx, x)


def _keep(ctx: Context, x: T) -> None:
    x.is_output = True
    ctx.g.expand(x)


def _mean(ctx: Context, x: T) -> T:
    shares = ops.input_("F32", ctx.n_tokens, ctx.shape.sequences)
    return ops.mul_mat(ops.cont(ops.transpose(x)), shares)


def _row(ctx: Context, x: T) -> T:
    return ops.get_rows(x, ops.input_("I32", ctx.shape.sequences))


def _rank(ctx: Context, x: T, by: int) -> T:
    """A classifier's score, as rerankers give it."""
    by = ctx.model.integer("classifier.pooling_type", by)
    x = _mean(ctx, x) if by == MEAN else _row(ctx, x)
    weights = ctx.weights
    inner, outer = ctx.root("cls"), ctx.root("cls.output")
    if inner is not None:
        x = ops.unary(ctx.linear(inner, x, weights.get("cls.bias")))
        norm = ctx.root("cls.norm")
        if norm is not None:
            x = ctx.norm(x, norm, kind="layer")
    if outer is not None:
        x = ctx.linear(outer, x, weights.get("cls.output.bias"))
    return x
