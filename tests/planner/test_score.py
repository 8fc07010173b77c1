"""The arithmetic of ranking: what is first is never beaten in everything."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemofit.planner.goal import PREFERENCES
from nemofit.planner.score import SAME_SPEED, WEIGHTS, covered, frontier, ranked, score


@dataclass(frozen=True)
class Merits:
    loss: float | None
    tokens_per_second: float
    context: int


merits = st.builds(
    Merits,
    loss=st.none() | st.floats(0, 3),
    tokens_per_second=st.floats(0, 500),
    context=st.integers(1, 1 << 20),
)


def test_every_preference_has_weights() -> None:
    """The exponents of each preference sum to 1 and none is zero."""
    assert set(WEIGHTS) == set(PREFERENCES)
    for weights in WEIGHTS.values():
        assert isclose(1, sum(weights))
        assert min(weights) > 0


@pytest.mark.parametrize("prefer", PREFERENCES)
def test_half_of_everything_scores_one_half(prefer: str) -> None:
    """At the stated half points every merit is one half, and so is their weighted product."""
    assert isclose(0.5, score(Merits(0.05, 10, 8192), prefer))


def test_a_worked_example() -> None:
    """The formula by hand: Q = 5/8, S = 2/3, C = 1/2, to the powers 0.4, 0.4 and 0.2."""
    expected = (5 / 8) ** 0.4 * (2 / 3) ** 0.4 * 0.5**0.2
    assert isclose(expected, score(Merits(0.03, 20, 8192), "balanced"))


@pytest.mark.parametrize("prefer", PREFERENCES)
def test_a_heavy_loss_never_leads(prefer: str) -> None:
    """However fast and long, it comes behind the slowest plan whose loss is only noticeable."""
    heavy, slow = Merits(0.15, 300.0, 1 << 20), Merits(0.149, 0.3, 8192)
    assert ranked([heavy, slow], prefer) == [slow, heavy]
    assert ranked([Merits(2.0, 50.0, 8192), heavy], prefer)[0] == heavy


@given(st.lists(merits, max_size=30))
def test_the_frontier_holds_exactly_what_nothing_covers(plans: list[Merits]) -> None:
    """Brute force over all pairs agrees: kept plans are covered by no other, dropped ones are."""
    kept = frontier(plans)
    for i, plan in enumerate(kept):
        assert not covered(plan, kept[:i] + kept[i + 1 :])
    for plan in plans:
        assert covered(plan, kept)


@given(st.lists(merits, min_size=1, max_size=30), st.sampled_from(PREFERENCES))
def test_dropping_plans_never_costs_the_best(plans: list[Merits], prefer: str) -> None:
    """What stays is as good as the best of all, but for speeds that count as equal."""
    best = score(ranked(plans, prefer)[0], prefer)
    assert score(ranked(frontier(plans), prefer)[0], prefer) >= best * SAME_SPEED


def test_speeds_that_are_alike_do_not_fill_the_list() -> None:
    """One per cent faster with more loss is dropped, ten per cent is not."""
    plain = Merits(0.03, 10.0, 8192)
    assert frontier([plain, Merits(0.032, 10.1, 8192)]) == [plain]
    assert len(frontier([plain, Merits(0.032, 11.0, 8192)])) == 2
