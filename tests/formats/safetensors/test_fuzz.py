"""Checkpoints broken as benchmarks/fuzz breaks them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.fuzz.safetensors import answer, mutant, parts, place, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WHOLE = [parts(data) for data in seeds(Path("."))]


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_what_is_broken_was_whole(number: int, tmp_path: Path) -> None:
    data = seeds(tmp_path)[number]
    assert answer(place(data, tmp_path, 1)).startswith("a model")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_a_broken_checkpoint_gives_a_model_or_an_error(
    tmp_path: Path, rng: random.Random, number: int
) -> None:
    """``answer`` lets only our own errors pass; none has a second line or moves a cursor."""
    answer(place(mutant(rng.choice(WHOLE), rng), tmp_path, number))
