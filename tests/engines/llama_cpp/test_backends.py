"""What each backend adds: the engine's own answers, and each rule alone.

``backends.jsonl`` holds what llama-fit-params of 1 October 2026 (llama.cpp 0c1e570) printed, in
whole MiB rounded down. Vulkan: on Mesa's software device; for the five models of real size its
limit on tensors was raised to 4 GiB, as current cards have it. CUDA and Metal: on RPC devices that
were given the backend's own functions for sizes, kernels, op offload, fused groups and order, cut
out of its source and compiled for the CPU (benchmarks/accuracy/stand_in.py).
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from benchmarks.accuracy import stand_in
from benchmarks.accuracy.engine import Engine

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.shapes import tensors_of
from nemofit.engines.llama_cpp import Estimator, RunConfig, estimate_memory
from nemofit.engines.llama_cpp.bound import bound_bytes
from nemofit.engines.llama_cpp.graph import ops
from nemofit.engines.llama_cpp.graph.allocator import Arena
from nemofit.engines.llama_cpp.graph.backends import BACKENDS
from nemofit.engines.llama_cpp.graph.fusion import Split
from nemofit.engines.llama_cpp.graph.ops import T
from nemofit.engines.llama_cpp.placement import gpu_layers, place_units
from nemofit.engines.llama_cpp.saved import checkpoint_bytes
from nemofit.formats.gguf.writer import write_sparse
from nemofit.units import GIB, KIB, MIB

FIXTURE = Path(__file__).parents[2] / "fixtures" / "llama_cpp" / "backends.jsonl"
Row = dict[str, Any]


@cache
def rows() -> list[Row]:
    return [json.loads(line) for line in FIXTURE.read_text().splitlines()]


def kind_of(row: Row) -> str:
    return str(row["config"].get("backend", "cuda"))


def spec(row: Row) -> ModelSpec:
    metadata = {k: tuple(v) if isinstance(v, list) else v for k, v in row["metadata"].items()}
    architecture = row["architecture"]
    tensors = tensors_of(architecture, metadata)
    if row["quant"] == "F32":  # every tensor, whatever llama-quantize would say
        tensors = tuple(t._replace(type="F32") for t in tensors)
    return ModelSpec(id=architecture, architecture=architecture, metadata=metadata, tensors=tensors)


def file_type(row: Row) -> str | None:
    return None if row["quant"] == "F32" else str(row["quant"])


def whole_mib(
    model: ModelSpec, quant: str | None, config: RunConfig, n_gpus: int
) -> list[list[int]]:
    memory = Estimator(model, quant).memory(config, n_gpus)
    return [
        [n // MIB for n in (d.weights_bytes, d.kv_bytes, d.compute_bytes)]
        for d in (*memory.gpus, memory.host)
    ]


@pytest.mark.parametrize("kind", ["cuda", "metal", "vulkan"])
def test_recorded(kind: str) -> None:
    mine = [r for r in rows() if kind_of(r) == kind]
    assert len(mine) > 90
    assert len({r["architecture"] for r in mine}) > 60
    wrong = []
    for row in mine:
        got = whole_mib(spec(row), file_type(row), RunConfig(**row["config"]), row["n_gpus"])
        want = [[m["model"], m["context"], m["compute"]] for m in row["mib"].values()]
        if got != want:
            wrong.append((row["architecture"], got, want, row["config"]))
    assert wrong == []


# rules, one by one ----------------------------------------------------------------------------


def attention(
    head: int, kv_heads: int, type_: str, *, tokens: int = 512, cells: int = 4096, heads: int = 32
) -> T:
    """Flash attention over a cache of one sequence, as llama.cpp builds it."""
    q = ops.permute(ops.leaf("F32", head, heads, tokens), 0, 2, 1, 3)

    def cached() -> T:
        t = ops.stored(0, type_, head * kv_heads, cells, 1)
        row = ops.row_size(type_, head * kv_heads)
        window = ops.view(t, (head, kv_heads, cells, 1), (ops.row_size(type_, head), row))
        return ops.permute(window, 0, 2, 1, 3)

    return ops.flash_attn_ext(q, cached(), cached(), ops.leaf("F16", cells, tokens))


RESULT = 4 * 512 * 32 * 128  # bytes of the result itself: floats, tokens, heads, head size
COPY = 2 * 4096 * 8 * 128  # bytes of K, or of V, in halves


def test_cuda_converts_a_quantized_cache() -> None:
    """fattn.cu, ggml_cuda_flash_attn_ext_get_alloc_size."""
    cuda = BACKENDS["cuda"]
    assert cuda.alloc_size(attention(128, 8, "F16")) == RESULT
    assert cuda.alloc_size(attention(128, 8, "Q8_0")) == RESULT + 2 * COPY
    assert cuda.alloc_size(attention(128, 8, "BF16")) == RESULT + 2 * COPY
    # one token of a type with a vector kernel needs no copies
    assert cuda.alloc_size(attention(128, 8, "Q8_0", tokens=1)) == RESULT // 512
    assert cuda.alloc_size(attention(128, 8, "Q5_1", tokens=1)) == RESULT // 512 + 2 * COPY


@pytest.mark.parametrize(
    ("head", "kv_heads", "type_", "runs"),
    [
        (128, 8, "Q8_0", True),
        (80, 8, "F16", True),
        (128, 8, "IQ4_NL", False),  # ggml_cuda_fattn_kv_type_supported
        (48, 8, "F16", False),  # no kernel for the head size
        (192, 8, "F16", False),  # only with values of 128
        (512, 8, "F16", True),  # 4 heads share a key
        (512, 32, "F16", False),
    ],
)
def test_cuda_attends_where_there_is_a_kernel(
    head: int, kv_heads: int, type_: str, runs: bool
) -> None:
    """fattn.cu, ggml_cuda_get_best_fattn_kernel."""
    assert BACKENDS["cuda"].supports(attention(head, kv_heads, type_)) is runs


def test_metal_always_reserves_halves() -> None:
    """ggml-metal-ops.cpp, ggml_metal_op_flash_attn_ext_extra_*."""
    pad = 64 * (2 * (2 * 1024) + 2 * 512)  # 64 cells of K and V in all heads' rows, and the mask
    assert pad == 64 * (2048 + 2048 + 1024)
    blocks = (512 // 8) * (4096 // 64)
    parts = 4 * 32 * 32 * 32 * (128 + 2)  # queries, heads, groups, a head's values and two sums
    # a permuted cache's row is that of all heads, once for each of them
    pad_of_heads = 64 * (2 * (2 * 8 * 128) * 8 + 2 * 512)
    got = BACKENDS["metal"].alloc_size(attention(128, 8, "F16"))
    assert got == RESULT + pad_of_heads + blocks + parts + 2 * COPY


def test_metal_routes_with_scratch_space() -> None:
    """ggml-metal-ops.cpp, ggml_metal_op_mul_mat_id_extra_*."""
    product = ops.mul_mat_id(
        ops.leaf("Q8_0", 256, 64, 8), ops.leaf("F32", 256, 1, 100), ops.leaf("I32", 2, 100)
    )
    assert BACKENDS["metal"].alloc_size(product) == 4 * 64 * 2 * 100 + 4 * 8 + 4 * 800 + 1032


def test_metal_wants_equal_cache_types() -> None:
    """ggml-metal-device.m, ggml_metal_device_supports_op."""
    mixed = attention(128, 8, "Q8_0")
    mixed.src = (*mixed.src[:2], attention(128, 8, "Q4_0").src[2], mixed.src[3])
    assert not BACKENDS["metal"].supports(mixed)
    assert BACKENDS["cuda"].supports(mixed)


def test_sycl_stages_what_onednn_reads() -> None:
    """ggml-sycl/fattn.cpp, ggml_sycl_fattn_get_extra."""
    sycl = BACKENDS["sycl"]
    staged = 2 * (RESULT // 2)  # q and the result in halves
    assert sycl.alloc_size(attention(128, 8, "F16")) == RESULT + staged + 128
    assert sycl.alloc_size(attention(128, 8, "Q8_0")) == RESULT + staged + 128 + 2 * COPY


def test_vulkan_multiplies_a_quantized_cache_on_the_host() -> None:
    """ggml-vulkan.cpp, supports_op: quantized rows have to lie behind one another."""
    k = attention(128, 8, "Q8_0").src[1]
    scores = ops.mul_mat(k, ops.leaf("F32", 128, 512, 32))
    assert not BACKENDS["vulkan"].supports(scores)
    plain = ops.mul_mat(ops.leaf("Q8_0", 128, 4096), ops.leaf("F32", 128, 512))
    assert BACKENDS["vulkan"].supports(plain)


def test_rows_are_padded_once_per_tensor() -> None:
    """ggml-cuda.cu, ggml_backend_cuda_buffer_type_get_alloc_size: quantized ones only."""
    padding = 34 * (512 - 2880 % 512) // 32
    assert padding == 204
    for kind in ("cuda", "rocm", "sycl"):
        size = BACKENDS[kind].alloc_size
        assert size(ops.leaf("Q8_0", 2880, 100)) == 34 * 2880 // 32 * 100 + padding
        assert size(ops.leaf("Q8_0", 4096, 100)) == 34 * 4096 // 32 * 100
        assert size(ops.leaf("F16", 2880, 100)) == 2 * 2880 * 100
    assert BACKENDS["vulkan"].alloc_size(ops.leaf("Q8_0", 2880, 100)) == 34 * 2880 // 32 * 100


def weighted_sum(used: int) -> list[T]:
    """Experts' results times their weights, and the sum, in the graph's order."""
    product = ops.mul(ops.leaf("F32", 64, used, 7), ops.leaf("F32", 1, used, 7))
    windows = [ops.view(product, (64, 7), (product.nb[2],)) for _ in range(used)]
    nodes, total = [product, *windows], windows[0]
    for window in windows[1:]:
        total = ops.add(total, window)
        nodes.append(total)
    return nodes


def uses(nodes: list[T]) -> dict[int, int]:
    return {id(t): sum(s is t for n in nodes for s in n.src) for t in nodes}


@pytest.mark.parametrize(("used", "fused"), [(1, False), (2, True), (15, True), (16, False)])
def test_cuda_keeps_the_experts_it_sums_up(used: int, fused: bool) -> None:
    """ggml-cuda.cu, ggml_cuda_match_moe_weighted_reduction: 2 to 15 experts."""
    nodes = weighted_sum(used)
    order, kept = BACKENDS["cuda"].arrange(Split(nodes, uses(nodes)))
    assert list(order) == nodes
    assert kept == ({id(nodes[-1]): list(nodes[0].src)} if fused else {})


def test_cuda_does_not_fuse_a_sum_that_others_read() -> None:
    """ggml.c, ggml_can_fuse_subgraph_ext."""
    nodes = weighted_sum(4)
    read = uses(nodes)
    read[id(nodes[0])] += 1
    assert BACKENDS["cuda"].arrange(Split(nodes, read))[1] == {}


def test_vulkan_moves_independent_products_together() -> None:
    """ggml-vulkan.cpp, ggml_vk_graph_optimize: real nodes first, their views behind them."""
    x = ops.leaf("F32", 64, 7)
    q = ops.mul_mat(ops.leaf("F16", 64, 64), x)
    flat = ops.reshape(q, 16, 4, 7)
    turned = ops.rope(flat, ops.leaf("I32", 7))
    k = ops.mul_mat(ops.leaf("F16", 64, 64), x)
    nodes = [q, flat, turned, k]
    order, kept = BACKENDS["vulkan"].arrange(Split(nodes, uses(nodes)))
    assert list(order) == [q, k, flat, turned]
    assert kept == {}


def test_metal_keeps_a_norm_s_input() -> None:
    """ggml-metal-fusion.cpp, ggml_metal_fusion_add_alloc_deps: all that looks fused."""
    x, weight = ops.leaf("F32", 64, 7), ops.leaf("F32", 64)
    normed = ops.rms_norm(x)
    scaled = ops.mul(normed, weight)
    nodes = [normed, scaled]
    assert BACKENDS["metal"].arrange(Split(nodes, uses(nodes)))[1] == {id(scaled): [x, weight]}


def test_buffers_are_split_where_a_backend_has_a_limit() -> None:
    """ggml-alloc.c, ggml_dyn_tallocr_alloc: a tensor that fits nowhere opens another chunk."""
    arena = Arena(16, chunk=GIB)
    first = arena.take(600 * MIB)
    second = arena.take(600 * MIB)
    arena.take(3 * GIB)  # larger than a chunk: one of its own
    assert arena.sizes == [600 * MIB, 600 * MIB, 3 * GIB]
    arena.give(first, 600 * MIB)
    assert arena.take(500 * MIB) == first  # grows nothing
    arena.give(second, 600 * MIB)
    assert arena.take(600 * MIB) == second
    assert arena.peak == 1200 * MIB + 3 * GIB


def test_one_endless_buffer_elsewhere() -> None:
    arena = Arena(128)
    arena.take(600 * MIB)
    arena.take(600 * MIB + 1)
    assert arena.sizes == [1200 * MIB + 128]


# host memory ----------------------------------------------------------------------------------


def small(architecture: str, **metadata: object) -> ModelSpec:
    base = {
        "block_count": 6, "embedding_length": 512, "feed_forward_length": 1536,
        "vocab_size": 32000, "context_length": 65536, "attention.head_count": 8,
        "attention.head_count_kv": 2,
    }  # fmt: skip
    return spec({"architecture": architecture, "metadata": {**base, **metadata}, "quant": ""})


def test_what_no_gpu_can_use_stays_on_the_host() -> None:
    """ggml-cuda.cu has no product for TQ1_0; llama-model-loader.cpp, select_weight_buft."""
    model = small("llama")
    config = RunConfig(program="llama-fit-params")
    on_cuda = estimate_memory(model, "TQ1_0", config, 1)
    on_vulkan = estimate_memory(model, "TQ1_0", config.replace(backend="vulkan"), 1)
    types = tensor_types(model, "TQ1_0")
    ternary = [
        t.elements // 256 * 54
        for t, type_ in zip(model.tensors, types, strict=True)
        if type_ == "TQ1_0" and "blk." in t.name
    ]
    assert ternary
    assert on_cuda.host.weights_bytes - on_vulkan.host.weights_bytes == sum(ternary)


@pytest.mark.parametrize(
    ("model", "config", "mib"),
    [
        (
            small("gemma3", **{"attention.sliding_window": 128, "attention.key_length": 64,
                               "attention.value_length": 64}),
            RunConfig(context=2048, ubatch=256),
            0.314,
        ),
        (
            small("mamba2", **{"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 16,
                               "ssm.time_step_rank": 8, "ssm.group_count": 2}),
            RunConfig(context=2048, ubatch=256, parallel=2),
            0.227,
        ),
    ],
    ids=["window", "state"],
)  # fmt: skip
def test_checkpoints(model: ModelSpec, config: RunConfig, mib: float) -> None:
    """As llama-server logs "created context checkpoint", bookkeeping of up to 2 KiB included."""
    one = checkpoint_bytes(model, config)
    assert -KIB < mib * MIB - one < 2.5 * KIB  # the log has three digits
    without = estimate_memory(model, "Q8_0", config, 0).host
    saved = estimate_memory(model, "Q8_0", config.replace(checkpoints=32, cache_ram=GIB), 0).host
    assert saved.overhead_bytes == GIB + 32 * config.parallel * one
    assert saved.total_bytes - without.total_bytes == saved.overhead_bytes


def test_plain_attention_needs_no_checkpoints() -> None:
    assert checkpoint_bytes(small("llama"), RunConfig()) == 0


# graphs that nobody has modelled --------------------------------------------------------------

BOUNDED = ("llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "phi3", "gpt-oss", "command-r", "glm4")


@pytest.mark.parametrize("kind", ["cuda", "metal", "vulkan", "sycl", "rpc"])
def test_the_bound_is_never_below(kind: str) -> None:
    """Asked about graphs that are modelled, and so known."""
    rng = random.Random(kind)
    asked = 0
    for row in (r for r in rows() if r["architecture"] in BOUNDED and kind_of(r) == "cuda"):
        model = spec(row)
        config = RunConfig(**row["config"]).replace(
            backend=kind,
            context=rng.choice([512, 8192, 32768]),
            ubatch=rng.choice([64, 512, 2048]),
            program="llama-server",
        )
        n = row["n_gpus"]
        split = (config.tensor_split or ()) if n else ()
        units = place_units(model.integer("block_count"), gpu_layers(model, config), split)
        memory = Estimator(model, file_type(row)).memory(config, n)
        gpus, host = bound_bytes(model, config, units, n)
        known = [*(g.compute_bytes for g in memory.gpus), memory.host.compute_bytes]
        assert all(k <= b for k, b in zip(known, [*gpus, host], strict=True)), (row, config)
        asked += 1
    assert asked > 10


# the engine itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", stand_in.KINDS)
def test_drawn(kind: str, engine: Engine, tmp_path: Path) -> None:
    """Configurations that nobody chose, asked of the real engine with the backend's own rules."""
    if not stand_in.is_built():
        pytest.skip("no stand-ins here: python benchmarks/accuracy/stand_in.py build")
    rng = random.Random(kind)
    mine = [r for r in rows() if kind_of(r) == kind]
    wrong = []
    with Engine(stand_in=kind) as devices:
        for row in rng.sample(mine, 12):
            model, quant = spec(row), file_type(row)
            path = tmp_path / "model.gguf"
            write_sparse(path, model, tensor_types(model, quant))
            config = RunConfig(**row["config"]).replace(
                context=rng.choice([256, 2048, 8192]),
                ubatch=rng.choice([64, 256, 1024]),
                gpu_layers=rng.randint(0, model.integer("block_count") + 1),
                op_offload=rng.random() < 0.8,
            )
            told = devices.fit_params(path, config, row["n_gpus"])
            got = whole_mib(model, quant, config, row["n_gpus"])
            if got != [list(t) for t in told.values()]:
                wrong.append((row["architecture"], got, told, config))
    assert wrong == []
