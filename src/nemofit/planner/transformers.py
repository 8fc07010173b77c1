"""The search for transformers: types and lengths, with the placement that accelerate makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nemofit.catalog.model import ModelSpec
from nemofit.engines.transformers import TransformersConfig, TransformersMemory, estimate_memory
from nemofit.engines.transformers.memory import CONTEXT_BYTES
from nemofit.engines.transformers.parameters import parameters
from nemofit.engines.vllm.formats import own_format
from nemofit.errors import DoesNotFitError, UnknownNameError, UsageError
from nemofit.machine.records import Machine
from nemofit.units import MIB, gib

from .checkpoints import (
    NO_SPEED,
    CheckpointGoal,
    CheckpointRanking,
    TransformersPlan,
    best_first,
    card_for,
    merit,
    quality_of,
    stored_at,
)
from .records import Room, room_for

QUANTS = ("bf16", "fp16", "fp32", "bnb-8bit", "bnb-4bit")
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_BACKENDS = ("cuda", "rocm")
_BF16 = 8.0
_QUANTIZER_SHARE = 0.9  # of any limit that bitsandbytes is given
_ROUNDS = 8
_TOWERS = "what sees or hears is not counted, and may be loaded too: leave some GiB free"


class TransformersSearch:
    """One model on one machine under one goal.

    Raises:
        UsageError: The model is no checkpoint of the hub, or the goal makes no sense.
    """

    def __init__(self, model: ModelSpec, machine: Machine, goal: CheckpointGoal) -> None:
        self.model = model
        self.goal = goal
        own = stored_at(model)
        self.checkpoint, self.is_local = own or (_listed(model), False)
        self.has_towers = own is None and card_for(model, "transformers").projector
        whole = room_for(machine, goal)
        self.room = whole if _all_usable(whole) else whole.without_gpus()
        self.considered = 0

    def quants(self) -> tuple[str, ...]:
        """The types to try, best quality first.

        Raises:
            UnknownNameError: The one that was asked for is none.
        """
        asked = self.goal.quant
        stored = self.model.checkpoint
        if stored is not None and stored.quantization is not None:
            return (self._stored(asked),)
        if asked is None:
            wide = "fp16" if self._old_cards() else "bf16"
            return (wide, "bnb-8bit", "bnb-4bit") if self.room.machine.gpus else (wide,)
        plain = asked.lower().replace("bitsandbytes", "bnb").replace("bfloat16", "bf16")
        if plain not in QUANTS:
            raise UnknownNameError("quantization", asked, QUANTS)
        return (plain,)

    def plans(self) -> list[TransformersPlan]:
        """Every type with each length that fits, best first; empty where nothing does."""
        found: list[TransformersPlan] = []
        for quant in self.quants():
            for context in self.goal.contexts(self.model):
                plan = self.best(quant, context)
                if plan is None or not plan.fits:
                    break
                found.append(plan)
        return best_first(found)

    def best(self, quant: str, context: int) -> TransformersPlan | None:
        """The plan of a type and a length with as much on the GPUs as fits; None: placed nowhere.

        What the library would place by itself comes first; where cache and prompt then have no
        room, limits for each device are searched.
        """
        config = self._config(quant, context)
        try:
            plan = self.plan(quant, config)
        except UsageError:
            plan = None
        if plan is not None and (plan.fits or not self.room.machine.gpus):
            return plan
        limits = {i: self._most(i) for i in range(len(self.room.machine.gpus))}
        for _ in range(_ROUNDS):
            try:
                tried = self.plan(quant, config.replace(max_memory=self._given(limits, quant)))
            except UsageError:
                return plan
            plan = tried
            if plan.fits:
                return plan
            for i, device in enumerate(plan.memory.gpus):
                over = device.total_bytes - self.room.budgets.gpus[i]
                limits[i] = max(0, limits[i] - max(over, 0))
        return plan

    def plan(self, quant: str, config: TransformersConfig) -> TransformersPlan:
        """Place and account for one configuration.

        Raises:
            UsageError: Parts of it would lie where the library refuses them, or nowhere.
        """
        self.considered += 1
        gpus = self.room.machine.gpus
        free = [gpu.total_bytes or 0 if gpu.free_bytes is None else gpu.free_bytes for gpu in gpus]
        host = self.room.budgets.host
        account = estimate_memory(self.model, config, free, (1 << 50) if host is None else host)
        named = self.room.named(account)
        size = sum(2 * p.elements for p in parameters(self.model))
        if self.model.checkpoint is not None:
            size = self.model.checkpoint.file_bytes
        return TransformersPlan(
            model=self.model,
            quant=quant,
            memory=named,
            room=self.room,
            weights_bytes=_weights(account),
            quality=quality_of(quant),
            speed_note=NO_SPEED,
            score=merit(quant, self.model.parameters, config.context, self.goal.prefer),
            notes=(_TOWERS,) if self.has_towers else (),
            checkpoint=self.checkpoint,
            is_local=self.is_local,
            file_bytes=size,
            config=config,
            account=account,
            device_map=runs(account.placement.device_of),
        )

    def _stored(self, asked: str | None) -> str:
        """The format of a checkpoint that is quantized already: it can only be run as it is."""
        found = own_format(self.model).name
        if asked is not None and asked.lower() != found:
            raise UnknownNameError(f"{self.model.id} checkpoint", asked, [found])
        return found

    def _config(self, quant: str, context: int) -> TransformersConfig:
        bits = quant.startswith("bnb")
        dtype = _DTYPES.get(quant, "float16" if self._old_cards() else "bfloat16")
        return TransformersConfig(
            context=context,
            batch=self.goal.parallel or 1,
            dtype=dtype,
            quantization=quant if bits else "none",
            device_map="auto" if self.room.machine.gpus else "cpu",
        )

    def _old_cards(self) -> bool:
        capabilities = [gpu.compute_capability for gpu in self.room.machine.gpus]
        return any(c is not None and float(c) < _BF16 for c in capabilities)

    def _most(self, i: int) -> int:
        return max(0, self.room.budgets.gpus[i] - CONTEXT_BYTES)

    def _given(self, limits: Mapping[int, int], quant: str) -> dict[int | str, int]:
        """Limits to write down, in whole MiB; bitsandbytes takes a tenth off what it is given."""
        share = _QUANTIZER_SHARE if quant.startswith("bnb") else 1.0
        given: dict[int | str, int] = {i: int(n / share) // MIB * MIB for i, n in limits.items()}
        host = self.room.budgets.host
        if host is not None:
            given["cpu"] = host // MIB * MIB
        return given


def runs(device_of: Mapping[str, int | str]) -> dict[str, int | str]:
    """A device map with neighbouring layers on one device written as a range, for people."""
    out: dict[str, int | str] = {}
    first = last = -1
    where: int | str = ""
    for name, device in device_of.items():
        number = name.rpartition(".")[2]
        if not number.isdecimal():
            out[name] = device
            continue
        il = int(number)
        if device == where and il == last + 1:
            out.pop(_range(name, first, last))
        else:
            first, where = il, device
        last = il
        out[_range(name, first, last)] = device
    return out


def _range(name: str, first: int, last: int) -> str:
    stem = name.rpartition(".")[0]
    return f"{stem}.{first}" if first == last else f"{stem}.{first}-{last}"


def _weights(account: TransformersMemory) -> int:
    on_gpus = sum(gpu.weights_bytes for gpu in account.gpus)
    return on_gpus + account.host.weights_bytes + account.disk_bytes


def _all_usable(room: Room) -> bool:
    return bool(room.machine.gpus) and all(g.backend in _BACKENDS for g in room.machine.gpus)


def rank(model: ModelSpec, machine: Machine, goal: CheckpointGoal) -> CheckpointRanking:
    """The plans for transformers, best first, with the reason.

    Raises:
        DoesNotFitError: Nothing fits.
        UsageError, UnknownNameError: As for :class:`TransformersSearch`.
    """
    search = TransformersSearch(model, machine, goal)
    plans = search.plans()
    if not plans:
        plan, hint = single(model, machine, goal)
        short = ", ".join(
            f"{device.name} needs {gib(device.total_bytes)} of {gib(offer)}"
            for device, offer in plan.shortfalls
        )
        raise DoesNotFitError(f"{plan.title} does not fit: {short}", hint)
    best = plans[0]
    used = sum(d.total_bytes for d in best.memory.gpus) or best.memory.host.total_bytes
    reason = f"{best.quant} at {best.context} tokens {best.words}, in {gib(used)}."
    return CheckpointRanking(plans=plans, considered=search.considered, reason=reason)


def single(
    model: ModelSpec, machine: Machine, goal: CheckpointGoal
) -> tuple[TransformersPlan, str | None]:
    """One plan, whether it fits or not, and what would fit instead.

    Raises:
        DoesNotFitError: The library itself finds no place for it.
        UsageError, UnknownNameError: As for :class:`TransformersSearch`.
    """
    goal = goal.settled(model)
    search = TransformersSearch(model, machine, goal)
    plans = search.plans()
    if plans:
        return plans[0], None
    hint = nearest(model, machine, goal)
    quant = search.quants()[-1]
    plan = search.best(quant, goal.contexts(model)[0])
    if plan is None:
        raise DoesNotFitError(
            f"{model.id} as {quant} fits neither these GPUs nor their host: {search.room.text}",
            hint or "a smaller model, or --engine llama.cpp",
        )
    return plan, hint


def nearest(model: ModelSpec, machine: Machine, goal: CheckpointGoal) -> str | None:
    """The flags of a plan that gives up least: the length, then the type."""
    shorter = [context for context in (4096, 2048, 1024) if context < (goal.context or 8192)]
    for other in (
        *(replace(goal, context=context) for context in shorter),
        *(replace(goal, quant=None, context=c) for c in (goal.context or 8192, *shorter)),
    ):
        plans = TransformersSearch(model, machine, other).plans()
        if plans:
            return f"--quant {plans[0].quant} --context {plans[0].context} {plans[0].words}"
    return None


def _listed(model: ModelSpec) -> str:
    """The repository of a catalog model's 16-bit weights."""
    card = card_for(model, "transformers")
    own = next((c.repo for c in card.vllm if c.format == "bf16"), card.hf_repo)
    if own is None:
        raise UsageError(
            f"no 16-bit checkpoint of {card.id} is known to the catalog",
            "name another model, or use --engine vllm or llama.cpp",
        )
    return own
