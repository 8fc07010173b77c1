"""What Ollama decides by itself, and the llama-server that it then starts.

The context follows the memory of the cards, the batch the context, the slots the architecture; the
layers are left to llama.cpp's own fit unless ``num_gpu`` is set.

Source: ollama/ollama 0.33, ``server/routes.go`` (context by memory), ``server/sched.go``
(applyAutomaticGenerationBatch, slots, selectLlamaServerPlacement), ``llm/llama_server.go``
(startLlamaServer, PredictServerVRAM), ``envconfig/config.go``.
"""

from __future__ import annotations

from collections.abc import Sequence

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError
from nemofit.machine.records import Gpu
from nemofit.units import GIB, MIB

CONTEXT_TIERS = ((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096))
"""Total memory of all cards, and the context that a model gets from there on."""
CACHE_TYPES = ("f16", "q8_0", "q4_0")
"""That OLLAMA_KV_CACHE_TYPE takes; K and V always have the same."""
BATCHES = ((4096, 512), (32768, 1024), (1 << 40, 2048))
"""Context over all slots, and the batch up to there."""
SURCHARGES = {512: 0, 1024: 768 * MIB, 2048: 2 * GIB}
"""What a batch is taken to need beside the prediction; without room for it the next smaller."""
ONE_CARD_SHARE = 0.8
"""A model goes to a single card if the prediction is no more than this share of what is free."""
ONE_SLOT = frozenset(
    {"mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe",
     "nemotron_h", "nemotron_h_moe"}
)  # fmt: skip
"""Architectures that answer one request at a time whatever OLLAMA_NUM_PARALLEL says."""
_SMALL_CARD = 8 * GIB


def default_context(model: ModelSpec, gpus: Sequence[Gpu]) -> int:
    """Tokens of one slot where nobody set ``num_ctx`` or OLLAMA_CONTEXT_LENGTH."""
    total = sum(gpu.total_bytes or 0 for gpu in gpus)
    tier = next(tokens for least, tokens in CONTEXT_TIERS if total >= least)
    return min(tier, model.integer("context_length") or tier)


def slots(model: ModelSpec, asked: int) -> int:
    """Requests at a time: as asked, or one where the architecture allows no more."""
    return 1 if model.architecture in ONE_SLOT else asked


def flash_attention(gpus: Sequence[Gpu]) -> bool:
    """Whether flash attention is left on: not on NVIDIA cards before 6.0, nor on 7.2."""
    capabilities = [float(g.compute_capability) for g in gpus if g.compute_capability]
    return all(c >= 6.0 and c != 7.2 for c in capabilities)


def automatic_batch(
    context: int, gpus: Sequence[Gpu], predicted: int | None = None, attention: bool = True
) -> int:
    """Tokens of a batch, logical and physical, where nobody set ``num_batch``.

    Args:
        context: Over all slots.
        gpus: The cards; without any, memory sets no limit here.
        predicted: From :func:`predicted_bytes`; None: the batch is not lowered for memory.
        attention: Flash attention is on.
    """
    if not attention and any(gpu.backend == "cuda" for gpu in gpus):
        small = any((gpu.total_bytes or 0) <= _SMALL_CARD for gpu in gpus)
        return 256 if small and context > 4096 else 512
    batch = next(tokens for most, tokens in BATCHES if context <= most)
    free = sum(_free(gpu) for gpu in gpus)
    while gpus and predicted is not None and batch > 512 and predicted + SURCHARGES[batch] > free:
        batch //= 2
    return batch


def predicted_bytes(model: ModelSpec, file_bytes: int, context: int) -> int:
    """Ollama's own prediction, which only chooses cards and batch: always an f16 cache."""
    heads = max(model.integer("attention.head_count"), 1)
    kv_heads = min((n for n in model.per_layer("attention.head_count_kv") if n), default=heads)
    head = model.integer("embedding_length") // heads
    return file_bytes + 2 * model.integer("block_count") * kv_heads * head * context * 2


def one_card(gpus: Sequence[Gpu], predicted: int) -> int | None:
    """The card that a model is put on alone; None: all cards share it."""
    best = max(range(len(gpus)), key=lambda i: _free(gpus[i]), default=None)
    if best is None or predicted > ONE_CARD_SHARE * _free(gpus[best]):
        return None
    return best


def check(config: RunConfig) -> None:
    """Refuse what Ollama cannot be told.

    Raises:
        UsageError: Two cache types, or one that it does not have; one cache for all slots.
    """
    if config.kv_type_k != config.kv_type_v or config.kv_type_k not in CACHE_TYPES:
        raise UsageError(
            f"Ollama has no cache of {config.kv_type_k} and {config.kv_type_v}",
            "--kv-type " + ", ".join(CACHE_TYPES) + ", for K and V alike",
        )


def runner_options(config: RunConfig, path: str, layers: int | None) -> tuple[str, ...]:
    """What Ollama gives to llama-server for a configuration, without ports and logs.

    Args:
        config: Settled.
        path: Of the model's blob.
        layers: ``num_gpu``; None: left to llama.cpp's fit.
    """
    words = ["--model", path, "-c", str(config.context), "-np", str(config.parallel)]
    if not config.mmap:
        words += ["--load-mode", "none"]
    if config.kv_type_k != "f16":
        words += ["--cache-type-k", config.kv_type_k, "--cache-type-v", config.kv_type_v]
    words += ["--flash-attn", "auto" if config.flash_attention else "off"]
    words += ["-b", str(config.batch), "-ub", str(config.ubatch)]
    if layers is not None:
        words += ["-ngl", str(layers)]
    return tuple(words)


def _free(gpu: Gpu) -> int:
    return (gpu.total_bytes or 0) if gpu.free_bytes is None else gpu.free_bytes
