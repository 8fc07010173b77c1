"""From an architecture and its metadata to the weight tensors that a GGUF file of it holds.

>>> tensors = tensors_of("llama", {"block_count": 2, "embedding_length": 64, "vocab_size": 128,
...     "attention.head_count": 4, "attention.head_count_kv": 2, "feed_forward_length": 96})
>>> tensors[3]
Tensor(name='blk.0.attn_norm.weight', shape=(64,), type=None)
"""

from __future__ import annotations

from collections.abc import Mapping

from nemofit.catalog.model import Tensor, Value
from nemofit.errors import DataError

from .dims import Dims, Layer
from .pieces import Shapes, joined
from .table import ROWS

__all__ = ["known_architectures", "tensors_of"]


def known_architectures() -> tuple[str, ...]:
    """The GGUF architectures whose tensors are known, sorted."""
    return tuple(sorted(ROWS))


def tensors_of(architecture: str, metadata: Mapping[str, Value]) -> tuple[Tensor, ...]:
    """List the weight tensors that llama.cpp's converter writes for a model.

    Args:
        architecture: GGUF ``general.architecture``.
        metadata: GGUF keys without the ``<architecture>.`` prefix, ``vocab_size``, and the flags
            that GGUF does not hold: ``tied_embeddings``, ``rope_factors``, ``attention_bias``, ...

    Returns:
        Those outside the blocks, then block by block; without types, but for tables of whole
        numbers, which no file type changes.

    Raises:
        DataError: The architecture is not known, or a key is missing or makes no sense.
    """
    row = ROWS.get(architecture)
    if row is None:
        raise DataError(
            f"the tensors of architecture {architecture!r:.80} are not known",
            "use a GGUF file of the model instead: its header lists them",
        )
    dims = Dims(architecture, metadata)
    root = [tensor for part in row.root for tensor in part(dims)]
    out = [Tensor(*parts) for parts in _typed(architecture, root)]
    templates: dict[Layer, list[_Parts]] = {}
    for i, layer in enumerate(row.layers(dims)):
        template = templates.get(layer)
        if template is None:
            template = _typed(architecture, joined(row.block, dims, layer))
            templates[layer] = template
        prefix = f"blk.{i}."
        out += [Tensor(prefix + name, shape, kind) for name, shape, kind in template]
    return tuple(out)


_Parts = tuple[str, tuple[int, ...], str | None]
_WHOLE_NUMBERS = {"ffn_gate_tid2eid.weight": "I32"}


def _typed(architecture: str, shapes: Shapes) -> list[_Parts]:
    """Add the types that are always the same; refuse tensors without elements."""
    for name, shape in shapes:
        if min(shape) < 1:
            raise DataError(
                f"{architecture}: the metadata leaves {name} without a size: {shape}",
                "state feed_forward_length, expert_count, attention.head_count and the like",
            )
    return [(name, shape, _WHOLE_NUMBERS.get(name)) for name, shape in shapes]
