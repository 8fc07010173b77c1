"""What is said of the best plan: readable figures, and all of the memory that it takes."""

from __future__ import annotations

import re

import pytest

from nemofit.catalog.models import find_model
from nemofit.errors import DoesNotFitError
from nemofit.machine import parse_machine
from nemofit.planner import Goal, recommend
from nemofit.planner.ranking import reason
from nemofit.units import GIB


def test_a_fast_plan_is_said_without_exponents() -> None:
    plans = recommend(find_model("gpt-oss-20b").spec(), parse_machine("RTX 4090, 32 GiB RAM"))
    assert plans[0].tokens_per_second > 100
    said = re.search(r"about (\S+) tokens per second", reason(plans))
    assert said is not None
    assert said.group(1) == str(round(plans[0].tokens_per_second))


def test_a_speed_out_of_reach_is_said_without_exponents() -> None:
    machine = parse_machine("RTX 4090, 32 GiB RAM")
    with pytest.raises(DoesNotFitError) as refused:
        recommend(find_model("gpt-oss-20b").spec(), machine, goal=Goal(min_tokens_per_second=5000))
    assert re.search(r"makes \d{3} ", str(refused.value))


@pytest.mark.parametrize(
    ("machine", "named"),
    [("RTX 4090, 128 GiB RAM", True), ("2x RTX 3090, 64 GiB RAM", False)],
)
def test_the_ram_is_named_where_it_holds_much(machine: str, named: bool) -> None:
    """With experts in RAM the cards hold the smaller part of the model."""
    model = "mixtral-8x22b" if named else "nemotron"
    plans = recommend(find_model(model).spec(), parse_machine(machine), goal=Goal(context=8192))
    host = plans[0].memory.host.total_bytes
    assert (f"{host / GIB:.2f} GiB of RAM" in reason(plans)) is named
