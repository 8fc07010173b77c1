"""What a person wants from a plan, and what they have fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf, isfinite
from types import MappingProxyType
from typing import Any

from nemofit.catalog.quality import GRADES, bound_of
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError
from nemofit.machine.budgets import Reserve

PREFERENCES = ("balanced", "quality", "speed", "context")
QUALITIES = tuple(word for _, word in GRADES[:-1])
"""Grades that can be asked for as a limit; the last one is no limit."""
LEAST_CONTEXT = 8192
"""Tokens that a plan has at least when the person named no context (or the trained length)."""

OFFLOAD_KNOBS = ("gpu_layers", "tensor_split", "cpu_moe_layers", "override_tensors")
_KNOBS = frozenset(f.name for f in fields(RunConfig)) - {"context", "backend"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What to look for.

    Attributes:
        context: Tokens that every plan shall have, no more and no less; None: 8192 and longer.
        prefer: balanced, quality, speed or context; see :mod:`.score` for the arithmetic.
        min_tokens_per_second: Least generated tokens per second, by the likely estimate.
        min_context: Least tokens of context, for a search that chooses the context itself.
        max_vram_bytes: Most memory to use of each GPU.
        quality: The heaviest loss that will do: near-lossless, slight or noticeable.
        quant: The file type; None: every one.
        imatrix: Files made with an importance matrix or without; None: as the model's known
            repositories make them.
        knobs: Fields of :class:`RunConfig` that the person fixed; they are never overruled.
        reserve_bytes: Memory to leave free on every GPU, or by its number in the machine, with
            None for all others; None: the machine's default.
        assume_idle: Plan with the memory of an idle machine.
        engine: Whose own choices fill what is left open: ``llama.cpp`` or ``ollama``.
    """

    context: int | None = None
    prefer: str = "balanced"
    min_tokens_per_second: float | None = None
    min_context: int | None = None
    max_vram_bytes: int | None = None
    quality: str | None = None
    quant: str | None = None
    imatrix: bool | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    reserve_bytes: Reserve = None
    assume_idle: bool = False
    engine: str = "llama.cpp"

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
        self._check_limits()
        for name in self.knobs:
            if name not in _KNOBS:
                raise UsageError(
                    f"{name!r} is not a knob that a goal can fix",
                    "one of: " + ", ".join(sorted(_KNOBS)),
                )
        RunConfig(context=self.context or LEAST_CONTEXT, **self.knobs)
        object.__setattr__(self, "knobs", MappingProxyType(dict(self.knobs)))

    def _check_limits(self) -> None:
        if self.quality is not None and self.quality not in QUALITIES:
            raise UsageError(
                f"quality {self.quality!r:.40} is not a limit", "one of: " + ", ".join(QUALITIES)
            )
        if self.max_vram_bytes is not None and self.max_vram_bytes < 0:
            raise UsageError(
                f"at most {self.max_vram_bytes} bytes of a GPU",
                "write for example --max-vram 20GiB",
            )
        least = self.min_context
        if least is not None and least < 1:
            raise UsageError(f"at least {least} tokens", "write for example --min-context 16k")
        if least is not None and self.context is not None and self.context < least:
            raise UsageError(
                f"--context {self.context} and --min-context {least} contradict each other",
                f"--context {least}, or --min-context {self.context}",
            )

    @property
    def most_loss(self) -> float:
        """Nats that no plan reaches; infinite without a limit."""
        return bound_of(self.quality) if self.quality else inf

    def allows(self, loss: float | None) -> bool:
        """Whether a loss is within the limit; one that is not known is not."""
        return self.quality is None or (loss is not None and loss < self.most_loss)

    @property
    def offload_is_fixed(self) -> bool:
        """Whether the person named layers, split, experts or overrides."""
        return any(self.knobs.get(name) is not None for name in OFFLOAD_KNOBS)
