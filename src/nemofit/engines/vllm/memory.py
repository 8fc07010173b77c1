"""vLLM's memory on each rank, line by line, and what follows for context and concurrency.

vLLM takes a share of the card's total memory (``--gpu-memory-utilization``), loads the weights,
runs one step of the largest size to see what else is needed, and gives the rest to the cache::

    requested = total x utilization
    available = requested - weights - growth outside the allocator - activations - CUDA graphs

Weights and cache are computed by vLLM's own rules. Activations, growth and graphs are measured by
vLLM when it starts: here they are bounds over published start-up logs and labelled ``assumed``.

Source: vllm-project/vllm 0.33.0, ``vllm/v1/worker/gpu_worker.py`` (determine_available_memory),
``vllm/v1/worker/utils.py`` (request_memory), ``vllm/engine/arg_utils.py`` (get_batch_defaults).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import ceil

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.engines.transformers.parameters import decoder_layers
from nemofit.errors import UsageError
from nemofit.machine.records import Gpu
from nemofit.units import GIB, MIB, gib

from .config import VllmConfig
from .formats import Format, arithmetic, find_format
from .kv_cache import CachePlan, cache_plan
from .placement import assumptions, stage_weights

# Requests and tokens in one step of `vllm serve` by total memory of the card: get_batch_defaults.
_BATCHES = ((160 * GIB, 1024, 16384), (70 * GIB, 1024, 8192), (0, 256, 2048))
_SMALL_BATCH = (256, 2048)
# Sampling keeps about this many float32 copies of the logits of every request: activation peaks
# over 4 x vocabulary x 256 requests are 10.3 (Llama 3 8B, vllm-project/vllm pull 10511) and 8.7
# (Qwen 2.5 32B, issue 15815).
_LOGIT_COPIES = 10.4
_HIDDEN_COPIES = 4  # residual, its norm, and both again around a layer, in 16 bits
# Growth outside torch while the model loads and runs: 0.35 GiB (vllm-project/vllm issue 10517, RTX
# 3090), 0.30 (issue 15815, two L40S).
_GROWTH = 358 * MIB
# What the process takes before vLLM looks at the card, so beside the requested share: the largest
# published difference of total and free on an idle card is 0.9 GiB (RTX 5090,
# noonghunna/club-3090 issue 1087).
CONTEXT_BYTES = 922 * MIB
# One captured graph: 67 of them took 0.67 GiB where most is published, others less.
_GRAPH = 8 * MIB
_LARGEST_GRAPH = 512
_GRAPH_STEPS = ((1, 3), (8, 31), (256, 17))  # sizes 1, 2, 4; every 8th to 248; every 16th to 512


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a rank's account.

    Attributes:
        name: What it is.
        bytes: Its size; what is subtracted from the requested share is negative.
        basis: ``exact`` (given), ``computed`` by vLLM's rules, or ``assumed``.
        note: Where the number comes from.
    """

    name: str
    bytes: int
    basis: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmMemory(Memory):
    """What vLLM does with the cards of a configuration.

    ``gpus`` has one record per rank (rank = stage x tensor parallel size + position). In it
    ``kv_bytes`` is the whole pool, which takes all that is left; ``overhead_bytes`` includes what
    the process takes beside the requested share.

    Attributes:
        lines: The account of one rank of each pipeline stage.
        requested_bytes: Total memory x utilization, per rank.
        available_bytes: What is left for the cache, per rank; may be below zero.
        request_bytes: What one request of ``max_model_len`` takes at most on the fullest stage.
        blocks: Blocks of the pool.
        kv_tokens, max_concurrency: As vLLM prints them.
        longest_model_len: Largest ``--max-model-len`` that would start, at most the trained
            context; 0: none.
        refusal: Why vLLM would not start, None if it would.
    """

    lines: tuple[tuple[Line, ...], ...]
    requested_bytes: tuple[int, ...]
    available_bytes: tuple[int, ...]
    request_bytes: int
    blocks: int
    kv_tokens: int
    max_concurrency: float
    longest_model_len: int
    refusal: str | None = None

    @property
    def fits(self) -> bool:
        return self.refusal is None


def step_limits(config: VllmConfig, gpu: Gpu) -> tuple[int, int]:
    """Requests and tokens of one step: as configured, else vLLM's defaults for the card."""
    seqs, tokens = _SMALL_BATCH
    small = "a100" in gpu.name.lower() or gpu.compute_capability == "12.1"
    for least, s, t in _BATCHES:
        if (gpu.total_bytes or 0) >= least and not (small and least < _BATCHES[0][0]):
            seqs, tokens = s, t
            break
    requests = config.max_num_seqs or seqs
    batched = config.max_num_batched_tokens or min(tokens, requests * config.max_model_len)
    return config.max_num_seqs or min(requests, batched), batched


def estimate_memory(
    model: ModelSpec,
    quant: str | Format,
    config: VllmConfig | None = None,
    gpus: Sequence[Gpu] = (),
) -> VllmMemory:
    """Account for every rank of a configuration.

    Args:
        model: The model.
        quant: Format of the checkpoint: ``bf16``, ``fp8``, ``awq``, ...
        config: The engine's knobs; None: its defaults.
        gpus: The cards in the order of the ranks, at least as many as there are ranks.

    Raises:
        UsageError: Too few cards, a card of unknown size, or a division or format that vLLM
            refuses on these cards.
        UnknownNameError: No such format.
    """
    config = config or VllmConfig()
    fmt = find_format(quant)
    cards = _checked(config, gpus)
    speeds = {arithmetic(fmt, c.compute_capability) for c in cards if c.vendor == "nvidia"}
    requests, batched = step_limits(config, cards[0])
    stages = stage_weights(model, fmt, config)
    plan = cache_plan(model, config, batched)
    graphs = 0 if config.enforce_eager else _GRAPH * _graph_count(requests)
    accounts, available = [], []
    for stage, weights in enumerate(stages):
        last = stage == len(stages) - 1
        offloaded = min(int(config.cpu_offload_gb * GIB), weights.weights_bytes)
        activation = activation_bytes(model, config, requests, batched, last=last)
        first = stage * config.tensor_parallel
        smallest = min(c.total_bytes or 0 for c in cards[first : first + config.tensor_parallel])
        account = _account(config, smallest, weights.total_bytes, offloaded, activation, graphs)
        accounts.append(account)
        available.append(sum(line.bytes for line in account))
    blocks = plan.blocks(available)
    tokens, concurrency = plan.capacity(available, config.max_model_len)
    refusal = _refusal(config, cards, plan, available)
    return VllmMemory(
        gpus=tuple(
            _device(config, card, accounts[r // config.tensor_parallel], plan, blocks, r)
            for r, card in enumerate(cards)
        ),
        host=DeviceMemory(
            weights_bytes=sum(
                min(int(config.cpu_offload_gb * GIB), s.weights_bytes) for s in stages
            )
            * config.tensor_parallel
        ),
        basis="assumed",
        notes=(*_notes(model, plan, speeds), *assumptions(model)),
        lines=tuple(accounts),
        requested_bytes=tuple(_requested(config, c.total_bytes or 0) for c in cards),
        available_bytes=tuple(available[r // config.tensor_parallel] for r in range(len(cards))),
        request_bytes=max(
            (plan.request_bytes(config.max_model_len, s) for s in range(len(stages))), default=0
        ),
        blocks=blocks,
        kv_tokens=tokens,
        max_concurrency=concurrency,
        longest_model_len=plan.longest(available, model.integer("context_length", 1)),
        refusal=refusal,
    )


def longest_model_len(
    model: ModelSpec, quant: str | Format, config: VllmConfig, gpus: Sequence[Gpu]
) -> int:
    """Largest ``--max-model-len`` with which vLLM would start, 0 if there is none.

    Raises:
        UsageError, UnknownNameError: As for :func:`estimate_memory`.
    """
    return estimate_memory(model, quant, config, gpus).longest_model_len


def activation_bytes(
    model: ModelSpec, config: VllmConfig, requests: int, batched: int, *, last: bool
) -> int:
    """A bound on what one step of the largest size takes beside weights and cache.

    Args:
        model: The model.
        config: The engine's knobs.
        requests: Requests in the step.
        batched: Tokens in the step.
        last: On the last pipeline stage, which also samples.
    """
    tp = config.tensor_parallel
    hidden = model.integer("embedding_length")
    stream = _HIDDEN_COPIES * batched * hidden * 2
    widest = max((_layer_width(model, il) for il in range(decoder_layers(model))), default=hidden)
    layer = batched * widest * 2 // tp + stream
    if not last:
        return layer
    logits = int(min(requests, batched) * model.integer("vocab_size") * 4 * _LOGIT_COPIES)
    return max(layer, logits + 2 * batched * hidden)


def _layer_width(model: ModelSpec, il: int) -> int:
    """Elements per token that a layer's widest part holds at once, over all ranks."""
    ff = model.per_layer("feed_forward_length")[il]
    used = model.integer("expert_used_count")
    expert = model.per_layer("expert_feed_forward_length")[il] if used else 0
    routed = used * (3 * expert + model.integer("embedding_length"))
    heads = model.per_layer("attention.head_count")[il]
    head = model.integer("attention.key_length", model.integer("embedding_length") // max(heads, 1))
    return max(3 * ff, routed, 3 * heads * head)


def _graph_count(requests: int) -> int:
    """Captured sizes, for steps that mix prompts and answers and again for answers alone."""
    largest = min(2 * requests, _LARGEST_GRAPH)
    mixed = sum(n for least, n in _GRAPH_STEPS if largest >= least)
    return mixed + sum(n for least, n in _GRAPH_STEPS if min(requests, largest) >= least)


def _account(
    config: VllmConfig,
    total: int,
    weights: int,
    offloaded: int,
    activation: int,
    graphs: int,
) -> tuple[Line, ...]:
    share = f"{gib(total)} x {config.gpu_memory_utilization:g}"
    lines = [
        Line("requested", _requested(config, total), "computed", share),
        Line("weights", -weights, "computed", "this rank's part, with its rotary tables"),
    ]
    if offloaded:
        note = f"--cpu-offload-gb {config.cpu_offload_gb:g}: stays in host memory"
        lines.append(Line("weights on the host", offloaded, "computed", note))
    lines.append(
        Line("growth outside the allocator", -_GROWTH, "assumed", "largest published figure")
    )
    lines.append(Line("activations", -activation, "assumed", "bound over published start-up logs"))
    if graphs:
        lines.append(Line("CUDA graphs", -graphs, "assumed", "vLLM's own estimate is often larger"))
    return tuple(lines)


def _requested(config: VllmConfig, total: int) -> int:
    return ceil(total * config.gpu_memory_utilization)


def _device(
    config: VllmConfig,
    card: Gpu,
    account: tuple[Line, ...],
    plan: CachePlan,
    blocks: int,
    rank: int,
) -> DeviceMemory:
    size = {line.name: line.bytes for line in account}
    stage = rank // config.tensor_parallel
    return DeviceMemory(
        name=card.name,
        weights_bytes=-size["weights"] - size.get("weights on the host", 0),
        kv_bytes=blocks * plan.block_bytes[stage],
        compute_bytes=-size["activations"] - size.get("CUDA graphs", 0),
        overhead_bytes=-size["growth outside the allocator"] + CONTEXT_BYTES,
    )


def _refusal(
    config: VllmConfig, cards: Sequence[Gpu], plan: CachePlan, available: Sequence[int]
) -> str | None:
    """The reason for which vLLM stops at start-up."""
    for i, card in enumerate(cards):
        total = card.total_bytes or 0
        free = total if card.free_bytes is None else card.free_bytes
        wanted = _requested(config, total)
        if free - CONTEXT_BYTES < wanted and free < total:
            return (
                f"GPU {i} has {gib(free)} free, which with the process itself is less than"
                f" {config.gpu_memory_utilization:g} of its {gib(total)}"
            )
    if min(available) <= 0:
        return f"weights and activations leave {gib(min(available))} for the cache"
    if plan.groups and plan.request_blocks(config.max_model_len) > plan.blocks(available) - 1:
        needed = max(
            plan.request_bytes(config.max_model_len, s) for s in range(len(plan.block_bytes))
        )
        return (
            f"one request of {config.max_model_len} tokens needs {gib(needed)} of cache;"
            f" {gib(min(available))} are left"
        )
    return None


def _checked(config: VllmConfig, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    cards = tuple(gpus[: config.ranks])
    if len(cards) < config.ranks:
        raise UsageError(
            f"tensor parallel {config.tensor_parallel} x pipeline parallel"
            f" {config.pipeline_parallel} needs {config.ranks} GPUs; there are {len(cards)}",
            "lower --tensor-parallel-size or --pipeline-parallel-size",
        )
    for i, card in enumerate(cards):
        if not card.total_bytes:
            raise UsageError(
                f"the memory of GPU {i} ({card.name}) is not known",
                'describe the card, for example --machine "24GB GPU"',
            )
    return cards


def _notes(model: ModelSpec, plan: CachePlan, speeds: Collection[str | None]) -> list[str]:
    notes = ["activations, growth and CUDA graphs are measured by vLLM at start-up: bounds here"]
    if "weight-only" in speeds:
        notes.append("this card has no arithmetic for the format: weights are unpacked to 16 bits")
    if any(g.reach in ("window", "chunk") for g in plan.groups):
        notes.append(
            f"layers with a window of {plan.window} tokens: the printed number of tokens is"
            " concurrency x --max-model-len"
        )
    if any(g.reach == "state" for g in plan.groups):
        notes.append("recurrent layers keep a state per request instead of a cache per token")
    if model.integer("attention.kv_lora_rank"):
        notes.append("latent attention: every rank of a stage holds the whole cache")
    return notes


def with_longest(
    model: ModelSpec, quant: str | Format, config: VllmConfig, gpus: Sequence[Gpu]
) -> VllmConfig:
    """The same configuration with the largest ``--max-model-len`` that starts.

    Raises:
        UsageError: No length fits; or as for :func:`estimate_memory`.
    """
    memory = estimate_memory(model, quant, config, gpus)
    if not memory.longest_model_len:
        raise UsageError(
            f"no context fits: {memory.refusal or 'no memory is left for the cache'}",
            "use a smaller format, more GPUs, or --cpu-offload-gb",
        )
    return replace(config, max_model_len=memory.longest_model_len)
