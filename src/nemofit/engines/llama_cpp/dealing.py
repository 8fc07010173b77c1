"""How a model's units are dealt to the cards, by what is known of their compute buffers.

Weights and cache are sums; only a compute buffer takes a replay of the graph. But a card's buffer
depends on nothing beyond the card's own blocks and whether the first block, the last one or the
output are among them; on the first card also on what it computes for blocks of the host. So what
one replay showed is remembered for every later split, and a split is replayed when it is to be
proposed, not while it is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import log
from typing import Any

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import Memory

from .compute import copies
from .config import RunConfig
from .graph.backends import BACKENDS
from .layers import kinds, loaded_blocks, shorten
from .memory import Estimator, Frame, knobs_of
from .placement import HOST, place_units
from .recurrent_state import states

_HALVINGS = 10
_SHARES = (0.95, 0.9, 0.8, 0.3)
"""Of the smallest buffer known that is alike, from nearly the same role to any role, what one that
was not seen yet is taken for: rather a replay too many than a split that is never tried."""
_LONG = 5
"""Blocks from which on one more hardly changes a buffer."""

Step = tuple[int, int]
"""Layers on the GPUs, and blocks whose experts stay on the host."""


@dataclass(frozen=True, slots=True)
class Role:
    """What decides a device's compute buffer: in full, and ever less of it."""

    whole: Hashable
    alike: tuple[Hashable, ...]


@dataclass(slots=True)
class Known:
    """Compute buffers that replays showed, for one context, batch and set of types."""

    exact: dict[Hashable, int] = field(default_factory=dict)
    least: dict[Hashable, int] = field(default_factory=dict)

    def learn(self, role: Role, size: int) -> None:
        self.exact[role.whole] = size
        for part in role.alike:
            self.least[part] = min(size, self.least.get(part, size))

    def guess(self, role: Role, elsewhere: Known | None) -> int:
        """A buffer's size where it is known, else what it has at least, probably."""
        found = self.exact.get(role.whole)
        if found is not None:
            return found
        for known in (self, elsewhere):
            for part, share in zip(role.alike, _SHARES, strict=True):
                if known is not None and part in known.least:
                    return int(share * known.least[part])
        return 0


class Dealer:
    """One model and file type, one set of knobs, and the cards to deal to.

    Args:
        budgets: Bytes that each card offers.
        generations: As of :func:`.memory.estimate_memory`.
        split: Proportions that are fixed; None: any.
        speeds: How fast each card reads; None: all alike.
    """

    def __init__(
        self,
        estimator: Estimator,
        config: RunConfig,
        budgets: Sequence[int],
        generations: Sequence[str | None] | None,
        split: tuple[float, ...] | None,
        speeds: Sequence[float] | None = None,
    ) -> None:
        self.estimator, self.config, self.budgets, self.split = estimator, config, budgets, split
        self.units = estimator.blocks + 1
        self.n = len(budgets)
        speeds = speeds or (1.0,) * self.n
        alike = sorted(set(speeds))
        self.groups = [[d for d, x in enumerate(speeds) if x == speed] for speed in alike]
        self.frame: Frame = estimator.frame(config, self.n, generations)
        model = estimator.model
        every: dict[tuple[Any, ...], Known] = model.memo.setdefault("buffers", {})
        self.known = every.setdefault(knobs_of(config), Known())
        self.elsewhere = _nearest(every, config)
        self.loaded = loaded_blocks(model)
        self.takes_over = BACKENDS[config.backend].offload and config.op_offload
        self._runs: dict[Hashable, Hashable] = model.memo.setdefault("runs", {})

    def deal(self, step: Step) -> list[int] | None:
        """Units per card, as few as can be on the slowest ones, and of equal ones with the fullest
        about as empty as can be; None: they do not fit."""
        if self.split is not None:
            counts = self._fixed(step, self.split)
            return counts if self._fits(step, counts) else None
        shares = [1.0] * self.n
        best = self._in_turn(step, shares)
        if best is None:
            return None
        for group in self.groups:
            low, high = 0.0, 1.0
            for _ in range(_HALVINGS if self.n > 1 else 0):
                middle = (low + high) / 2
                closer = self._in_turn(
                    step, [middle if d in group else shares[d] for d in range(self.n)]
                )
                if closer is None:
                    low = middle
                else:
                    best, high = closer, middle
            for d in group:
                shares[d] = high
        return best

    def possible(self, step: Step) -> bool:
        """Whether the units of a step can be dealt at all."""
        if self.split is not None:
            return self._fits(step, self._fixed(step, self.split))
        return self._in_turn(step, [1.0] * self.n) is not None

    def needs(self, step: Step, counts: Sequence[int]) -> list[int]:
        """Bytes on each card, known or guessed."""
        edges = accumulate(counts, initial=self.units - sum(counts))
        return [self._need(step, d, a, b) for d, (a, b) in enumerate(pairwise(edges))]

    def host_need(self, step: Step) -> int:
        """Bytes on the host, known or guessed."""
        layers, moe = step
        start, blocks, sizes = self._start(layers), self.units - 1, self.frame.sizes
        at = min(start, blocks)
        weights = sizes.input_host + sizes.host[at] + (sizes.output_host if start > blocks else 0)
        moved = max(moe, at)
        weights += (
            sizes.experts_host[moved] - sizes.experts_host[at] + (sizes.rope_host if at else 0)
        )
        cache = self.frame.cache[at if self.config.kv_offload else blocks]
        compute = self.known.guess(self._host_role(step), None)
        return weights + cache + compute + self.frame.output + self.frame.saved

    def learn(self, step: Step, counts: Sequence[int], memory: Memory) -> None:
        """Remember the compute buffers of a placement that was replayed."""
        edges = accumulate(counts, initial=self.units - sum(counts))
        for d, (a, b) in enumerate(pairwise(edges)):
            if b > a or self._serves_host(step, d):
                self.known.learn(self._role(step, d, a, b), memory.gpus[d].compute_bytes)
        self.known.learn(self._host_role(step), memory.host.compute_bytes - self.frame.output)

    def _fixed(self, step: Step, split: tuple[float, ...]) -> list[int]:
        placed = place_units(self.units - 1, step[0], split)
        return [sum(unit == d for unit in placed if unit != HOST) for d in range(self.n)]

    def _fits(self, step: Step, counts: Sequence[int]) -> bool:
        return all(n <= b for n, b in zip(self.needs(step, counts), self.budgets, strict=True))

    def _in_turn(self, step: Step, shares: Sequence[float]) -> list[int] | None:
        """Give each card in turn as many units as fit in a share of its room."""
        counts, at = [], self._start(step[0])
        for d, share in enumerate(shares):
            end = self._furthest(step, d, at, share)
            if end is None:
                return None
            counts.append(end - at)
            at = end
        return counts if at == self.units else None

    def _furthest(self, step: Step, d: int, at: int, share: float) -> int | None:
        """The last unit but one that a card can take from ``at`` on; None: not even none.

        A longer run may need a much larger buffer, so every end is tried, from the furthest that
        weights and cache allow.
        """
        room = self.budgets[d] - self.frame.overhead[d]
        for end in range(self._last(step, at, room * share), at, -1):
            left = room - self.known.guess(self._role(step, d, at, end), self.elsewhere)
            if self._cost(step, at, end) <= left * share:
                return end
        if not self._serves_host(step, d):
            return at
        left = room - self.known.guess(self._role(step, d, at, at), self.elsewhere)
        return at if left >= 0 else None

    def _last(self, step: Step, at: int, room: float) -> int:
        low, high = at, self.units
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(step, at, middle) <= room:
                low = middle
            else:
                high = middle - 1
        return low

    def _start(self, layers: int) -> int:
        return max(self.units - layers, 0)

    def _need(self, step: Step, d: int, a: int, b: int) -> int:
        if a == b and not self._serves_host(step, d):
            return 0
        buffer = self.known.guess(self._role(step, d, a, b), self.elsewhere)
        return self._cost(step, a, b) + buffer + self.frame.overhead[d]

    def _cost(self, step: Step, a: int, b: int) -> int:
        """Weights and cache of a run of units."""
        sizes, blocks, moe = self.frame.sizes, self.units - 1, step[1]
        first, end = min(a, blocks), min(b, blocks)
        found = sizes.output_gpu if b > blocks >= a else 0
        if end > first:
            found += sizes.gpu[end] - sizes.gpu[first] + sizes.rope_gpu
            if self.config.kv_offload:
                found += self.frame.cache[end] - self.frame.cache[first]
            if moe > first:
                found -= sizes.experts_gpu[min(moe, end)] - sizes.experts_gpu[first]
        return found

    def _serves_host(self, step: Step, d: int) -> bool:
        """Whether a card computes with weights that lie on the host: the first one does."""
        return d == 0 and self.takes_over and (step[1] > 0 or step[0] < self.units)

    def _role(self, step: Step, d: int, a: int, b: int) -> Role:
        layers, moe = step
        start = self._start(layers)
        serves = self._serves_host(step, d)
        turns = copies(self.config, self.n, layers >= self.units) if not moe else 1
        rough = (turns, serves, b >= self.units and a >= self.units - 1)
        kind = (
            *rough,
            a == start,
            start > 0,
            a < self.loaded <= b,
            b >= self.units,
            min(max(moe, a), b) - a > 0,
            min(b - a, _LONG),
            min(b - min(max(moe, a), b), _LONG),
        )
        # what the first card computes for the host depends on the types of what lies there
        typed = (*kind, self.estimator.key) if serves else kind
        near = (*typed, start, moe) if serves else kind
        return Role((near, self._run(a, min(b, self.loaded), moe)), (near, typed, kind, rough))

    def _host_role(self, step: Step) -> Role:
        layers, moe = step
        turns = copies(self.config, self.n, layers >= self.units) if not moe else 1
        rough = ("host", turns, self.n > 0)
        kind = (*rough, layers < self.units, moe > 0)
        typed = (*kind, self.estimator.key)
        return Role((typed, layers, moe), (typed, typed, kind, rough))

    def _run(self, a: int, b: int, moe: int) -> Hashable:
        """The blocks of a run as a replay would shorten them."""
        key = (a, b, min(max(moe, a), b))
        found = self._runs.get(key)
        if found is None:
            model = self.estimator.model
            blocks = [(kind, il < moe) for il, kind in enumerate(kinds(model)[a:b], a)]
            kept = shorten(blocks, recurrent=any(states(model)))
            found = self._runs[key] = tuple(blocks[i] for i in kept)
        return found


def _nearest(every: dict[tuple[Any, ...], Known], config: RunConfig) -> Known | None:
    """What is known of the configuration that is most like this one."""
    mine = knobs_of(config)

    def distance(knobs: tuple[Any, ...]) -> tuple[bool, float]:
        return knobs[1:] != mine[1:], abs(log(knobs[0] / config.context))

    others = [knobs for knobs, known in every.items() if known.least and knobs != mine]
    return every[min(others, key=distance)] if others else None


def steps_of(model: ModelSpec, config: RunConfig, *, move_experts: bool = True) -> list[Step]:
    """What to try, the most on the GPUs first.

    Experts leave the GPUs block by block, since they are read least per byte; only when none is
    left there, whole blocks do. What the configuration fixes stays.
    """
    blocks = model.integer("block_count")
    given, layers = config.cpu_moe_layers, config.gpu_layers
    most = given
    if not given and move_experts and any("_exps." in t.name for t in model.tensors):
        most = blocks
    if layers is not None:
        return [(layers, moe) for moe in range(given, most + 1)]
    steps = [(blocks + 1, moe) for moe in range(given, most + 1)]
    return [*steps, *((n, most) for n in range(blocks, -1, -1))]


def first_that(holds: Callable[[int], bool], end: int, probes: int) -> Iterator[int]:
    """The smallest number below ``end`` for which ``holds`` by halving, after smaller ones nearby.

    What fits need not fit everywhere behind the first place that it does.
    """
    low, high = 0, end - 1
    if end <= 0 or not holds(high):
        return
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    yield from (n for n in range(max(low - probes, 0), low) if holds(n))
    yield low
