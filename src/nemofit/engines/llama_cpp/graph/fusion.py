"""What several backends ask before they fuse nodes: is a group closed, are its layouts plain.

Source: ggml_can_fuse_subgraph_ext and the ggml_is_contiguous family of ggml.c, llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .ops import T, type_size

Kept = dict[int, list[T]]
"""Tensors that outlive their last reader, by the id of the node that they wait for."""


@dataclass(frozen=True, slots=True)
class Split:
    """The nodes that one backend runs in a row.

    Attributes:
        nodes: In the graph's order.
        uses: How often each node of the whole graph is read, by id.
        following: The node after these, which another backend runs.
        measured: Nothing is allocated, as when llama-fit-params asks for sizes.
    """

    nodes: Sequence[T]
    uses: Mapping[int, int]
    following: T | None = None
    measured: bool = False


def keep(kept: Kept, t: T, until: T) -> None:
    """Hold a tensor until a node is computed."""
    held = kept.setdefault(id(until), [])
    if all(h is not t for h in held):
        held.append(t)


def is_closed(group: Sequence[T], outputs: Sequence[T], uses: Mapping[int, int]) -> bool:
    """Whether nothing outside a group reads any of its nodes but the outputs.

    Args:
        uses: How often each node of the whole graph is read, by id.
    """
    results = {id(t) for t in outputs}
    inside = {id(t) for t in group}
    for i, t in enumerate(group):
        if id(t) in results:
            continue
        if t.is_output or (
            t.root is not None and id(t.root) not in inside and not t.root.is_weight
        ):
            return False
        if sum(s is t for later in group[i + 1 :] for s in later.src) != uses.get(id(t), 0):
            return False
    return True


def has_plain_elements(t: T) -> bool:
    """The elements of a row lie next to each other (ggml_is_contiguous_rows)."""
    block, size = type_size(t.type)
    return t.ne[0] == block or t.nb[0] == size


def is_contiguous_from(t: T, dim: int) -> bool:
    """Contiguous but for the strides of the dimensions up to ``dim`` (ggml_is_contiguous_n)."""
    block, size = type_size(t.type)
    if t.ne[0] != block and t.nb[0] != size:
        return False
    step = size * (t.ne[0] // block)
    for i in range(1, 4):
        if i <= dim:
            step = t.ne[i] * t.nb[i]
            continue
        if t.ne[i] != 1 and t.nb[i] != step:
            return False
        step *= t.ne[i]
    return True


def v_lies_in_k(k: T, v: T) -> bool:
    """V is a window on K's own rows from their start on, as with latent attention."""
    return v.root is not None and v.root is (k.root or k)
