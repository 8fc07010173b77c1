"""The output of llama-bench: today's as recorded, an older build's, and what is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemofit.engines.llama_cpp.bench import parse_bench, progress, same_model
from nemofit.errors import DataError, NemofitError

# llama-bench of the accuracy build, -p 64 -n 8 -r 1 -o jsonl, Llama 3.2 1B as Q4_K_M
TODAY = """\
{"build_commit": "0c1e570", "build_number": 1, "cpu_info": "AMD EPYC", "gpu_info": "", "backends": "CPU", "model_filename": "/m/l1b.gguf", "model_type": "llama 1B Q4_K - Medium", "model_size": 799862912, "model_n_params": 1235814432, "n_batch": 2048, "n_ubatch": 512, "n_threads": 2, "type_k": "f16", "type_v": "f16", "n_gpu_layers": -1, "n_cpu_moe": 0, "flash_attn": -1, "devices": "auto", "tensor_split": "0.00", "n_prompt": 64, "n_gen": 0, "n_depth": 0, "test_time": "2026-11-23T19:12:16Z", "avg_ns": 1615874295, "stddev_ns": 0, "avg_ts": 39.607041, "stddev_ts": 0.000000, "samples_ns": [ 1615874295 ],"samples_ts": [ 39.607 ]}
{"build_commit": "0c1e570", "build_number": 1, "cpu_info": "AMD EPYC", "gpu_info": "", "backends": "CPU", "model_filename": "/m/l1b.gguf", "model_type": "llama 1B Q4_K - Medium", "model_size": 799862912, "model_n_params": 1235814432, "n_batch": 2048, "n_ubatch": 512, "n_threads": 2, "type_k": "f16", "type_v": "f16", "n_gpu_layers": -1, "n_cpu_moe": 0, "flash_attn": -1, "devices": "auto", "tensor_split": "0.00", "n_prompt": 0, "n_gen": 8, "n_depth": 0, "test_time": "2026-11-23T19:12:21Z", "avg_ns": 883058597, "stddev_ns": 0, "avg_ts": 9.059421, "stddev_ts": 0.000000, "samples_ns": [ 883058597 ],"samples_ts": [ 9.05942 ]}
"""  # noqa: E501
# ggml-org/llama.cpp, tools/llama-bench/README.md: the example of -o json
README = """\
[
  {
    "build_commit": "8cf427ff",
    "build_number": 5163,
    "cpu_info": "AMD Ryzen 7 7800X3D 8-Core Processor",
    "gpu_info": "NVIDIA GeForce RTX 4080",
    "backends": "CUDA",
    "model_filename": "models/Qwen2.5-7B-Instruct-Q4_K_M.gguf",
    "model_type": "qwen2 7B Q4_K - Medium",
    "model_size": 4677120000,
    "model_n_params": 7615616512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_threads": 8,
    "type_k": "f16",
    "type_v": "f16",
    "n_gpu_layers": 99,
    "split_mode": "layer",
    "main_gpu": 0,
    "no_kv_offload": false,
    "flash_attn": false,
    "tensor_split": "0.00",
    "use_mmap": true,
    "embeddings": false,
    "n_prompt": 512,
    "n_gen": 0,
    "n_depth": 0,
    "test_time": "2025-04-24T11:58:50Z",
    "avg_ns": 72135640,
    "stddev_ns": 1453752,
    "avg_ts": 7100.002165,
    "stddev_ts": 140.341520
  }
]
"""


def test_the_output_of_today() -> None:
    prompt, generated = parse_bench(TODAY)
    assert (prompt.prompt, prompt.generated, prompt.speed) == (64, 0, 39.607041)
    assert (generated.prompt, generated.generated, generated.speed) == (0, 8, 9.059421)
    assert prompt.build == "b1 (0c1e570)" and prompt.file_type == "Q4_K_M"
    assert not prompt.on_gpu and prompt.config.backend == "cpu" and prompt.config.gpu_layers == 0
    assert prompt.config.flash_attention and same_model((prompt, generated))


def test_the_output_of_2025_on_a_card() -> None:
    (row,) = parse_bench(README)
    assert row.on_gpu and row.gpus == "NVIDIA GeForce RTX 4080"
    assert row.config.gpu_layers == 99 and not row.config.flash_attention
    assert (row.speed, row.deviation, row.file_type) == (7100.002165, 140.34152, "Q4_K_M")


def changed(**fields: object) -> str:
    return json.dumps([{**json.loads(README)[0], **fields}])


def without(name: str) -> str:
    entry = json.loads(README)[0]
    del entry[name]
    return json.dumps([entry])


BROKEN = {
    "nothing": ("", "holds no test"),
    "empty list": ("[]", "holds no test"),
    "cut list": (README[:600], "ends in the middle"),
    "cut line": (TODAY[:1200], "ends in the middle"),
    "markdown": ("| model | size |\n|---|---|", "this is not its output"),
    "other JSON": ("[1, 2]", "this is not the output"),
    "another build": (without("avg_ts"), "lacks avg_ts: another build"),
    "zero": (changed(avg_ts=0), "no believable figures"),
    "not a number": (changed(avg_ts=float("nan")), "no believable figures"),
    "text": (changed(avg_ts="7100"), "no believable figures"),
    "negative": (changed(n_prompt=-1), "no believable figures"),
    "deep": ("[" * 100_000, "ends in the middle"),
}


@pytest.mark.parametrize("text, message", BROKEN.values(), ids=BROKEN)
def test_what_is_no_such_output_is_one_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_bench(text)
    assert "\n" not in caught.value.message and caught.value.hint


def test_progress_as_the_accuracy_build_prints_it() -> None:
    lines = [
        "llama-bench: benchmark 1/2: starting",
        "llama-bench: benchmark 1/2: warmup prompt run",
        "llama-bench: benchmark 1/2: prompt run 1/1",
        "llama-bench: benchmark 2/2: starting",
        "llama-bench: benchmark 2/2: generation run 1/1",
        "ggml_cuda_init: found 1 CUDA devices",
    ]
    assert [progress(line) for line in lines] == [0.0, 0.0, 0.25, 0.5, 0.75, None]


FIELDS = st.sampled_from(sorted(json.loads(README)[0]))
ODD = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=9), st.booleans())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(FIELDS, ODD, max_size=5))
def test_no_field_does_anything_but_be_read_or_refused(fields: dict[str, object]) -> None:
    try:
        parse_bench(changed(**fields))
    except NemofitError as error:
        assert error.message
