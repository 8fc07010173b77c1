"""A person's price list: names are found as everywhere, mistakes are told and do not stop it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemofit.catalog.cards import find_card
from nemofit.catalog.prices import read_prices
from nemofit.errors import DataError
from nemofit.units import GIB


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_cards_by_any_name(tmp_path: Path) -> None:
    """Aliases, driver's names, memory where a name has two; a chip with its memory."""
    prices = read_prices(
        written(
            tmp_path / "prices.yaml",
            "currency: EUR\nprices:\n  nvidia geforce rtx 3090: 650\n  RTX 4060 Ti 16GB: 450\n"
            "  M4 Max 64GB: 3200\n  DGX Spark: 4000\n",
        )
    )
    assert prices.notes == ()
    assert prices.currency == "EUR"
    assert prices.of(find_card("RTX 3090"), 2, 48 * GIB) == 1300
    assert prices.of(find_card("RTX 4060 Ti 16GB"), 1, 16 * GIB) == 450
    assert prices.of(find_card("M4 Max"), 1, 64 * GIB) == 3200
    assert prices.of(find_card("M4 Max"), 1, 128 * GIB) is None
    assert prices.of(find_card("DGX Spark"), 1, 128 * GIB) == 4000
    assert prices.of(find_card("RTX 4090"), 1, 24 * GIB) is None


def test_mistakes_are_notes(tmp_path: Path) -> None:
    """An unknown card with its near misses, a word, a negative price; the rest counts."""
    prices = read_prices(
        written(
            tmp_path / "prices.yaml",
            "prices:\n  RTX 3099: 7\n  RTX 4090: cheap\n  RTX 3080: -1\n  RTX 3090: 650\n"
            "  GeForce RTX 3090: 600\n",
        )
    )
    assert [note.count("RTX 3090") > 0 for note in prices.notes] == [True, False, False, True]
    assert "did you mean" in prices.notes[0]
    assert prices.of(find_card("RTX 3090"), 1, 24 * GIB) == 600
    assert prices.of(find_card("RTX 4090"), 1, 24 * GIB) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "prices: 7", "price: {}", "prices: {}\nshop: x", "prices: {}\ncurrency: [1]", "\0"],
    ids=repr,
)
def test_another_form_is_refused(tmp_path: Path, text: str) -> None:
    """A file that is no price list is one line of error that names it."""
    path = written(tmp_path / "prices.yaml", text)
    with pytest.raises(DataError, match=r"prices\.yaml"):
        read_prices(path)


def test_no_file(tmp_path: Path) -> None:
    """A directory, and nothing."""
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(DataError):
            read_prices(path)
