"""Start-up logs of several releases, read into records and held beside a prediction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemofit.catalog.models import find_model
from nemofit.engines.vllm import VllmConfig, estimate_memory
from nemofit.engines.vllm.verify import compare, parse_log
from nemofit.errors import DataError, NemofitError
from nemofit.machine.records import Gpu
from nemofit.units import GIB

# vllm-project/vllm issue 15815: release of March 2025, two L40S, Qwen 2.5 32B
V0 = """\
INFO 04-02 10:20:45 model_runner.py:1116] Loading model weights took 30.7098 GB
(VllmWorkerProcess pid=3280379) INFO 04-02 10:20:50 model_runner.py:1116] Loading model weights took 30.7098 GB
INFO 04-02 10:20:55 worker.py:266] the current vLLM instance can use total_gpu_memory (44.42GiB) x gpu_memory_utilization (0.90) = 39.98GiB
INFO 04-02 10:20:55 worker.py:266] model weights take 30.71GiB; non_torch_memory takes 0.30GiB; PyTorch activation peak memory takes 1.26GiB; the rest of the memory reserved for KV Cache is 7.71GiB.
INFO 04-02 10:20:55 executor_base.py:108] # CUDA blocks: 3947, # CPU blocks: 2048
INFO 04-02 10:20:55 executor_base.py:113] Maximum concurrency for 10000 tokens per request: 6.32x
"""  # noqa: E501
# noonghunna/club-3090 issue 1087: release of August 2026, two RTX 5090
V1 = """\
(Worker_TP0 pid=223) INFO 08-22 04:42:13 [gpu_worker.py:726] CUDA graph pool memory: 0.09 GiB (actual), 0.13 GiB (estimated), difference: 0.04 GiB (51.1%).
(Worker_TP0 pid=223) INFO 08-22 04:42:13 [gpu_worker.py:789] Free memory on device (30.27/31.4 GiB) on startup. Desired GPU memory utilization is (0.92, 28.88 GiB). Actual usage is 15.03 GiB for consumed memory (weights + non-torch), 1.59 GiB for peak activation, and 0.09 GiB for CUDAGraph memory. Current kv cache memory in use is 12.26 GiB.
(Worker_TP1 pid=238) INFO 08-22 04:42:13 [gpu_worker.py:789] Free memory on device (30.5/31.4 GiB) on startup. Desired GPU memory utilization is (0.92, 28.88 GiB). Actual usage is 15.05 GiB for consumed memory (weights + non-torch), 1.59 GiB for peak activation, and 0.09 GiB for CUDAGraph memory. Current kv cache memory in use is 12.24 GiB.
"""  # noqa: E501
# gpustack/runner pull 251 and vllm-project/vllm 0.33.0 for the wording of the last line
V1_CACHE = """\
(Worker_TP0 pid=447) INFO 08-14 14:07:22 [gpu_model_runner.py:6806] Estimated CUDA graph memory: 0.36 GiB total
(Worker_TP0 pid=447) INFO 08-14 14:07:22 [gpu_worker.py:563] Available KV cache memory: 6.87 GiB
(EngineCore pid=326) INFO 10-06 17:00:33 [kv_cache_utils.py:2464] GPU KV cache size: 460,496 tokens, Maximum concurrency for 131,072 tokens per request: 3.51x
"""  # noqa: E501
# syv-ai/qwen38-27b-rtx3090 issue 39
REFUSED = (
    "(EngineCore pid=4382) ERROR 09-01 19:53:44 [core.py:1346] ValueError: To serve at least one"
    " request with the model's max seq len (65536), (4.76 GiB KV cache is needed, which is larger"
    " than the available KV cache memory (1.56 GiB). Based on the available memory, the estimated"
    " maximum model length is 15984. Try increasing `gpu_memory_utilization`"
)


def gib(x: float) -> int:
    return round(x * GIB)


def test_a_log_of_the_first_engine() -> None:
    log = parse_log(V0)
    assert log.loading == (gib(30.7098), gib(30.7098), gib(30.71))
    assert (log.total, log.requested, log.utilization) == ((gib(44.42),), (gib(39.98),), 0.9)
    assert (log.non_torch, log.activation) == ((gib(0.30),), (gib(1.26),))
    assert log.available == (gib(7.71),)
    assert (log.kv_tokens, log.max_concurrency, log.max_model_len) == (63152, 6.32, 10000)


def test_a_log_of_today() -> None:
    log = parse_log(V1)
    assert log.total == (gib(31.4), gib(31.4)) and log.free == (gib(30.27), gib(30.5))
    assert log.consumed == (gib(15.03), gib(15.05)) and log.activation == (gib(1.59),) * 2
    assert log.requested == (gib(28.88),) * 2 and log.utilization == 0.92
    cache = parse_log(V1_CACHE)
    assert cache.available == (gib(6.87),) and cache.graphs_estimate == (gib(0.36),)
    assert (cache.kv_tokens, cache.max_concurrency, cache.max_model_len) == (460496, 3.51, 131072)


def test_a_refusal_keeps_the_engines_own_numbers() -> None:
    log = parse_log(REFUSED)
    assert (log.needed, log.estimated_max_model_len) == (gib(4.76), 15984)
    assert log.error is not None and log.error.startswith("To serve at least one request")


def test_a_prediction_beside_the_log() -> None:
    config = VllmConfig(tensor_parallel=2, max_model_len=10000, gpu_memory_utilization=0.9)
    card = Gpu(name="NVIDIA L40S", vendor="nvidia", total_bytes=gib(44.42))
    memory = estimate_memory(find_model("qwen2.5-32b").spec(), "bf16", config, [card] * 2)
    found = {c.name: c for c in compare(memory, parse_log(V0))}
    assert set(found) == {
        "requested", "weights", "activations", "left for the cache", "cache", "concurrency"
    }  # fmt: skip
    assert abs(found["requested"].difference) < 1e-3
    assert abs(found["weights"].difference) < 0.01
    assert found["activations"].difference > 0  # a bound
    assert found["cache"].unit == "tokens" and found["cache"].engine == 63152
    assert found["weights"].basis == "computed" and found["activations"].basis == "assumed"


@pytest.mark.parametrize("text", ["", "hello\nworld", "GiB GiB GiB", "\x00\xff" * 100])
def test_a_file_that_is_no_such_log_is_said_to_be_none(text: str) -> None:
    with pytest.raises(DataError, match="no line of the log"):
        parse_log(text)


def test_long_lines_and_many_ranks_end() -> None:
    """The engine's own configuration fills a line; a hostile log has a million of them."""
    line = "Available KV cache memory: 1.00 GiB " + "(" * 200_000 + "\n"
    assert parse_log(line * 50).available == (GIB,) * 50
    assert len(parse_log("Available KV cache memory: 1.00 GiB\n" * 5000).available) == 1024


@given(st.text(alphabet="Available KVcmory:GiBtknsz 0123456789.,()/=\n", max_size=400))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        parse_log("Model loading took 1.0 GiB\n" + text)
    except NemofitError as e:  # pragma: no cover
        pytest.fail(str(e))
