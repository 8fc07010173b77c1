"""Weights and cache against what vLLM's own classes said, recorded without a GPU.

``benchmarks/engines/vllm_record.py`` builds vLLM 0.33.0's real modules on the meta device, one rank
at a time, adds up their parameters, and runs its cache planning.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nemofit.catalog.models import find_model
from nemofit.engines.vllm.config import VllmConfig
from nemofit.engines.vllm.kv_cache import cache_plan
from nemofit.engines.vllm.placement import check_parallel, stage_weights
from nemofit.errors import UsageError

Row = dict[str, Any]
FIXTURES = Path(__file__).parents[2] / "fixtures" / "vllm"
# What is left out of a format's rule: a few numbers for each matrix (shapes, scales of the whole
# matrix), biases of padded experts, and of GPTQ's experts the order of their inputs.
TOLERANCE = {"bf16": 0.0, "awq": 0.0, "gptq-int4": 2e-3, "gptq-int8": 2e-3, "mxfp4": 2e-4}
OTHERWISE = 1e-4
NARROW = 0.04  # GPTQ's experts narrower than a group run on another kernel, without zero points
STAGES = 1e-6  # a norm or two that some models keep on the last stage alone


def rows(name: str) -> list[Row]:
    lines = (FIXTURES / f"{name}.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"vllm": "0.33.0"}
    return [json.loads(line) for line in lines[1:]]


def config_of(row: Row) -> VllmConfig:
    return VllmConfig(
        tensor_parallel=row["tp"],
        pipeline_parallel=row["pp"],
        max_model_len=row.get("max_model_len", 4096),
        kv_cache_dtype=row.get("kv_cache_dtype", "auto"),
    )


def label(row: Row) -> str:
    return f"{row['model']} {row.get('format', '')} tp{row['tp']} pp{row['pp']}"


def test_weights_of_every_rank_are_the_engines_own() -> None:
    """To the byte for 16-bit and AWQ checkpoints of 22 models in up to 7 divisions."""
    compared = 0
    for row in rows("weights"):
        if "refused" in row:
            continue
        mine = stage_weights(find_model(row["model"]).spec(), row["format"], config_of(row))
        allowed = TOLERANCE.get(row["format"], OTHERWISE) or (STAGES if row["pp"] > 1 else 0.0)
        if (row["model"], row["tp"], row["format"][:4]) == ("qwen3-30b-a3b", 8, "gptq"):
            allowed = NARROW
        for stage, theirs in zip(mine, row["parameters"], strict=True):
            assert stage.weights_bytes == pytest.approx(theirs, rel=allowed, abs=0), label(row)
        assert [s.rotary_bytes for s in mine] == row["rotary"], label(row)
        compared += 1
    assert compared > 200


def test_a_division_is_refused_exactly_where_the_engine_refuses_it() -> None:
    refused = [r for r in rows("weights") if "refused" in r]
    assert len(refused) > 15
    for row in refused:
        with pytest.raises(UsageError):
            check_parallel(find_model(row["model"]).spec(), row["format"], config_of(row))


def test_tokens_blocks_and_concurrency_are_the_engines_own() -> None:
    """Full attention, windows, latent attention, recurrent layers; 16 and 8 bits."""
    compared = 0
    for row in rows("caches"):
        if "refused" in row:
            continue
        plan = cache_plan(find_model(row["model"]).spec(), config_of(row), row["batched_tokens"])
        left = [row["available_bytes"]] * row["pp"]
        tokens, concurrency = plan.capacity(left, row["max_model_len"])
        assert (plan.blocks(left), tokens) == (row["blocks"], row["tokens"]), label(row)
        assert concurrency == pytest.approx(row["concurrency"], rel=1e-12), label(row)
        compared += 1
    assert compared > 130


def test_the_longest_length_is_the_one_that_the_engine_names_when_it_refuses() -> None:
    compared = 0
    for row in rows("caches"):
        named = re.search(r"estimated maximum model length is (\d+)", row.get("refused", ""))
        if named is None:
            continue
        plan = cache_plan(find_model(row["model"]).spec(), config_of(row), row["batched_tokens"])
        left = [row["available_bytes"]] * row["pp"]
        assert plan.longest(left, row["max_model_len"]) == int(named.group(1)), label(row)
        compared += 1
    assert compared >= 8
