"""What the driver and the runtime take beyond llama.cpp's own accounting.

Not knowable from the model: these are measurements, kept apart from what is computed.
"""

from __future__ import annotations

from nemofit.catalog.model import ModelSpec
from nemofit.units import MIB

from .config import RunConfig
from .kv_cache import is_causal, micro_batch

# MiB per process and card, by generation: llama.cpp's "unaccounted" on cards used by nothing else.
# Ada Lovelace: RTX 4090, 451 to 456, ggml-org/llama.cpp pull 15860 (September 2025).
# Pascal (P100), Ampere (A40), Blackwell (RTX PRO 6000, 703 to 712) and Vega 20 (MI50): the same
# print in published logs of llama.cpp, 2025 to 2026, rounded up.
_CONTEXT_MIB = {
    "Pascal": 400,
    "Ampere": 298,
    "Ada Lovelace": 456,
    "Blackwell": 712,
    "Vega 20": 253,
}
# Cards of other generations get the largest figure measured for their backend.
# Metal: MinimumMemory of ollama/ollama, discover/types.go; SYCL and Vulkan: the same, for want of a
# published figure. RPC and CPU devices are not ours to account for.
_UNKNOWN_MIB = {"cuda": 712, "rocm": 457, "metal": 512, "vulkan": 512, "sycl": 512}
# cuBLAS workspace of compute capability 9.0 and newer, ggml-cuda docs: 32 MiB, else 4 MiB
_WORKSPACE_MIB = {"Hopper": 32, "Blackwell": 32}
_POOL_PAGE = 2 * MIB  # granularity of ggml_cuda_pool_vmm
_Q8_1 = 36 / 32  # bytes per activation that ggml-cuda quantizes before a product


def overhead_bytes(model: ModelSpec, config: RunConfig, generation: str | None = None) -> int:
    """Bytes on one GPU for the context, the loaded kernels and the kernels' pools.

    Args:
        generation: The card's architecture, None: unknown.
    """
    if config.backend not in _UNKNOWN_MIB:
        return 0
    context = _CONTEXT_MIB.get(generation or "", _UNKNOWN_MIB[config.backend]) * MIB
    if config.backend not in ("cuda", "rocm"):
        return context
    widest = max(model.integer("feed_forward_length"), model.integer("embedding_length"))
    pool = int(micro_batch(config, is_causal(model)) * widest * _Q8_1)
    workspace = _WORKSPACE_MIB.get(generation or "", 4 if generation else 32) * MIB
    return context + workspace + -(-pool // _POOL_PAGE) * _POOL_PAGE
