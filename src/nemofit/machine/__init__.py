"""Machines: described, saved, and what they offer.

>>> machine = parse_machine("2x RTX 3090, 64 GiB RAM")
>>> [gpu.name for gpu in machine.gpus]
['NVIDIA GeForce RTX 3090', 'NVIDIA GeForce RTX 3090']
"""

from __future__ import annotations

from .budgets import Budgets, budgets, default_reserve
from .file import machine_from_json, machine_to_json, read_machine
from .parse import parse_machine
from .records import Gpu, Holder, Host, Machine

__all__ = [
    "Budgets",
    "Gpu",
    "Holder",
    "Host",
    "Machine",
    "budgets",
    "default_reserve",
    "machine_from_json",
    "machine_to_json",
    "parse_machine",
    "read_machine",
]
