"""Weights that stay on the host because their GPU's backend cannot run what needs them.

Source: llama-model-loader.cpp (weight_buft_supported, select_weight_buft), llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nemofit.catalog.model import ModelSpec, Tensor

from .graph import ops
from .graph.backends import BACKENDS
from .graph.ops import T

_ROWS = 512  # tokens of the trial operation
_SEQUENCES = 3


def stranded(model: ModelSpec, types: Sequence[str], key: object, backend: str) -> frozenset[int]:
    """Indices of the tensors that a GPU of this backend is asked to hold, and cannot use.

    Args:
        key: Stands for ``types`` in the model's memory of earlier answers.
    """
    memo_key = ("stranded", key, backend)
    found: frozenset[int] | None = model.memo.get(memo_key)
    if found is None:
        found = model.memo[memo_key] = frozenset(_unusable(model, types, backend))
    return found


def _unusable(model: ModelSpec, types: Sequence[str], backend: str) -> Iterator[int]:
    supports = BACKENDS[backend].supports
    tried: dict[tuple[str, str, tuple[int, ...]], bool] = {}
    for i, (t, type_) in enumerate(zip(model.tensors, types, strict=True)):
        if len(t.shape) > 1:
            alike = t.name.rpartition("ssm_")[2] if "ssm_" in t.name else "", type_, t.shape
            if alike not in tried:
                tried[alike] = supports(_trial(model, t, type_))
            if not tried[alike]:
                yield i


def _trial(model: ModelSpec, t: Tensor, type_: str) -> T:
    """The operation with which the engine tries whether a device can use a weight."""
    weight = ops.leaf(type_, *t.shape)
    if t.name.endswith("ssm_a"):
        return _scan(model, weight)
    if t.name.endswith("ssm_conv1d.weight"):
        before = ops.leaf("F32", weight.ne[0] - 1 + _ROWS, weight.ne[1], _SEQUENCES)
        return ops.ssm_conv(before, weight)
    if len(t.shape) > 2:
        used = max(1, model.integer("expert_used_count"))
        x = ops.leaf("F32", weight.ne[0], used, _ROWS)
        return ops.mul_mat_id(weight, x, ops.leaf("I32", used, _ROWS))
    return ops.mul_mat(weight, ops.leaf("F32", weight.ne[0], _ROWS))


def _scan(model: ModelSpec, a: T) -> T:
    width, heads, groups = a.ne[0], a.ne[1], 1
    if width == 1:  # Mamba 2
        width, groups = model.integer("ssm.state_size"), max(1, model.integer("ssm.group_count"))
    head = model.integer("ssm.inner_size") // heads
    b = ops.leaf("F32", width, groups, _ROWS, _SEQUENCES)
    return ops.ssm_scan(
        ops.leaf("F32", width, head, heads, _SEQUENCES),
        ops.leaf("F32", head, heads, _ROWS, _SEQUENCES),
        ops.leaf("F32", heads, _ROWS, _SEQUENCES),
        a,
        b,
        b,
        ops.leaf("I32", _SEQUENCES),
    )
