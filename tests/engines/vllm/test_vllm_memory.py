"""The account of a rank: what each knob does to it, and what is refused."""

from __future__ import annotations

import pytest

from nemofit.catalog.models import find_model
from nemofit.engines.vllm import VllmConfig, estimate_memory, longest_model_len
from nemofit.engines.vllm.kv_cache import token_bytes
from nemofit.engines.vllm.memory import VllmMemory, step_limits, with_longest
from nemofit.errors import UsageError
from nemofit.machine.records import Gpu
from nemofit.units import GIB

MODEL = find_model("llama-3.1-8b").spec()
SEVENTY = find_model("llama-3.3-70b").spec()


def gpu(gib: float = 24, free: float | None = None, **more: object) -> Gpu:
    fields: dict[str, object] = {
        "name": "NVIDIA card", "vendor": "nvidia", "compute_capability": "8.9", **more
    }  # fmt: skip
    return Gpu(
        total_bytes=int(gib * GIB),
        free_bytes=None if free is None else int(free * GIB),
        **fields,  # type: ignore[arg-type]
    )


def line(memory: VllmMemory, name: str, stage: int = 0) -> int:
    return next((x.bytes for x in memory.lines[stage] if x.name == name), 0)


def test_the_lines_add_up_to_what_is_left() -> None:
    memory = estimate_memory(SEVENTY, "awq", VllmConfig(tensor_parallel=2), [gpu(48)] * 2)
    for stage in memory.lines:
        assert sum(x.bytes for x in stage) == memory.available_bytes[0]
    card = memory.gpus[0]
    pool = card.weights_bytes + card.kv_bytes + card.compute_bytes
    assert pool <= memory.requested_bytes[0] < card.total_bytes


def test_a_token_of_llama_3_1_70b_takes_320_kib_and_is_divided_until_the_heads_run_out() -> None:
    """80 layers x 8 heads x 128 x K and V x 2 bytes; 16 ranks hold one head each, as 8 do."""
    sizes = [token_bytes(SEVENTY, VllmConfig(tensor_parallel=tp)) for tp in (1, 2, 8, 16)]
    assert sizes == [327680, 163840, 40960, 40960]
    assert token_bytes(SEVENTY, VllmConfig(kv_cache_dtype="fp8")) == 163840


def test_latent_attention_keeps_576_elements_on_every_rank() -> None:
    model = find_model("deepseek-v3").spec()
    sizes = {token_bytes(model, VllmConfig(tensor_parallel=tp)) for tp in (1, 8)}
    assert sizes == {61 * 576 * 2}


def test_eager_mode_gives_the_graphs_memory_to_the_cache() -> None:
    graphs = estimate_memory(MODEL, "bf16", VllmConfig(), [gpu()])
    eager = estimate_memory(MODEL, "bf16", VllmConfig(enforce_eager=True), [gpu()])
    assert line(eager, "CUDA graphs") == 0 > line(graphs, "CUDA graphs")
    assert eager.kv_tokens > graphs.kv_tokens


def test_offloaded_weights_lie_on_the_host_once_per_gpu() -> None:
    plain = estimate_memory(SEVENTY, "awq", VllmConfig(tensor_parallel=2), [gpu()] * 2)
    config = VllmConfig(tensor_parallel=2, cpu_offload_gb=4)
    moved = estimate_memory(SEVENTY, "awq", config, [gpu()] * 2)
    assert moved.host.weights_bytes == 8 * GIB
    assert moved.gpus[1].weights_bytes == plain.gpus[1].weights_bytes - 4 * GIB
    assert moved.available_bytes[0] == plain.available_bytes[0] + 4 * GIB


def test_offloading_more_than_there_is_moves_what_there_is() -> None:
    memory = estimate_memory(MODEL, "bf16", VllmConfig(cpu_offload_gb=500), [gpu()])
    assert memory.host.weights_bytes == 16060522496


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (gpu(24), (256, 2048)),
        (gpu(79.18, name="NVIDIA H100 80GB HBM3"), (1024, 8192)),
        (gpu(79.25, name="NVIDIA A100-SXM4-80GB"), (256, 2048)),
        (gpu(119, name="NVIDIA GB10", compute_capability="12.1"), (256, 2048)),
        (gpu(178, name="NVIDIA B200"), (1024, 16384)),
    ],
)
def test_steps_are_as_large_as_the_engine_makes_them_on_a_card(
    card: Gpu, expected: tuple[int, int]
) -> None:
    assert step_limits(VllmConfig(max_model_len=32768), card) == expected


def test_a_short_length_limits_the_step() -> None:
    assert step_limits(VllmConfig(max_model_len=4), gpu(24)) == (256, 1024)
    assert step_limits(VllmConfig(max_num_seqs=2, max_model_len=100), gpu(24)) == (2, 200)


def test_the_longest_length_starts_and_one_block_more_does_not() -> None:
    cards = [gpu(23.5)]
    longest = longest_model_len(MODEL, "bf16", VllmConfig(), cards)
    assert 0 < longest < 131072
    assert estimate_memory(MODEL, "bf16", VllmConfig(max_model_len=longest), cards).fits
    more = estimate_memory(MODEL, "bf16", VllmConfig(max_model_len=longest + 16), cards)
    assert more.refusal is not None and "needs" in more.refusal
    assert with_longest(MODEL, "bf16", VllmConfig(), cards).max_model_len == longest


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    memory = estimate_memory(SEVENTY, "bf16", VllmConfig(), [gpu()])
    assert not memory.fits and memory.kv_tokens == 0 and memory.longest_model_len == 0
    with pytest.raises(UsageError, match="no context fits"):
        with_longest(SEVENTY, "bf16", VllmConfig(), [gpu()])


def test_a_card_that_others_use_is_refused_as_the_engine_refuses_it() -> None:
    """utilization is a share of all memory: what others hold is not subtracted but checked."""
    memory = estimate_memory(MODEL, "bf16", VllmConfig(), [gpu(24, free=20)])
    assert memory.refusal is not None and "20.00 GiB free" in memory.refusal
    assert estimate_memory(
        MODEL, "bf16", VllmConfig(gpu_memory_utilization=0.78), [gpu(24, free=20)]
    ).fits


@pytest.mark.parametrize(
    ("config", "cards", "message"),
    [
        (VllmConfig(tensor_parallel=2), [gpu()], "needs 2 GPUs; there are 1"),
        (VllmConfig(), [], "needs 1 GPUs; there are 0"),
        (VllmConfig(), [Gpu(name="odd")], "not known"),
        (VllmConfig(tensor_parallel=3), [gpu()] * 3, "32 attention heads"),
        (VllmConfig(pipeline_parallel=33), [gpu()] * 33, "33 pipeline stages for 32 layers"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(
    config: VllmConfig, cards: list[Gpu], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        estimate_memory(MODEL, "bf16", config, cards)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_model_len": 0}, {"max_model_len": True}, {"tensor_parallel": -1},
        {"gpu_memory_utilization": 0.0}, {"gpu_memory_utilization": 1.01},
        {"gpu_memory_utilization": float("nan")}, {"cpu_offload_gb": -1.0},
        {"cpu_offload_gb": float("inf")}, {"kv_cache_dtype": "q8_0"}, {"dtype": "float64"},
    ],
)  # fmt: skip
def test_knobs_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        VllmConfig(**wrong)  # type: ignore[arg-type]


def test_every_model_of_the_catalog_gets_an_account() -> None:
    """Whatever its layers are; what no rule covers is said."""
    from nemofit.catalog.models import all_models

    for card in all_models():
        memory = estimate_memory(card.spec(), "bf16", VllmConfig(max_model_len=512), [gpu(10000)])
        assert memory.gpus[0].weights_bytes > 0, card.id
        assert memory.refusal is None, (card.id, memory.refusal)
