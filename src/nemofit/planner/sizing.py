"""One model on one machine: any configuration sized, timed and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from nemofit.catalog.filetypes import weights_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp import Estimator
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.kv_cache import layer_bytes
from nemofit.engines.llama_cpp.offload import Solver
from nemofit.engines.llama_cpp.placement import gpu_layers, place, place_units
from nemofit.speed import Speed
from nemofit.speed.estimate import decode_at, figures_of, speed_of
from nemofit.speed.work import Work, work_of

from .bounds import Bound, bound
from .cards import choices
from .defaults import check_offload, config_of, full_depth, notes_of, settled
from .goal import Goal
from .quality import Quality, expected
from .records import Plan, Room
from .score import SAME_SPEED, score
from .sources import Source, native_type
from .timing import UnitWork


class Sizer:
    """Sizes and times configurations; weights, works and figures are made once and kept.

    Args:
        like: Another one of the same model, whose weights and works are used too.

    Raises:
        UsageError: The goal fixes an offload that this machine cannot have.
    """

    def __init__(self, model: ModelSpec, room: Room, goal: Goal, like: Sizer | None = None) -> None:
        self.model = model
        self.room = room
        self.goal = goal
        self._estimators: dict[tuple[str | None, bool], Estimator] = {}
        self._works: dict[object, UnitWork] = {}
        self._weight_works: dict[object, UnitWork] = {}
        self._cache_works: dict[object, UnitWork] = {}
        self._caches: dict[object, tuple[int, ...]] = {}
        if like is not None:
            self._estimators, self._caches = like._estimators, like._caches
            self._works = like._works
            self._weight_works, self._cache_works = like._weight_works, like._cache_works
        check_offload(room, goal)
        self._choices = choices(room, goal)

    def estimator(self, quant: str | None, imatrix: bool) -> Estimator:
        """The sizes of one file type."""
        key = quant, imatrix
        if key not in self._estimators:
            self._estimators[key] = Estimator(self.model, quant, imatrix)
        return self._estimators[key]

    def config(self, context: int, k: str = "f16", v: str = "f16") -> RunConfig:
        """The engine's defaults on this machine with what the person fixed on top."""
        return config_of(self.room, self.goal, context, k, v)

    def quality(self, quant: str | None, imatrix: bool, k: str, v: str) -> Quality:
        """The expected loss of a file type and cache types."""
        file_type = quant or self.model.file_type
        native = native_type(self.model)
        return expected(file_type, imatrix, self.model.parameters, k, v, native=native)

    def bound(self, quant: str | None, config: RunConfig, source: Source) -> Speed | None:
        """The speed that this configuration cannot exceed; None where it cannot fit."""
        found = self._bound(quant, config, source)
        if found is None:
            return None
        works = self._unit_work(quant, config, source.imatrix).placed(
            found.units, found.cpu_moe_layers
        )
        return self._timed(works, config, self.room)

    def promise(self, quant: str | None, config: RunConfig, source: Source) -> float:
        """Tokens per second that :meth:`best` will hardly exceed, without replaying a graph; 0
        where nothing will fit."""
        for room, hoped in self._offloads(quant, config, source, Solver.hoped_at, Solver.hoped):
            works = self._works_of(quant, hoped, source, room)
            return self._timed(works, settled(self.model, hoped, room), room).decode.likely
        return 0.0

    def best(self, quant: str | None, config: RunConfig, source: Source) -> Plan | None:
        """The plan with the best offload of one configuration; None where none fits.

        Where fewer cards than there are hold all that is to be offloaded, the others are left out:
        cards work one after another, so that one more only adds a hop. Without room for anything
        on the GPUs, the host alone is tried.
        """
        for room, found in self._offloads(quant, config, source, Solver.placed, Solver.solve):
            plan = self.plan(quant, found, source, room)
            if plan.fits:
                return plan
        return None

    def _offloads(
        self,
        quant: str | None,
        config: RunConfig,
        source: Source,
        whole: Callable[[Solver], RunConfig | None],
        most: Callable[[Solver], RunConfig | None],
    ) -> Iterator[tuple[Room, RunConfig]]:
        """What to run where, the best first: on few cards, on all, on none.

        Args:
            whole: Finds the placement with all that is to be offloaded on the GPUs.
            most: Finds the one with the most on them.
        """
        if self.room.machine.gpus:
            found = self._on_few_cards(quant, config, source, whole)
            if found is None:
                found = most(self._solver(quant, config, source))
            if found is not None:
                yield self.room, found
            if self.goal.offload_is_fixed:
                return
        yield self.room.without_gpus(), config

    def whole(self, quant: str | None, config: RunConfig, source: Source) -> Plan | None:
        """The plan with everything on the GPUs; None where that does not fit."""
        offloaded = self._solver(quant, config, source).placed()
        plan = self.plan(quant, offloaded, source) if offloaded is not None else None
        return plan if plan is not None and plan.fits else None

    def plan(
        self, quant: str | None, config: RunConfig, source: Source, room: Room | None = None
    ) -> Plan:
        """Size, time and judge one configuration, whether it fits or not."""
        room = room or self.room
        gpus = room.machine.gpus
        config = settled(self.model, config, room)
        memory = self.estimator(quant, source.imatrix).memory(
            config,
            len(gpus),
            budgets=room.budgets.gpus,
            generations=[gpu.architecture for gpu in gpus],
        )
        works = self._works_of(quant, config, source, room)
        speed, figures = self._timed(works, config, room), figures_of(room.machine, config)
        plan = Plan(
            model=self.model,
            quant=quant,
            imatrix=source.imatrix,
            config=config,
            memory=room.named(memory),
            room=room,
            weights_bytes=weights_bytes(self.model, quant, source.imatrix),
            speed=speed,
            speed_full=decode_at(full_depth(config), speed, works, figures, self.model),
            quality=self.quality(quant, source.imatrix, config.kv_type_k, config.kv_type_v),
            weights=source.weights,
            ollama_tag=source.ollama_tag,
            notes=notes_of(self.model, config, source),
            engine=self.goal.engine,
        )
        return replace(plan, score=score(plan, self.goal.prefer))

    def _bound(self, quant: str | None, config: RunConfig, source: Source) -> Bound | None:
        key = config.context, config.kv_type_k, config.kv_type_v
        if key not in self._caches:
            self._caches[key] = tuple(accumulate(layer_bytes(self.model, config), initial=0))
        return bound(
            self.estimator(quant, source.imatrix),
            config,
            self.room,
            self._caches[key],
            move_experts=self.goal.knobs.get("cpu_moe_layers") != 0,
        )

    def _on_few_cards(
        self,
        quant: str | None,
        config: RunConfig,
        source: Source,
        whole: Callable[[Solver], RunConfig | None],
    ) -> RunConfig | None:
        """The fewest cards that hold all that is to be offloaded; None: all are needed.

        More cards are taken only where they are faster ones.
        """
        best, speed = None, 0.0
        for cards in self._choices if not config.override_tensors else ():
            if best is not None and not cards.fastest:
                continue
            found = whole(self._solver(quant, config, source, cards.numbers))
            if found is None:
                continue
            found = self._spread(found, cards.numbers)
            works = self._works_of(quant, found, source, self.room)
            likely = self._timed(works, found, self.room).decode.likely
            if best is None or likely * SAME_SPEED > speed:
                best, speed = found, likely
            if cards.fastest:
                break
        return best

    def _spread(self, config: RunConfig, cards: Sequence[int]) -> RunConfig:
        """A configuration for some cards as one for the machine."""
        parts = dict(zip(cards, config.tensor_split or (), strict=False))
        split = tuple(parts.get(d, 0) for d in range(len(self.room.machine.gpus)))
        return config.replace(devices=tuple(cards), tensor_split=split)

    def _solver(
        self,
        quant: str | None,
        config: RunConfig,
        source: Source,
        cards: Sequence[int] | None = None,
    ) -> Solver:
        gpus, offers = self.room.machine.gpus, self.room.budgets
        if cards is None:
            cards = range(len(gpus))
        else:
            config = config.replace(backend=gpus[cards[0]].backend)
        return Solver(
            self.estimator(quant, source.imatrix),
            config,
            [offers.gpus[d] for d in cards],
            offers.host,
            tuple(gpus[d].architecture for d in cards),
            shared=[offers.shared[d] for d in cards],
            speeds=[gpus[d].bandwidth_gb_s or 0.0 for d in cards],
            move_experts=self.goal.knobs.get("cpu_moe_layers") != 0,
        )

    def _works_of(
        self, quant: str | None, config: RunConfig, source: Source, room: Room
    ) -> tuple[Work, ...]:
        split = config.tensor_split or (1.0,) * len(room.machine.gpus)
        if config.override_tensors:
            placed = place(self.model, config, split)
            types = self.estimator(quant, source.imatrix).types
            return work_of(self.model, types, placed.device_of, placed.units, config)
        blocks = self.model.integer("block_count")
        units = place_units(blocks, gpu_layers(self.model, config), split)
        works = self._unit_work(quant, config, source.imatrix)
        return works.placed(units, config.cpu_moe_layers)

    def _unit_work(self, quant: str | None, config: RunConfig, imatrix: bool) -> UnitWork:
        """Weights and cache do not depend on each other, so each is added up once."""
        cache = config.kv_type_k, config.kv_type_v, config.kv_offload
        key = quant, imatrix, cache
        if key not in self._works:
            types = self.estimator(quant, imatrix).types
            made = self._weight_works.get((quant, imatrix))
            if made is None:
                made = self._weight_works[quant, imatrix] = UnitWork(self.model, types, config)
            if cache not in self._cache_works:
                self._cache_works[cache] = UnitWork(self.model, types, config)
            self._works[key] = made.with_cache_of(self._cache_works[cache])
        return self._works[key]

    def _timed(self, works: tuple[Work, ...], config: RunConfig, room: Room) -> Speed:
        figures = figures_of(room.machine, config)
        return speed_of(works, figures, model=self.model, config=config, machine=room.machine)
