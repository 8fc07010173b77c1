"""Every model of the catalog on one machine: the best plan of each, and their order.

Models are ordered by the score of their plan times an ability ``P / (P + 10^10)``, where P is the
number of parameters, of a mixture of experts the geometric mean of all and the active ones. Size
stands in for ability: published scores are measured too differently to be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import sqrt

from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import all_models
from nemofit.catalog.quality import size_class
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import DoesNotFitError
from nemofit.machine.records import Machine
from nemofit.speed.decode import step
from nemofit.speed.estimate import decode_at, figures_of, speed_of
from nemofit.speed.work import HOST
from nemofit.units import gib, rate

from .defaults import check_offload, config_of, full_depth, notes_of, settled
from .footprints import LADDER, Footprint, footprints, outline
from .goal import LEAST_CONTEXT, Goal
from .quality import Quality, expected
from .ranking import Ranking
from .records import Plan, room_for
from .score import merit
from .sources import source_of

HALF_ABILITY = 10**10
"""Parameters at which a model's ability counts as one half."""
_CLOSE = 0.97
"""A guess that promises no more than this is not worked out."""
_ON_GPUS = ("gpu_layers", "tensor_split", "cpu_moe_layers", "override_tensors", "kv_offload")


def rank_catalog(
    machine: Machine, goal: Goal, *, prepare: Callable[[str], None] | None = None
) -> Ranking:
    """The best plan of every model that fits a machine, best model first.

    Args:
        machine: Probed or described.
        goal: Applied to every model; the context is the fixed one or 8192 tokens, shortened to a
            model's trained length, the cache f16 unless fixed.
        prepare: Told when figures have to be worked out first, which takes seconds.

    Raises:
        DoesNotFitError: No model of the catalog fits, or none is fast enough.
        UsageError: The goal makes no sense for this machine.
    """
    across = _Across(machine, goal, prepare)
    plans = [plan for id in across.known if (plan := across.best(id)) is not None]
    if not plans:
        raise _limited(across, machine, goal) or across.refusal()
    plans.sort(key=lambda plan: plan.score, reverse=True)
    return Ranking(
        plans=plans,
        considered=across.considered,
        reason=across.reason(plans),
        models=len(across.known),
    )


def _limited(across: _Across, machine: Machine, goal: Goal) -> DoesNotFitError | None:
    """The error where models would fit without one of the limits: which, and the nearest to it."""
    from .limits import limits_of

    said, instead = [], []
    for limit in limits_of(goal):
        try:
            found = rank_catalog(machine, replace(limit.without, prefer=limit.prefer))
        except DoesNotFitError:
            continue
        said.append(limit.said)
        instead.append(limit.instead(found.plans))
    if not said:
        return None
    return DoesNotFitError(
        f"none of {len(across.known)} models meets {' and '.join(said)} on this machine",
        ", or ".join(instead),
    )


def ability(parameters: int, active: int) -> float:
    """How much a model's size counts, between 0 and 1."""
    size = sqrt(parameters * active)
    return size / (size + HALF_ABILITY)


@dataclass(frozen=True, slots=True)
class _Guess:
    """A file type of a model, about what it will score, and whether one device holds it all."""

    quant: str
    imatrix: bool
    score: float
    whole: bool


class _Across:
    """The catalog as one machine sees it."""

    def __init__(self, machine: Machine, goal: Goal, prepare: Callable[[str], None] | None) -> None:
        knobs = {"kv_type_k": "f16", "kv_type_v": "f16", **goal.knobs}
        context = goal.context or max(LEAST_CONTEXT, goal.min_context or 0)
        self.goal = replace(goal, context=context, knobs=knobs)
        self.room = room_for(machine, goal)
        self.cards = {card.id: card for card in all_models()}
        self.considered = 0
        check_offload(self.room, goal)
        self.config = config_of(self.room, self.goal, context)
        plain = {k: v for k, v in knobs.items() if k not in _ON_GPUS}
        self.known = footprints(
            config_of(self.room, replace(self.goal, knobs=plain), context).replace(
                tensor_split=None
            ),
            (goal.quant,) if goal.quant else LADDER,
            goal.imatrix,
            prepare=prepare,
        )
        self._configs: dict[tuple[int, int], RunConfig] = {}
        self._losses: dict[tuple[str, bool, int, str | None], Quality] = {}
        self.figures = figures_of(self.room.machine, self.config)
        gpus = self.room.machine.gpus
        self.one_device = len(gpus) <= 1 and not any(name in goal.knobs for name in _ON_GPUS)
        self.fastest = max(
            range(len(gpus)), key=lambda i: gpus[i].bandwidth_gb_s or 0.0, default=HOST
        )

    def best(self, id: str) -> Plan | None:
        """The best plan of one model; None where none fits or is fast enough."""
        found = self.known[id]
        model = outline(self.cards[id], found)
        least = self.goal.min_tokens_per_second or 0.0
        best: Plan | None = None
        if found.context < (self.goal.min_context or 0):
            return None
        for guess in sorted(self._guesses(model, found), key=lambda g: g.score, reverse=True):
            if best is not None and best.score >= guess.score * _CLOSE:
                break
            plan = self._plan(model, found, guess)
            if plan is None or plan.tokens_per_second < least:
                continue
            if best is None or plan.score > best.score:
                best = plan
        if best is None:
            return None
        return replace(best, score=best.score * ability(found.parameters, found.active))

    def refusal(self) -> DoesNotFitError:
        """Why no model is left."""
        least = min(
            file.device_bytes + file.host_bytes + found.kv_bytes + found.compute_bytes
            for found in self.known.values()
            for file in found.files.values()
        )
        return DoesNotFitError(
            f"none of {len(self.known)} models fits: the smallest needs {gib(least)}, "
            f"and this machine offers {gib(self.room.total)} ({self.room.text})",
            "a shorter --context, or --assume-idle",
        )

    def reason(self, plans: list[Plan]) -> str:
        """What leads, and how many fit."""
        best = plans[0]
        return (
            f"{self.cards[best.model.id].name} as {best.quant} leads with about "
            f"{rate(best.tokens_per_second)} tokens per second; {len(plans)} of {len(self.known)} "
            "models that generate text fit."
        )

    def _guesses(self, model: ModelSpec, found: Footprint) -> Iterator[_Guess]:
        """What each file type would score, from the speed of the first one and its bytes."""
        share = _share(model)
        reference = next(iter(found.files))
        on_gpu = self._seconds(model, found, reference, self.fastest)
        on_host = self._seconds(model, found, reference, HOST) if self.fastest != HOST else on_gpu
        whole = found.read_bytes(reference, share)
        for quant, file in found.files.items():
            self.considered += 1
            is_whole = self.one_device and self._fits_whole(model, found, quant)
            part = 1.0 if is_whole else self._part(found, quant)
            if part is None:
                continue
            relative = found.read_bytes(quant, share) / whole
            seconds = relative * (part * on_gpu + (1 - part) * on_host)
            loss = self._quality(model, quant, file.imatrix).loss
            if not self.goal.allows(loss):
                continue
            guessed = merit(loss, 1 / seconds, found.context, self.goal.prefer)
            yield _Guess(quant, file.imatrix, guessed, is_whole)

    def _quality(self, model: ModelSpec, quant: str, imatrix: bool) -> Quality:
        native = self.cards[model.id].native
        key = quant, imatrix, size_class(model.parameters), native
        if key not in self._losses:
            k, v = self.config.kv_type_k, self.config.kv_type_v
            self._losses[key] = expected(quant, imatrix, model.parameters, k, v, native=native)
        return self._losses[key]

    def _seconds(self, model: ModelSpec, found: Footprint, quant: str, device: int) -> float:
        parts = step(
            (found.works(quant, device),),
            self.figures,
            used=model.integer("expert_used_count"),
            experts=model.integer("expert_count"),
        )
        return sum(part.seconds for part in parts)

    def _fits_whole(self, model: ModelSpec, found: Footprint, quant: str) -> bool:
        """Whether everything fits on the one device there is."""
        device = found.files[quant].device_bytes + found.kv_bytes + found.compute_bytes
        if not self.room.machine.gpus:
            return self.room.budgets.fits((), device)
        beside = found.files[quant].host_bytes + found.host_compute_bytes
        return self.room.budgets.fits((device + self._overhead(model),), beside)

    def _overhead(self, model: ModelSpec) -> int:
        from nemofit.engines.llama_cpp.overhead import overhead_bytes

        return overhead_bytes(model, self.config, self.room.machine.gpus[0].architecture)

    def _whole(self, model: ModelSpec, found: Footprint, quant: str) -> Memory:
        """Everything on the one device there is."""
        file, gpus = found.files[quant], self.room.machine.gpus
        device = DeviceMemory(
            name=gpus[0].name if gpus else "RAM",
            weights_bytes=file.device_bytes,
            kv_bytes=found.kv_bytes,
            compute_bytes=found.compute_bytes,
            overhead_bytes=self._overhead(model) if gpus else 0,
        )
        beside = DeviceMemory(
            name="RAM", weights_bytes=file.host_bytes, compute_bytes=found.host_compute_bytes
        )
        return Memory(
            gpus=(device,) if gpus else (),
            host=beside if gpus else device,
            basis=found.basis,
            notes=tuple(found.notes),
        )

    def _part(self, found: Footprint, quant: str) -> float | None:
        """About which share of a model the GPUs can hold; None where nothing of it fits."""
        file = found.files[quant]
        need = file.device_bytes + found.kv_bytes + found.compute_bytes
        offers, host = self.room.budgets.gpus, self.room.budgets.host
        if host is not None and need + file.host_bytes > self.room.total:
            return None
        return min(1.0, sum(offers) / need) if offers else None

    def _plan(self, model: ModelSpec, found: Footprint, guess: _Guess) -> Plan | None:
        """The exact plan of a guess."""
        source = source_of(model, guess.quant, self.goal.imatrix)
        if not guess.whole:
            from .sizing import Sizer

            config = self.config.replace(context=found.context)
            sizer = Sizer(model, self.room, self.goal)
            return sizer.best(guess.quant, config, source)
        config = self._settled(model, found.context)
        works = (found.works(guess.quant, self.fastest),)
        machine = self.room.machine
        speed = speed_of(works, self.figures, model=model, config=config, machine=machine)
        quality = self._quality(model, guess.quant, guess.imatrix)
        scored = merit(quality.loss, speed.decode.likely, found.context, self.goal.prefer)
        return Plan(
            model=model,
            quant=guess.quant,
            imatrix=guess.imatrix,
            config=config,
            memory=self._whole(model, found, guess.quant),
            room=self.room,
            weights_bytes=found.files[guess.quant].weights_bytes,
            speed=speed,
            speed_full=decode_at(full_depth(config), speed, works, self.figures, model),
            quality=quality,
            weights=source.weights,
            ollama_tag=source.ollama_tag,
            score=scored,
            notes=notes_of(model, config, source),
            engine=self.goal.engine,
        )

    def _settled(self, model: ModelSpec, context: int) -> RunConfig:
        """Checked once for all models that it is the same for."""
        key = context, model.integer("block_count") if self.room.machine.gpus else 0
        if key not in self._configs:
            config = self.config.replace(context=context)
            self._configs[key] = settled(model, config, self.room)
        return self._configs[key]


def _share(model: ModelSpec) -> float:
    """The part of the experts that work on one token."""
    experts = model.integer("expert_count")
    return model.integer("expert_used_count") / experts if experts else 0.0
