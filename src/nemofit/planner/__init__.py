"""From a model and a machine to plans: what to run, how, and what would have to change.

from nemofit.planner import Goal, recommend

plans = recommend(model, machine, goal=Goal(context=8192, prefer="quality"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .goal import Goal
    from .ranking import Ranking, rank, recommend
    from .records import Plan

_HOMES = {
    "Goal": "goal",
    "Plan": "records",
    "Ranking": "ranking",
    "rank": "ranking",
    "recommend": "ranking",
}

__all__ = ["Goal", "Plan", "Ranking", "rank", "recommend"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
