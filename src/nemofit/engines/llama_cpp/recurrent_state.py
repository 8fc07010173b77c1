"""Recurrent state: which blocks carry one from token to token, and how many bytes it has.

A state has a fixed size per sequence, whatever the context. It is always kept in F32.
Source: llama-memory-recurrent.cpp, llama-hparams.cpp (n_embd_r, n_embd_s), llama.cpp 0c1e570.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from nemofit.catalog.model import ModelSpec

from .config import RunConfig

_TENSOR = re.compile(r"blk\.(\d+)\.(ssm_conv1d(?:_[qkv])?|shortconv\.conv|attn_output)\.weight")
_F32 = 4


@dataclass(frozen=True, slots=True)
class State:
    """One block's state in elements per sequence.

    Attributes:
        convolution: All inputs but the newest of the convolution's kernel.
        recurrence: The matrix that the recurrence updates; 0 where there is none.
        alone: The block has no attention beside it.
    """

    convolution: int
    recurrence: int
    alone: bool


def states(model: ModelSpec) -> tuple[State | None, ...]:
    """The state of each block; None where a block has none."""
    found: tuple[State | None, ...] | None = model.memo.get("states")
    if found is None:
        n = model.integer("block_count")
        loaded = n - model.integer("nextn_predict_layers")
        convolution, attends = [0] * n, [False] * n
        for t in model.tensors:
            m = _TENSOR.fullmatch(t.name)
            if m is None or int(m.group(1)) >= loaded:
                continue
            if m.group(2) == "attn_output":
                attends[int(m.group(1))] = True
            else:
                convolution[int(m.group(1))] += (t.shape[0] - 1) * prod(t.shape[1:])
        matrix = _recurrence(model)
        found = model.memo["states"] = tuple(
            State(c, matrix, not a) if c else None
            for c, a in zip(convolution, attends, strict=True)
        )
    return found


def _recurrence(model: ModelSpec) -> int:
    head = model.integer("kda.head_dim")
    if head:
        return head * head * model.per_layer("attention.head_count")[0]
    return model.integer("ssm.state_size") * model.integer("ssm.inner_size")


def state_bytes(model: ModelSpec, config: RunConfig) -> list[int]:
    """Bytes of each block's state over all sequences."""
    return [
        0 if s is None else _F32 * (s.convolution + s.recurrence) * config.parallel
        for s in states(model)
    ]
