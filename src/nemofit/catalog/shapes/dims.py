"""The sizes that decide a model's tensors, read from its GGUF metadata.

``Dims`` holds what is one number for the whole model, ``Layer`` what may differ from block to
block. Keys, defaults and fallbacks are those of ``load_hparams`` in ggml-org/llama.cpp
``src/llama-model.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from nemofit.catalog.model import Value
from nemofit.errors import DataError

MAX_BLOCKS = 512  # LLAMA_MAX_LAYERS, ggml-org/llama.cpp src/llama-hparams.h
MAX_NUMBER = 1 << 31
UNSTATED = -1  # a size that the metadata does not state; no tensor may come of it


class Layer(NamedTuple):
    """What decides the tensors of one block; equal layers have equal tensors.

    Attributes:
        heads, kv_heads: Attention heads; ``kv_heads`` is 0 in a block without attention.
        ff: Width of the dense feed-forward, 0 in a block without one.
        expert_ff: Width of one routed expert.
        sparse: The feed-forward is a mixture of experts.
        recurrent: The token mixer is recurrent instead of attention.
        sliding: The attention sees a sliding window only.
        nextn: An appended block that predicts further tokens.
        mark: A number with a meaning of its own in a few architectures, see their rows.
    """

    heads: int
    kv_heads: int
    ff: int
    expert_ff: int
    sparse: bool
    recurrent: bool
    sliding: bool
    nextn: bool
    mark: int


class Dims:
    """A model's metadata, checked when it is read.

    Args:
        architecture: For messages.
        metadata: GGUF keys without the architecture's prefix, and nemofit's own flags.

    Raises:
        DataError: From any access: a key that is missing or that makes no sense.
    """

    def __init__(self, architecture: str, metadata: Mapping[str, Value]) -> None:
        self.architecture = architecture
        self.metadata = metadata

    def number(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number that holds for the model; of a list the first."""
        value = self.metadata.get(key)
        if isinstance(value, (tuple, list)):
            value = value[0] if value else None
        return self._checked(key, default if value is None else value, least)

    def per_block(self, key: str, default: int = UNSTATED) -> tuple[int, ...]:
        """A whole number, or a truth as 0 or 1, for each block; a single one holds for all."""
        value = self.metadata.get(key)
        if value is None:
            return (default,) * self.blocks
        if isinstance(value, (tuple, list)):
            return self.listed(key)
        return (self._checked(key, value, 0),) * self.blocks

    def listed(self, key: str) -> tuple[int, ...]:
        """A whole number, or a truth as 0 or 1, for each block, from a list."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, (tuple, list)):
            raise self._wrong(key, value, "a list with one value per block")
        if value is None or len(value) < self.blocks:
            found = len(value or ())
            raise DataError(
                f"{self.architecture}: {key} has {found} values for {self.blocks} blocks",
                "give one value per block",
            )
        return tuple(self._checked(key, v, 0) for v in map(_as_int, value[: self.blocks]))

    def flag(self, key: str, default: bool = False) -> bool:
        """A yes or no."""
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def has(self, key: str) -> bool:
        return self.metadata.get(key) is not None

    @cached_property
    def blocks(self) -> int:
        """All blocks, the appended ones of ``nextn`` included."""
        n = self.number("block_count")
        if n > MAX_BLOCKS:
            raise self._wrong("block_count", n, f"at most {MAX_BLOCKS}")
        return n

    @cached_property
    def nextn(self) -> int:
        """Appended blocks that predict further tokens."""
        n = self.number("nextn_predict_layers", 0, 0)
        if n >= self.blocks:
            raise self._wrong("nextn_predict_layers", n, f"below block_count {self.blocks}")
        return n

    @cached_property
    def embd(self) -> int:
        return self.number("embedding_length")

    @cached_property
    def vocab(self) -> int:
        return self.number("vocab_size")

    @cached_property
    def experts(self) -> int:
        """Routed experts of a sparse block; 0 in a dense model."""
        return self.number("expert_count", 0, 0)

    @cached_property
    def heads(self) -> tuple[int, ...]:
        return self.per_block("attention.head_count")

    @cached_property
    def kv_heads(self) -> tuple[int, ...]:
        key = "attention.head_count_kv"
        return self.per_block(key) if self.has(key) else self.heads

    @cached_property
    def ff(self) -> tuple[int, ...]:
        return self.per_block("feed_forward_length")

    @cached_property
    def expert_ff(self) -> tuple[int, ...]:
        used = self.number("expert_used_count", 1, 0) or 1
        return self.per_block("expert_feed_forward_length", self.ff[0] // used)

    @cached_property
    def full_key(self) -> int:
        """Elements of one head of K in a block that sees everything."""
        return self._head_length("attention.key_length")

    @cached_property
    def full_value(self) -> int:
        """Elements of one head of V in a block that sees everything."""
        return self._head_length("attention.value_length")

    @cached_property
    def rot(self) -> int:
        """Rotated elements of one head."""
        return self.number("rope.dimension_count", self.full_key)

    def key(self, b: Layer) -> int:
        """Elements of one head of K."""
        return (
            self.number("attention.key_length_swa", self.full_key) if b.sliding else self.full_key
        )

    def value(self, b: Layer) -> int:
        """Elements of one head of V."""
        if not b.sliding:
            return self.full_value
        return self.number("attention.value_length_swa", self.full_value)

    def _head_length(self, key: str) -> int:
        if self.has(key):
            return self.number(key)
        heads = max(self.heads)
        return self.embd // (heads if heads > 0 else self.number("attention.head_count"))

    def _checked(self, key: str, value: object, least: int) -> int:
        if value is None:
            raise DataError(
                f"{self.architecture}: the metadata lacks {key}",
                f"add {key}, or use a GGUF file of the model",
            )
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, value, "a whole number")
        if not least <= value <= MAX_NUMBER:
            raise self._wrong(key, value, f"a whole number from {least} to {MAX_NUMBER}")
        return value

    def _wrong(self, key: str, value: object, expected: str) -> DataError:
        return DataError(
            f"{self.architecture}: {key} is {value!r:.80}, expected {expected}",
            "correct the metadata, or use a GGUF file of the model",
        )


def _as_int(value: object) -> object:
    return int(value) if isinstance(value, bool) else value
