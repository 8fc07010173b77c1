"""One model on one machine: any configuration sized, timed and judged."""

from __future__ import annotations

from collections.abc import Callable
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
from nemofit.speed.estimate import figures_of, speed_of
from nemofit.speed.work import Work, work_of

from .bounds import Bound, bound
from .defaults import check_offload, config_of, notes_of, settled
from .goal import Goal
from .quality import Quality, expected
from .records import Plan, Room
from .score import score
from .sources import Source
from .timing import UnitWork

_BELOW = 4
"""Steps beyond an estimate that are worked out before the whole range is searched."""


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
        return expected(file_type, imatrix, self.model.parameters, k, v)

    def bound(self, quant: str | None, config: RunConfig, source: Source) -> Speed | None:
        """The speed that this configuration cannot exceed; None where it cannot fit."""
        found = self._bound(quant, config, source)
        if found is None:
            return None
        works = self._unit_work(quant, config, source.imatrix).placed(
            found.units, found.cpu_moe_layers
        )
        return self._timed(works, config, self.room)

    def best(self, quant: str | None, config: RunConfig, source: Source) -> Plan | None:
        """The plan with the best offload of one configuration; None where none fits.

        Without room for anything on the GPUs, the host alone is tried.
        """
        if self.room.machine.gpus:
            offloaded = self._offload(quant, config, source)
            if offloaded is not None:
                plan = self.plan(quant, offloaded, source)
                if plan.fits:
                    return plan
            if self.goal.offload_is_fixed:
                return None
        plan = self.plan(quant, config, source, self.room.without_gpus())
        return plan if plan.fits else None

    def whole(self, quant: str | None, config: RunConfig, source: Source) -> Plan | None:
        """The plan with everything on the GPUs; None where that does not fit."""
        offloaded = self._solver(quant, config, source).whole()
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
        plan = Plan(
            model=self.model,
            quant=quant,
            imatrix=source.imatrix,
            config=config,
            memory=room.named(memory),
            room=room,
            weights_bytes=weights_bytes(self.model, quant, source.imatrix),
            speed=self._timed(self._works_of(quant, config, source, room), config, room),
            quality=self.quality(quant, source.imatrix, config.kv_type_k, config.kv_type_v),
            weights=source.weights,
            ollama_tag=source.ollama_tag,
            notes=notes_of(self.model, config, source),
        )
        return replace(plan, score=score(plan, self.goal.prefer))

    def _bound(
        self, quant: str | None, config: RunConfig, source: Source, spare: int = 0
    ) -> Bound | None:
        key = config.context, config.kv_type_k, config.kv_type_v
        if key not in self._caches:
            self._caches[key] = tuple(accumulate(layer_bytes(self.model, config), initial=0))
        return bound(
            self.estimator(quant, source.imatrix),
            config,
            self.room,
            self._caches[key],
            spare=spare,
            move_experts=self.goal.knobs.get("cpu_moe_layers") != 0,
        )

    def _offload(self, quant: str | None, config: RunConfig, source: Source) -> RunConfig | None:
        """The configuration with the most on the GPUs that fits; what is fixed stays."""
        if not config.override_tensors:
            if len(self.room.machine.gpus) == 1:
                return self._on_one_gpu(quant, config, source)
            if config.gpu_layers is None and self.goal.knobs.get("cpu_moe_layers") is None:
                return self._on_several_gpus(quant, config, source)
        found = self._solve(quant, config, source)
        if found is None or self.goal.knobs.get("cpu_moe_layers") != 0 or not found.cpu_moe_layers:
            return found
        best, low, high = None, 0, self.model.integer("block_count") + 1
        while low <= high and config.gpu_layers is None:
            middle = (low + high) // 2
            found = self._solve(quant, config.replace(gpu_layers=middle), source)
            if found is not None and not found.cpu_moe_layers:
                best, low = found, middle + 1
            else:
                high = middle - 1
        return best

    def _solve(self, quant: str | None, config: RunConfig, source: Source) -> RunConfig | None:
        return self._solver(quant, config, source).solve()

    def _solver(self, quant: str | None, config: RunConfig, source: Source) -> Solver:
        return Solver(
            self.estimator(quant, source.imatrix),
            config,
            self.room.budgets.gpus,
            self.room.budgets.host,
            tuple(gpu.architecture for gpu in self.room.machine.gpus),
        )

    def _on_one_gpu(self, quant: str | None, config: RunConfig, source: Source) -> RunConfig | None:
        """The same in two or three replays: what a placement needs beside weights and cache, its
        buffers and the driver's share, hardly differs from that of its neighbours."""
        estimator = self.estimator(quant, source.imatrix)
        best: RunConfig | None = None
        spare, tried = 0, set[tuple[int, int]]()
        while (found := self._bound(quant, config, source, spare)) is not None:
            key = found.gpu_layers, found.cpu_moe_layers
            if key in tried:
                break
            tried.add(key)
            trial = config.replace(gpu_layers=key[0], cpu_moe_layers=key[1])
            memory = estimator.memory(
                trial, 1, generations=[self.room.machine.gpus[0].architecture]
            )
            used, beside = memory.gpus[0].total_bytes, memory.host.total_bytes
            if self.room.budgets.fits([used], beside):
                best = trial
            elif best is not None or used <= self.room.budgets.gpus[0]:
                break
            spare = used - found.gpu_bytes
        return best

    def _on_several_gpus(
        self, quant: str | None, config: RunConfig, source: Source
    ) -> RunConfig | None:
        """The same on several: about how much fits in all of them together, then those around it.

        Step 0 has everything on the GPUs; each further step moves one block's experts to the host,
        and when there are none left, one block.
        """
        blocks = self.model.integer("block_count")
        experts = blocks if self.model.integer("expert_count") else 0

        def at(step: int) -> RunConfig:
            layers = blocks + 1 - max(step - experts, 0)
            return config.replace(gpu_layers=layers, cpu_moe_layers=min(step, experts))

        def solve(step: int) -> RunConfig | None:
            return self._solve(quant, at(step), source)

        about = self._about(quant, config, source, at, experts)
        if about is None:
            return None
        step = max(about - 1, 0)
        solved = solve(step)
        while solved is not None and step > 0 and solved.cpu_moe_layers == min(step, experts):
            step -= 1
            larger = solve(step)
            if larger is None:
                return solved
            solved = larger
        for further in range(step + 1, min(step + _BELOW, blocks + 1 + experts) + 1):
            solved = solved or solve(further)
        return solved or self._solve(quant, config, source)

    def _about(
        self,
        quant: str | None,
        config: RunConfig,
        source: Source,
        at: Callable[[int], RunConfig],
        experts: int,
    ) -> int | None:
        """The step that a bound finds, once without and once with what else a placement needs."""
        rough = self._bound(quant, config, source)
        if rough is None:
            return None
        room, blocks = self.room, self.model.integer("block_count")

        def step_of(found: Bound) -> int:
            return blocks + 1 - found.gpu_layers + found.cpu_moe_layers

        memory = self.estimator(quant, source.imatrix).memory(
            at(step_of(rough)),
            len(room.machine.gpus),
            budgets=room.budgets.gpus,
            generations=[gpu.architecture for gpu in room.machine.gpus],
        )
        spare = sum(gpu.total_bytes for gpu in memory.gpus) - rough.gpu_bytes
        found = self._bound(quant, config, source, spare)
        return blocks + 1 + experts if found is None else step_of(found)

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
        return speed_of(works, figures_of(room.machine, config), model=self.model, config=config)
