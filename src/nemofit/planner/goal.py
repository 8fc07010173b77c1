"""What a person wants from a plan, and what they have fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from types import MappingProxyType
from typing import Any

from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError

PREFERENCES = ("balanced", "quality", "speed", "context")
LEAST_CONTEXT = 8192
"""Tokens that a plan has at least when the person named no context (or the trained length)."""

OFFLOAD_KNOBS = ("gpu_layers", "tensor_split", "cpu_moe_layers", "override_tensors")
_KNOBS = frozenset(f.name for f in fields(RunConfig)) - {"context", "backend", "program"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What to look for.

    Attributes:
        context: Tokens that every plan shall have, no more and no less; None: 8192 and longer.
        prefer: balanced, quality, speed or context; see :mod:`.score` for the arithmetic.
        min_tokens_per_second: Least generated tokens per second, by the likely estimate.
        quant: The file type; None: every one.
        imatrix: Files made with an importance matrix or without; None: as the model's known
            repositories make them.
        knobs: Fields of :class:`RunConfig` that the person fixed; they are never overruled.
        reserve_bytes: Memory to leave free on every GPU; None: the machine's default.
        assume_idle: Plan with the memory of an idle machine.
    """

    context: int | None = None
    prefer: str = "balanced"
    min_tokens_per_second: float | None = None
    quant: str | None = None
    imatrix: bool | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    reserve_bytes: int | None = None
    assume_idle: bool = False

    def __post_init__(self) -> None:
        if self.prefer not in PREFERENCES:
            raise UsageError(
                f"preference {self.prefer!r} is not known", "one of: " + ", ".join(PREFERENCES)
            )
        least = self.min_tokens_per_second
        if least is not None and not (isfinite(least) and least > 0):
            raise UsageError(
                f"a speed of {least} tokens per second is not above zero",
                "write for example --min-tps 10",
            )
        for name in self.knobs:
            if name not in _KNOBS:
                raise UsageError(
                    f"{name!r} is not a knob that a goal can fix",
                    "one of: " + ", ".join(sorted(_KNOBS)),
                )
        RunConfig(context=self.context or LEAST_CONTEXT, **self.knobs)
        object.__setattr__(self, "knobs", MappingProxyType(dict(self.knobs)))

    @property
    def offload_is_fixed(self) -> bool:
        """Whether the person named layers, split, experts or overrides."""
        return any(self.knobs.get(name) is not None for name in OFFLOAD_KNOBS)
