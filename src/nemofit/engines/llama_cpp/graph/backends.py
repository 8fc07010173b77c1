"""What each llama.cpp backend adds or rounds: alignment, padding, scratch space, op offload.

Sources: get_alignment, get_alloc_size, offload_op and graph_optimize of ggml-cuda.cu, fattn.cu,
ggml-metal.cpp, ggml-vulkan.cpp, ggml-sycl.cpp, ggml-rpc.cpp and ggml-cpu.cpp, llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from . import reorder
from .ops import T, elements, nbytes, row_size, rows
from .reorder import Kept

# ggml-cuda/common.cuh and ggml-sycl/presets.hpp: MATRIX_ROW_PADDING, in elements
_ROW_PADDING = 512
# GGML_OP_OFFLOAD_MIN_BATCH's default, in tokens
_MIN_OFFLOAD_BATCH = 32
# ggml-cuda.cu: MOE_WEIGHTED_REDUCTION_MAX_EXPERTS
_MAX_FUSED_EXPERTS = 32
_FLOAT_TYPES = ("F32", "F16", "BF16", "I32", "I64")


def row_padding(type_: str, row: int) -> int:
    """Bytes that CUDA and SYCL buffers add to a quantized tensor with rows of ``row`` elements."""
    if type_ in _FLOAT_TYPES or row % _ROW_PADDING == 0:
        return 0
    return row_size(type_, _ROW_PADDING - row % _ROW_PADDING)


@dataclass(frozen=True, slots=True)
class Backend:
    """The memory rules of one backend.

    Attributes:
        alignment: Bytes to which tensors in its buffers are aligned.
        pads_rows: Quantized rows are padded to 512 elements, once per tensor.
        attention_f16: Flash attention keeps half-precision copies of a quantized K and V.
        metal_scratch: Some results carry scratch space behind them.
        offload: Takes over large-batch operations on weights that lie on the host.
        fuses_experts: Keeps tensors alive that its fused expert kernels read late.
        reorders: Moves nodes that do not wait for one another next to each other.
        chunk: The most bytes of one buffer, None: any number; compute buffers are split there.
        host_alignment: Alignment of the host memory that its devices copy from.
        reads_host: Reads tensors in host memory where they are (CPU, integrated GPUs).
    """

    alignment: int = 32
    pads_rows: bool = False
    attention_f16: bool = False
    metal_scratch: bool = False
    offload: bool = False
    fuses_experts: bool = False
    reorders: bool = False
    chunk: int | None = None
    host_alignment: int = 32
    reads_host: bool = False

    def alloc_size(self, t: T) -> int:
        """Bytes its buffer needs for a tensor."""
        size = nbytes(t)
        if self.pads_rows:
            size += row_padding(t.type, t.ne[0])
        if t.op == "FLASH_ATTN_EXT":
            if self.attention_f16:
                size = _with_f16_copies(size, t)
            elif self.metal_scratch:
                size += _metal_attention_scratch(t)
        elif self.metal_scratch and t.op in ("CUMSUM", "ARGSORT"):
            size *= 2
        elif self.metal_scratch and t.op == "MUL_MAT_ID":
            size += _metal_expert_scratch(t)
        return size

    def supports(self, t: T) -> bool:  # noqa: ARG002
        """Whether it can run an operation; every one that is modelled, today."""
        return True

    def offloads(self, t: T) -> bool:
        """Whether it takes over an operation whose weight lies on the host."""
        if not self.offload:
            return False
        if t.op == "GET_ROWS":
            return False
        if t.op == "MUL_MAT":
            return t.ne[1] >= _MIN_OFFLOAD_BATCH
        if t.op in ("MUL_MAT_ID", "ROPE"):
            return t.ne[2] >= _MIN_OFFLOAD_BATCH
        return rows(t) >= _MIN_OFFLOAD_BATCH

    def arrange(self, nodes: Sequence[T], uses: Mapping[int, int]) -> tuple[Sequence[T], Kept]:
        """The order in which it runs a split's nodes, and what must live longer than its readers.

        Args:
            uses: How often each node of the whole graph is read, by id.

        Returns:
            The nodes, and tensors that outlive their last reader by the id of the node they wait for.
        """
        if self.reorders:
            return reorder.vulkan(nodes, uses)
        return nodes, _fusion_dependencies(nodes) if self.fuses_experts else {}

    def host(self) -> Backend:
        """The CPU backend beside it, which works in host memory that its devices copy from."""
        return replace(BACKENDS["cpu"], alignment=self.host_alignment, chunk=self.chunk)


_CUDA = Backend(alignment=128, pads_rows=True, attention_f16=True, offload=True, fuses_experts=True)
BACKENDS: dict[str, Backend] = {
    "cuda": _CUDA,
    "rocm": _CUDA,
    "metal": Backend(alignment=32, metal_scratch=True),
    "vulkan": Backend(alignment=16, offload=True, reorders=True, chunk=1 << 30, host_alignment=64),
    "sycl": Backend(alignment=128, pads_rows=True, attention_f16=True, offload=True),
    "rpc": Backend(alignment=32),
    "cpu": Backend(alignment=32, reads_host=True),
}


def _with_f16_copies(size: int, t: T) -> int:
    k, v = t.src[1], t.src[2]
    if k.type != "F16":
        size = -(-size // 128) * 128 + 2 * elements(k)
    if v.type != "F16" and not _same_start(k, v):
        size = -(-size // 128) * 128 + 2 * elements(v)
    return size


def _same_start(k: T, v: T) -> bool:
    """V is a window on K's own rows, as with latent attention."""
    return v.root is not None and v.root is (k.root or k)


def _metal_attention_scratch(t: T) -> int:
    """Padding, block and reduction scratch of Metal's attention kernels.

    An upper bound over the kernels' variants: ggml_metal_op_flash_attn_ext_extra_* .
    """
    q, k, v = t.src[0], t.src[1], t.src[2]
    mask = t.src[3] if len(t.src) > 3 else None
    cells, heads, batch = 64, k.ne[2], q.ne[1]
    pad = cells * (row_size(k.type, k.ne[0]) + row_size(v.type, v.ne[0])) * heads * k.ne[3]
    if mask is not None:
        pad += cells * 2 * mask.ne[1] * mask.ne[2] * mask.ne[3]
    blocks = -(-k.ne[1] // cells) * -(-batch // 8) * q.ne[3] if mask is not None else 0
    split = 4 * q.ne[1] * q.ne[2] * q.ne[3] * 32 * (v.ne[0] + 2) if batch < 20 else 0
    return pad + blocks + split


def _metal_expert_scratch(t: T) -> int:
    experts, ids = t.src[0], t.src[2]
    return 4 * experts.ne[2] + 4 * experts.ne[2] * ids.ne[1]


def _fusion_dependencies(nodes: Sequence[T]) -> Kept:
    """CUDA: what ggml_backend_cuda_graph_optimize keeps alive for its fused expert kernels."""
    kept: Kept = {}

    def keep(t: T, until: T) -> None:
        held = kept.setdefault(id(until), [])
        if all(h is not t for h in held):
            held.append(t)

    i = 0
    while i < len(nodes):
        t = nodes[i]
        if t.op == "MUL":
            count = _weighted_sum(nodes, i)
            if count:
                last = nodes[i + count - 1]
                experts, weights = t.src if t.src[1].ne[0] == 1 else t.src[::-1]
                keep(experts, last)
                keep(weights, last)
                i += count - 1
                t = nodes[i]
        if t.op in ("UNARY", "SOFT_MAX"):
            count = _top_k(nodes, i)
            if count and i + count < len(nodes):
                last = nodes[i + count]
                for j in range(i, i + count):
                    keep(nodes[j], last)
                    for s in nodes[j].src:
                        keep(s, last)
                i += count - 1
        i += 1
    return kept


def _weighted_sum(nodes: Sequence[T], i: int) -> int:
    """Nodes of ``experts * weights`` followed by its views and their sum, 0 if it is another."""
    t = nodes[i]
    if t.op != "MUL" or t.type != "F32" or len(t.src) != 2 or t.src[1].ne[1:] != t.ne[1:]:
        return 0
    if t.src[1].ne[0] != 1 or t.src[0].ne != t.ne:
        return 0
    used = t.ne[1]
    count = 2 * used
    if not 2 <= used <= _MAX_FUSED_EXPERTS or i + count > len(nodes):
        return 0
    rest = nodes[i + 1 : i + count]
    views = [n for n in rest if n.op == "VIEW" and n.src[0] is t]
    adds = [n for n in rest if n.op == "ADD"]
    return count if len(views) == used and len(adds) == used - 1 else 0


_TOP_K = ("RESHAPE", "ARGSORT", "VIEW", "GET_ROWS")
_TOP_K_BIASED = ("RESHAPE", "ADD", "ARGSORT", "VIEW", "GET_ROWS")
_NORMALIZE = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
_EXTRA_EXPERT_COUNTS = (288, 576)


def _top_k(nodes: Sequence[T], i: int) -> int:
    """Nodes of a router that CUDA fuses (softmax or sigmoid, top k, weights), 0 if it does not."""

    def follows(at: int, ops: tuple[str, ...]) -> bool:
        return tuple(n.op for n in nodes[at : at + len(ops)]) == ops

    n_expert = nodes[i].ne[0]
    if n_expert not in _EXTRA_EXPERT_COUNTS and (n_expert > 512 or n_expert & (n_expert - 1)):
        return 0
    if len(nodes[i].src) > 1:
        return 0
    at = i + 1
    for ops in (_TOP_K, _TOP_K_BIASED):
        if follows(at, ops):
            at += len(ops)
            break
    else:
        return 0
    if follows(at, _NORMALIZE):
        at += len(_NORMALIZE)
    if follows(at, ("SCALE",)):
        at += 1
    return at - i
