"""What decides a run with transformers: types, placement, length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nemofit.errors import UsageError

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential", "cpu")
DTYPES = ("bfloat16", "float16", "float32")
QUANTIZATIONS = ("none", "bnb-4bit", "bnb-8bit")
ATTENTIONS = ("sdpa", "flash_attention_2", "eager")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersConfig:
    """One configuration of transformers.

    Attributes:
        context: Tokens of prompt and answer that the cache has to hold.
        prompt: Tokens that are processed at once at first; None: half the context.
        batch: Sequences at a time.
        dtype: ``bfloat16``, ``float16`` or ``float32``.
        quantization: ``none``, ``bnb-4bit`` or ``bnb-8bit`` (bitsandbytes, while loading).
        double_quant: 4 bits only: the scales are quantized again.
        device_map: ``auto`` (the same as ``balanced``), ``balanced_low_0``, ``sequential``, or
            ``cpu`` for no GPU at all.
        max_memory: Bytes per device: GPU numbers and ``"cpu"``; None: what is free.
        attention: ``sdpa``, ``flash_attention_2`` or ``eager``.
        offload_folder: Where layers go that fit nowhere; None: such a placement is refused.
    """

    context: int = 8192
    prompt: int | None = None
    batch: int = 1
    dtype: str = "bfloat16"
    quantization: str = "none"
    double_quant: bool = True
    device_map: str = "auto"
    max_memory: Mapping[int | str, int] | None = None
    attention: str = "sdpa"
    offload_folder: str | None = None

    def __post_init__(self) -> None:
        for name, high in (("context", 1 << 31), ("prompt", 1 << 31), ("batch", 1 << 20)):
            value = getattr(self, name)
            if value is None and name == "prompt":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
                raise UsageError(f"{name} {value!r} is not a whole number from 1 to {high}")
        for name, allowed in (
            ("dtype", DTYPES),
            ("quantization", QUANTIZATIONS),
            ("device_map", DEVICE_MAPS),
            ("attention", ATTENTIONS),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} {getattr(self, name)!r} is not known", "one of: " + ", ".join(allowed)
                )
        for device, size in (self.max_memory or {}).items():
            if device != "cpu" and (not isinstance(device, int) or device < 0):
                raise UsageError(f"max_memory names device {device!r}", 'use GPU numbers and "cpu"')
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise UsageError(f"max_memory of device {device!r} is {size!r}, not bytes")

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of what is not quantized."""
        return 4 if self.dtype == "float32" else 2

    @property
    def prompt_tokens(self) -> int:
        return self.prompt or max(self.context // 2, 1)

    def replace(self, **changes: Any) -> TransformersConfig:
        """Return a copy with some knobs changed."""
        return replace(self, **changes)
