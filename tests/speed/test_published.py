"""Published speeds: runs that the calibration does not contain, and a sample of those it does."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping

import pytest
from benchmarks.speed.rows import Row, rows

from conftest import gpu
from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.machine.records import Host, Machine
from nemofit.speed import Speed, estimate_speed
from nemofit.speed.fitted import ROWS, SPREADS
from nemofit.speed.spread import spread

I9_10900X = Host(cpu="Intel Core i9-10900X", physical_cores=10, ram_bandwidth_gb_s=102.0)
RYZEN_5900X = Host(cpu="AMD Ryzen 9 5900X", physical_cores=12, ram_bandwidth_gb_s=57.6)
RYZEN_7950X = Host(cpu="AMD Ryzen 9 7950X", physical_cores=16, ram_bandwidth_gb_s=57.6)
"""Both with two channels at 3600 MT/s."""


def estimate(
    cards: tuple[str, ...],
    model: str,
    quant: str,
    config: Mapping[str, object],
    host: Host | None,
    **tokens: int,
) -> Speed:
    return estimate_speed(
        find_model(model).spec(),
        quant,
        RunConfig(**config),  # type: ignore[arg-type]
        Machine(host=host or Host(physical_cores=8), gpus=tuple(gpu(c) for c in cards)),
        **{"prompt_tokens": 0, "generated_tokens": 128} | tokens,
    )


@pytest.mark.parametrize(
    ("cards", "model", "quant", "config", "host", "measured"),
    [
        # github.com/brand-o/normiebench/issues/3 and /40
        (("apple-m4",), "llama-3.1-8b", "Q4_K_M", {}, None, 20.87),
        (("apple-m1-max",), "llama-3.1-8b", "Q4_K_M", {}, None, 46.2),
        # calebcoffie.com/benchmarks/gemma-3-4b-it-gguf, tg_512
        (("RTX 3090",), "gemma-3-4b", "Q4_K_M", {}, None, 188.7),
        # github.com/AlexsJones/llmfit/pull/774
        (("RTX 2080",), "gemma-3-12b", "Q4_K_M", {"gpu_layers": 44}, I9_10900X, 26.1),
        (("RTX 2080",), "qwen3-14b", "Q4_K_M", {"gpu_layers": 32}, I9_10900X, 16.9),
        (("RTX 2080",), "phi-4", "Q4_K_M", {"gpu_layers": 32}, I9_10900X, 16.7),
        # kenimoto.dev/blog/rtx-4070-cpu-moe-flag-2-8x-tokens, processor not said
        (("RTX 4070",), "qwen3.5-35b-a3b", "Q4_K_M", {"cpu_moe_layers": 99}, None, 34.6),
        # github.com/ggml-org/llama.cpp/issues/4716
        ((), "mixtral-8x7b", "Q8_0", {}, RYZEN_5900X, 3.58),
        ((), "mixtral-8x7b", "Q8_0", {}, RYZEN_7950X, 3.37),
        # github.com/ggml-org/llama.cpp/pull/4766
        (("Tesla P40",) * 3, "llama-2-7b", "Q4_1", {}, None, 54.24),
        # github.com/geerlingguy/ai-benchmarks/issues/46
        (("RTX 2080 Ti",), "tinyllama-1.1b", "Q4_K_M", {"backend": "vulkan"}, None, 424.32),
        # hiesch.eu/blog/llamacpp-benchmarks-speculative-decoding
        (("apple-m3-max",), "gemma-4-26b-a4b", "Q4_K_M", {}, None, 63.9),
        (("apple-m3-max",), "gemma-4-e4b", "Q4_K_M", {}, None, 72.9),
        (("apple-m3-max",), "gemma-4-e2b", "Q4_K_M", {}, None, 108.3),
        # github.com/ggml-org/llama.cpp/pull/16634
        (("apple-m5",), "llama-2-7b", "Q4_0", {}, None, 26.59),
        # github.com/ggml-org/llama.cpp/pull/25051
        (("RX 7900 XTX",) * 2, "qwen3.5-27b", "Q4_K_M", {"backend": "vulkan"}, None, 34.5),
    ],
)
def test_generation_on_machines_and_models_not_seen(
    cards: tuple[str, ...],
    model: str,
    quant: str,
    config: Mapping[str, object],
    host: Host | None,
    measured: float,
) -> None:
    found = estimate(cards, model, quant, config, host).decode
    assert found.low < measured < found.high
    assert measured == pytest.approx(found.likely, rel=0.3)


@pytest.mark.parametrize(
    ("cards", "model", "quant", "config", "tokens", "measured"),
    [
        (("apple-m4",), "llama-3.1-8b", "Q4_K_M", {}, {}, 224.81),
        (("apple-m1-max",), "llama-3.1-8b", "Q4_K_M", {}, {}, 499.58),
        (("Tesla P40",) * 3, "llama-2-7b", "Q4_1", {}, {}, 910.93),
        (("RTX 2080 Ti",), "llama-3.2-3b", "Q4_K_M", {"backend": "vulkan"}, {}, 4418.0),
        (("apple-m5",), "llama-2-7b", "Q4_0", {}, {}, 608.05),
        (("RX 7900 XTX",) * 2, "qwen3.5-27b", "Q4_K_M", {"backend": "vulkan"}, {}, 809.0),
        # github.com/ggml-org/llama.cpp/pull/7860 and /17505
        (("RTX 3090",), "llama-3.1-8b", "Q6_K", {}, {"prompt_tokens": 2048}, 3491.0),
        (("RTX 3090",), "llama-3.1-8b", "Q4_0", {}, {"depth": 32768}, 1460.0),
    ],
)
def test_prompts_on_machines_and_models_not_seen(
    cards: tuple[str, ...],
    model: str,
    quant: str,
    config: Mapping[str, object],
    tokens: Mapping[str, int],
    measured: float,
) -> None:
    """Sources as above, of the same runs."""
    found = estimate(cards, model, quant, config, None, **{"prompt_tokens": 512, **tokens}).prefill
    assert found.low < measured < found.high


def of_kind(row: Row) -> str:
    return row.phase + ("" if row.kind() == "gpu" else ", not one GPU")


def test_a_sample_of_the_measurements_is_met() -> None:
    """The constants that are shipped belong to this code: medians and ranges as docs/speed.md."""
    errors = defaultdict(list)
    inside = []
    for row in rows(every=5):
        e = row.error()
        errors[of_kind(row)].append(abs(math.exp(e) - 1))
        low, high = spread(row.phase, row.kind(), row.sparse, row.streams, row.figures())
        inside.append(low <= math.exp(-e) <= high)
    median = {kind: statistics.median(found) for kind, found in errors.items()}
    assert median["decode"] <= 0.08
    assert median["decode, not one GPU"] <= 0.15
    assert median["prefill"] <= 0.20
    assert median["prefill, not one GPU"] <= 0.25
    assert sum(inside) >= 0.9 * len(inside)


def test_ranges_are_not_wider_than_a_factor_two_where_most_is_known() -> None:
    for name in ("decode/gpu/dense", "decode/multi/dense", "decode"):
        low, high = SPREADS[name]
        assert low < 1 < high < 2 * low


def test_families_with_measurements() -> None:
    for family in ("ampere", "ada", "blackwell", "hopper", "rdna3", "apple", "cpu"):
        assert ROWS[family] >= 20
