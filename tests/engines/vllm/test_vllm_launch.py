"""Commands: every flag is one that vLLM defines, every value survives its shell."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from nemofit.catalog.models import find_model
from nemofit.engines.vllm.config import KV_BYTES, VllmConfig
from nemofit.engines.vllm.launch import (
    checkpoint,
    compose_file,
    environment,
    server_arguments,
    server_command,
    server_command_powershell,
)
from nemofit.errors import UnknownNameError
from nemofit.machine.records import Gpu

DEFINED = json.loads((Path(__file__).parents[2] / "fixtures/vllm/flags.json").read_text())
FULL = VllmConfig(
    max_model_len=4096, tensor_parallel=2, pipeline_parallel=3, gpu_memory_utilization=0.85,
    kv_cache_dtype="fp8", max_num_seqs=64, max_num_batched_tokens=4096, cpu_offload_gb=1.5,
    enforce_eager=True, block_size=32, dtype="float16", language_model_only=True,
)  # fmt: skip
HOSTILE = "a b'c\"d$(touch x)`e`;\\&|\n"


def test_every_flag_is_defined_in_the_wheel() -> None:
    """Every knob of the configuration is printed, and vLLM 0.33.0 defines each of the flags."""
    flags = [a for a in server_arguments(FULL, "owner/model", port=8001) if a.startswith("--")]
    assert len(flags) == 13
    assert set(flags) <= set(DEFINED["flags"])
    assert DEFINED["vllm"] == "0.33.0"


def test_values_and_defaults_are_those_of_the_wheel() -> None:
    assert set(KV_BYTES) <= set(DEFINED["kv_cache_dtypes"])
    assert VllmConfig().gpu_memory_utilization == DEFINED["gpu_memory_utilization"]


def test_utilization_is_always_printed() -> None:
    """Its default changed between releases, and the memory depends on it."""
    assert server_command(VllmConfig(), "owner/model") == (
        "vllm serve owner/model --max-model-len 8192 --gpu-memory-utilization 0.92"
    )


@pytest.mark.parametrize("model", ["owner/model", HOSTILE, "/data/my models/x"])
def test_a_posix_shell_reads_back_what_was_meant(model: str) -> None:
    words = shlex.split(server_command(FULL, model, {"CUDA_VISIBLE_DEVICES": "0,1"}))
    assert words[0] == "CUDA_VISIBLE_DEVICES=0,1"
    assert words[1:] == server_arguments(FULL, model)


def test_powershell_quotes_by_doubling() -> None:
    line = server_command_powershell(VllmConfig(), "it's $x", {"A": "b'c"})
    assert line.startswith("$env:A='b''c'; vllm serve 'it''s $x' --max-model-len 8192")


@pytest.mark.parametrize("model", ["owner/model", HOSTILE])
def test_a_compose_file_runs_the_same_arguments(model: str) -> None:
    service = yaml.safe_load(compose_file(FULL, model, {"X": "$1"}))["services"]["vllm"]
    unescaped = [a.replace("$$", "$") for a in service["command"]]
    assert unescaped == server_arguments(FULL, model)[2:]
    assert "X=$$1" in service["environment"]
    assert service["image"].endswith(DEFINED["vllm"])


def test_cards_beyond_the_ranks_are_hidden() -> None:
    cards = [Gpu(name="a", index=0, uuid="GPU-1"), Gpu(name="a", index=1, uuid="GPU-2")]
    assert environment(VllmConfig(tensor_parallel=2), cards) == {}
    by_slot = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert environment(VllmConfig(), cards) == {**by_slot, "CUDA_VISIBLE_DEVICES": "GPU-1"}
    unnamed = [Gpu(name="a", index=2), Gpu(name="b", index=3)]
    assert environment(VllmConfig(), unnamed) == {**by_slot, "CUDA_VISIBLE_DEVICES": "2"}
    assert environment(VllmConfig(tensor_parallel=2), unnamed) == by_slot


def test_the_checkpoint_of_a_format() -> None:
    card = find_model("llama-3.3-70b")
    assert checkpoint(card, "awq") == "kosbu/Llama-3.3-70B-Instruct-AWQ"
    assert checkpoint(card, "bf16") == "meta-llama/Llama-3.3-70B-Instruct"
    with pytest.raises(UnknownNameError):
        checkpoint(card, "gptq-int8")
