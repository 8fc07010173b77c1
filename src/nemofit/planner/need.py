"""The reverse question: the least hardware that runs a model with a context and at a speed.

Every card of the table is tried alone, by twos, fours and eights, every unified part with the
sizes of memory that it is sold with, and a few usual hosts without a card. On cards everything
lies in their memory: the host beside them only has to be large enough. Each answer is a plan of
the very machine that its description names, worked out by the same code as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from nemofit.catalog.cards import Card, all_cards
from nemofit.catalog.filetypes import weights_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.prices import Prices
from nemofit.engines.llama_cpp.kv_cache import layer_bytes
from nemofit.errors import DoesNotFitError, UsageError
from nemofit.machine.parse import assembled, parse_machine
from nemofit.machine.records import Machine
from nemofit.units import GIB, gib

from .bounds import bound
from .energy import kwh_per_million
from .goal import LEAST_CONTEXT, OFFLOAD_KNOBS, Goal
from .limits import check_quality
from .records import Plan, Room, room_for
from .search import Search
from .sizing import Sizer
from .sources import Source, source_of

COUNTS = (1, 2, 4, 8)
"""How many of one card are tried; no more than 16 devices are known to llama.cpp."""
USUAL_QUALITY = "slight"
"""The heaviest loss of a file type that is chosen here, unless the person limits it."""
RAM_SIZES = tuple(n * GIB for n in (8, 16, 32, 64, 128, 256, 512, 1024))
"""Memory beside cards."""
HOSTS = (
    ("DDR4-3200 x2, 8 cores", (16, 32, 64, 128)),
    ("DDR5-5600 x2, 8 cores", (32, 64, 96, 128, 192)),
    ("DDR5-5200 x4, 24 cores", (64, 128, 256)),
    ("DDR4-3200 x8, 32 cores", (128, 256, 512, 1024)),
    ("DDR5-4800 x12, 64 cores", (192, 384, 768, 1152)),
)
"""Hosts without a card: two, four, eight and twelve channels at JEDEC's speeds, as desktops,
workstations and servers have them, and sizes in GiB that modules make."""
SORTS = ("memory", "power", "price", "speed")
_ALL = (1 << 16) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Something that does it, and how.

    Attributes:
        kind: "cards", "unified" or "cpu".
        name: Card, chip or kind of memory.
        count: How many of it.
        machine: The whole; its ``source`` is a description that ``--machine`` takes.
        memory_bytes: What is bought: of all cards, of the unified part, or of the host.
        power_w: Of all cards at their limits, None: not known.
        price: By the person's list, None: not in it.
    """

    kind: str
    name: str
    count: int
    machine: Machine
    plan: Plan
    memory_bytes: int
    power_w: float | None
    price: float | None

    @property
    def kwh_per_million(self) -> float | None:
        """Kilowatt-hours for a million generated tokens; see :mod:`.energy`."""
        return kwh_per_million(self.power_w, self.plan.tokens_per_second)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The answer.

    Attributes:
        hardware: The least of each card or host that does it.
        quant: The file type that was looked at; None: as in the file.
        considered: Cards and hosts that were looked at.
    """

    hardware: list[Hardware]
    quant: str | None
    context: int
    considered: int


def need(model: ModelSpec, goal: Goal, prices: Prices | None = None, sort: str = "memory") -> Need:
    """Find the least hardware for a model.

    Args:
        goal: Context (None: 8192 tokens or the trained length), least speed, file type (None: the
            smallest whose loss is within ``quality``, "slight" unless said) and knobs.
        prices: The person's price list.
        sort: memory, power, price or speed: what comes first; the others break ties.

    Raises:
        DoesNotFitError: Nothing in the table does it; says what comes nearest.
        UsageError: The goal fixes an offload, or its limits contradict each other.
    """
    if sort not in SORTS:
        raise UsageError(f"hardware cannot be sorted by {sort!r:.40}", "by " + ", ".join(SORTS))
    if fixed := [name for name in OFFLOAD_KNOBS if goal.knobs.get(name) is not None]:
        raise UsageError(
            f"{fixed[0]} is fixed, but the cards that are looked for hold everything",
            "leave the offload open; 'nemofit plan --machine ...' shows one machine's offload",
        )
    bench = _Bench(model, goal, prices or Prices())
    fitting = list(bench.all())
    found = [h for h in fitting if h.plan.tokens_per_second >= bench.least]
    if not found:
        raise bench.too_slow(fitting) if fitting else bench.too_large()
    return Need(
        hardware=arranged(found, sort),
        quant=bench.quant,
        context=bench.context,
        considered=bench.considered,
    )


def arranged(hardware: Iterable[Hardware], sort: str) -> list[Hardware]:
    """Least first; what is not known comes last."""
    order = [sort, *(key for key in ("memory", "power", "price", "speed") if key != sort)]

    def rank(h: Hardware) -> tuple[float, ...]:
        values = {
            "memory": h.memory_bytes,
            "power": h.power_w,
            "price": h.price,
            "speed": -h.plan.tokens_per_second,
        }
        return tuple(float("inf") if (v := values[key]) is None else v for key in order)

    return sorted(hardware, key=rank)


class _Bench:
    """One model, one file type and one set of knobs, held against hardware."""

    def __init__(self, model: ModelSpec, goal: Goal, prices: Prices) -> None:
        trained = model.integer("context_length") or LEAST_CONTEXT
        self.context = goal.context or max(min(LEAST_CONTEXT, trained), goal.min_context or 0)
        knobs = {"kv_type_k": "f16", "kv_type_v": "f16", **goal.knobs}
        self.model, self.prices = model, prices
        goal = replace(goal, context=self.context, knobs=knobs)
        check_quality(Search(model, Machine(), goal))
        self.quant = goal.quant if goal.quant or not model.is_shape else usual_quant(model, goal)
        self.open = replace(goal, quant=self.quant, min_tokens_per_second=None)
        on_cards = {**knobs, "gpu_layers": _ALL, "cpu_moe_layers": 0}
        self.whole = replace(self.open, knobs=on_cards)
        self.source: Source = source_of(model, self.quant, goal.imatrix)
        self.considered = 0
        self.least = goal.min_tokens_per_second or 0.0
        self.largest: Sizer | None = None
        self._likes: dict[str, Sizer] = {}
        self._cache: Sequence[int] | None = None

    def all(self) -> Iterator[Hardware]:
        """The least of everything that holds the model."""
        for card in all_cards().values():
            sizes = card.memory_sizes or ((card.memory_bytes,) if card.memory_bytes else ())
            if card.shared:
                tries = (self._unified(card, size) for size in sorted(sizes))
            else:
                counts = COUNTS if card.kind == "discrete" else COUNTS[:1]
                tries = (self._cards(card, count) for count in counts)
            yield from self._first(tries)
        for text, gib_sizes in HOSTS:
            yield from self._first(self._host(text, size) for size in gib_sizes)

    def _first(self, tries: Iterator[Hardware | None]) -> Iterator[Hardware]:
        self.considered += 1
        found = next((hardware for hardware in tries if hardware is not None), None)
        if found is not None:
            yield found

    def _cards(self, card: Card, count: int) -> Hardware | None:
        plan = self._plan(assembled(card, count, RAM_SIZES[-1]), self.whole)
        if plan is None:
            return None
        for size in RAM_SIZES:
            machine = assembled(card, count, size)
            placed = replace(plan, room=room_for(machine, self.whole))
            if placed.fits:
                memory = count * (card.memory_bytes or 0)
                return self._hardware("cards", card, count, placed, machine, memory)
        return None

    def _unified(self, card: Card, size: int) -> Hardware | None:
        machine = assembled(card, 1, size)
        plan = self._plan(machine, self.whole)
        return self._hardware("unified", card, 1, plan, machine, size) if plan else None

    def _hardware(
        self, kind: str, card: Card, count: int, plan: Plan, machine: Machine, memory: int
    ) -> Hardware:
        return Hardware(
            kind=kind,
            name=card.name,
            count=count,
            machine=machine,
            plan=plan,
            memory_bytes=memory,
            power_w=None if card.power_w is None else count * card.power_w,
            price=self.prices.of(card, count, memory),
        )

    def _host(self, text: str, size: int) -> Hardware | None:
        machine = parse_machine(f"{size} GiB {text}")
        plan = self._plan(machine, self.open)
        if plan is None:
            return None
        return Hardware(
            kind="cpu",
            name=text,
            count=1,
            machine=machine,
            plan=plan,
            memory_bytes=size * GIB,
            power_w=None,
            price=None,
        )

    def _plan(self, machine: Machine, goal: Goal) -> Plan | None:
        """The plan with everything on the cards, or on the host without any; None: too large."""
        sizer = self._sizer(room_for(machine, goal), goal)
        if self.largest is None or sizer.room.total > self.largest.room.total:
            self.largest = sizer
        if not self._may_fit(sizer):
            return None
        config = sizer.config(self.context, *self._kv())
        if machine.gpus:
            return sizer.whole(self.quant, config, self.source)
        return sizer.best(self.quant, config, self.source)

    def _sizer(self, room: Room, goal: Goal) -> Sizer:
        backend = room.machine.gpus[0].backend if room.machine.gpus else "cpu"
        made = Sizer(self.model, room, goal, self._likes.get(backend))
        self._likes.setdefault(backend, made)
        return made

    def _may_fit(self, sizer: Sizer) -> bool:
        """Whether weights and cache alone fit, which is quickly told."""
        if not sizer.room.machine.gpus:
            return True
        config = sizer.config(self.context, *self._kv())
        if self._cache is None:
            self._cache = tuple(accumulate(layer_bytes(self.model, config), initial=0))
        estimator = sizer.estimator(self.quant, self.source.imatrix)
        return bound(estimator, config, sizer.room, self._cache, move_experts=False) is not None

    def _kv(self) -> tuple[str, str]:
        return self.open.knobs["kv_type_k"], self.open.knobs["kv_type_v"]

    def too_large(self) -> DoesNotFitError:
        """What is needed, and what the largest hardware offers."""
        assert self.largest is not None
        sizer = self.largest
        config = sizer.config(self.context, *self._kv())
        memory = sizer.plan(self.quant, config, self.source).memory
        total = sum(d.total_bytes for d in memory.gpus) + memory.host.total_bytes
        machine = sizer.room.machine.source
        return DoesNotFitError(
            f"nothing of {self.considered} kinds of hardware holds {self._what()}: it needs "
            f"{gib(total)}, and the largest, {machine}, offers {gib(sizer.room.total)}",
            "a smaller --quant, a shorter --context, or --kv-type q8_0",
        )

    def too_slow(self, fitting: Sequence[Hardware]) -> DoesNotFitError:
        """What is fastest of all that holds the model."""
        best = max(fitting, key=lambda h: h.plan.tokens_per_second)
        reached = best.plan.tokens_per_second
        return DoesNotFitError(
            f"nothing of {self.considered} kinds of hardware runs {self._what()} at "
            f"{self.least:g} tokens per second; the nearest, {best.machine.source}, makes "
            f"{reached:.3g}",
            f"--min-tps {int(reached * 10) / 10:g}, a smaller --quant, or a smaller model",
        )

    def _what(self) -> str:
        quant = self.quant or self.model.file_type
        return " ".join(filter(None, (self.model.id, quant, f"at {self.context} tokens")))


def usual_quant(model: ModelSpec, goal: Goal) -> str | None:
    """The smallest file type whose loss is within the goal's limit, or "slight" without one.

    Raises:
        DoesNotFitError: None is.
    """
    asked = replace(goal, quality=goal.quality or USUAL_QUALITY)
    search = Search(model, Machine(), replace(asked, min_tokens_per_second=None))
    kv = asked.knobs.get("kv_type_k", "f16"), asked.knobs.get("kv_type_v", "f16")
    sizes = {}
    for quant in search.quants():
        imatrix = source_of(model, quant, goal.imatrix).imatrix
        if asked.allows(search.sizer.quality(quant, imatrix, *kv).loss):
            sizes[quant] = weights_bytes(model, quant, imatrix)
    if not sizes:
        raise DoesNotFitError(
            f"no file type of {model.id} with a {kv[0]} cache has a loss that is {asked.quality}",
            "name one with --quant, or allow more loss with --quality noticeable",
        )
    return min(sizes, key=lambda quant: sizes[quant])
