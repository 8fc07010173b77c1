"""Against what people published: start-up logs of vLLM, and sizes of checkpoints.

The logs are of many versions; their cards' totals are the log's own. Weights are held to 1.5 %
(the allocator rounds, and releases differ in what they count), tokens to 1.5 % when the memory that
was left is given (ranks differ, the log prints the largest), and the whole prediction, bounds
included, to 4 % of the card.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nemofit.catalog.models import all_models, find_model
from nemofit.engines.transformers.parameters import parameters
from nemofit.engines.vllm.config import VllmConfig
from nemofit.engines.vllm.kv_cache import cache_plan
from nemofit.engines.vllm.memory import estimate_memory
from nemofit.machine.records import Gpu
from nemofit.units import GIB


@dataclass(frozen=True)
class Published:
    """Figures of one log in GiB and tokens; None: not in it."""

    source: str
    model: str
    quant: str
    config: VllmConfig = field(default_factory=VllmConfig)
    total: float | None = None
    capability: str = "8.6"
    name: str = "NVIDIA card"
    weights: float | None = None
    left: float | None = None
    tokens: int | None = None


LOGS = [
    Published(
        "vllm-project/vllm issue 10517, RTX 3090, Llama 3.1 8B, 20k",
        "llama-3.1-8b", "bf16",
        VllmConfig(max_model_len=20000, gpu_memory_utilization=0.9, max_num_batched_tokens=2048),
        total=23.58, weights=14.9888, left=3.81, tokens=1952 * 16,
    ),
    Published(
        "vllm-project/vllm issue 15815, two L40S, Qwen 2.5 32B",
        "qwen2.5-32b", "bf16",
        VllmConfig(max_model_len=10000, tensor_parallel=2, gpu_memory_utilization=0.9),
        total=44.42, capability="8.9", weights=30.7098, left=7.71, tokens=3947 * 16,
    ),
    Published(
        "LMCache/LMCache issue 1739, Qwen3 14B",
        "qwen3-14b", "bf16", VllmConfig(max_model_len=32768), left=6.51, tokens=42656,
    ),
    Published(
        "vllm-project/vllm issue 21348, four H100, Qwen3 235B A22B FP8",
        "qwen3-235b-a22b", "fp8",
        VllmConfig(max_model_len=40960, tensor_parallel=4), left=8.11, tokens=178880,
    ),
    Published(
        "vllm-project/vllm pull 10511, H100, Llama 3 8B", "llama-3-8b", "bf16", weights=14.96,
    ),
    Published(
        "vllm-project/vllm pull 10511, two H100, Llama 3 8B",
        "llama-3-8b", "bf16", VllmConfig(tensor_parallel=2), weights=7.48,
    ),
    Published(
        "vllm-project/vllm issue 17327, four cards, Qwen3 30B A3B",
        "qwen3-30b-a3b", "bf16", VllmConfig(tensor_parallel=4), weights=14.2474,
    ),
    Published(
        "vllm-project/vllm issue 13061, two RTX 4090, R1 distill Qwen 14B",
        "r1-distill-qwen-14b", "bf16", VllmConfig(tensor_parallel=2), weights=13.9476,
    ),
    Published(
        "myoceane.fr, vLLM on an A100, GPT-OSS 20B (MXFP4), vLLM 0.19",
        "gpt-oss-20b", "mxfp4",
        VllmConfig(max_model_len=131072, gpu_memory_utilization=0.65),
        total=79.25, capability="8.0", name="NVIDIA A100-SXM4-80GB", weights=13.72, left=36.56,
    ),
]  # fmt: skip


def cards(log: Published, total: int) -> list[Gpu]:
    card = Gpu(name=log.name, vendor="nvidia", total_bytes=total, compute_capability=log.capability)
    return [card] * log.config.ranks


@pytest.mark.parametrize("log", [x for x in LOGS if x.weights], ids=lambda x: x.source)
def test_weights(log: Published) -> None:
    memory = estimate_memory(
        find_model(log.model).spec(), log.quant, log.config, cards(log, 100 * GIB)
    )
    assert log.weights is not None
    assert memory.gpus[0].weights_bytes == pytest.approx(log.weights * GIB, rel=0.015)


@pytest.mark.parametrize("log", [x for x in LOGS if x.tokens], ids=lambda x: x.source)
def test_tokens_of_what_was_left(log: Published) -> None:
    assert log.left is not None
    plan = cache_plan(find_model(log.model).spec(), log.config, 2048)
    tokens, _ = plan.capacity([int(log.left * GIB)], log.config.max_model_len)
    assert tokens == pytest.approx(log.tokens, rel=0.015)


@pytest.mark.parametrize("log", [x for x in LOGS if x.total and x.left], ids=lambda x: x.source)
def test_what_is_left_is_never_promised_too_large(log: Published) -> None:
    """Bounds on activations and graphs leave less than the engine found, by at most 4 %."""
    assert log.total is not None and log.left is not None
    total = int(log.total * GIB)
    memory = estimate_memory(find_model(log.model).spec(), log.quant, log.config, cards(log, total))
    predicted = min(memory.available_bytes)
    assert log.left * GIB - 0.04 * total < predicted <= log.left * GIB


TEXT_ONLY = [
    (card.id, known.size)
    for card in all_models()
    for known in card.vllm
    if known.format == "bf16" and known.size and card.architecture in ("llama", "qwen2", "phi3")
]


@pytest.mark.parametrize(("model", "size"), TEXT_ONLY, ids=[m for m, _ in TEXT_ONLY])
def test_parameters_add_up_to_the_published_checkpoint(model: str, size: object) -> None:
    """Within 0.1 %: the files' headers, and what is printed."""
    found = sum(p.bytes for p in parameters(find_model(model).spec()))
    assert found == pytest.approx(size.bytes, rel=1e-3)  # type: ignore[attr-defined]


def test_there_are_checkpoints_to_compare_with() -> None:
    assert len(TEXT_ONLY) >= 10
