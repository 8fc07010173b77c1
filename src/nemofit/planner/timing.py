"""How fast a placement is, from what each block does: added up once, then taken by difference.

The work of a model is taken apart block by block, as if every block and every block's experts had
a device of their own. Any placement that llama.cpp makes of whole blocks is then a sum over runs
of neighbours.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import fields
from itertools import accumulate
from typing import TypeVar

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.placement import is_output
from nemofit.speed.work import HOST, Weights, Work, work_of

_BLOCK = re.compile(r"blk\.(\d+)\.")
_Key = tuple[str, str | int | None, str | None]
_Sums = Mapping[_Key, Sequence[float]]
V = TypeVar("V")


class UnitWork:
    """What every unit of a model does for one token, for one file type and pair of cache types."""

    def __init__(self, model: ModelSpec, types: Sequence[str], config: RunConfig) -> None:
        blocks = model.integer("block_count")
        self.blocks = blocks
        device_of = [_unit(t.name, blocks) for t in model.tensors]
        works = {w.device: w for w in work_of(model, types, device_of, range(blocks + 1), config)}
        self._blocks = _prefix([works.get(il) for il in range(blocks)])
        self._experts = _prefix([works.get(blocks + 1 + il) for il in range(blocks)])
        self._output = _flat(works.get(blocks))
        self._host = _flat(works.get(HOST))

    def with_cache_of(self, other: UnitWork) -> UnitWork:
        """The same weights with the cache of another record of the same model."""
        made = copy(self)
        made._blocks = _swapped(self._blocks, other._blocks)
        made._host = _swapped(self._host, other._host)
        return made

    def placed(self, units: Sequence[int], cpu_moe_layers: int) -> tuple[Work, ...]:
        """The work of each device that does anything: GPUs in order, the host last.

        Args:
            units: Device of each block, and of the output as the last one.
            cpu_moe_layers: Blocks whose experts stay on the host.
        """
        parts: dict[int, dict[_Key, float]] = defaultdict(lambda: defaultdict(float))
        for device, first, end in _runs(units[: self.blocks]):
            at_home = ("visits", "cache_linked") if device == HOST else ("visits",)
            _add(parts[device], self._blocks, first, end, at_home)
            moved = min(max(cpu_moe_layers, first), end)
            _add(parts[device], self._experts, moved, end, at_home)
            _add(parts[HOST], self._experts, first, moved, at_home if device == HOST else ())
        for device, flat in ((units[-1], self._output), (HOST, self._host)):
            for key, value in flat.items():
                parts[device][key] += value
        order = sorted(parts, key=lambda device: (device == HOST, device))
        return tuple(
            _work(device, parts[device]) for device in order if any(parts[device].values())
        )


def _swapped(mine: Mapping[_Key, V], theirs: Mapping[_Key, V]) -> dict[_Key, V]:
    kept = {key: value for key, value in mine.items() if not key[0].startswith("cache")}
    return kept | {key: value for key, value in theirs.items() if key[0].startswith("cache")}


def _unit(name: str, blocks: int) -> int:
    """A device number that stands for a block, for its experts, or for the output."""
    found = _BLOCK.match(name)
    if found is None:
        return blocks if is_output(name) else 0 if name.startswith("rope_") else HOST
    il = int(found[1])
    return blocks + 1 + il if "_exps." in name else il


def _flat(work: Work | None) -> dict[_Key, float]:
    """Every number of a record under its field's name and, in a mapping, its key."""
    flat: dict[_Key, float] = {}
    for field in fields(Work) if work is not None else ():
        value = getattr(work, field.name)
        if field.name == "device":
            continue
        if not isinstance(value, dict):
            flat[field.name, None, None] = value
            continue
        for key, entry in value.items():
            if isinstance(entry, Weights):
                for part in fields(Weights):
                    flat[field.name, key, part.name] = getattr(entry, part.name)
            else:
                flat[field.name, key, None] = entry
    return flat


def _work(device: int, flat: Mapping[_Key, float]) -> Work:
    work = Work(device)
    for (name, key, part), value in flat.items():
        if key is None:
            setattr(work, name, value)
        elif part is None:
            getattr(work, name)[key] = value
        else:
            setattr(getattr(work, name)[key], part, value)
    return work


def _prefix(works: Sequence[Work | None]) -> _Sums:
    flats = [_flat(work) for work in works]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    return {key: tuple(accumulate((flat.get(key, 0) for flat in flats), initial=0)) for key in keys}


def _add(
    into: dict[_Key, float], sums: _Sums, first: int, end: int, without: Sequence[str]
) -> None:
    """Add a run of blocks, without what only counts where block and experts or cache are apart."""
    for key, values in sums.items():
        if values[end] != values[first] and key[0] not in without:
            into[key] += values[end] - values[first]


def _runs(units: Sequence[int]) -> list[tuple[int, int, int]]:
    """Neighbouring blocks on one device: (device, first, end)."""
    found = []
    first = 0
    for il in range(1, len(units) + 1):
        if il == len(units) or units[il] != units[first]:
            found.append((units[first], first, il))
            first = il
    return found
