"""What a running Ollama says of its models: ``GET /api/ps``.

``size`` and ``size_vram`` are sums of the buffers that its llama-server logged: weights, cache and
compute, without what the driver takes (server/routes.go and llm/llama_server.go of ollama/ollama;
versions before 2026 give an estimate there). ``context_length`` is that of one slot.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemofit.engines.base import Memory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.memory import Estimator
from nemofit.errors import DataError

from .settings import BATCHES

_MOST_MODELS = 100
_LARGEST = 1 << 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that Ollama has in memory.

    Attributes:
        name: Tag, "llama3.1:8b".
        size_bytes: All of it.
        gpu_bytes: The part on GPUs.
        context: Tokens of one slot, None: not said.
        quant: "Q4_K_M", None: not said.
    """

    name: str
    size_bytes: int
    gpu_bytes: int
    context: int | None = None
    quant: str | None = None


def parse_ps(answer: object) -> tuple[LoadedModel, ...]:
    """Read the answer.

    Raises:
        DataError: It is not what Ollama answers.
    """
    models = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        raise DataError("the answer of /api/ps lists no models", "is this address an Ollama?")
    found = []
    for one in models[:_MOST_MODELS]:
        one = one if isinstance(one, dict) else {}
        name, size = one.get("name"), one.get("size")
        if not isinstance(name, str) or not isinstance(size, int) or not _is_count(size):
            raise DataError("a model of /api/ps has no name or size", "update Ollama")
        vram, context = one.get("size_vram", 0), one.get("context_length")
        details = one.get("details")
        quant = details.get("quantization_level") if isinstance(details, dict) else None
        found.append(
            LoadedModel(
                name=name[:200],
                size_bytes=size,
                gpu_bytes=vram if _is_count(vram) else 0,
                context=context if _is_count(context) and context else None,
                quant=quant[:40] if isinstance(quant, str) and quant != "unknown" else None,
            )
        )
    return tuple(found)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def matching_config(
    estimator: Estimator, loaded: LoadedModel, n_gpus: int, backend: str
) -> RunConfig:
    """The configuration that Ollama runs a model with: its rules for batches, its layers by size.

    The batch is the automatic one for the context. How many layers are on the GPUs follows from the
    size of the part there.
    """
    context = loaded.context or 4096
    batch = next(size for most, size in BATCHES if context <= most)
    config = RunConfig(context=context, batch=batch, ubatch=batch, backend=backend)
    if not loaded.gpu_bytes or not n_gpus:
        return config.replace(backend="cpu", gpu_layers=0, op_offload=False, repack=True)
    everything = estimator.model.integer("block_count") + 1
    if loaded.gpu_bytes == loaded.size_bytes:
        return config.replace(gpu_layers=everything)

    def off(layers: int) -> int:
        memory = estimator.memory(config.replace(gpu_layers=layers), n_gpus)
        return abs(gpu_bytes(memory) - loaded.gpu_bytes)

    return config.replace(gpu_layers=min(range(1, everything + 1), key=off))


def gpu_bytes(memory: Memory) -> int:
    """The part on GPUs as Ollama adds it up: without what the driver takes."""
    return sum(gpu.total_bytes - gpu.overhead_bytes for gpu in memory.gpus)


def all_bytes(memory: Memory) -> int:
    """All of it as Ollama adds it up."""
    host = memory.host
    return gpu_bytes(memory) + host.total_bytes - host.overhead_bytes
