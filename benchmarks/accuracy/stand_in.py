# ruff: noqa: E501
"""RPC devices that size, support and order work as CUDA, Metal or Vulkan would, on any machine.

    python benchmarks/accuracy/stand_in.py build     compile them (half a minute) next to the engine

What decides memory in a backend are a few functions that touch no device: how many bytes a tensor
takes, which operations there are kernels for, which products are taken over from the host, which
nodes are fused and in what order they run. Here those functions are cut out of the source of the
pinned llama.cpp by name, compiled for the CPU, and called by the RPC backend's buffers and devices
instead of its own. ``Engine(stand_in="cuda")`` then asks the real scheduler and allocator with
CUDA's own rules. Linux only: the library is put before the engine's own.

CUDA is an Ampere card (``EMU_CC`` another compute capability), Metal has the features of every
Apple chip, Vulkan a device like NVIDIA's. What the stand-ins leave out: pinned host memory, whose
alignment differs by a few bytes on Vulkan, and everything that is not in the engine's own
accounting (contexts, pools).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: find the package beside it
    sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.accuracy import engine

KINDS = ("cuda", "metal", "vulkan")
_LIBRARY = "libggml-rpc.so.0"
_FLAGS = ("-O1", "-fPIC", "-std=c++17", "-w", "-D_GNU_SOURCE", "-DGGML_BACKEND_BUILD",
          "-DGGML_BACKEND_SHARED", "-DGGML_SHARED")  # fmt: skip


def folder() -> Path:
    """Where the library lies."""
    return engine.cache() / "stand-in"


def is_built() -> bool:
    return (folder() / _LIBRARY).exists()


def environment(kind: str) -> dict[str, str]:
    """What to set for a program of the engine so that its RPC devices are of a kind."""
    return {"LD_LIBRARY_PATH": str(folder()), "EMU": kind}


def build() -> Path:
    """Cut the functions out, compile them and return the library's folder."""
    out = folder()
    out.mkdir(parents=True, exist_ok=True)
    source = engine.source() / "ggml" / "src"
    files = {
        "cuda": _cuda(source),
        "metal": _metal(source),
        "vulkan": _vulkan(source),
        "rpc": _rpc(source),
        "transport": (source / "ggml-rpc" / "transport.cpp").read_text(),
    }
    includes = [source, source.parent / "include", source / "ggml-rpc", source / "ggml-metal"]
    objects = []
    for name, text in files.items():
        file = out / f"{name}.cpp"
        file.write_text(text)
        objects.append(str(file.with_suffix(".o")))
        command = ["c++", *_FLAGS, *(f"-I{i}" for i in includes), "-c", str(file)]
        subprocess.run([*command, "-o", objects[-1]], check=True)
    library = ["-shared", f"-Wl,-soname,{_LIBRARY}", "-o", str(out / _LIBRARY)]
    subprocess.run(["c++", *library, *objects, f"-L{engine.programs()}", "-lggml-base"], check=True)
    return out


def cut(path: Path, start: str) -> str:
    """A function of a C++ file, from the line that begins with its declaration to its end."""
    lines = path.read_text().split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    last = next(i for i in range(first, len(lines)) if lines[i].startswith("}"))
    return "\n".join(lines[first : last + 1]) + "\n"


def between(path: Path, start: str, end: str) -> str:
    """A stretch of a file, both marks included."""
    text = path.read_text()
    first = text.index(start)
    return text[first : text.index(end, first) + len(end)] + "\n"


_COMMON = """
#include "ggml.h"
#include "ggml-impl.h"
#include "ggml-backend-impl.h"
#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <vector>
"""
_HOOKS = """
size_t stand_in_size_{0}(ggml_backend_buffer_type_t, const ggml_tensor *);
bool   stand_in_runs_{0}(const ggml_tensor *);
bool   stand_in_takes_{0}(const ggml_tensor *);
void   stand_in_order_{0}(ggml_backend_t, ggml_cgraph *, ggml_backend_graph_optimize_params *);
"""


def _cuda(source: Path) -> str:
    main, fattn = source / "ggml-cuda" / "ggml-cuda.cu", source / "ggml-cuda" / "fattn.cu"
    size = cut(main, "static size_t ggml_backend_cuda_buffer_type_get_alloc_size")
    size = _without(size, "ggml_backend_cuda_buffer_type_context * buft_ctx")
    order = cut(main, "static void ggml_backend_cuda_graph_optimize")
    order = order[: order.index("#ifdef USE_CUDA_GRAPH")] + "}\n"
    order = _without(order, "ggml_backend_cuda_context * cuda_ctx")
    runs = cut(main, "static bool ggml_backend_cuda_device_supports_op")
    head = runs.index("    ggml_backend_cuda_device_context")
    runs = runs[:head] + runs[runs.index("    switch (op->op)") :]
    kernels = """
typedef void * fattn_vec_case_t;
// what a build compiles by default
static fattn_vec_case_t ggml_cuda_get_fattn_vec_case(int64_t d, ggml_type k, ggml_type v) {
    auto halved = [](ggml_type t) { return t == GGML_TYPE_F32 ? GGML_TYPE_F16 : t; };
    k = halved(k), v = halved(v);
    const bool known = k == GGML_TYPE_F16 || k == GGML_TYPE_BF16 || k == GGML_TYPE_Q4_0 || k == GGML_TYPE_Q8_0;
    return known && k == v && (d == 64 || d == 128 || d == 256) ? (void *) 1 : nullptr;
}
"""
    return "".join(
        (
            _COMMON,
            """namespace stand_in_cuda {
#define FLASH_ATTN_AVAILABLE
#define GGML_CUDA_USE_CUB
#define FATTN_KQ_STRIDE 256
#define MATRIX_ROW_PADDING 512
#define QK_K 256
#define GGML_CUDA_CC_ADA_LOVELACE 890
struct device_info { int cc; size_t smpb; };
struct devices_info { device_info operator[](int) const {
    const char * cc = getenv("EMU_CC");
    return { cc ? atoi(cc) : 860, 99*1024 };
} };
struct info { devices_info devices; };
static info ggml_cuda_info() { return {}; }
static bool turing_mma_available(int cc) { return cc >= 750; }
static bool volta_mma_available(int cc) { return cc == 700; }
static bool amd_mfma_available(int) { return false; }
static bool amd_wmma_available(int) { return false; }
static bool ggml_cuda_flash_attn_ext_mma_f16_may_use_sparse(int, int, int, int) { return false; }
static bool ggml_cuda_flash_attn_ext_mma_f16_shall_use_sparse(int, const ggml_tensor *, int, int) { return false; }
static bool ggml_cuda_lightning_indexer_supported(int, const ggml_tensor *) { return true; }
static bool ggml_cuda_op_mul_mat_use_fwht(const ggml_tensor *) { return false; }
""",
            between(main, "static constexpr int MOE_WEIGHTED_REDUCTION_MAX_EXPERTS", "\n"),
            between(main, "struct ggml_cuda_moe_weighted_reduction_match {", "\n};"),
            between(source / "ggml-cuda" / "topk-moe.cuh", "struct ggml_cuda_topk_moe_args", "\n};"),
            between(source / "ggml-cuda" / "fattn-common.cuh",
                    "struct ggml_cuda_flash_attn_ext_f16_extra_data", "\n};"),
            between(fattn, "enum best_fattn_kernel {", "\n};"),
            kernels,
            cut(fattn, "static bool ggml_cuda_fattn_kv_type_supported"),
            cut(fattn, "static best_fattn_kernel ggml_cuda_get_best_fattn_kernel"),
            cut(source / "ggml-cuda" / "fattn-common.cuh",
                "static inline ggml_cuda_flash_attn_ext_f16_extra_data ggml_cuda_flash"),
            cut(fattn, "size_t ggml_cuda_flash_attn_ext_get_alloc_size"),
            cut(fattn, "bool ggml_cuda_flash_attn_ext_supported"),
            cut(main, "static bool ggml_cuda_topk_moe_fusion"),
            cut(main, "static bool ggml_cuda_match_moe_weighted_reduction"),
            cut(source / "ggml-cuda" / "topk-moe.cu", "bool ggml_cuda_should_use_topk_moe"),
            size.replace("buft_ctx->device", "0"),
            order,
            runs.replace("dev_ctx->device", "0"),
            cut(main, "static int64_t get_op_batch_size"),
            "}\n",
            _HOOKS.format("cuda"),
            """
size_t stand_in_size_cuda(ggml_backend_buffer_type_t b, const ggml_tensor * t) {
    return stand_in_cuda::ggml_backend_cuda_buffer_type_get_alloc_size(b, t);
}
bool stand_in_runs_cuda(const ggml_tensor * t) {
    return stand_in_cuda::ggml_backend_cuda_device_supports_op(nullptr, t);
}
bool stand_in_takes_cuda(const ggml_tensor * t) { return stand_in_cuda::get_op_batch_size(t) >= 32; }
void stand_in_order_cuda(ggml_backend_t b, ggml_cgraph * g, ggml_backend_graph_optimize_params * p) {
    stand_in_cuda::ggml_backend_cuda_graph_optimize(b, g, p);
}
""",
        )
    )  # fmt: skip


def _without(text: str, start: str) -> str:
    """Drop the statement that begins with ``start``."""
    first = text.index(start)
    return text[:first] + text[text.index(";", first) + 1 :]


def _defines(path: Path, *prefixes: str) -> str:
    wanted = tuple(f"#define {p}" for p in prefixes)
    lines = (line for line in path.read_text().split("\n") if line.startswith(wanted))
    return "\n".join(lines) + "\n"


_METAL_EXTRA = (
    "bool ggml_metal_op_flash_attn_ext_use_vec",
    "static bool ggml_metal_op_flash_attn_ext_use_kv_f16",
    "static int ggml_metal_op_flash_attn_ext_n_kv_max_sparse",
    "static bool ggml_metal_op_flash_attn_ext_v_is_view_of_k",
    "static size_t ggml_metal_op_flash_attn_ext_kv_f16_k_size",
    "size_t ggml_metal_op_flash_attn_ext_extra_pad",
    "size_t ggml_metal_op_flash_attn_ext_extra_blk",
    "size_t ggml_metal_op_flash_attn_ext_extra_tmp",
    "size_t ggml_metal_op_flash_attn_ext_extra_kv_f16",
    "size_t ggml_metal_op_flash_attn_ext_extra_idx",
    "size_t ggml_metal_op_mul_mat_id_extra_tpe",
    "size_t ggml_metal_op_mul_mat_id_extra_ids",
    "size_t ggml_metal_op_mul_mat_id_extra_amax",
)


def _metal(source: Path) -> str:
    metal = source / "ggml-metal"
    fusion = (metal / "ggml-metal-fusion.cpp").read_text()
    buffers = """
typedef void * ggml_metal_buffer_t;
struct buffer_id { void * metal; };
static buffer_id ggml_metal_buffer_get_id(void *, const ggml_tensor *) { return { nullptr }; }
"""
    device = metal / "ggml-metal-device.m"
    return "".join(
        (
            _COMMON,
            fusion.replace('#include "ggml-metal-device.h"', buffers),
            (metal / "ggml-metal-common.cpp").read_text(),
            _defines(metal / "ggml-metal-impl.h", "OP_FLASH_ATTN", "OP_LIGHTNING", "N_MM_NPART"),
            *(cut(metal / "ggml-metal-ops.cpp", f) for f in _METAL_EXTRA),
            cut(metal / "ggml-metal.cpp", "static size_t ggml_backend_metal_buffer_type_get_alloc"),
            """
struct features {
    bool has_simdgroup_mm = true, has_simdgroup_reduction = true, has_bfloat = true;
    size_t max_theadgroup_memory_size = 32768;
};
struct device { features props; };
typedef device * ggml_metal_device_t;
""",
            cut(device, "static bool ggml_metal_supports_mul_mat_op"),
            "static ",
            cut(device, "bool ggml_metal_device_supports_op"),
            _HOOKS.format("metal"),
            """
size_t stand_in_size_metal(ggml_backend_buffer_type_t b, const ggml_tensor * t) {
    return ggml_backend_metal_buffer_type_get_alloc_size(b, t);
}
bool stand_in_runs_metal(const ggml_tensor * t) {
    static device d;
    return ggml_metal_device_supports_op(&d, t);
}
bool stand_in_takes_metal(const ggml_tensor * t) {
    return (t->op == GGML_OP_MUL_MAT && t->ne[1] >= 32) || (t->op == GGML_OP_MUL_MAT_ID && t->ne[2] >= 32);
}
void stand_in_order_metal(ggml_backend_t, ggml_cgraph * g, ggml_backend_graph_optimize_params * p) {
    ggml_metal_fusion_add_alloc_deps(p->user_data, p->add_alloc_dep, g);
    ggml_graph_optimize(g);
}
""",
        )
    )


def _vulkan(source: Path) -> str:
    main = source / "ggml-vulkan" / "ggml-vulkan.cpp"
    types = source / "ggml-vulkan" / "ggml-vulkan-types.h"
    edges = "static constexpr std::initializer_list<std::array<int, 3>> hc_post_gate_edges"
    order = _without(cut(main, "void ggml_vk_graph_optimize"), "ggml_backend_vk_context * ctx")
    order = order.replace("if (ctx->device->disable_graph_optimize)", "if (false)")
    return "".join(
        (
            _COMMON,
            """
#define VK_LOG_DEBUG(x)
#define UNUSED GGML_UNUSED
struct limits_t { uint32_t maxStorageBufferRange = 0xffffffff, minStorageBufferOffsetAlignment = 16, maxComputeSharedMemorySize = 49152; };
struct properties_t { limits_t limits; };
struct yes { bool operator[](int) const { return true; } };
struct some { void * operator[](int) const { return (void *) 1; } };
struct device_t {
    bool shader_int64 = true, buffer_device_address = true, shader_64b_indexing = false, coopmat2 = false;
    bool subgroup_shuffle = true, subgroup_vote = true, subgroup_basic = true, subgroup_arithmetic = true;
    bool subgroup_require_full_support = true, vulkan_memory_model = true, fp16 = true;
    size_t max_buffer_size = 0xffffffff;
    uint32_t max_workgroup_size_log2 = 10, subgroup_size_log2 = 5;
    properties_t properties;
    yes mul_mat_id_s, mul_mat_id_m, mul_mat_id_l;
    some pipeline_topk_f32;
    void * pipeline_topk_radix_f32 = (void *) 1, * pipeline_dsv4_hc_comb_f32 = (void *) 1;
};
typedef std::shared_ptr<device_t> vk_device;
struct ggml_backend_vk_device_context { int device; };
static vk_device & ggml_vk_get_device(int) { static vk_device d = std::make_shared<device_t>(); return d; }
static uint64_t vk_tensor_offset(const ggml_tensor *) { return 0; }
static bool ggml_vk_lightning_indexer_k_type_supported(ggml_type) { return true; }
""",
            _line(types, "static constexpr uint32_t num_argsort_pipelines"),
            _line(types, "static constexpr uint32_t num_topk_pipelines"),
            between(types, "static constexpr std::initializer_list<ggml_op> topk_moe_early", edges),
            " {};\n",
            "static ",
            cut(main, "bool ggml_vk_dim01_contiguous"),
            "static ",
            cut(main, "bool ggml_vk_concat_supported"),
            "static ",
            cut(main, "int ggml_vk_unary_mul_op_index"),
            cut(main, "static bool ggml_vk_can_fuse_unary_mul("),
            "static ",
            order,
            cut(main, "static bool ggml_backend_vk_device_supports_op"),
            "static ",
            cut(
                source / "ggml-vulkan" / "ggml-vulkan-debug.cpp",
                "int64_t ggml_vk_get_op_batch_size",
            ),
            _HOOKS.format("vulkan"),
            """
size_t stand_in_size_vulkan(ggml_backend_buffer_type_t, const ggml_tensor * t) { return ggml_nbytes(t); }
bool stand_in_runs_vulkan(const ggml_tensor * t) {
    static ggml_backend_vk_device_context context = {};
    static ggml_backend_device device = {};
    device.context = &context;
    return ggml_backend_vk_device_supports_op(&device, t);
}
bool stand_in_takes_vulkan(const ggml_tensor * t) { return ggml_vk_get_op_batch_size(t) >= 32; }
void stand_in_order_vulkan(ggml_backend_t b, ggml_cgraph * g, ggml_backend_graph_optimize_params * p) {
    ggml_vk_graph_optimize(b, g, p);
}
""",
        )
    )


def _line(path: Path, start: str) -> str:
    return between(path, start, ";")


def _rpc(source: Path) -> str:
    """The RPC client, whose devices ask the functions of the kind that ``EMU`` names."""
    text = (source / "ggml-rpc" / "ggml-rpc.cpp").read_text()
    hooks = (
        "".join(_HOOKS.format(k) for k in KINDS)
        + """
static int emulated() {
    static const int kind = [] {
        const char * name = getenv("EMU");
        return !name ? 0 : !strcmp(name, "cuda") ? 1 : !strcmp(name, "metal") ? 2 : !strcmp(name, "vulkan") ? 3 : 0;
    }();
    return kind;
}
#define DISPATCH(what, none, ...) \\
    switch (emulated()) { \\
        case 1: return stand_in_##what##_cuda(__VA_ARGS__); \\
        case 2: return stand_in_##what##_metal(__VA_ARGS__); \\
        case 3: return stand_in_##what##_vulkan(__VA_ARGS__); \\
        default: return none; \\
    }
static bool emulated_takes(ggml_backend_dev_t, const ggml_tensor * t) { DISPATCH(takes, false, t) }
static bool emulated_runs(const ggml_tensor * t) { DISPATCH(runs, true, t) }
static size_t emulated_size(ggml_backend_buffer_type_t b, const ggml_tensor * t) { DISPATCH(size, 0, b, t) }
static void emulated_order(ggml_backend_t b, ggml_cgraph * g, ggml_backend_graph_optimize_params * p) {
    DISPATCH(order, void(), b, g, p)
}
"""
    )
    changes = (
        ("    /* .graph_optimize          = */ NULL,", "    emulated_order,"),
        ("    /* .offload_op           = */ NULL,", "    emulated_takes,"),
        (
            "    // should we query the remote server for the actual size\n",
            "    if (emulated()) return emulated_size(buft, tensor);\n",
        ),
        (
            "    return buft_ctx->alignment;",
            "    const size_t alignments[] = { buft_ctx->alignment, 128, 32, 16 };\n"
            "    return alignments[emulated()];",
        ),
        (
            "    return buft_ctx->max_size;",
            "    return emulated() == 3 ? (size_t) 1 << 30 : buft_ctx->max_size;",
        ),
        # a device's memory begins at a multiple of its alignment, a process's does not
        (
            "    request->size = size;\n    rpc_msg_alloc_buffer_rsp",
            "    request->size = size + (emulated() == 1 ? 256 : 0);\n    rpc_msg_alloc_buffer_rsp",
        ),
    )
    for old, new in changes:
        if text.count(old) != 1:
            raise engine.EngineError(f"ggml-rpc.cpp has {text.count(old)} times {old.strip()!r}")
        text = text.replace(old, new)
    after = text.index("\n", text.rindex("#include")) + 1
    text = text[:after] + '#include "ggml-impl.h"\n' + hooks + text[after:]
    return text.replace(*_supported(text))


def _supported(text: str) -> tuple[str, str]:
    """supports_op before and after: CUDA refuses what lies on another of its devices."""
    start = "static bool ggml_backend_rpc_device_supports_op"
    first = text.index(start)
    old = text[first : text.index("\n}\n", first) + 3]
    buffers = "static bool ggml_backend_rpc_device_supports_buft(ggml_backend_dev_t, ggml_backend_buffer_type_t);\n"
    new = (
        buffers
        + start
        + """(ggml_backend_dev_t dev, const struct ggml_tensor * op) {
    for (int i = 0; emulated() == 1 && i < GGML_MAX_SRC; i++) {
        ggml_backend_buffer_t b = op->src[i] ? op->src[i]->buffer : nullptr;
        if (b && b->buft->iface.get_name == ggml_backend_rpc_buffer_type_name &&
                !ggml_backend_rpc_device_supports_buft(dev, b->buft)) {
            return false;
        }
    }
    return emulated_runs(op);
}
"""
    )
    return old, new


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        raise SystemExit((__doc__ or "").split("\n\n")[1])
    print(build())
