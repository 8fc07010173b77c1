"""Work against figures that others publish: file sizes, active parameters, cache sizes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nemofit.catalog.filetypes import tensor_types, weights_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.placement import place
from nemofit.speed.work import HOST, Work, work_of


def works(
    model: ModelSpec, quant: str = "Q4_K_M", split: Sequence[float] = (1.0,), **knobs: object
) -> tuple[Work, ...]:
    config = RunConfig(**knobs)  # type: ignore[arg-type]
    placement = place(model, config, split)
    types = tensor_types(model, quant)
    return work_of(model, types, placement.device_of, placement.units, config)


def read_bytes(work: Work) -> int:
    return sum(w.bytes for w in (*work.dense.values(), *work.experts.values()))


def elements(work: Work) -> int:
    return sum(w.elements for w in work.dense.values())


def test_everything_but_the_embedding_is_read(llama_8b: ModelSpec) -> None:
    """A token reads one row of the embedding: 128256 x 4096 weights of Q4_K less than the file."""
    [work] = works(llama_8b)
    assert weights_bytes(llama_8b, "Q4_K_M") - 128256 * 4096 // 256 * 144 == read_bytes(work)


def test_a_tied_embedding_is_read_as_the_output() -> None:
    model = find_model("llama-3.2-3b").spec()
    [work] = works(model)
    assert weights_bytes(model, "Q4_K_M") == read_bytes(work)


@pytest.mark.parametrize(
    ("name", "active"),
    [
        ("qwen3-30b-a3b", 3.3e9),  # Qwen3 Technical Report, table 2: 3.3 B
        ("qwen3-235b-a22b", 22e9),  # the same: 22 B
        ("gpt-oss-120b", 5.1e9),  # OpenAI's model card: 5.1 B
        ("gpt-oss-20b", 3.6e9),  # the same: 3.6 B
        ("deepseek-v3", 37e9),  # DeepSeek-V3 Technical Report: 37 B
        ("mixtral-8x7b", 12.9e9),  # Mistral's announcement: 12.9 B
    ],
)
def test_active_parameters(name: str, active: float) -> None:
    """Used experts and everything else come to the parameters that the makers call active."""
    model = find_model(name).spec()
    [work] = works(model, "Q8_0")
    share = model.integer("expert_used_count") / model.integer("expert_count")
    found = elements(work) + share * sum(w.elements for w in work.experts.values())
    assert active == pytest.approx(found, rel=0.12)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("llama-3.1-70b", 327680),  # 80 layers x 2 x 8 heads x 128 x 2 bytes
        ("deepseek-v3", 61 * 576 * 2),  # DeepSeek-V2 paper: 512 + 64 values per layer and token
        ("qwen3.5-27b", 16 * 2 * 4 * 256 * 2),  # every fourth of 64 blocks has attention
    ],
)
def test_cache_row(name: str, row: int) -> None:
    [work] = works(find_model(name).spec())
    assert row == work.cache_row


def test_windows_bound_what_is_read() -> None:
    """Gemma 3 27B: 52 of 62 blocks see 1024 tokens (Gemma 3 Technical Report, 5 to 1)."""
    [work] = works(find_model("gemma-3-27b").spec())
    block = 2 * 16 * 128 * 2
    assert 52 * block * 1024 + 10 * block * 20000 == work.cache_bytes(20000)


def test_windows_are_read_from_the_file_where_the_engine_has_no_rule() -> None:
    """Gemma 4 26B: 25 of 30 blocks see 1024 tokens; wide heads only where all is seen.

    Its config.json (google/gemma-4-26B-A4B): 8 heads of 256 in a window, 2 of 512 without.
    """
    [work] = works(find_model("gemma-4-26b-a4b").spec())
    window, full = 2 * 8 * 256 * 2, 2 * 2 * 512 * 2
    assert 25 * window * 1024 + 5 * full * 20000 == work.cache_bytes(20000)


def test_quantized_cache_is_smaller(llama_8b: ModelSpec) -> None:
    [f16] = works(llama_8b)
    [q8] = works(llama_8b, kv_type_k="q8_0", kv_type_v="q8_0")
    assert f16.cache_row * 34 / 64 == q8.cache_row


def test_devices_add_up(llama_70b: ModelSpec) -> None:
    [whole] = works(llama_70b)
    parts = works(llama_70b, split=(2.0, 1.0), gpu_layers=60)
    assert [w.device for w in parts] == [0, 1, HOST]
    assert read_bytes(whole) == sum(read_bytes(w) for w in parts)
    assert whole.cache_row == sum(w.cache_row for w in parts)
    assert whole.kernels == sum(w.kernels for w in parts)


def test_experts_on_the_host(qwen3_moe: ModelSpec) -> None:
    gpu, host = works(qwen3_moe, cpu_moe_layers=36)
    assert host.visits == 36
    assert not host.dense
    assert host.blocks == 0
    assert sum(w.elements for w in host.experts.values()) == pytest.approx(
        3 * sum(w.elements for w in gpu.experts.values())
    )


def test_cache_kept_on_the_host_crosses(llama_8b: ModelSpec) -> None:
    [work] = works(llama_8b, kv_offload=False)
    assert work.cache_bytes(100) == work.linked_bytes(100)


def test_next_token_blocks_are_not_read() -> None:
    """GLM-4.5-Air: 46 blocks and one that predicts a further token."""
    [work] = works(find_model("glm-4.5-air").spec())
    assert work.blocks == 46
