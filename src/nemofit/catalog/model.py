"""A model as the engine sees it: an architecture, its metadata and its tensors.

A catalog entry and a GGUF file arrive at the same record, so whatever works on the one works on
the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]


class Tensor(NamedTuple):
    """One weight tensor; a named tuple because a model has hundreds and a catalog very many.

    Attributes:
        name: GGUF name, for example ``blk.0.attn_q.weight``.
        shape: Elements per dimension, ggml order (row length first).
        type: ggml type as in the file (``"Q4_K"``), or None where only the shape is known.
    """

    name: str
    shape: tuple[int, ...]
    type: str | None = None

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A file that lies beside a model's and may belong to it.

    Attributes:
        name: File name, path in the repository, or digest in Ollama's store.
        ref: What opens it again: a path, or ``hf:owner/repo:path``.
        bytes: Its size, None: not known.
        kind: ``projector`` or ``adapter`` where the place says so; None: its header has to.
    """

    name: str
    ref: str
    bytes: int | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model's file lies, and how engines name it. What does not apply is None.

    Attributes:
        path: Path of the file on this disk; of a set, the first.
        url: Address of the file.
        repository: Repository on the hub, ``owner/name``.
        file: Path of the file in that repository.
        quant: What ``-hf repository:quant`` must say for llama.cpp to take this very file; None:
            only the file's path names it.
        ollama: What ``ollama run`` calls it, in Ollama's own store on this disk.
        parameters: What the store's entry sets for every run (``num_ctx``, ...).
        beside: Other files of the same repository or store entry; see
            :func:`nemofit.formats.near.companions_near`.
    """

    path: str | None = None
    url: str | None = None
    repository: str | None = None
    file: str | None = None
    quant: str | None = None
    ollama: str | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    beside: tuple[Companion, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """An architecture with its weights' shapes.

    Attributes:
        id: Catalog id, or the file's name without ``.gguf``.
        architecture: GGUF ``general.architecture``: ``llama``, ``qwen2``, ...
        metadata: The architecture's own GGUF keys without the ``<architecture>.`` prefix
            (``block_count``, ``attention.head_count_kv``, ...); per-layer values are tuples.
            ``vocab_size`` is always present.
        tensors: Every weight tensor, in file order.
        source: Where the spec comes from: ``"catalog"`` or the path or URL of the file.
        file_type: llama.cpp file type of the file (``"Q4_K_M"``), None for a catalog shape.
        file_bytes: Size of the file or set of files in bytes, None for a catalog shape.
        origin: Where the file lies, None for a catalog shape.
        checkpoint: The same weights as safetensors files store them, None for a catalog shape and
            for a GGUF file.
    """

    id: str
    architecture: str
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    source: str = "catalog"
    file_type: str | None = None
    file_bytes: int | None = None
    notes: tuple[str, ...] = field(default=())
    origin: Origin | None = None
    checkpoint: Checkpoint | None = None

    @property
    def is_shape(self) -> bool:
        """Whether the tensors have no ggml types of their own: there is no GGUF file yet."""
        return self.source == "catalog" or self.checkpoint is not None

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """Room for results that functions of this spec want to keep as long as it lives."""
        return {}

    @cached_property
    def parameters(self) -> int:
        """Elements of all weight tensors, as llama.cpp prints "model params"."""
        return sum(t.elements for t in self.tensors)

    def integer(self, key: str, default: int = 0) -> int:
        """A metadata value as int; per-layer lists give their maximum."""
        v = self.metadata.get(key, default)
        if isinstance(v, tuple):
            return max((int(x) for x in v), default=default)
        return int(v)

    def number(self, key: str, default: float = 0.0) -> float:
        """A metadata value as float; of a per-layer list the first."""
        v = self.metadata.get(key, default)
        if isinstance(v, tuple):
            v = v[0] if v else default
        return float(v)

    def per_layer(self, key: str, default: int = 0) -> tuple[int, ...]:
        """A metadata value for each of ``block_count`` layers; a scalar holds for all."""
        n = self.integer("block_count")
        v = self.metadata.get(key, default)
        if isinstance(v, tuple):
            return tuple(int(x) for x in v)[:n]
        return (int(v),) * n
