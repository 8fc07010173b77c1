"""Logs of llama.cpp and of Ollama: published ones, a real one, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nemofit
from nemofit.catalog.filetypes import tensor_types
from nemofit.engines.llama_cpp.matching import compare_log, matching_config
from nemofit.engines.llama_cpp.server_log import Buffers, file_type_of, parse_server_log
from nemofit.errors import DataError, NemofitError
from nemofit.units import GIB, MIB

# ollama/ollama pull 16031: Qwen3 4B on two cards, Ollama of 2026, which runs llama-server
OLLAMA = """\
load_tensors: loading model tensors, this can take a while... (mmap = false, direct_io = false)
load_tensors: offloading output layer to GPU
load_tensors: offloading 35 repeating layers to GPU
load_tensors: offloaded 37/37 layers to GPU
load_tensors:          CPU model buffer size =   304.28 MiB
load_tensors:        CUDA0 model buffer size =   974.88 MiB
load_tensors:        CUDA1 model buffer size =  1401.03 MiB
llama_context: n_seq_max     = 1
llama_context: n_ctx         = 262144
llama_context: n_batch       = 2048
llama_context: n_ubatch      = 2048
"""
# ggml-org/llama.cpp pull 8035: a 70B shape partly on two cards, build of July 2024
OLD = """\
llm_load_tensors: offloaded 78/81 layers to GPU
llm_load_tensors:        CPU buffer size = 22994.45 MiB
llm_load_tensors:      CUDA0 buffer size = 12633.25 MiB
llm_load_tensors:      CUDA1 buffer size =  8652.00 MiB
llama_new_context_with_model: n_ctx      = 8192
llama_new_context_with_model: n_batch    = 2048
llama_new_context_with_model: n_ubatch   = 512
llama_new_context_with_model: flash_attn = 0
llama_kv_cache_init:  CUDA_Host KV buffer size =    64.00 MiB
llama_kv_cache_init:      CUDA0 KV buffer size =  1472.00 MiB
llama_kv_cache_init:      CUDA1 KV buffer size =  1024.00 MiB
llama_new_context_with_model: KV self size  = 2560.00 MiB, K (f16): 1280.00 MiB, V (f16): 1280.00 MiB
llama_new_context_with_model:  CUDA_Host  output buffer size =     0.98 MiB
llama_new_context_with_model:      CUDA0 compute buffer size =  1108.50 MiB
"""  # noqa: E501
# ollama/ollama issue 12027: Ollama's own engine of August 2025
OLLAMA_2025 = """\
time=2025-08-24T08:26:00.310Z level=INFO source=backend.go:321 msg="kv cache" device=CUDA0 size="936.0 MiB"
time=2025-08-24T08:26:00.310Z level=INFO source=backend.go:332 msg="compute graph" device=CUDA0 size="98.0 MiB"
time=2025-08-24T08:26:00.310Z level=INFO source=backend.go:337 msg="compute graph" device=CPU size="8.0 MiB"
"""  # noqa: E501
# ollama/ollama pull 11090
OLLAMA_WEIGHTS = """\
time=2025-07-18T14:50:57.066Z level=INFO source=ggml.go:365 msg="model weights" buffer=CUDA0 size="11.5 GiB"
time=2025-07-18T14:50:57.066Z level=INFO source=ggml.go:365 msg="model weights" buffer=CUDA1 size="11.9 GiB"
time=2025-07-18T14:50:57.066Z level=INFO source=ggml.go:365 msg="model weights" buffer=CPU size="680.0 MiB"
"""  # noqa: E501
# noonghunna/club-3090 issue 1171: a draft model beside the target, in the same log
DRAFTED = """\
llama_model_loader: loaded meta data with 40 key-value pairs and 800 tensors from /m/glm.gguf (version GGUF V3 (latest))
load_tensors:   CUDA1 model buffer size   = 3313.42 MiB
llama_model_loader: loaded meta data with 30 key-value pairs and 80 tensors from /m/draft.gguf (version GGUF V3 (latest))
load_tensors:   CUDA1 model buffer size   =  655.73 MiB
llama_kv_cache: CUDA1 KV buffer size      =   80.00 MiB
"""  # noqa: E501
BREAKDOWN = """\
0.03.305.754 I common_memory_breakdown_print: | memory breakdown [MiB]     | total    free    self   model   context   compute    unaccounted |
0.03.305.784 I common_memory_breakdown_print: |   - RPC0 (127.0.0.1:55171) | 24105 = 24105 + ( 563 =   311 +     144 +     108) +        -563 |
0.03.305.798 I common_memory_breakdown_print: |   - RPC1 (127.0.0.1:38945) | 24105 = 24105 + ( 671 =   451 +     112 +     108) +        -671 |
0.03.305.811 I common_memory_breakdown_print: |   - Host                   |                   257 =   205 +       0 +      52                |
"""  # noqa: E501


def mib(x: float) -> int:
    return round(x * MIB)


def test_the_weights_of_a_published_run_are_predicted_to_the_last_digit() -> None:
    """Two cards of unequal size: how the blocks were dealt follows from the sizes themselves."""
    log = parse_server_log(OLLAMA.splitlines())
    assert (log.offloaded, log.number("n_ctx")) == ((37, 37), 262144)
    model = nemofit.load_model("qwen3-4b")
    types = tensor_types(model, "Q4_K_M")
    config = matching_config(model, types, log)
    assert (config.context, config.ubatch, config.gpu_layers) == (262144, 2048, 37)
    assert (config.backend, config.tensor_split) == ("cuda", (17.0, 20.0))
    memory = nemofit.estimate_memory(model, "Q4_K_M", config, 2)
    weights = [d for d in compare_log(memory, log) if d.kind == "weights"]
    assert [d.device for d in weights] == ["CUDA0", "CUDA1", "Host"]
    assert all(d.agrees and abs(d.predicted - (d.engine or 0)) <= log.resolution for d in weights)


def test_a_log_that_ends_early_leaves_the_rest_unknown() -> None:
    """The excerpt has no cache yet: that is not a cache of nothing."""
    log = parse_server_log(OLLAMA.splitlines())
    model = nemofit.load_model("qwen3-4b")
    config = matching_config(model, tensor_types(model, "Q4_K_M"), log)
    found = compare_log(nemofit.estimate_memory(model, "Q4_K_M", config, 2), log)
    assert {d.kind for d in found if d.engine is None and d.agrees is None} == {
        "KV cache", "compute"
    }  # fmt: skip


def test_a_log_of_2024() -> None:
    log = parse_server_log(OLD.splitlines())
    assert log.host == Buffers(weights=mib(22994.45), kv=mib(64), output=mib(0.98))
    assert log.gpus["CUDA0"] == Buffers(mib(12633.25), mib(1472), mib(1108.5))
    assert log.kv_types == ("f16", "f16") and log.knobs["flash_attn"] == "0"


def test_logs_of_ollamas_own_engine() -> None:
    log = parse_server_log(OLLAMA_2025.splitlines() * 3)  # printed at every attempt
    assert log.gpus["CUDA0"] == Buffers(kv=mib(936), compute=mib(98))
    assert log.host == Buffers(compute=mib(8)) and log.resolution == MIB // 10
    log = parse_server_log(OLLAMA_WEIGHTS.splitlines() * 2)
    assert [b.weights for b in log.gpus.values()] == [round(11.5 * GIB), round(11.9 * GIB)]


def test_a_draft_model_does_not_stand_for_the_model() -> None:
    log = parse_server_log(DRAFTED.splitlines())
    assert (log.path, log.gpus["CUDA1"].weights) == ("/m/glm.gguf", mib(3313.42))


def test_the_table_at_the_end_of_a_run() -> None:
    """As the accuracy build printed it; of two, the last one counts."""
    rows = parse_server_log((BREAKDOWN * 2).splitlines()).rows
    assert [(r.device, r.total_bytes // MIB) for r in rows] == [
        ("RPC0", 563), ("RPC1", 671), ("Host", 257)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        ("Q4_K - Medium", "Q4_K_M"),
        ("Q3_K - Small", "Q3_K_S"),
        ("Q2_K - Medium", "Q2_K"),
        ("IQ4_XS - 4.25 bpw", "IQ4_XS"),
        ("IQ3_S mix - 3.66 bpw", "IQ3_M"),
        ("MXFP4 MoE", "MXFP4_MOE"),
        ("all F32 (guessed)", "F32"),
        ("unknown, may not work", None),
    ],
)
def test_file_types_as_llama_cpp_describes_them(printed: str, name: str | None) -> None:
    """``llama_model_ftype_name`` in llama.cpp, src/llama-model-loader.cpp."""
    assert file_type_of(printed) == name


@pytest.mark.parametrize("text", ["", "hello\n" * 100, "\x00\xff" * 1000, "buffer size = MiB"])
def test_a_file_that_is_no_such_log_is_said_to_be_none(text: str) -> None:
    with pytest.raises(DataError, match="no line of the log"):
        parse_server_log(text.splitlines())


def test_hostile_logs_end() -> None:
    """A million devices, numbers of any size, lines without end."""
    lines = [f"load_tensors: CUDA{i} model buffer size = 1.00 MiB" for i in range(5000)]
    assert len(parse_server_log(lines).gpus) == 64
    huge = "load_tensors: CUDA0 model buffer size = " + "9" * 400 + ".00 MiB"
    with pytest.raises(DataError):
        parse_server_log([huge, "| " * 100_000, "msg=" + '"' * 100_000, "K (" * 50_000])


@given(st.text(alphabet="load_tnsr:CUDA01KVmelbufsizMB =.()[]|-+, \n", max_size=300))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        parse_server_log(["CPU compute buffer size = 1.00 MiB", *text.splitlines()])
    except NemofitError as e:  # pragma: no cover
        pytest.fail(str(e))
