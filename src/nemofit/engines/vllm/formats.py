"""Checkpoint formats: what a matrix takes, and on which cards vLLM runs it.

The figures are the section ``checkpoint_formats`` of ``data/quants.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from nemofit.catalog import store
from nemofit.catalog.ggml import section
from nemofit.catalog.model import ModelSpec
from nemofit.errors import UsageError

_ROW_SCALE = 4  # one float32 for each row where a format has no groups
# Names that model repositories use for the same thing. int4: compressed-tensors with 4-bit weights.
_ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "w8a8": "compressed-tensors-w8a8",
    "w4a16": "compressed-tensors-w4a16",
    "w8a16": "compressed-tensors-w8a16",
    "int4": "compressed-tensors-w4a16",
    "gptq": "gptq-int4",
}
# Formats in which only the routed experts are quantized where a model has any: openai/gpt-oss-20b
# and moonshotai/Kimi-K2.5, quantization_config of their config.json on Hugging Face.
_EXPERTS_ONLY = frozenset({"mxfp4", "int4"})
# Multiples to which the kernels pad an expert's width and the hidden size: Marlin's, which runs on
# compute capability 8.x and 12.x; vllm-project/vllm 0.33.0, fused_moe/oracle/mxfp4.py. Other cards
# pad less.
_PADDING = {"mxfp4": (128, 256)}
_GROUPS = {"int4": 32}  # moonshotai/Kimi-K2.5, config.json: group_size


@dataclass(frozen=True, slots=True)
class Format:
    """How the quantized matrices of a checkpoint are stored.

    Attributes:
        name: As in the data, or as the repository calls it.
        weight_bits: Bits of one weight.
        group_bits: Bits of scale and zero point that ``group`` weights of a row share.
        group: Weights in a group; 0: one scale for a row, or 16-bit weights without any.
        native: NVIDIA compute capability from which the format's own arithmetic is used.
        weight_only: Capability from which it runs with 16-bit arithmetic.
        experts_only: Only routed experts are quantized where a model has any.
        padding: Multiples of an expert's width on one rank and of the hidden size, None: none.
        stored: What a checkpoint keeps is counted, tensor by tensor, instead of these figures.
    """

    name: str
    weight_bits: int
    group_bits: float = 0.0
    group: int = 0
    native: float | None = None
    weight_only: float | None = None
    experts_only: bool = False
    padding: tuple[int, int] | None = None
    stored: bool = False

    @property
    def quantized(self) -> bool:
        return self.weight_bits < 16

    def matrix_bytes(self, inputs: int, outputs: int, group: int | None = None) -> int:
        """Bytes of one quantized matrix with its scales.

        Args:
            inputs: Length of a row.
            outputs: Rows.
            group: Weights that share a scale where it is not the format's own number.
        """
        if not self.quantized:
            return 2 * inputs * outputs
        packed = inputs * outputs * self.weight_bits // 8
        if not self.group:
            return packed + _ROW_SCALE * outputs
        groups = ceil(inputs / (group or self.group)) * outputs
        return packed + ceil(groups * self.group_bits / 8)


def formats() -> Mapping[str, Format]:
    """Every format by name, best quality first."""
    return store.derived("quants", _formats)


def find_format(name: str | Format) -> Format:
    """The format that a person or a repository named.

    Raises:
        UnknownNameError: Not known; carries the near misses.
    """
    if isinstance(name, Format):
        return name
    known = formats()
    asked = name.lower()
    found = known.get(asked) or known.get(_ALIASES.get(asked, ""))
    if found is None:
        from nemofit.catalog.names import resolve

        others = {n: tuple(a for a, to in _ALIASES.items() if to == n) for n in known}
        found = known[resolve("quantization", name, others)]
    if asked not in _EXPERTS_ONLY:
        return found
    return Format(
        name=asked,
        weight_bits=found.weight_bits,
        group_bits=found.group_bits,
        group=_GROUPS.get(asked, found.group),
        native=found.native,
        weight_only=found.weight_only,
        experts_only=True,
        padding=_PADDING.get(asked),
    )


def own_format(model: ModelSpec) -> Format:
    """The format of a model's own checkpoint, which counts the stored tensors themselves.

    Where none of ours is the same it is the nearest, with the checkpoint's bits and groups.

    Raises:
        UsageError: The model has no checkpoint.
    """
    checkpoint = model.checkpoint
    if checkpoint is None:
        raise UsageError(
            f"{model.id} is not a checkpoint", "name a format, or a directory of safetensors files"
        )
    q = checkpoint.quantization
    if q is None or q.format is not None:
        return replace(find_format(checkpoint.format), stored=True)
    base = formats()["compressed-tensors-w8a16" if q.bits == 8 else "compressed-tensors-w4a16"]
    return replace(base, weight_bits=q.bits or 4, group=q.group or 0, group_bits=0.0, stored=True)


def arithmetic(fmt: Format, capability: str | None) -> Literal["native", "weight-only"] | None:
    """How a card computes with the format.

    Args:
        fmt: The format.
        capability: NVIDIA compute capability ("8.9"); None: not NVIDIA, or unknown.

    Returns:
        ``native``, ``weight-only`` (16-bit arithmetic on unpacked weights), or None where the
        capability is not known.

    Raises:
        UsageError: vLLM refuses the format on such a card.
    """
    if capability is None:
        return None
    has = float(capability)
    if fmt.native is not None and has >= fmt.native:
        return "native"
    if fmt.weight_only is not None and has >= fmt.weight_only:
        return "weight-only"
    least = min(x for x in (fmt.native, fmt.weight_only, 99.0) if x is not None)
    raise UsageError(
        f"{fmt.name} needs compute capability {least:g}; this card has {has:g}",
        "float16 (--dtype float16)" if fmt.name == "bf16" and has >= _HALF else _others(has),
    )


_HALF = 7.0


def _others(has: float) -> str:
    fitting = [
        f.name
        for f in formats().values()
        if has >= min(x for x in (f.native, f.weight_only, 99.0) if x is not None)
    ]
    return "formats for this card: " + (", ".join(fitting) or "none")


def _formats(entries: store.Entries) -> Mapping[str, Format]:
    out = {}
    for name, e in section(entries, "checkpoint_formats").items():
        fields = {k: v for k, v in e.items() if k != "source"}
        out[name] = Format(name, **fields)  # type: ignore[arg-type]
    return out
