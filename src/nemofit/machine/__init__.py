"""Machines: described, saved, and what they offer.

>>> machine = parse_machine("2x RTX 3090, 64 GiB RAM")
>>> [gpu.name for gpu in machine.gpus]
['NVIDIA GeForce RTX 3090', 'NVIDIA GeForce RTX 3090']

Reading descriptions and files is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .budgets import Budgets, budgets, default_reserve
from .records import FoundEngine, Gpu, Holder, Host, Machine

if TYPE_CHECKING:
    from .describe import describe
    from .file import machine_from_json, machine_to_json, read_machine
    from .parse import parse_machine

__all__ = [
    "Budgets",
    "FoundEngine",
    "Gpu",
    "Holder",
    "Host",
    "Machine",
    "budgets",
    "default_reserve",
    "describe",
    "machine_from_json",
    "machine_to_json",
    "parse_machine",
    "read_machine",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = {"parse_machine": "parse", "describe": "describe"}.get(name, "file")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
