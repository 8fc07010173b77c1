"""The space of configurations of one model on one machine, and the best plans of all of them.

The search is exhaustive by branch and bound. Every configuration first gets a bound on its speed
from a placement without compute buffers (:mod:`.bounds`); with its known loss and context that
bounds its score. Configurations are then worked out exactly in the order of their bounds until no
bound is left that could still enter the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from nemofit.catalog.filetypes import file_types, needs_imatrix, weights_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError
from nemofit.machine.records import Machine

from .goal import LEAST_CONTEXT, Goal
from .records import Plan, room_for
from .score import covered, frontier, ranked, score
from .sizing import Sizer
from .sources import Source, source_of

_CACHE_TYPES = ("f16", "q8_0", "q4_0")
"""Pairs of equal types that every CUDA build has attention kernels for; others need a build with
GGML_CUDA_FA_ALL_QUANTS (llama.cpp, ggml/src/ggml-cuda/CMakeLists.txt)."""
HOST_SPARE = 1 / 8
"""Of the RAM that may be used, what a context longer than it must be leaves to other programs."""
_WIDE = ("F32", "BF16")
"""As good as F16 to a planner and seldom published; tried only where a person asks for them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration with the best that it could turn out to be."""

    quant: str | None
    config: RunConfig
    source: Source
    loss: float | None
    tokens_per_second: float

    @property
    def context(self) -> int:
        return self.config.context


class Search:
    """One model on one machine under one goal.

    Attributes:
        room: What the machine offers.
        considered: Configurations that were bounded or worked out.
    """

    def __init__(self, model: ModelSpec, machine: Machine, goal: Goal) -> None:
        self.model = model
        self.machine = machine
        self.goal = goal
        self.room = room_for(machine, goal)
        self.sizer = Sizer(model, self.room, goal)
        self.considered = 0

    def top(self, count: int) -> list[Plan]:
        """The best plans, best first: fast enough, none dominated; empty where none fits."""
        prefer, least = self.goal.prefer, self.goal.min_tokens_per_second or 0.0

        def enough(best: list[Plan], bound: Candidate) -> bool:
            return len(best) >= count and score(best[count - 1], prefer) >= score(bound, prefer)

        return self._work_out(lambda c: score(c, prefer), enough, least)[:count]

    def fastest(self) -> Plan | None:
        """The plan with the most tokens per second, however few; None where none fits."""

        def enough(best: list[Plan], bound: Candidate) -> bool:
            return any(p.tokens_per_second >= bound.tokens_per_second for p in best)

        found = self._work_out(lambda c: c.tokens_per_second, enough, 0.0)
        return max(found, key=lambda plan: plan.tokens_per_second, default=None)

    def _work_out(
        self,
        merit: Callable[[Candidate], float],
        enough: Callable[[list[Plan], Candidate], bool],
        least: float,
    ) -> list[Plan]:
        """Take the most promising candidate, look closer, put it back; work out the one that is
        still the most promising."""
        best: list[Plan] = []
        found = enumerate(self.candidates())
        queue = [(-merit(c), n, False, c) for n, c in found if c.tokens_per_second >= least]
        heapify(queue)
        while queue:
            _, n, looked, candidate = heappop(queue)
            if enough(best, candidate):
                break
            if covered(candidate, best):
                continue
            made = candidate.quant, candidate.config, candidate.source
            if not looked:
                speed = min(self.sizer.promise(*made), candidate.tokens_per_second)
                if speed >= least and speed > 0:
                    closer = replace(candidate, tokens_per_second=speed)
                    heappush(queue, (-merit(closer), n, True, closer))
                continue
            plan = self.sizer.best(*made)
            if plan is not None and plan.tokens_per_second >= least and self._leaves_room(plan):
                best = ranked(frontier([*best, plan]), self.goal.prefer)
        return best

    def _leaves_room(self, plan: Plan) -> bool:
        """Whether other programs keep some memory: a context that nobody asked for is not worth
        the last of it."""
        spare, offer = plan.spare_host_bytes, self.room.budgets.host
        if self.goal.context is not None or plan.context <= self.contexts()[0]:
            return True
        return spare is None or offer is None or spare >= offer * HOST_SPARE

    def candidates(self) -> list[Candidate]:
        """Every configuration that is not certain not to fit."""
        found = []
        for quant in self.quants():
            source = source_of(self.model, quant, self.goal.imatrix)
            for k, v in self.cache_types():
                loss = self.sizer.quality(quant, source.imatrix, k, v).loss
                if not self.goal.allows(loss):
                    continue
                for context in self.contexts():
                    self.considered += 1
                    config = self.sizer.config(context, k, v)
                    speed = self.sizer.bound(quant, config, source)
                    if speed is not None:
                        likely = speed.decode.likely
                        found.append(Candidate(quant, config, source, loss, likely))
        return found

    def any(self) -> Plan | None:
        """Some plan of the smallest file type, from the smallest cache on; None: none fits."""
        quant, source = self.smallest_file()
        configs = (
            self.sizer.config(self.contexts()[0], k, v) for k, v in reversed(self.cache_types())
        )
        plans = (self.sizer.best(quant, config, source) for config in configs)
        return next((plan for plan in plans if plan is not None), None)

    def smallest_file(self) -> tuple[str | None, Source]:
        """The file type that takes the least memory, and its source."""
        made = {quant: source_of(self.model, quant, self.goal.imatrix) for quant in self.quants()}
        quant = min(made, key=lambda q: weights_bytes(self.model, q, made[q].imatrix))
        return quant, made[quant]

    def quants(self) -> list[str | None]:
        """The file types to try: the fixed one, the file's own, or all with a known quality."""
        if self.goal.quant is not None:
            return [self.goal.quant]
        if not self.model.is_shape:
            return [None]
        return [name for name in file_types() if self._can_be_made(name)]

    def _can_be_made(self, quant: str) -> bool:
        if quant in _WIDE:
            return False
        imatrix = source_of(self.model, quant, self.goal.imatrix).imatrix
        if self.sizer.quality(quant, imatrix, "f16", "f16").loss is None:
            return False
        try:
            weights_bytes(self.model, quant, imatrix)
            return imatrix or not needs_imatrix(self.model, quant)
        except UsageError:
            return False

    def contexts(self) -> list[int]:
        """The contexts to try, shortest first: the fixed one, or doubling up to the trained."""
        if self.goal.context is not None:
            return [self.goal.context]
        trained = self.model.integer("context_length") or LEAST_CONTEXT
        ladder = []
        step = LEAST_CONTEXT
        while step < trained:
            ladder.append(step)
            step *= 2
        least = self.goal.min_context or 0
        return [n for n in (*ladder, trained) if n >= least] or [least]

    def cache_types(self) -> list[tuple[str, str]]:
        """The pairs of K and V types to try."""
        knobs = self.goal.knobs
        if "kv_type_k" in knobs or "kv_type_v" in knobs:
            return [(knobs.get("kv_type_k", "f16"), knobs.get("kv_type_v", "f16"))]
        if knobs.get("flash_attention") is False:
            return [("f16", "f16")]
        return [(t, t) for t in _CACHE_TYPES]
