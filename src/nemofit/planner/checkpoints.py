"""Plans for the engines that load Hugging Face checkpoints: vLLM and transformers.

Both have the same goal and the same shape of plan; :mod:`.vllm` and :mod:`.transformers` search.
No speeds are modelled for them, so a plan's place follows from quality loss and context alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import ModelCard
from nemofit.catalog.quality import grade
from nemofit.catalog.quality import quality as published
from nemofit.engines.base import DeviceMemory
from nemofit.engines.transformers import TransformersConfig, TransformersMemory
from nemofit.engines.vllm import VllmConfig, VllmMemory
from nemofit.engines.vllm.formats import find_format
from nemofit.errors import UsageError
from nemofit.machine.budgets import Reserve
from nemofit.machine.records import Gpu

from .goal import LEAST_CONTEXT, PREFERENCES
from .quality import Quality
from .records import EnginePlan
from .score import HALF_CONTEXT, HALF_LOSS, WEIGHTS
from .sources import card_of

NO_SPEED = "no speeds are modelled for this engine"
UNQUANTIZED = ("bf16", "fp16")


def trained_context(model: ModelSpec) -> int:
    """Tokens that a model was made for; 8192 where it does not say."""
    return model.integer("context_length") or LEAST_CONTEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointGoal:
    """What to look for; None: free to choose.

    Attributes:
        context: Tokens of one request, prompt and answer.
        prefer: As in :class:`.goal.Goal`; speed counts as quality here.
        quant: Checkpoint format, of transformers ``bnb-8bit`` and ``bnb-4bit`` as well.
        kv_type: Type of the cache by the engine's own name.
        parallel: Requests at a time.
        tensor_parallel, pipeline_parallel, utilization, cpu_offload_gb, eager: vLLM's.
        min_context, max_vram_bytes, reserve_bytes, assume_idle: As in :class:`.goal.Goal`.
    """

    context: int | None = None
    prefer: str = "balanced"
    quant: str | None = None
    kv_type: str | None = None
    parallel: int | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    utilization: float | None = None
    cpu_offload_gb: float = 0.0
    eager: bool = False
    min_context: int | None = None
    max_vram_bytes: int | None = None
    reserve_bytes: Reserve = None
    assume_idle: bool = False

    def __post_init__(self) -> None:
        if self.prefer not in PREFERENCES:
            raise UsageError(
                f"preference {self.prefer!r} is not known", "one of: " + ", ".join(PREFERENCES)
            )

    def settled(self, model: ModelSpec) -> CheckpointGoal:
        """The same with a length: the fixed one, else 8192 tokens or the trained length."""
        return replace(self, context=self.context or min(LEAST_CONTEXT, trained_context(model)))

    def contexts(self, model: ModelSpec) -> list[int]:
        """The lengths to try: the fixed one, or doubling up to the trained one."""
        if self.context is not None:
            return [self.context]
        trained = trained_context(model)
        ladder = [LEAST_CONTEXT << i for i in range(24) if LEAST_CONTEXT << i < trained]
        least = self.min_context or 0
        return [c for c in [*ladder, trained] if c >= least] or [least]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRanking:
    """Plans of one engine, best first; fields as of :class:`.ranking.Ranking`."""

    plans: Sequence[EnginePlan]
    considered: int
    reason: str
    models: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPlan(EnginePlan):
    """A plan on a checkpoint of the hub or of this machine.

    Attributes:
        checkpoint: Repository, or directory of this machine.
        is_local: It is a directory.
        file_bytes: Size of the checkpoint, which is fetched whole.
    """

    checkpoint: str
    is_local: bool = False
    file_bytes: int

    @property
    def repository(self) -> str | None:
        """Hub repository of the checkpoint; None: a directory of this machine."""
        return None if self.is_local else self.checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmPlan(CheckpointPlan):
    """A configuration of vLLM; ``memory`` has one device per GPU of the room.

    Attributes:
        config: Every knob.
        account: vLLM's own accounting, by rank.
        cards: The cards of the ranks, in their order, as indices into the room's GPUs.
        longest: Largest ``--max-model-len`` that would start, None: not worked out.
    """

    config: VllmConfig
    account: VllmMemory
    cards: tuple[int, ...]
    engine: str = "vllm"

    @property
    def context(self) -> int:
        """Tokens of the longest request."""
        return self.config.max_model_len

    @property
    def fits(self) -> bool:
        """Whether vLLM would start and every device has room for its part."""
        return self.account.fits and not self.shortfalls

    @property
    def words(self) -> str:
        """The verdict for people."""
        if not self.fits:
            return "does not fit"
        gpus = "one GPU" if self.config.ranks == 1 else f"{self.config.ranks} GPUs"
        return f"fits on {gpus}" + (", weights partly in RAM" if self.config.cpu_offload_gb else "")

    @property
    def used(self) -> tuple[Gpu, ...]:
        """The cards of the ranks."""
        return tuple(self.room.machine.gpus[i] for i in self.cards)

    def command(self, engine: str | None = None) -> str:
        """``vllm serve`` with everything that decides about memory, for a POSIX shell."""
        _demand_own(self, engine)
        from nemofit.engines.vllm.launch import server_command

        from .launching.vllm import variables_of

        return server_command(self.config, self.checkpoint, variables_of(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersPlan(CheckpointPlan):
    """A configuration of transformers with the placement that it leads to.

    Attributes:
        config: Every knob.
        device_map: Device of each module, runs of layers written as one.
    """

    config: TransformersConfig
    account: TransformersMemory
    device_map: Mapping[str, int | str] = field(default_factory=dict)
    engine: str = "transformers"

    @property
    def context(self) -> int:
        """Tokens of prompt and answer."""
        return self.config.context

    @property
    def words(self) -> str:
        """The verdict for people."""
        if not self.fits:
            return "does not fit"
        used = sum(1 for gpu in self.memory.gpus if gpu.weights_bytes)
        if not used:
            return "fits, on the CPU"
        partly = ", partly in RAM" if self.memory.host.weights_bytes else ""
        return f"fits on {'one GPU' if used == 1 else f'{used} GPUs'}{partly}"

    def command(self, engine: str | None = None) -> str:
        """A script has more than a line."""
        _demand_own(self, engine)
        raise UsageError(
            "transformers is run by a script", "nemofit launch MODEL --engine transformers > run.py"
        )


def _demand_own(plan: EnginePlan, engine: str | None) -> None:
    if engine not in (None, plan.engine):
        raise UsageError(f"a plan for {plan.engine} has no command for {engine}")


def stored_at(model: ModelSpec) -> tuple[str, bool] | None:
    """Where a model's own checkpoint lies, and whether that is a directory of this machine.

    None: the model is no checkpoint itself.
    """
    if model.checkpoint is None:
        return None
    repository = model.origin.repository if model.origin is not None else None
    return repository or model.source, repository is None


def card_for(model: ModelSpec, engine: str) -> ModelCard:
    """The catalog's card, which knows the checkpoints.

    Raises:
        UsageError: The model is a GGUF file.
    """
    card = card_of(model)
    if card is None:
        raise UsageError(
            f"{engine} runs checkpoints of the hub, and {model.source} is a GGUF file",
            "name a model of the catalog, or use --engine llama.cpp",
        )
    if card.hf_repo is None and not card.vllm:
        raise UsageError(
            f"no checkpoint of {card.id} is known to the catalog",
            "name another model, or use --engine llama.cpp",
        )
    return card


def quality_of(quant: str, kv_type: str = "auto") -> Quality:
    """What is published of a format's loss: that of 16 bits is none, of the others nothing."""
    plain = quant in UNQUANTIZED and not kv_type.startswith("fp8")
    if plain:
        return Quality(0.0, grade(0.0), "computed", "the checkpoint's own weights")
    what = quant if quant not in UNQUANTIZED else f"a cache of {kv_type}"
    return Quality(None, None, "assumed", f"no loss of {what} is published")


def merit(quant: str, parameters: int, context: int, prefer: str) -> float:
    """A score between 0 and 1 from format and context: :func:`.score.merit` without the speed.

    What a checkpoint format loses is not published in nats. For the order alone it counts as
    llama.cpp's file type of about as many bits: Q8_0 for 8, Q4_K_S for 4.
    """
    a, b, c = WEIGHTS[prefer]
    bits = bits_of(quant)
    alike = None if bits >= 16 else quality_loss("Q8_0" if bits >= 8 else "Q4_K_S", parameters)
    quality = HALF_LOSS / (HALF_LOSS + (alike or 0.0))
    return float(quality ** (a + b) * (context / (context + HALF_CONTEXT)) ** c)


def quality_loss(file_type: str, parameters: int) -> float:
    """Nats that a file type of llama.cpp loses."""
    found = published(file_type, False, parameters)
    return HALF_LOSS if found is None else found.kl_divergence


def bits_of(quant: str) -> float:
    """Bits of one quantized weight with its scales."""
    bnb = {"bnb-4bit": 4.127, "bnb-8bit": 8.0}
    if quant in bnb:
        return bnb[quant]
    fmt = find_format(quant)
    return fmt.weight_bits + (fmt.group_bits / fmt.group if fmt.group else 0.0)


def spread(
    devices: Sequence[DeviceMemory], places: Sequence[int], count: int
) -> list[DeviceMemory]:
    """Devices put at their places among ``count``, the others empty."""
    out = [DeviceMemory() for _ in range(count)]
    for place, device in zip(places, devices, strict=True):
        out[place] = device
    return out


def _streams(plan: EnginePlan) -> bool:
    return bool(plan.memory.gpus) and plan.memory.host.weights_bytes > 0


P = TypeVar("P", bound=EnginePlan)


def best_first(plans: Sequence[P]) -> list[P]:
    """Plans by score, those on GPUs alone before those that bring weights there at every step; of
    one format and context the first stays."""
    seen: set[tuple[str | None, int]] = set()
    out = []
    for plan in sorted(plans, key=lambda p: (not _streams(p), p.score), reverse=True):
        key = plan.quant, plan.context
        if key not in seen:
            seen.add(key)
            out.append(plan)
    return out
