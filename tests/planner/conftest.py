"""Machines of many kinds, described the way a person would."""

from __future__ import annotations

import pytest

from nemofit.machine import parse_machine
from nemofit.machine.records import Machine

MACHINES = {
    "one card": "1x RTX 3090, 64 GiB RAM",
    "two cards": "2x RTX 3090, 64 GiB RAM",
    "unequal cards": "1x RTX 4090, 1x RTX 3060, 64 GiB RAM",
    "small card": "1x GTX 1650, 32 GiB RAM",
    "bare card": "6 GiB GPU @ 300 GB/s, 16 GiB RAM",
    "no card": "32 GiB RAM, 8 cores",
    "little memory": "8 GiB RAM, 4 cores",
    "shared memory": "Apple M2 Pro, 32 GiB RAM",
}


@pytest.fixture(params=MACHINES.values(), ids=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    """Each of the machines in turn."""
    return parse_machine(request.param)
