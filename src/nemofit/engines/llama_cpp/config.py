"""llama.cpp's knobs for one run, with llama.cpp's defaults where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nemofit.errors import UsageError

BACKENDS = ("cuda", "rocm", "metal", "vulkan", "sycl", "rpc", "cpu")
PROGRAMS = ("llama-server", "llama-bench", "llama-fit-params")
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One configuration of llama.cpp.

    Attributes:
        context: Tokens of KV cache in total over all sequences (``-c``).
        batch, ubatch: Logical and physical batch in tokens (``-b``, ``-ub``).
        flash_attention: ``-fa on`` or ``off``.
        kv_type_k, kv_type_v: Cache types (``-ctk``, ``-ctv``).
        parallel: Sequences (``-np``).
        kv_unified: One cache shared by all sequences (``-kvu``).
        gpu_layers: ``-ngl`` as llama.cpp counts: blocks plus one for the output; None: all.
        tensor_split: ``-ts``; None: in proportion to each device's budget (equal if unknown).
        devices: ``-dev``, by the GPUs' numbers in ascending order: those that the engine is told to
            use. The others hold nothing, and ``tensor_split`` has a 0 for each. None: all GPUs.
        cpu_moe_layers: ``-ncmoe``: experts of the first n blocks stay on the host.
        override_tensors: ``-ot`` pairs (regular expression, buffer type such as ``CPU``).
        kv_offload: False is ``-nkvo``.
        op_offload: False is ``--no-op-offload``.
        swa_full: ``--swa-full``.
        mmap: Weights on the host are pages of the file instead of allocated memory.
        repack: CPU weights may be copied into a CPU-specific layout (``--repack``).
        cache_ram: Bytes of host memory that llama-server may fill with prompts of the past
            (``-cram``, there in MiB and 8192 by default); 0 leaves them out of the sum.
        checkpoints: Context checkpoints per sequence to count (``-ctxcp``, 32 at most by default,
            made as prompts grow); 0 leaves them out of the sum.
        backend: Whose alignment, padding and extra copies apply on the GPUs.
        program: Whose accounting: ``llama-server`` (a real load), ``llama-bench`` (logits for
            every token) or ``llama-fit-params`` (its own projection).
    """

    context: int = 8192
    batch: int = 2048
    ubatch: int = 512
    flash_attention: bool = True
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    parallel: int = 1
    kv_unified: bool = False
    gpu_layers: int | None = None
    tensor_split: tuple[float, ...] | None = None
    devices: tuple[int, ...] | None = None
    cpu_moe_layers: int = 0
    override_tensors: tuple[tuple[str, str], ...] = ()
    kv_offload: bool = True
    op_offload: bool = True
    swa_full: bool = False
    mmap: bool = True
    repack: bool = False
    cache_ram: int = 0
    checkpoints: int = 0
    backend: str = "cuda"
    program: str = "llama-server"

    def __post_init__(self) -> None:
        if isinstance(self.tensor_split, Sequence) and not isinstance(self.tensor_split, tuple):
            object.__setattr__(self, "tensor_split", tuple(self.tensor_split))
        if isinstance(self.devices, Sequence) and not isinstance(self.devices, tuple):
            object.__setattr__(self, "devices", tuple(self.devices))
        _check_counts(self)
        _check_choices(self)

    def replace(self, **changes: Any) -> RunConfig:
        """Return a copy with some knobs changed."""
        return replace(self, **changes)


def _check_counts(c: RunConfig) -> None:
    for name, low, high in (
        ("context", 1, 1 << 31),
        ("batch", 1, 1 << 24),
        ("ubatch", 1, 1 << 24),
        ("parallel", 1, 256),
        ("cpu_moe_layers", 0, 1 << 16),
        ("cache_ram", 0, 1 << 50),
        ("checkpoints", 0, 1 << 16),
        ("gpu_layers", 0, 1 << 16),
    ):
        value = getattr(c, name)
        if value is None and name == "gpu_layers":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageError(f"{name} {value!r} is not a whole number from {low} to {high}")
    if c.tensor_split is not None and (
        not c.tensor_split
        or any(not x >= 0 or x == float("inf") for x in c.tensor_split)
        or sum(c.tensor_split) <= 0
    ):
        raise UsageError(
            f"tensor split {c.tensor_split!r} is not a list of proportions with a sum above zero",
            "write one number per GPU, for example 1,1 or 3,2",
        )
    if c.devices is not None and (
        not c.devices or min(c.devices) < 0 or sorted(set(c.devices)) != list(c.devices)
    ):
        raise UsageError(
            f"devices {c.devices!r} are not the numbers of GPUs in ascending order",
            "write for example (0, 2), or None for all",
        )


def _check_choices(c: RunConfig) -> None:
    for name, allowed in (
        ("backend", BACKENDS),
        ("program", PROGRAMS),
        ("kv_type_k", KV_TYPES),
        ("kv_type_v", KV_TYPES),
    ):
        if getattr(c, name) not in allowed:
            raise UsageError(
                f"{name} {getattr(c, name)!r} is not known", "one of: " + ", ".join(allowed)
            )
    if not c.flash_attention and c.kv_type_v not in ("f32", "f16", "bf16"):
        raise UsageError(
            f"a quantized V cache ({c.kv_type_v}) needs flash attention, as llama.cpp requires",
            "turn flash attention on, or use kv_type_v f16",
        )
