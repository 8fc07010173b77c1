"""Which cards of a machine to use: the fewest that will do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .goal import Goal
from .records import Room


@dataclass(frozen=True, slots=True)
class Choice:
    """Some cards of a machine.

    Attributes:
        numbers: In ascending order.
        fastest: No card that is left out is faster than one of these.
    """

    numbers: tuple[int, ...]
    fastest: bool


def choices(room: Room, goal: Goal) -> tuple[Choice, ...]:
    """Every choice of fewer cards than there are that can be the best, the fewest cards first.

    Of each number of cards the fastest ones and the largest ones; cards of different vendors run
    under different backends and are not mixed here. What the goal fixes by card rules them out.
    """
    if goal.knobs.get("tensor_split") is not None:
        return ()
    found = dict.fromkeys(_sorted(room))
    fewer = [choice for choice in found if len(choice.numbers) < len(room.machine.gpus)]
    return tuple(sorted(fewer, key=lambda c: (len(c.numbers), not c.fastest)))


def _sorted(room: Room) -> Iterator[Choice]:
    gpus, offers = room.machine.gpus, room.budgets.gpus
    for backend in dict.fromkeys(gpu.backend for gpu in gpus):
        cards = [d for d, gpu in enumerate(gpus) if gpu.backend == backend and offers[d] > 0]
        speed = {d: gpus[d].bandwidth_gb_s or 0.0 for d in cards}
        by_speed = sorted(cards, key=lambda d: (-speed[d], -offers[d], d))
        by_size = sorted(cards, key=lambda d: (-offers[d], -speed[d], d))
        for count in range(1, len(cards) + 1):
            for order in (by_speed, by_size):
                taken, left = order[:count], order[count:]
                slowest = min(speed[d] for d in taken)
                yield Choice(tuple(sorted(taken)), all(speed[d] <= slowest for d in left))
