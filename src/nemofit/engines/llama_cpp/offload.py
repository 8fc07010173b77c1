"""The placement solver: the most a set of budgets can hold, and the longest context that fits.

Whole blocks and the output layer are placed, as ``-ngl`` and ``-ts`` place them. A mixture of
experts first sends experts to the host (``-ncmoe``), since they are read least per byte; only when
no expert is left on the GPUs does it give up whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import Memory
from nemofit.errors import DoesNotFitError, UsageError
from nemofit.units import gib

from .config import RunConfig
from .dealing import Dealer, Step, first_that, steps_of
from .kv_cache import pad
from .memory import Estimator, split_of

_PROBES = 4  # steps tried before the first one that halving finds: it need not be the first


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


class Solver:
    """One model and file type against one set of budgets.

    Args:
        shared: Per GPU, whether its memory is the host's; None: none is.
        speeds: Per GPU, how fast it reads: the faster ones get as much as they can hold. None: all
            alike, each filled to about the same share.
        move_experts: Experts may go to the host although their block does not.
    """

    def __init__(
        self,
        estimator: Estimator,
        config: RunConfig,
        budgets: Sequence[int],
        host_budget: int | None,
        generations: Sequence[str | None] | None = None,
        *,
        shared: Sequence[bool] | None = None,
        speeds: Sequence[float] | None = None,
        move_experts: bool = True,
    ) -> None:
        self.estimator = estimator
        self.config = config
        self.budgets = tuple(budgets)
        self.host_budget = host_budget
        self.generations = generations
        self.shared = tuple(shared or (False,) * len(self.budgets))
        self.steps = steps_of(estimator.model, config, move_experts=move_experts)
        split = config.tensor_split
        if split is not None:
            split = split_of(config, len(self.budgets))
        elif len(self.budgets) == 1:
            split = (1.0,)
        self.dealer = Dealer(estimator, config, self.budgets, generations, split, speeds)

    def memory(self, config: RunConfig) -> Memory:
        return self.estimator.memory(
            config, len(self.budgets), budgets=self.budgets, generations=self.generations
        )

    def fits(self, config: RunConfig) -> bool:
        return self._fits(self.memory(config))

    def _fits(self, m: Memory) -> bool:
        used = [gpu.total_bytes for gpu in m.gpus]
        return all(n <= b for n, b in zip(used, self.budgets, strict=True)) and (
            self.host_budget is None or m.host.total_bytes + self._drawn(used) <= self.host_budget
        )

    def _drawn(self, used: Sequence[int]) -> int:
        """Bytes on GPUs that are the host's."""
        return sum(n for n, own in zip(used, self.shared, strict=True) if own)

    def solve(self) -> RunConfig | None:
        """The configuration with the most on the GPUs, or None."""
        if not self.budgets:
            alone = self.config.replace(gpu_layers=0, tensor_split=None, cpu_moe_layers=0)
            return alone if self.fits(alone) else None
        best: RunConfig | None = None
        end, tried = len(self.steps), set[int]()
        while True:
            at = next((n for n in self._promising(end) if n not in tried), None)
            if at is None and not tried and not self.dealer.known.exact:
                at = end - 1  # nothing is known yet but what other configurations took
            if at is None:
                return best
            tried.add(at)
            found = self.placed(at)
            if found is not None:
                best, end = found, at

    def hoped(self) -> RunConfig | None:
        """The same by what is known so far, without a replay: :meth:`solve` may find less."""
        at = next(self._promising(len(self.steps)), None)
        return None if at is None else self.hoped_at(at)

    def hoped_at(self, at: int = 0) -> RunConfig | None:
        """A configuration with one step's layers that may well fit, or None."""
        counts = self.dealer.deal(self.steps[at])
        return None if counts is None else self._dealt(self.steps[at], counts)

    def placed(self, at: int = 0) -> RunConfig | None:
        """A configuration with one step's layers whose split fits every budget, or None."""
        step = self.steps[at]
        tried = list[list[int]]()
        while (counts := self.dealer.deal(step)) is not None and counts not in tried:
            tried.append(counts)
            config = self._dealt(step, counts)
            memory = self.memory(config)
            self.dealer.learn(step, counts, memory)
            if self._fits(memory):
                return config
        return None

    def _dealt(self, step: Step, counts: Sequence[int]) -> RunConfig:
        split = self.config.tensor_split or tuple(counts)
        return self.config.replace(
            gpu_layers=step[0],
            cpu_moe_layers=step[1],
            tensor_split=split if any(split) else (1,) * len(self.budgets),
        )

    def _promising(self, end: int) -> Iterator[int]:
        """Steps below ``end`` that may well fit, the one with the most on the GPUs first."""
        for at in first_that(lambda n: self.dealer.possible(self.steps[n]), end, _PROBES):
            if self._host_holds(self.steps[at]):
                yield at

    def _host_holds(self, step: Step) -> bool:
        if self.host_budget is None:
            return True
        drawn = 0
        if any(self.shared):
            drawn = self._drawn(self.dealer.needs(step, self.dealer.deal(step) or []))
        return self.dealer.host_need(step) + drawn <= self.host_budget

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
