"""Plans of checkpoints that lie on this machine, on every engine that loads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.formats.safetensors.build import WIDE, checkpoint, quantized, wide

from nemofit import Goal, parse_machine, recommend
from nemofit.errors import UnknownNameError, UsageError
from nemofit.formats.load import load_model
from nemofit.planner.checkpoints import CheckpointGoal
from nemofit.planner.transformers import TransformersSearch
from nemofit.planner.vllm import VllmSearch

MACHINE = parse_machine("RTX 4090, 64 GiB RAM")
GOAL = CheckpointGoal(context=512)


def test_llama_cpp_plans_file_types_of_a_checkpoint(tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path / "x", WIDE, wide()))
    plans = recommend(model, MACHINE, goal=Goal(context=512))
    assert plans[0].quant is not None
    with pytest.raises(UsageError, match="no GGUF file of this model is known"):
        plans[0].command("llama.cpp")


@pytest.mark.parametrize("method", ["awq", "fp8", "nvfp4", "bnb"])
def test_vllm_runs_it_as_it_is_stored(tmp_path: Path, method: str) -> None:
    model = load_model(checkpoint(tmp_path / "x", *quantized(method)))
    (plan,) = VllmSearch(model, MACHINE, GOAL).plans()[:1]
    assert model.checkpoint is not None
    assert plan.weights_bytes == model.checkpoint.total_bytes
    assert plan.file_bytes == model.checkpoint.file_bytes
    assert (plan.checkpoint, plan.repository) == (str(tmp_path / "x"), None)
    assert f"vllm serve {tmp_path / 'x'}" in plan.command()
    with pytest.raises(UnknownNameError, match="gptq-int8"):
        VllmSearch(model, MACHINE, CheckpointGoal(context=512, quant="gptq-int8")).plans()


def test_transformers_runs_it_as_it_is_stored(tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path / "x", *quantized("awq")))
    search = TransformersSearch(model, MACHINE, GOAL)
    assert search.quants() == ("awq",)
    plan = search.plans()[0]
    assert model.checkpoint is not None
    rotary = plan.weights_bytes - model.checkpoint.total_bytes
    assert 0 <= rotary < 1024
    with pytest.raises(UnknownNameError):
        TransformersSearch(model, MACHINE, CheckpointGoal(context=512, quant="bnb-4bit")).quants()


def test_transformers_can_quantize_16_bits(tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path / "x", WIDE, wide()))
    search = TransformersSearch(model, MACHINE, GOAL)
    assert search.quants() == ("bf16", "bnb-8bit", "bnb-4bit")
    assert {p.is_local for p in search.plans()} == {True}
