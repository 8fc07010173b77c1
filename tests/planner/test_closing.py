"""What closing a program makes possible, against the ranking of a machine without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemofit.catalog.models import find_model
from nemofit.machine import Holder, Machine, parse_machine
from nemofit.planner.closing import closing
from nemofit.planner.goal import Goal
from nemofit.planner.ranking import rank
from nemofit.units import GIB

GOAL = Goal(context=8192, knobs={"gpu_layers": 33})


def busy(free_gib: float, **held_gib: float) -> Machine:
    """An RTX 3060 of which programs hold something."""
    machine = parse_machine("RTX 3060 12GB, 32 GiB RAM, linux")
    holders = tuple(
        Holder(pid=i, name=name, bytes=int(gib * GIB))
        for i, (name, gib) in enumerate(held_gib.items(), 1)
    )
    gpu = replace(machine.gpus[0], free_bytes=int(free_gib * GIB), holders=holders)
    return replace(machine, gpus=(gpu,))


def test_a_better_file_fits_once_the_browser_is_closed() -> None:
    """The same file as on a machine where it never ran."""
    model = find_model("llama-3.1-8b").spec()
    machine = busy(7.5, firefox=3.5, Xorg=0.1)
    now = rank(model, machine, GOAL, count=1).plans[0]
    found = closing(model, machine, GOAL, now)
    assert found is not None
    then = rank(model, busy(11.0), GOAL, count=1).plans[0]
    assert then.quant != now.quant
    assert found.words == f"firefox holds 3.50 GiB on GPU 0; with it closed {then.quant} fits"
    assert found.plan.quant == then.quant


def test_two_that_help_only_together() -> None:
    model = find_model("llama-3.1-8b").spec()
    goal = replace(GOAL, quant="Q8_0")
    machine = busy(4.0, firefox=3.2, blender=3.2)
    found = closing(model, machine, goal, None)
    assert found is not None
    assert [h.name for h in found.held] == ["blender", "firefox"]
    assert found.words.endswith("with them closed Q8_0 fits at 8192 tokens")


@pytest.mark.parametrize("assume_idle", [False, True])
def test_nothing_to_gain(assume_idle: bool) -> None:
    """A program that holds little, or a plan that counts the idle machine already."""
    model = find_model("llama-3.2-1b").spec()
    goal = replace(GOAL, knobs={}, assume_idle=assume_idle)
    machine = busy(11.0, Xorg=0.2)
    assert closing(model, machine, goal, rank(model, machine, goal, count=1).plans[0]) is None
    assert closing(find_model("nemotron").spec(), machine, replace(GOAL, quant="F16"), None) is None
