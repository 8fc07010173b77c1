"""From a plan to what a person types, saves or installs: one module per engine.

make(Order(plan=plan, machine=machine, format="script")).text
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from nemofit.errors import UsageError

from .records import Artifact, Order

_ENGINES = {
    "llama.cpp": "llama_cpp",
    "ollama": "ollama",
    "vllm": "vllm",
    "transformers": "transformers",
}

__all__ = ["Artifact", "Order", "check_format", "formats", "make"]


def formats(engine: str) -> tuple[str, ...]:
    """The formats that make sense for an engine, the usual one first."""
    found: tuple[str, ...] = _module(engine).FORMATS
    return found


def check_format(engine: str, format: str) -> None:
    """Refuse a format that makes no sense for an engine.

    Raises:
        UsageError: Names those that do.
    """
    known = formats(engine)
    if format not in known:
        raise UsageError(
            f"there is no {format!r:.20} for {engine}", f"for {engine}: " + ", ".join(known)
        )


def make(order: Order) -> Artifact:
    """Write a plan in the format that is asked for.

    Raises:
        UsageError: The engine has no such format or program, or a value cannot be written in it.
        HardwareError: The installed program is too old for the plan.
    """
    engine = order.plan.engine
    check_format(engine, order.format)
    write: Callable[[Order], Artifact] = _module(engine).make
    return write(order)


def _module(engine: str):  # type: ignore[no-untyped-def]
    return import_module(f"{__package__}.{_ENGINES[engine]}")
