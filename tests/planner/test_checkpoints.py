"""Plans for vLLM and transformers: what the engine's own accounting says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemofit.catalog.models import find_model
from nemofit.engines.transformers import estimate_memory as place
from nemofit.engines.vllm import estimate_memory
from nemofit.engines.vllm.placement import tensor_parallel_sizes
from nemofit.errors import DoesNotFitError, UnknownNameError, UsageError
from nemofit.machine import parse_machine
from nemofit.planner import transformers, vllm
from nemofit.planner.checkpoints import CheckpointGoal, VllmPlan
from nemofit.units import GIB

MACHINES = ("RTX 4090, 64 GiB RAM", "2x RTX 3090, 64 GiB RAM", "4x A100 80GB, 512 GiB RAM",
            "3x RTX 4090, 64 GiB RAM", "T4, 64 GiB RAM", "H100, 256 GiB RAM")  # fmt: skip
MODELS = ("llama-3.1-8b", "llama-3.3-70b", "gpt-oss-20b")


def goal(**fixed: object) -> CheckpointGoal:
    return CheckpointGoal(**fixed)  # type: ignore[arg-type]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("model", MODELS)
def test_what_is_recommended_starts_and_what_is_refused_does_not(model: str, machine: str) -> None:
    """Each plan again through the accounting that is held against vLLM's own classes."""
    spec, here = find_model(model).spec(), parse_machine(machine)
    try:
        plans = vllm.rank(spec, here, goal()).plans
    except DoesNotFitError:
        search = vllm.VllmSearch(spec, here, goal())
        for checkpoint in search.checkpoints():
            for ranks in range(1, len(here.gpus) + 1):
                for tp in tensor_parallel_sizes(spec, ranks):
                    if ranks % tp:
                        continue
                    try:
                        account = estimate_memory(
                            spec, checkpoint.format,
                            next(search._divisions(8192)).replace(
                                tensor_parallel=tp, pipeline_parallel=ranks // tp),
                            here.gpus,
                        )  # fmt: skip
                    except UsageError:
                        continue
                    assert not account.fits
        return
    seen = set()
    for plan in plans:
        assert isinstance(plan, VllmPlan)
        again = estimate_memory(spec, plan.quant or "", plan.config, plan.used)
        assert again.fits and again.kv_tokens >= plan.context
        assert plan.context <= again.longest_model_len
        assert spec.integer("attention.head_count") % plan.config.tensor_parallel == 0
        for device, offer in zip(plan.memory.gpus, plan.room.budgets.gpus, strict=True):
            assert device.total_bytes <= offer
        seen.add((plan.quant, plan.context))
    assert len(seen) == len(plans)
    assert [p.score for p in plans] == sorted((p.score for p in plans), reverse=True)


def test_old_cards_are_told_float16() -> None:
    """bfloat16 needs compute capability 8.0; a T4 has 7.5."""
    plan, _ = vllm.single(
        find_model("llama-3.1-8b").spec(), parse_machine("2x T4, 64 GiB RAM"), goal(context=4096)
    )
    assert (plan.quant, plan.config.dtype) == ("fp16", "float16")
    assert "--dtype float16" in plan.command()


def test_towers_are_left_out_where_they_are_not_counted() -> None:
    """A published load of Gemma 4 26B on an A100 (myoceane.fr, 48.5 GiB) has 1 GiB beside the text;
    with the flag vLLM loads none of it (vllm/model_executor/models/interfaces.py)."""
    machine = parse_machine("A100 80GB, 128 GiB RAM")
    seeing, _ = vllm.single(find_model("gemma-4-26b-a4b").spec(), machine, goal(quant="bf16"))
    assert 0.9 * GIB < 48.5 * GIB - seeing.memory.gpus[0].weights_bytes < 1.1 * GIB
    assert "--language-model-only" in seeing.command().split()
    reading, _ = vllm.single(find_model("llama-3.1-8b").spec(), machine, goal())
    assert "--language-model-only" not in reading.command().split()
    library, _ = transformers.single(find_model("gemma-4-26b-a4b").spec(), machine, goal())
    assert any("not counted" in note for note in library.notes)


def test_formats_below_the_cards_capability_are_not_tried() -> None:
    """NVFP4 needs 7.5 at least; FP8 arithmetic is native from 8.9, unpacked from 7.5."""
    search = vllm.VllmSearch(
        find_model("llama-3.3-70b").spec(), parse_machine("8x V100 32GB, 512 GiB RAM"), goal()
    )
    assert {plan.quant for plan in search.plans()} == {"fp16"}


def test_the_person_is_never_overruled() -> None:
    plan, _ = vllm.single(
        find_model("llama-3.1-8b").spec(), parse_machine("4x RTX 3090, 128 GiB RAM"),
        goal(context=4096, tensor_parallel=2, pipeline_parallel=2, utilization=0.7, eager=True,
             parallel=8, cpu_offload_gb=1.0, quant="bf16"),
    )  # fmt: skip
    words = plan.command()
    for said in ("--max-model-len 4096", "--tensor-parallel-size 2", "--pipeline-parallel-size 2",
                 "--gpu-memory-utilization 0.7", "--enforce-eager", "--max-num-seqs 8",
                 "--cpu-offload-gb 1"):  # fmt: skip
        assert said in words
    assert plan.memory.host.weights_bytes == 4 * GIB


def test_the_reserve_lowers_the_utilization() -> None:
    model, machine = find_model("llama-3.1-8b").spec(), parse_machine("RTX 4090, 64 GiB RAM")
    usual = vllm.single(model, machine, goal())[0].config.gpu_memory_utilization
    less = vllm.single(model, machine, goal(reserve_bytes=3 * GIB))[0].config
    assert usual == 0.92
    assert 0.8 < less.gpu_memory_utilization < usual


def test_unequal_cards_are_not_held_to_the_smallest() -> None:
    """Two ranks would have what the small card has: one card has more."""
    machine = parse_machine("RTX 3090, GTX 1050 Ti, 64 GiB RAM")
    plan, _ = vllm.single(find_model("llama-3.1-8b").spec(), machine, goal())
    assert (plan.config.ranks, plan.cards) == (1, (0,))
    assert plan.memory.gpus[1].total_bytes == 0


def test_what_vllm_cannot_have_is_a_clear_no() -> None:
    model = find_model("llama-3.1-8b").spec()
    for machine in ("64 GiB RAM", "M3 Max 64GB", "Arc A770, 64 GiB RAM"):
        with pytest.raises(DoesNotFitError, match="vLLM needs"):
            vllm.rank(model, parse_machine(machine), goal())
    with pytest.raises(UnknownNameError, match="checkpoint"):
        vllm.rank(model, parse_machine(MACHINES[0]), goal(quant="nvfp4"))
    with pytest.raises(UsageError, match="GGUF file"):
        vllm.rank(
            replace(model, source="/x/model.gguf", file_type="Q4_K_M"),
            parse_machine(MACHINES[0]), goal(),
        )  # fmt: skip
    with pytest.raises(UsageError, match="groups of 128"):
        vllm.rank(
            find_model("qwen2.5-72b").spec(), parse_machine("2x RTX 3090, 64 GiB RAM"),
            goal(quant="awq", tensor_parallel=2),
        )  # fmt: skip


@pytest.mark.parametrize("machine", [*MACHINES, "64 GiB RAM"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "llama-3.3-70b", "qwen3-30b-a3b"])
def test_transformers_plans_are_what_the_library_would_place(model: str, machine: str) -> None:
    """Each plan again by the placement that is held against the real library."""
    spec, here = find_model(model).spec(), parse_machine(machine)
    try:
        plans = transformers.rank(spec, here, goal()).plans
    except DoesNotFitError:
        return
    for plan in plans:
        free = [gpu.total_bytes or 0 for gpu in plan.room.machine.gpus]
        again = place(spec, plan.config, free, plan.room.budgets.host or 0)  # type: ignore[attr-defined]
        assert again.gpus == tuple(replace(g, name="") for g in plan.memory.gpus)
        assert again.disk_bytes == 0
        assert plan.fits
    whole = [not p.memory.host.weights_bytes for p in plans]
    assert whole == sorted(whole, reverse=True) or not here.gpus


def test_limits_are_written_where_the_library_would_take_too_much() -> None:
    """24 GiB hold the weights of an 8B model, but not with the cache of 64k tokens as well."""
    plan, _ = transformers.single(
        find_model("llama-3.1-8b").spec(), parse_machine("RTX 4090, 64 GiB RAM"),
        goal(context=65536, quant="bf16"),
    )  # fmt: skip
    assert plan.fits and plan.config.max_memory is not None
    assert plan.memory.host.weights_bytes > 0
    assert plan.device_map["lm_head"] == "cpu"


def test_layers_of_a_map_are_written_as_runs() -> None:
    names = {f"model.layers.{i}": 0 if i < 3 else 1 for i in range(5)}
    found = transformers.runs({"model.embed_tokens": 0, **names, "lm_head": 1})
    assert found == {
        "model.embed_tokens": 0, "model.layers.0-2": 0, "model.layers.3-4": 1, "lm_head": 1,
    }  # fmt: skip


def test_quantized_models_do_not_go_to_the_host() -> None:
    """transformers refuses 4 and 8 bits partly on the host, so such a plan is not made."""
    with pytest.raises(DoesNotFitError):
        transformers.rank(
            find_model("llama-3.3-70b").spec(), parse_machine("RTX 4090, 256 GiB RAM"),
            goal(quant="bnb-4bit"),
        )  # fmt: skip
    with pytest.raises(UnknownNameError):
        transformers.rank(
            find_model("llama-3.1-8b").spec(), parse_machine(MACHINES[0]), goal(quant="Q4_K_M")
        )
