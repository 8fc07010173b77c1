"""llama.cpp: its memory accounting, placement and commands. Each name loads when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import RunConfig
    from .memory import Estimator, estimate_memory
    from .offload import best_offload, longest_context

_HOMES = {
    "Estimator": "memory",
    "RunConfig": "config",
    "best_offload": "offload",
    "estimate_memory": "memory",
    "longest_context": "offload",
}

__all__ = ["Estimator", "RunConfig", "best_offload", "estimate_memory", "longest_context"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
