"""vLLM's knobs for one run, with vLLM's defaults where it has one (version 0.33.0)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nemofit.errors import UsageError

# Bytes of one element of K or V by --kv-cache-dtype; auto: the model's own 16 bits.
# vllm-project/vllm, vllm/config/cache.py: CacheDType; vllm/utils/torch_utils.py
KV_BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmConfig:
    """One configuration of vLLM.

    Attributes:
        max_model_len: Longest request in tokens, prompt and answer (``--max-model-len``).
        tensor_parallel: Ranks that share every layer (``--tensor-parallel-size``).
        pipeline_parallel: Stages of whole layers (``--pipeline-parallel-size``).
        gpu_memory_utilization: Share of each card's total memory that vLLM takes.
        kv_cache_dtype: ``auto``, ``bfloat16``, ``float16``, ``fp8``, ``fp8_e4m3``, ``fp8_e5m2``.
        max_num_seqs: Requests in one step; None: vLLM's default for the card.
        max_num_batched_tokens: Tokens in one step; None: vLLM's default for the card.
        cpu_offload_gb: GiB of weights per GPU that stay in host memory (``--cpu-offload-gb``).
        enforce_eager: No CUDA graphs (``--enforce-eager``).
        block_size: Tokens of one cache block, before a hybrid model's own needs raise it.
        dtype: ``auto``, ``bfloat16`` or ``float16``: of what is not quantized.
        language_model_only: Vision and sound are neither loaded nor profiled.
    """

    max_model_len: int = 8192
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    gpu_memory_utilization: float = 0.92
    kv_cache_dtype: str = "auto"
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    cpu_offload_gb: float = 0.0
    enforce_eager: bool = False
    block_size: int = 16
    dtype: str = "auto"
    language_model_only: bool = False

    def __post_init__(self) -> None:
        _check_counts(self)
        if not 0 < self.gpu_memory_utilization <= 1:
            raise UsageError(
                f"gpu_memory_utilization {self.gpu_memory_utilization!r} is not from above 0 to 1",
                "write for example 0.9",
            )
        if not 0 <= self.cpu_offload_gb <= 1 << 20:
            raise UsageError(
                f"cpu_offload_gb {self.cpu_offload_gb!r} is not a size in GiB",
                "write for example 4",
            )
        for name, value, allowed in (
            ("kv_cache_dtype", self.kv_cache_dtype, tuple(KV_BYTES)),
            ("dtype", self.dtype, ("auto", "bfloat16", "float16")),
        ):
            if value not in allowed:
                raise UsageError(f"{name} {value!r} is not known", "one of: " + ", ".join(allowed))

    @property
    def ranks(self) -> int:
        """GPUs that the configuration runs on."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def kv_element_bytes(self) -> int:
        return KV_BYTES[self.kv_cache_dtype]

    def replace(self, **changes: Any) -> VllmConfig:
        """Return a copy with some knobs changed."""
        return replace(self, **changes)


def _check_counts(c: VllmConfig) -> None:
    for name, low, high in (
        ("max_model_len", 1, 1 << 31),
        ("tensor_parallel", 1, 1024),
        ("pipeline_parallel", 1, 512),
        ("max_num_seqs", 1, 1 << 20),
        ("max_num_batched_tokens", 1, 1 << 24),
        ("block_size", 1, 1 << 16),
    ):
        value = getattr(c, name)
        if value is None and name in ("max_num_seqs", "max_num_batched_tokens"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageError(f"{name} {value!r} is not a whole number from {low} to {high}")
