"""What generating costs in electricity: power over speed."""

from __future__ import annotations

from nemofit.machine.records import Machine

BASIS = (
    "board power of every card, all of the time that one stream generates; "
    "the rest of the machine is not in it"
)
"""With several cards one works while the others wait, so this is more than they draw."""


def power_of(machine: Machine) -> float | None:
    """Watts of all cards at their limits; None where there is no card or one is not known."""
    powers = [gpu.power_w for gpu in machine.gpus]
    known = [power for power in powers if power is not None]
    return sum(known) if known and len(known) == len(powers) else None


def kwh_per_million(power_w: float | None, tokens_per_second: float) -> float | None:
    """Kilowatt-hours for a million generated tokens; None where the power is not known."""
    if power_w is None or tokens_per_second <= 0:
        return None
    return power_w / tokens_per_second / 3.6
