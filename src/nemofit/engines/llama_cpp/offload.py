"""The placement solver: the most a set of budgets can hold, and the longest context that fits.

Whole blocks and the output layer are placed, as ``-ngl`` and ``-ts`` place them. A mixture of
experts first sends experts to the host (``-ncmoe``), since they are read least per byte; only when
no expert is left on the GPUs does it give up whole blocks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import Memory
from nemofit.errors import DoesNotFitError, UsageError
from nemofit.units import gib

from .config import RunConfig
from .kv_cache import layer_bytes, pad
from .memory import Estimator
from .placement import HOST, place_units, weight_sizes

_ROUNDS = 5  # how often a split is mended when compute buffers turn out otherwise than guessed
_HALVINGS = 24
_REACH = 2  # units by which each boundary between three or more cards is shifted
_TRIALS = 4  # splits of three or more cards that are worked out at most
_PROBES = 4  # neighbours tried beyond a bisected bound, which need not be the last that fits


def best_offload(
    model: ModelSpec,
    quant: str | None = None,
    *,
    config: RunConfig | None = None,
    budgets: Sequence[int],
    host_budget: int | None = None,
    imatrix: bool = False,
    generations: Sequence[str | None] | None = None,
) -> RunConfig:
    """Find the largest offload that fits.

    Args:
        config: The knobs that are fixed; ``gpu_layers`` and ``tensor_split`` when not None, and
            ``cpu_moe_layers`` when not 0, are kept as they are.
        budgets: Bytes each GPU offers, in device order; empty for CPU only.
        host_budget: Bytes the host offers; None: not limited.

    Returns:
        The configuration with ``gpu_layers``, ``tensor_split`` and ``cpu_moe_layers`` filled.

    Raises:
        DoesNotFitError: Nothing fits; the message gives both numbers.
        UsageError: A budget or a knob makes no sense.
    """
    if any(b < 0 for b in budgets) or (host_budget is not None and host_budget < 0):
        raise UsageError(f"budgets {list(budgets)} are not all at least 0 bytes")
    solver = Solver(
        Estimator(model, quant, imatrix),
        config or RunConfig(),
        tuple(budgets),
        host_budget,
        tuple(generations) if generations else None,
    )
    found = solver.solve()
    if found is None:
        raise solver.refusal()
    return found


def longest_context(
    model: ModelSpec,
    quant: str | None = None,
    *,
    config: RunConfig,
    budgets: Sequence[int],
    host_budget: int | None = None,
    imatrix: bool = False,
    most: int | None = None,
) -> int:
    """The longest context in tokens with which this very configuration fits; 0 if none does.

    Args:
        most: Where to stop; None: the trained length times the sequences.
    """
    solver = Solver(Estimator(model, quant, imatrix), config, tuple(budgets), host_budget, None)
    step = pad(1) * config.parallel
    trained = model.integer("context_length", 1 << 20)
    top = (most or trained * config.parallel) // step
    low, high = 0, top
    while low < high:
        mid = (low + high + 1) // 2
        if solver.fits(config.replace(context=mid * step)):
            low = mid
        else:
            high = mid - 1
    return low * step


@dataclass(slots=True)
class Solver:
    """One model and file type against one set of budgets."""

    estimator: Estimator
    config: RunConfig
    budgets: tuple[int, ...]
    host_budget: int | None
    generations: tuple[str | None, ...] | None

    def memory(self, config: RunConfig) -> Memory:
        return self.estimator.memory(
            config, len(self.budgets), budgets=self.budgets, generations=self.generations
        )

    def fits(self, config: RunConfig) -> bool:
        m = self.memory(config)
        return all(g.total_bytes <= b for g, b in zip(m.gpus, self.budgets, strict=True)) and (
            self.host_budget is None or m.host.total_bytes <= self.host_budget
        )

    def solve(self) -> RunConfig | None:
        """The configuration with the most on the GPUs, or None."""
        if not self.budgets:
            alone = self.config.replace(gpu_layers=0, tensor_split=None, cpu_moe_layers=0)
            return alone if self.fits(alone) else None
        everything = self.estimator.blocks + 1
        if self.config.gpu_layers is not None:
            return self._experts_out(self.config.gpu_layers)
        found = self._experts_out(everything)
        if found is not None:
            return found
        moe = self._all_experts()
        low, best = 0, None
        high = everything - 1
        while low <= high:
            mid = (low + high) // 2
            trial = self._split(mid, moe)
            if trial is not None:
                best, low = trial, mid + 1
            else:
                high = mid - 1
        for ngl in range(low + 1, min(low + 1 + _PROBES, everything)):
            best = self._split(ngl, moe) or best
        return best

    def whole(self) -> RunConfig | None:
        """The configuration with everything on the GPUs, experts too, or None."""
        return self._split(self.estimator.blocks + 1, 0)

    def _all_experts(self) -> int:
        if self.config.cpu_moe_layers:
            return self.config.cpu_moe_layers
        names = (t.name for t in self.estimator.model.tensors)
        return self.estimator.blocks if any("_exps." in n for n in names) else 0

    def _experts_out(self, ngl: int) -> RunConfig | None:
        """The fewest experts on the host with which ``ngl`` units fit."""
        given = self.config.cpu_moe_layers
        first = self._split(ngl, given)
        most = self._all_experts()
        if first is not None or given or not most:
            return first
        best = self._split(ngl, most)
        if best is None:
            return None
        low, high = 1, most - 1
        while low <= high:
            mid = (low + high) // 2
            trial = self._split(ngl, mid)
            if trial is not None:
                best, high = trial, mid - 1
            else:
                low = mid + 1
        for n in range(high - 1, max(high - 1 - _PROBES, 0), -1):
            best = self._split(ngl, n) or best
        return best

    def _split(self, ngl: int, cpu_moe: int) -> RunConfig | None:
        """A configuration with these layers whose split fits every budget, or None."""
        config = self.config.replace(gpu_layers=ngl, cpu_moe_layers=cpu_moe)
        if self.config.tensor_split is not None or len(self.budgets) == 1:
            config = config.replace(tensor_split=self.config.tensor_split or (1,))
            return config if self.fits(config) else None
        active = min(ngl, self.estimator.blocks + 1)
        if active == 0:
            config = config.replace(tensor_split=(1,) * len(self.budgets))
            return config if self.fits(config) else None
        counts = _proportional(active, self.budgets)
        for _ in range(_ROUNDS):
            config = config.replace(tensor_split=tuple(counts))
            m = self.memory(config)
            if self.host_budget is not None and m.host.total_bytes > self.host_budget:
                return None
            fits = all(g.total_bytes <= b for g, b in zip(m.gpus, self.budgets, strict=True))
            caps = [
                b - g.compute_bytes - g.overhead_bytes
                for g, b in zip(m.gpus, self.budgets, strict=True)
            ]
            better = self._balance(config, active, caps)
            if fits and (
                better is None
                or better == counts
                or self._worst(m)
                <= self._worst(self.memory(config.replace(tensor_split=tuple(better))))
            ):
                return config
            if better is None or better == counts:
                break
            counts = better
        return self._try_around(config, counts)

    def _try_around(self, config: RunConfig, counts: list[int]) -> RunConfig | None:
        """The first split near ``counts`` that fits: compute buffers shift with the boundaries.

        Two cards are tried at every boundary.
        """
        m = self.memory(config.replace(tensor_split=tuple(counts)))
        beside = 0 if len(counts) == 2 else min(g.compute_bytes for g in m.gpus)
        caps = [b - g.overhead_bytes - beside for g, b in zip(m.gpus, self.budgets, strict=True)]
        most = None if len(counts) == 2 else _TRIALS
        for dealt in islice(self._dealt_near(config, counts, caps), most):
            trial = config.replace(tensor_split=tuple(dealt))
            if self.fits(trial):
                return trial
        return None

    def _dealt_near(
        self, config: RunConfig, counts: list[int], caps: Sequence[int]
    ) -> Iterator[list[int]]:
        """Splits near ``counts`` whose weights and cache fit ``caps``, found without a replay.

        Boundaries are shifted from the first on; one behind which the cards that are left cannot
        hold the units that are left is given up at once.
        """
        active = sum(counts)
        edges = list(accumulate(counts))[:-1]
        costs = list(accumulate(self._unit_costs(config, active), initial=0))
        reach = active if len(counts) == 2 else _REACH
        shifts = sorted(range(-reach, reach + 1), key=abs)

        def holds(card: int, at: int) -> bool:
            for cap in caps[card:]:
                at = max(at, bisect_right(costs, costs[at] + cap) - 1)
            return at >= active

        def deal(card: int, at: int) -> Iterator[list[int]]:
            if card == len(edges):
                yield [active - at]
                return
            for shift in shifts:
                edge = edges[card] + shift
                if (
                    at <= edge <= active
                    and costs[edge] - costs[at] <= caps[card]
                    and holds(card + 1, edge)
                ):
                    for rest in deal(card + 1, edge):
                        yield [edge - at, *rest]

        yield from deal(0, 0)

    def _worst(self, m: Memory) -> float:
        return max(g.total_bytes / max(b, 1) for g, b in zip(m.gpus, self.budgets, strict=True))

    def _balance(self, config: RunConfig, active: int, caps: list[int]) -> list[int] | None:
        """Units per GPU with the fullest card as empty as can be; None if they do not fit."""
        costs = self._unit_costs(config, active)
        counts = _fill(costs, caps, 1.0)
        if counts is None:
            return None
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            mid = (low + high) / 2
            trial = _fill(costs, caps, mid)
            if trial is None:
                low = mid
            else:
                counts, high = trial, mid
        return counts

    def _unit_costs(self, config: RunConfig, active: int) -> list[int]:
        """Weights and cache of each offloaded unit, the output layer last."""
        e = self.estimator
        sizes = weight_sizes(e.model, e.types, e.key, config.backend)
        first = e.blocks + 1 - active
        kv = layer_bytes(e.model, config) if config.kv_offload else [0] * e.blocks
        out = []
        for il in range(first, e.blocks):
            size = sizes.gpu[il + 1] - sizes.gpu[il]
            if il < config.cpu_moe_layers:
                size -= sizes.experts_gpu[il + 1] - sizes.experts_gpu[il]
            out.append(size + kv[il])
        return [*out, sizes.output_gpu]

    def refusal(self) -> DoesNotFitError:
        """Why nothing fits, with the numbers of the smallest placement."""
        n = len(self.budgets)
        ngl = self.config.gpu_layers if self.config.gpu_layers is not None else 0
        least = self.config.replace(
            gpu_layers=ngl, tensor_split=self.config.tensor_split or ((1,) * n if n else None)
        )
        m = self.memory(least)
        for i, (g, b) in enumerate(zip(m.gpus, self.budgets, strict=True)):
            if g.total_bytes > b:
                return DoesNotFitError(
                    f"{self.estimator.model.id} needs {gib(g.total_bytes)} on GPU {i} at"
                    f" {self.config.context} tokens with -ngl {ngl}; it offers {gib(b)}",
                    "try a smaller context, a smaller micro-batch or --no-op-offload",
                )
        offered = "no limit" if self.host_budget is None else gib(self.host_budget)
        return DoesNotFitError(
            f"{self.estimator.model.id} needs {gib(m.host.total_bytes)} of host memory at"
            f" {self.config.context} tokens beside the GPUs; the host offers {offered}",
            "try a smaller quantization or a smaller context",
        )


def _proportional(active: int, budgets: Sequence[int]) -> list[int]:
    """Units per GPU in proportion to the budgets, as llama.cpp splits by free memory."""
    if sum(budgets) == 0:
        return [active, *([0] * (len(budgets) - 1))]
    units = place_units(active - 1, active, tuple(float(b) for b in budgets))
    return [sum(u == d for u in units if u != HOST) for d in range(len(budgets))]


def _fill(costs: Sequence[int], caps: Sequence[int], share: float) -> list[int] | None:
    """Give each GPU in turn as many units as fit in a share of its room; None if some are left."""
    counts = []
    at = 0
    for cap in caps:
        room = cap * share
        n = 0
        while at < len(costs) and costs[at] <= room:
            room -= costs[at]
            at += 1
            n += 1
        counts.append(n)
    return counts if at == len(costs) else None
