"""The memory rules of each llama.cpp backend: alignment, padding, scratch space, op offload.

Sources: the buffer type and device interfaces of ggml-cuda.cu, ggml-metal.cpp, ggml-vulkan.cpp,
ggml-sycl.cpp, ggml-rpc.cpp and ggml-cpu.cpp, llama.cpp 0c1e570. CUDA's, Metal's and Vulkan's own
rules have a module each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from . import cuda, metal, vulkan
from .cuda import row_padding as row_padding
from .fusion import Kept, Split
from .ops import T, nbytes, rows

_GIB = 1 << 30
_MIN_OFFLOAD_BATCH = 32  # GGML_OP_OFFLOAD_MIN_BATCH's default, in tokens


def _never(t: T) -> bool:  # noqa: ARG001
    return False


def _always(t: T) -> bool:  # noqa: ARG001
    return True


def _as_given(split: Split) -> tuple[Sequence[T], Kept]:
    return split.nodes, {}


def _large_batch(t: T) -> bool:
    """CUDA, Vulkan, SYCL: everything but lookups, from 32 tokens on."""
    if t.op == "GET_ROWS":
        return False
    if t.op == "MUL_MAT":
        return t.ne[1] >= _MIN_OFFLOAD_BATCH
    if t.op in ("MUL_MAT_ID", "ROPE"):
        return t.ne[2] >= _MIN_OFFLOAD_BATCH
    return rows(t) >= _MIN_OFFLOAD_BATCH


def _large_product(t: T) -> bool:
    """Metal: products only, from 32 tokens on."""
    return t.op in ("MUL_MAT", "MUL_MAT_ID") and _large_batch(t)


@dataclass(frozen=True, slots=True)
class Backend:
    """The memory rules of one backend.

    Attributes:
        alignment: Bytes to which tensors in its buffers are aligned.
        chunk: The most bytes of one buffer, None: any number; compute buffers are split there.
        host_alignment: Alignment of the host memory that its devices copy from.
        host_chunk: The most bytes of one buffer in that memory, None: any number.
        pads_rows: Quantized tensors end with a row padded to 512 elements.
        reads_host: Reads tensors in host memory where they are (the CPU).
        pipelines: Has asynchronous compute and events, which pipeline copies need.
        alloc_size: Bytes its buffer needs for a tensor.
        supports: Whether it can run an operation.
        offloads: Whether it takes over an operation whose weight lies on the host.
        arrange: The order in which it runs a split's nodes, and what must outlive its readers.
    """

    alignment: int = 32
    chunk: int | None = None
    host_alignment: int = 32
    host_chunk: int | None = None
    pads_rows: bool = False
    reads_host: bool = False
    pipelines: bool = True
    alloc_size: Callable[[T], int] = nbytes
    supports: Callable[[T], bool] = _always
    offloads: Callable[[T], bool] = _never
    arrange: Callable[[Split], tuple[Sequence[T], Kept]] = _as_given

    @property
    def offload(self) -> bool:
        """Whether it ever takes over operations whose weights lie on the host."""
        return self.offloads is not _never

    def host(self) -> Backend:
        """The CPU backend beside it, which works in host memory that its devices copy from."""
        return replace(BACKENDS["cpu"], alignment=self.host_alignment, chunk=self.host_chunk)


_CUDA = Backend(
    alignment=128,
    pads_rows=True,
    alloc_size=cuda.alloc_size,
    supports=cuda.supports,
    offloads=_large_batch,
    arrange=cuda.arrange,
)
BACKENDS: dict[str, Backend] = {
    "cuda": _CUDA,
    "rocm": _CUDA,
    "metal": Backend(
        alloc_size=metal.alloc_size,
        supports=metal.supports,
        offloads=_large_product,
        arrange=metal.arrange,
    ),
    # minStorageBufferOffsetAlignment and minMemoryMapAlignment as NVIDIA's and Mesa's software
    # driver report them; other drivers differ, which moves a buffer by a few bytes per tensor
    "vulkan": Backend(
        alignment=16,
        chunk=_GIB,
        host_alignment=64,
        host_chunk=_GIB,
        supports=vulkan.supports,
        offloads=_large_batch,
        arrange=vulkan.arrange,
    ),
    "sycl": Backend(
        alignment=128, pads_rows=True, alloc_size=cuda.sycl_alloc_size, offloads=_large_batch
    ),
    "rpc": Backend(),
    "cpu": Backend(reads_host=True, pipelines=False),
}
