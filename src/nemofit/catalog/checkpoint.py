"""A checkpoint as it is stored in safetensors files: every tensor with its dtype and bytes.

Engines that load such checkpoints count what is there instead of assuming a format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

NEXT_TOKENS = "next-token layers"
COPY = "a second copy of the embedding"
SCALES = "scales of a quantized cache"
NOT_LOADED = frozenset({NEXT_TOKENS, COPY, SCALES})
"""What is stored and takes no memory when a model just answers."""

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of weights that are not quantized."""


class StoredTensor(NamedTuple):
    """One tensor of the files.

    Attributes:
        name: As in the files: ``model.layers.0.self_attn.q_proj.qweight``.
        dtype: ``BF16``, ``F8_E4M3``, ``I32``, ...
        shape: Row length last.
        bytes: Of its data.
        parts: GGUF names of the tensors that it is, or is a part or a scale of; none for what
            belongs to no language model (a vision tower).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a checkpoint's matrices are quantized, as its configuration says.

    Attributes:
        method: ``awq``, ``gptq``, ``fp8``, ``nvfp4``, ``mxfp4``, ``compressed-tensors``,
            ``bitsandbytes`` or the configuration's own word for another.
        bits: Of one weight, None where not said.
        group: Weights that share a scale; 0: a whole row or matrix; None where not said.
        format: Name of the same in nemofit's checkpoint formats, None where none is the same.
    """

    method: str
    bits: int | None
    group: int | None
    format: str | None

    def __str__(self) -> str:
        bits = f", {self.bits} bits" if self.bits else ""
        return f"{self.method}{bits}" + (f", groups of {self.group}" if self.group else "")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint's files hold.

    Attributes:
        tensors: Every tensor once, in the files' order.
        files: Names of the safetensors files.
        file_bytes: Size of all of them together.
        family: Class that the configuration names: ``LlamaForCausalLM``.
        dtype: Of what is not quantized, as the configuration says (``bfloat16``), None where not.
        quantization: None for weights as they were trained.
        tied: The embedding also serves as the output matrix, whether or not both are stored.
        other_bytes: Bytes of what is outside the language model by the first word of the tensors'
            names, and of :data:`NOT_LOADED`.
    """

    tensors: tuple[StoredTensor, ...]
    files: tuple[str, ...]
    file_bytes: int
    family: str
    dtype: str | None
    quantization: Quantization | None
    tied: bool
    other_bytes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of all tensors, the ``total_size`` of an index."""
        return sum(t.bytes for t in self.tensors)

    @cached_property
    def dtype_bytes(self) -> Mapping[str, int]:
        """Bytes by dtype, the largest first."""
        out: dict[str, int] = {}
        for t in self.tensors:
            out[t.dtype] = out.get(t.dtype, 0) + t.bytes
        return dict(sorted(out.items(), key=lambda item: -item[1]))

    @property
    def tower_bytes(self) -> int:
        """Bytes that engines load beside the language model: vision and sound."""
        return sum(n for what, n in self.other_bytes.items() if what not in NOT_LOADED)

    @cached_property
    def parts(self) -> Mapping[str, tuple[StoredTensor, ...]]:
        """The stored tensors of each GGUF tensor."""
        out: dict[str, list[StoredTensor]] = {}
        for t in self.tensors:
            for part in t.parts:
                out.setdefault(part, []).append(t)
        return {name: tuple(stored) for name, stored in out.items()}

    @property
    def format(self) -> str:
        """The nearest of nemofit's checkpoint formats: ``bf16``, ``fp8``, ``awq``, ...

        A quantization without such a name gives its own word.
        """
        if self.quantization is not None:
            return self.quantization.format or self.quantization.method
        return "fp16" if next(iter(self.dtype_bytes), "") == "F16" else "bf16"
