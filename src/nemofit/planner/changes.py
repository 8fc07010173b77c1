"""What would have to change: for a plan that misses, every single change that mends it.

A plan misses when it does not fit or breaks a limit of the goal. Each kind of change is tried on
its own, as little of it as does, by sizing and timing the changed configuration or machine like
any other. What the person left open comes first, then what they fixed, at last what has to be
bought; where no single change does, several flags at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from nemofit.catalog.filetypes import weights_bytes
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError
from nemofit.machine.holders import holding, without
from nemofit.machine.records import Gpu, Machine
from nemofit.units import GIB, gib, rate

from .goal import OFFLOAD_KNOBS, Goal
from .limits import unmet
from .quality import cache_loss
from .records import Plan, room_for
from .search import Search
from .sizing import Sizer
from .sources import source_of

_STEP = 256
"""llama.cpp rounds the context up to a multiple of this (llama-context.cpp)."""
_LEAST = 512
_SMALLER_CACHES = ("q8_0", "q4_0")
_RAM_STEPS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""GiB of modules that are added."""
_MORE_CARDS = (1, 3, 7)
_PROGRAMS = 4
"""Programs on the cards that are looked at, the largest."""
_SAME = "the same quality and context"
_FLAGS = {
    "gpu_layers": "--gpu-layers",
    "tensor_split": "--tensor-split",
    "cpu_moe_layers": "--cpu-moe-layers",
    "override_tensors": "the tensor overrides",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change and what it leads to.

    Attributes:
        what: offload, process, kv-type, quant, context, several, ram or card.
        flags: What to type instead or as well; None: no flag does it.
        action: What to do, in words.
        cost: What is given up or has to be had, in words.
        plan: The plan with the change made; it misses nothing.
    """

    what: str
    flags: str | None
    action: str
    cost: str
    plan: Plan

    @property
    def text(self) -> str:
        """The change and its outcome in one line."""
        total = sum(d.total_bytes for d in self.plan.memory.gpus)
        total += self.plan.memory.host.total_bytes
        outcome = f"{self.plan.words}, {gib(total)}"
        if self.plan.speed is not None:
            outcome += f", about {rate(self.plan.tokens_per_second)} tokens/s"
        return f"{self.action} ({outcome}; {self.cost})"


def changes(search: Search, base: Plan) -> tuple[Change, ...]:
    """The single changes that mend ``base``, the one that gives up least first.

    Args:
        search: Whose goal and machine ``base`` misses.
        base: The plan that comes nearest; see :func:`.refusal.closest`.
    """
    tried = _Tried(search, base)
    kinds: list[Callable[[], Iterable[Change | None]]] = [tried.offload, tried.processes]
    flags: list[tuple[bool, Callable[[], Iterable[Change | None]]]] = [
        (bool(search.goal.knobs.keys() & {"kv_type_k", "kv_type_v"}), tried.cache_types),
        (search.goal.quant is not None, tried.quants),
        (search.goal.context is not None, tried.contexts),
    ]
    kinds += [kind for _, kind in sorted(flags, key=lambda pair: pair[0])]
    found = [change for kind in kinds for change in kind() if change is not None]
    if not any(change.flags for change in found):
        found += filter(None, tried.several())
    found += [c for kind in (tried.ram, tried.cards) for c in kind() if c is not None]
    return tuple(found)


class _Tried:
    """One base plan, changed here and there."""

    def __init__(self, search: Search, base: Plan) -> None:
        config = base.config
        self.search, self.base = search, base
        self.model, self.machine = search.model, search.machine
        self.fixed = search.goal
        self.goal = replace(
            search.goal,
            quant=base.quant,
            context=config.context,
            min_context=None,
            knobs={
                **search.goal.knobs,
                "kv_type_k": config.kv_type_k,
                "kv_type_v": config.kv_type_v,
            },
        )

    def offload(self) -> Iterator[Change | None]:
        """Without the layers, the split or the experts that were fixed."""
        fixed = [name for name in OFFLOAD_KNOBS if self.fixed.knobs.get(name) is not None]
        if not fixed:
            return
        plan = self._plan(_without(self.goal, *fixed))
        if plan is None:
            return
        flags, dropped = _offload_flags(plan.config), " and ".join(_FLAGS[n] for n in fixed)
        yield Change(
            what="offload",
            flags=flags,
            action=f"without {dropped}, that is {flags}",
            cost=_SAME,
            plan=plan,
        )

    def processes(self) -> Iterator[Change | None]:
        """The smallest of the largest programs on the cards whose end is enough."""
        for held in reversed(holding(self.machine)[:_PROGRAMS]):
            plan = self._plan(self.goal, without(self.machine, held))
            if plan is not None:
                action = f"close {held.name}"
                yield Change(what="process", flags=None, action=action, cost=held.words, plan=plan)
                return

    def cache_types(self) -> Iterator[Change | None]:
        """The larger one of the smaller caches that is small enough."""
        if not self.base.config.flash_attention:
            return
        now = max(
            cache_loss(self.base.config.kv_type_k)[0], cache_loss(self.base.config.kv_type_v)[0]
        )
        for kind in _SMALLER_CACHES:
            if cache_loss(kind)[0] <= now:
                continue
            knobs = {**self.goal.knobs, "kv_type_k": kind, "kv_type_v": kind}
            plan = self._plan(replace(self.goal, knobs=knobs))
            if plan is not None:
                yield self._flag("kv-type", f"--kv-type {kind}", self._more_loss(plan), plan)
                return

    def quants(self) -> Iterator[Change | None]:
        """The file type with the least loss of those that are small, or fast, enough."""
        if self.model.source != "catalog":
            return
        smaller = self._smaller_files()
        at = _first(lambda i: self._with_quant(smaller[i]) is not None, len(smaller))
        if at is not None and (plan := self._with_quant(smaller[at])) is not None:
            yield self._flag("quant", f"--quant {smaller[at]}", self._more_loss(plan), plan)

    def _smaller_files(self) -> list[str | None]:
        """Smaller file types, the largest first; none that a smaller one matches in loss."""
        search = Search(self.model, self.machine, replace(self.fixed, quant=None))
        config, kept, least = self.base.config, list[str | None](), float("inf")
        made = {quant: self._imatrix(quant) for quant in search.quants()}
        for quant in sorted(made, key=lambda q: weights_bytes(self.model, q, made[q])):
            if weights_bytes(self.model, quant, made[quant]) >= self.base.weights_bytes:
                break
            k, v = config.kv_type_k, config.kv_type_v
            loss = search.sizer.quality(quant, made[quant], k, v).loss
            if loss is not None and loss < least:
                least = loss
                kept.append(quant)
        return kept[::-1]

    def contexts(self) -> Iterator[Change | None]:
        """The longest context that is short enough."""
        least = max(_LEAST, self.fixed.min_context or 0)
        longest = self._longest(self.goal, least, self.base.config.context - 1)
        if longest is not None:
            cost = f"{longest} of {self.base.config.context} tokens"
            plan = self._plan(replace(self.goal, context=longest))
            if plan is not None:
                yield self._flag("context", f"--context {longest}", cost, plan)

    def several(self) -> Iterator[Change | None]:
        """Smallest file type and cache, no fixed offload, the longest context that then fits."""
        goal = _without(self.fixed, *OFFLOAD_KNOBS, "kv_type_k", "kv_type_v")
        free = Search(self.model, self.machine, replace(goal, quant=None, context=_LEAST))
        quants = free.quants()
        if not quants:
            return
        quant = free.smallest_file()[0]
        k, v = free.cache_types()[-1]
        goal = replace(free.goal, quant=quant, knobs={**goal.knobs, "kv_type_k": k, "kv_type_v": v})
        least = max(_LEAST, self.fixed.min_context or 0)
        longest = self._longest(goal, least, self.base.config.context)
        plan = self._plan(replace(goal, context=longest)) if longest is not None else None
        if plan is None:
            return
        flags = [f"--quant {quant}"] if quant else []
        flags += [f"--context {longest}"] + ([f"--kv-type {k}"] if k != "f16" else [])
        dropped = [_FLAGS[n] for n in OFFLOAD_KNOBS if self.fixed.knobs.get(n) is not None]
        text = " ".join(flags) + (f", without {' and '.join(dropped)}" if dropped else "")
        yield Change(
            what="several",
            flags=" ".join(flags),
            action=text,
            cost=self._more_loss(plan),
            plan=plan,
        )

    def ram(self) -> Iterator[Change | None]:
        """The least more host memory, where there is room for any."""
        host = self.machine.host
        if host.ram_total_bytes is None or any(gpu.shared for gpu in self.machine.gpus):
            return
        if self.base.fits:
            return
        at = _first(
            lambda i: self._plan(self.goal, _grown(self.machine, _RAM_STEPS[i])) is not None,
            len(_RAM_STEPS),
        )
        if at is None:
            return
        more = _RAM_STEPS[at]
        plan = self._plan(self.goal, _grown(self.machine, more))
        if plan is not None:
            limited = host.memory_limit_bytes is not None
            yield Change(
                what="ram",
                flags=None,
                action=f"a memory limit larger by {more} GiB"
                if limited
                else f"{more} GiB more RAM",
                cost=_SAME,
                plan=plan,
            )

    def cards(self) -> Iterator[Change | None]:
        """The least more of the largest card that is there."""
        own = [gpu for gpu in self.machine.gpus if not gpu.shared and gpu.total_bytes]
        if not own:
            return
        card = max(own, key=lambda gpu: gpu.total_bytes or 0)
        for more in _MORE_CARDS:
            gpus = (*self.machine.gpus, *(_new(card),) * more)
            plan = self._plan(self.goal, replace(self.machine, gpus=gpus))
            if plan is not None:
                words = f"one more {card.name}" if more == 1 else f"{more} more {card.name}"
                yield Change(what="card", flags=None, action=words, cost=_SAME, plan=plan)
                return

    def _flag(self, what: str, flags: str, cost: str, plan: Plan) -> Change:
        return Change(what=what, flags=flags, action=flags, cost=cost, plan=plan)

    def _longest(self, goal: Goal, least: int, most: int) -> int | None:
        low, high = -(-least // _STEP), most // _STEP

        def good(steps: int) -> bool:
            return self._plan(replace(goal, context=steps * _STEP)) is not None

        if high < low or not good(low):
            return None
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if good(middle) else (low, middle - 1)
        return low * _STEP

    def _with_quant(self, quant: str | None) -> Plan | None:
        return self._plan(replace(self.goal, quant=quant))

    def _imatrix(self, quant: str | None) -> bool:
        return source_of(self.model, quant, self.goal.imatrix).imatrix

    def _plan(self, goal: Goal, machine: Machine | None = None) -> Plan | None:
        """The best offload of one configuration; None where it still misses."""
        try:
            like = self.search.sizer
            sizer = Sizer(self.model, room_for(machine or self.machine, goal), goal, like)
            config = sizer.config(goal.context or _LEAST)
            plan = sizer.best(goal.quant, config, source_of(self.model, goal.quant, goal.imatrix))
        except UsageError:
            return None
        return plan if plan is not None and unmet(plan, goal) is None else None

    def _more_loss(self, plan: Plan) -> str:
        before, after = self.base.loss, plan.loss
        if before is None or after is None or plan.quality.grade is None:
            return "its loss is not known"
        return f"loss {before:.4f} to {after:.4f} nats, {plan.quality.grade}"


def _first(good: Callable[[int], bool], count: int) -> int | None:
    """The first index of a range that is good, if all behind it are; None: not even the last."""
    if count == 0 or not good(count - 1):
        return None
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle + 1, high)
    return low


def _without(goal: Goal, *names: str) -> Goal:
    return replace(goal, knobs={k: v for k, v in goal.knobs.items() if k not in names})


def _offload_flags(config: RunConfig) -> str:
    """The offload that was found, as flags."""
    flags = [f"--gpu-layers {config.gpu_layers}"]
    if config.cpu_moe_layers:
        flags.append(f"--cpu-moe-layers {config.cpu_moe_layers}")
    return " ".join(flags)


def _grown(machine: Machine, gib_more: int) -> Machine:
    """The machine with more host memory, all of it free."""
    host, more = machine.host, gib_more * GIB

    def plus(n: int | None) -> int | None:
        return None if n is None else n + more

    return replace(
        machine,
        host=replace(
            host,
            ram_total_bytes=plus(host.ram_total_bytes),
            ram_available_bytes=plus(host.ram_available_bytes),
            memory_limit_bytes=plus(host.memory_limit_bytes),
        ),
    )


def _new(gpu: Gpu) -> Gpu:
    """Another one of a card, with nothing on it."""
    free = None if gpu.free_bytes is None else gpu.total_bytes
    return replace(gpu, free_bytes=free, holders=(), display=False if free else gpu.display)
