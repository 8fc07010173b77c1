"""The search for vLLM: formats, divisions over the cards, lengths and cache types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import floor

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import Memory
from nemofit.engines.vllm import VllmConfig, VllmMemory, estimate_memory
from nemofit.engines.vllm.formats import Format, arithmetic, find_format, own_format
from nemofit.engines.vllm.memory import CONTEXT_BYTES
from nemofit.engines.vllm.placement import check_parallel, stage_weights, tensor_parallel_sizes
from nemofit.errors import DoesNotFitError, UnknownNameError, UsageError
from nemofit.machine.records import Gpu, Machine
from nemofit.units import gib

from .checkpoints import (
    NO_SPEED,
    CheckpointGoal,
    CheckpointRanking,
    VllmPlan,
    best_first,
    card_for,
    merit,
    quality_of,
    spread,
    stored_at,
)
from .records import Room, room_for

BACKENDS = ("cuda", "rocm")
_BF16 = 8.0
"""Compute capability from which cards compute in bfloat16; before, float16 has to be asked for."""
_FP8_CACHE = 8.9
"""Compute capability from which a cache of FP8 is tried (docs.vllm.ai, Quantized KV Cache)."""
_STEPS = ((None, False), (64, False), (16, False))
"""Requests at a time, vLLM's default first: what is tried where memory is short."""
_LAST_STEPS = ((16, True), (1, True))
"""The same without CUDA graphs, where nothing else starts at all: tokens then come slower."""


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A repository with the format that it is run in."""

    repository: str
    format: Format


class VllmSearch:
    """One model on one machine under one goal.

    Raises:
        DoesNotFitError: The machine has no card that vLLM runs on.
        UsageError: The model has no known checkpoint, or a knob that vLLM refuses.
    """

    def __init__(self, model: ModelSpec, machine: Machine, goal: CheckpointGoal) -> None:
        self.model = model
        self.goal = goal
        self.own = stored_at(model)
        self.card = card_for(model, "vLLM") if self.own is None else None
        self.room = room_for(machine, goal)
        self.considered = 0
        self._order = _order(self.room)
        if not self._order:
            raise DoesNotFitError(
                "vLLM needs an NVIDIA or AMD GPU with memory that can be read; this machine offers "
                f"none ({self.room.text})",
                "--engine llama.cpp",
            )

    def plans(self) -> list[VllmPlan]:
        """Every format with each length that starts, best first; empty where nothing does."""
        found = [plan for checkpoint in self.checkpoints() for plan in self._of(checkpoint)]
        return best_first(found)

    def anyway(self) -> tuple[VllmPlan, str]:
        """The smallest format on all cards although it does not fit, and why not.

        Raises:
            UsageError: vLLM refuses what was asked for on these cards.
            DoesNotFitError: It refuses every format or division on them.
        """
        refused: UsageError | None = None
        for checkpoint in sorted(self.checkpoints(), key=lambda c: c.format.weight_bits):
            for config in self._divisions(self.goal.contexts(self.model)[0]):
                try:
                    plan = self._plan(checkpoint, config)
                except UsageError as error:
                    refused = refused or error
                    continue
                return plan, plan.account.refusal or "a card has too little memory"
        asked = (self.goal.quant, self.goal.tensor_parallel, self.goal.pipeline_parallel)
        if refused is None or asked == (None, None, None):
            why = refused.message if refused else "no division suits these cards"
            raise DoesNotFitError(
                f"vLLM runs no known checkpoint of {self.model.id} here: {why}",
                "another model, or --engine llama.cpp",
            )
        raise refused

    def checkpoints(self) -> list[_Checkpoint]:
        """What the hub has, each format once, in the order of the catalog; or the model itself.

        Raises:
            UnknownNameError: The format that was asked for is not among them.
        """
        if self.card is None:
            return [self._stored()]
        listed = [(c.repo, find_format(c.format)) for c in self.card.vllm]
        own = self.card.hf_repo
        if own and not any(fmt.name == "bf16" for _, fmt in listed) and not listed_only(listed):
            listed.insert(0, (own, find_format("bf16")))
        if any(self._capability(gpu) < _BF16 for gpu in self._cards(1)):
            half = find_format("fp16")
            listed = [(repo, half if fmt.name == "bf16" else fmt) for repo, fmt in listed]
        found: dict[str, _Checkpoint] = {}
        for repo, fmt in listed:
            found.setdefault(fmt.name, _Checkpoint(repo, fmt))
        if self.goal.quant is None:
            return list(found.values())
        wanted = find_format(self.goal.quant).name
        if wanted not in found:
            raise UnknownNameError(f"{self.model.id} checkpoint", self.goal.quant, list(found))
        return [found[wanted]]

    def _stored(self) -> _Checkpoint:
        """The model's own checkpoint."""
        assert self.own is not None
        found = own_format(self.model)
        if found.name == "bf16" and any(self._capability(gpu) < _BF16 for gpu in self._cards(1)):
            found = replace(find_format("fp16"), stored=True)
        if self.goal.quant is not None and find_format(self.goal.quant).name != found.name:
            raise UnknownNameError(f"{self.model.id} checkpoint", self.goal.quant, [found.name])
        return _Checkpoint(self.own[0], found)

    def _of(self, checkpoint: _Checkpoint) -> Iterator[VllmPlan]:
        """The plans of one format: of each length the first setting that starts."""
        contexts = self.goal.contexts(self.model)
        for context in contexts:
            plan = self._starting(checkpoint, context, self._steps())
            if plan is None and context == contexts[0]:
                plan = self._starting(checkpoint, context, self._last_steps())
            if plan is None:
                return
            yield plan

    def _starting(
        self, checkpoint: _Checkpoint, context: int, steps: Sequence[tuple[int | None, bool]]
    ) -> VllmPlan | None:
        for kv_type in self._cache_types():
            for requests, eager in steps:
                best: VllmPlan | None = None
                for config in self._divisions(context, kv_type, requests, eager):
                    try:
                        plan = self._plan(checkpoint, config)
                    except UsageError:
                        continue
                    if plan.fits and (best is None or _better(plan, best)):
                        best = plan
                if best is not None:
                    return best
        return None

    def _divisions(
        self,
        context: int,
        kv_type: str = "auto",
        requests: int | None = None,
        eager: bool = False,
    ) -> Iterator[VllmConfig]:
        """Every division that the cards allow, those over more cards first."""
        goal, most = self.goal, len(self._order)
        for ranks in range(most, 0, -1):
            for tp in reversed(tensor_parallel_sizes(self.model, ranks)):
                if ranks % tp or goal.tensor_parallel not in (None, tp):
                    continue
                if goal.pipeline_parallel not in (None, ranks // tp):
                    continue
                cards = self._cards(ranks)
                half = any(self._capability(gpu) < _BF16 for gpu in cards)
                share = goal.utilization or self._utilization(ranks)
                if share <= 0:
                    continue
                yield VllmConfig(
                    max_model_len=context,
                    tensor_parallel=tp,
                    pipeline_parallel=ranks // tp,
                    gpu_memory_utilization=share,
                    kv_cache_dtype=goal.kv_type or kv_type,
                    max_num_seqs=goal.parallel or requests,
                    cpu_offload_gb=goal.cpu_offload_gb,
                    enforce_eager=goal.eager or eager,
                    dtype="float16" if half else "auto",
                    language_model_only=self.card is not None and self.card.projector,
                )

    def _plan(self, checkpoint: _Checkpoint, config: VllmConfig) -> VllmPlan:
        """Account for one configuration, whether it starts or not.

        Raises:
            UsageError: vLLM refuses the format or the division.
        """
        self.considered += 1
        cards = self._cards(config.ranks)
        for gpu in cards:
            if gpu.vendor == "nvidia":
                arithmetic(checkpoint.format, gpu.compute_capability)
        check_parallel(self.model, checkpoint.format, config)
        account = estimate_memory(self.model, checkpoint.format, config, cards)
        count = len(self.room.machine.gpus)
        places = self._order[: config.ranks]
        memory = Memory(
            gpus=tuple(spread(account.gpus, places, count)),
            host=account.host,
            basis=account.basis,
            notes=account.notes,
        )
        whole = stage_weights(self.model, checkpoint.format, VllmConfig())
        size = loaded = sum(stage.weights_bytes for stage in whole)
        listed = self.card.vllm if self.card is not None else ()
        published = next((c.size for c in listed if c.repo == checkpoint.repository), None)
        if self.model.checkpoint is not None:
            size = self.model.checkpoint.file_bytes
        return VllmPlan(
            model=self.model,
            quant=checkpoint.format.name,
            memory=self.room.named(memory),
            room=self.room,
            weights_bytes=loaded,
            quality=quality_of(checkpoint.format.name, config.kv_cache_dtype),
            speed_note=NO_SPEED,
            score=merit(
                checkpoint.format.name,
                self.model.parameters,
                config.max_model_len,
                self.goal.prefer,
            ),
            notes=_notes(account, config, cards),
            checkpoint=checkpoint.repository,
            is_local=self.own is not None and self.own[1],
            file_bytes=published.bytes if published else size,
            config=config,
            account=account,
            cards=tuple(places),
        )

    def _cards(self, ranks: int) -> tuple[Gpu, ...]:
        return tuple(self.room.machine.gpus[i] for i in self._order[:ranks])

    def _capability(self, gpu: Gpu) -> float:
        return float(gpu.compute_capability) if gpu.compute_capability else 99.0

    def _cache_types(self) -> tuple[str, ...]:
        if self.goal.kv_type is not None:
            return (self.goal.kv_type,)
        can = all(_FP8_CACHE <= self._capability(gpu) < 99 for gpu in self._cards(1))
        return ("auto", "fp8") if can else ("auto",)

    def _steps(self) -> Sequence[tuple[int | None, bool]]:
        asked = self.goal.parallel
        return _STEPS if asked is None else ((asked, False),)

    def _last_steps(self) -> Sequence[tuple[int | None, bool]]:
        asked = self.goal.parallel
        return _LAST_STEPS if asked is None else ((asked, True),)

    def _utilization(self, ranks: int) -> float:
        """The share of the cards that their budgets allow beside the process itself: at most
        vLLM's default, in hundredths."""
        shares = []
        for i in self._order[:ranks]:
            total = self.room.machine.gpus[i].total_bytes or 0
            offer = self.room.budgets.gpus[i] - CONTEXT_BYTES
            shares.append(floor(100 * offer / total) / 100 if total else 0.0)
        return min(VllmConfig().gpu_memory_utilization, *shares)


def listed_only(listed: Sequence[tuple[str, Format]]) -> bool:
    """Whether the model's own weights are in one of the listed formats, as those of gpt-oss are."""
    return any(fmt.experts_only for _, fmt in listed)


def _order(room: Room) -> list[int]:
    """The cards that vLLM runs on, those with the largest budget first."""
    usable = [
        i
        for i, gpu in enumerate(room.machine.gpus)
        if gpu.backend in BACKENDS and gpu.total_bytes and room.budgets.gpus[i] > CONTEXT_BYTES
    ]
    return sorted(usable, key=lambda i: -room.budgets.gpus[i])


def _better(plan: VllmPlan, other: VllmPlan) -> bool:
    """Whether a division is the better one: fewer pipeline stages, which take turns; then more room
    for the cache."""
    stages, others = plan.config.pipeline_parallel, other.config.pipeline_parallel
    return (-stages, plan.account.kv_tokens) > (-others, other.account.kv_tokens)


def _notes(account: VllmMemory, config: VllmConfig, cards: Sequence[Gpu]) -> tuple[str, ...]:
    notes = [
        f"room for {account.kv_tokens} tokens of cache: {account.max_concurrency:.1f} requests of "
        "this length at a time"
    ]
    if account.refusal:
        notes = [account.refusal]
    if config.language_model_only:
        notes.append(
            "--language-model-only: what sees or hears is not loaded; without it vLLM takes more"
        )
    if any(gpu.vendor == "amd" for gpu in cards):
        notes.append("which formats run on AMD cards is not checked")
    return tuple(notes)


def rank(model: ModelSpec, machine: Machine, goal: CheckpointGoal) -> CheckpointRanking:
    """The plans for vLLM, best first, with the reason.

    Raises:
        DoesNotFitError: Nothing starts on this machine.
        UsageError, UnknownNameError: As for :class:`VllmSearch`.
    """
    search = VllmSearch(model, machine, goal)
    plans = search.plans()
    if not plans:
        plan, why = search.anyway()
        raise DoesNotFitError(
            f"{plan.title} does not fit vLLM on {plan.config.ranks} of these cards: {why}",
            nearest(model, machine, goal) or "a smaller model, or --engine llama.cpp",
        )
    best = plans[0]
    reason = (
        f"{best.quant} at {best.context} tokens {best.words} and leaves "
        f"{gib(min(best.account.available_bytes))} of cache on each."
    )
    return CheckpointRanking(plans=plans, considered=search.considered, reason=reason)


def single(model: ModelSpec, machine: Machine, goal: CheckpointGoal) -> tuple[VllmPlan, str | None]:
    """One plan, whether it fits or not, and what would fit instead.

    Raises:
        DoesNotFitError: The machine has no card that vLLM runs on.
        UsageError, UnknownNameError: As for :class:`VllmSearch`.
    """
    goal = goal.settled(model)
    search = VllmSearch(model, machine, goal)
    plans = search.plans()
    if plans:
        return plans[0], None
    return search.anyway()[0], nearest(model, machine, goal)


def nearest(model: ModelSpec, machine: Machine, goal: CheckpointGoal) -> str | None:
    """The flags of a plan that gives up least: the length, then the format, then all else."""
    from dataclasses import replace

    shorter = [context for context in (4096, 2048, 1024) if context < (goal.context or 8192)]
    given_up = [
        *(replace(goal, context=context) for context in shorter),
        replace(goal, quant=None),
        *(replace(goal, quant=None, context=context) for context in shorter),
        CheckpointGoal(prefer=goal.prefer, context=min(shorter, default=goal.context)),
    ]
    for other in given_up:
        plans = VllmSearch(model, machine, other).plans()
        if plans:
            return f"--quant {plans[0].quant} --context {plans[0].context} {plans[0].words}"
    return None
