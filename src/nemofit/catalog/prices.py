"""A person's price list: what a card costs, in a YAML file of their own.

    currency: EUR
    prices:
      RTX 3090: 650
      M4 Max 64GB: 3200

Cards go by any name that ``nemofit list gpus`` knows; a machine with unified memory by its chip
and the size of its memory. A card that is not known, or a price that is none, becomes a note: the
rest of the list still counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Final

from ..errors import DataError, UnknownNameError
from ..units import GIB
from .cards import Card, find_card

_SIZED: Final = re.compile(r"(?P<name>.+?)[\s,(]*(?P<size>\d{1,4})\s*gi?b\)?", re.IGNORECASE)
_EXAMPLE: Final = "write for example 'prices: {RTX 3090: 650}'"


@dataclass(frozen=True, slots=True)
class Prices:
    """What hardware costs.

    Attributes:
        currency: As the person writes it, None: not said.
        cards: Price by the card's id, and by id and bytes for a unified part.
        notes: Why an entry was left out, one line each.
    """

    currency: str | None = None
    cards: Mapping[tuple[str, int | None], float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, card: Card, count: int, memory_bytes: int) -> float | None:
        """The price of so many cards, or of one unified part with this much memory."""
        known = self.cards.get((card.id, memory_bytes if card.shared else None))
        if known is None and card.shared and len(card.memory_sizes) < 2:
            known = self.cards.get((card.id, None))
        return None if known is None else known * count


def read_prices(path: Path) -> Prices:
    """Read a price list.

    Raises:
        DataError: The file cannot be read or has another form.
    """
    from .yaml_load import parse, read_bytes

    raw = parse(read_bytes(path), str(path))
    if not isinstance(raw, dict) or not isinstance(raw.get("prices"), dict):
        raise DataError(f"{path}: expected 'prices:' with a price for each card", _EXAMPLE)
    if unknown := [key for key in raw if key not in ("prices", "currency")]:
        raise DataError(
            f"{path}: {unknown[0]!r:.60} is not a section that is known",
            "a price list has 'currency' and 'prices'",
        )
    currency = raw.get("currency")
    if currency is not None and not (isinstance(currency, str) and 0 < len(currency) <= 12):
        raise DataError(f"{path}: currency {currency!r:.40} is not a name", "write currency: EUR")
    cards: dict[tuple[str, int | None], float] = {}
    notes: list[str] = []
    for name, price in raw["prices"].items():
        if not _is_price(price):
            notes.append(f"{path}: {name!r:.60}: {price!r:.40} is not a price above 0")
            continue
        try:
            key = _key(name)
        except UnknownNameError as error:
            notes.append(f"{path}: {error.message}" + (f"; {error.hint}" if error.near else ""))
            continue
        if key in cards:
            notes.append(f"{path}: {name!r:.60} is there twice; the lower price counts")
        cards[key] = min(float(price), cards.get(key, float(price)))
    return Prices(currency, cards, tuple(notes))


def _is_price(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and isfinite(value)
        and 0 < value < 1e12
    )


def _key(name: str) -> tuple[str, int | None]:
    """The card that an entry means, with the memory of a unified part where it is named."""
    sized = _SIZED.fullmatch(name.strip())
    try:
        return find_card(name).id, None
    except UnknownNameError:
        if sized is None:
            raise
    size = int(sized["size"]) * GIB
    card = (
        find_card(sized["name"]) if _is_unified(sized["name"]) else find_card(sized["name"], size)
    )
    return card.id, size if card.shared else None


def _is_unified(name: str) -> bool:
    try:
        return find_card(name).shared
    except UnknownNameError:
        return False
