"""Checkpoint formats: what is known of them, and the cards that run them."""

from __future__ import annotations

import pytest

from nemofit.catalog.models import all_models
from nemofit.engines.vllm.formats import arithmetic, find_format, formats
from nemofit.errors import UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("name", "bits"),
    [("awq", 4.15625), ("gptq-int4", 4.15625), ("w4a16", 4.125), ("nvfp4", 4.5), ("bf16", 16)],
)
def test_bits_per_weight(name: str, bits: float) -> None:
    """4-bit weights with a 16-bit scale for 128 of them (and a 4-bit zero point), and so on."""
    assert find_format(name).matrix_bytes(4096, 1024) * 8 == bits * 4096 * 1024


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("bf16", "8.6", "native"),
        ("fp8", "8.9", "native"),
        ("fp8", "8.6", "weight-only"),
        ("nvfp4", "9.0", "weight-only"),
        ("nvfp4", "10.0", "native"),
        ("awq", "7.5", "weight-only"),
        ("awq", None, None),
    ],
)
def test_arithmetic_follows_the_compute_capability(
    name: str, capability: str | None, expected: str | None
) -> None:
    assert arithmetic(find_format(name), capability) == expected


def test_bf16_on_turing_points_to_float16() -> None:
    with pytest.raises(UsageError, match=r"bf16 needs compute capability 8") as e:
        arithmetic(find_format("bf16"), "7.5")
    assert "--dtype float16" in (e.value.hint or "")


def test_an_old_card_is_told_what_it_can_run() -> None:
    with pytest.raises(UsageError) as e:
        arithmetic(find_format("fp8"), "7.0")
    assert "gptq-int4" in (e.value.hint or "")


def test_every_checkpoint_of_the_catalog_has_a_known_format() -> None:
    names = {c.format for card in all_models() for c in card.vllm}
    assert len(names) > 5
    for name in names:
        assert find_format(name).weight_bits in (4, 8, 16)


def test_an_unknown_format_lists_near_misses() -> None:
    with pytest.raises(UnknownNameError) as e:
        find_format("awk")
    assert "awq" in e.value.near


def test_formats_are_the_data_of_the_catalog() -> None:
    assert formats()["awq"].group == 128 and formats()["fp8"].group == 0
