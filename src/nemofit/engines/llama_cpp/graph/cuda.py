"""What CUDA (and ROCm) and SYCL add: padding, half-precision copies, kernels that do not exist.

Sources: ggml-cuda.cu (get_alloc_size, supports_op, graph_optimize), ggml-cuda/fattn.cu,
ggml-cuda/topk-moe.cu; ggml-sycl.cpp, ggml-sycl/fattn.cpp, fattn-onednn.cpp; llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .fusion import (
    Kept,
    Split,
    has_plain_elements,
    is_closed,
    is_contiguous_from,
    keep,
    v_lies_in_k,
)
from .ops import T, elements, nbytes, row_size, type_size

_ROW_PADDING = 512  # MATRIX_ROW_PADDING of both, in elements
_ALIGNMENT = 128
_MAX_FUSED_EXPERTS = 15  # MOE_WEIGHTED_REDUCTION_MAX_EXPERTS
_MASK_STRIDE = 256  # FATTN_KQ_STRIDE
_FLOAT_TYPES = ("F32", "F16", "BF16", "I32", "I64")
_CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
_VECTOR_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0")  # compiled by default, K and V alike
# no product, respectively no row lookup, is implemented
_NO_PRODUCT = ("TQ1_0", "TQ2_0")
_NO_ROWS = ("TQ1_0", "TQ2_0", "NVFP4")
_SUPER_BLOCK = 256
_SQUARE_HEADS = (40, 64, 72, 80, 96, 112, 128, 256)


def row_padding(type_: str, row: int) -> int:
    """Bytes that CUDA and SYCL buffers add to a quantized tensor with rows of ``row`` elements."""
    if type_ in _FLOAT_TYPES or row % _ROW_PADDING == 0:
        return 0
    return row_size(type_, _ROW_PADDING - row % _ROW_PADDING)


def alloc_size(t: T) -> int:
    """Bytes of a tensor in a CUDA buffer; attention keeps half-precision copies of K and V.

    The kernels for large batches work on halves only and convert a cache of another type first.
    """
    size = nbytes(t)
    if t.op == "FLASH_ATTN_EXT":
        kernel = attention_kernel(t)
        k, v = t.src[1], t.src[2]
        if kernel == "vector" and k.type == v.type and k.type in _VECTOR_TYPES[1:]:
            return size
        if kernel:
            size = _with_f16(size, k)
            if not v_lies_in_k(k, v):
                size = _with_f16(size, v)
    return size + row_padding(t.type, t.ne[0])


def _with_f16(size: int, t: T) -> int:
    if t.type == "F16":
        return size
    return -(-size // _ALIGNMENT) * _ALIGNMENT + 2 * elements(t)


def attention_kernel(t: T) -> str:
    """Which attention kernel runs: "matrix", "vector", or "" where there is none for the shape.

    Cards differ for one or two tokens a sequence only: there, what Turing and Ampere do.
    """
    q, k, v = t.src[:3]
    mask = t.src[3] if len(t.src) > 3 else None
    heads_per_kv = q.ne[2] // k.ne[2]
    shares = heads_per_kv >= 2 and mask is not None and k.ne[1] % _MASK_STRIDE == 0
    shares = shares and all(
        x is None or x.type not in _FLOAT_TYPES or not any(n % 16 for n in x.nb[1:])
        for x in (q, k, v, mask)
    )
    head_k, head_v = k.ne[0], v.ne[0]
    if head_k in _SQUARE_HEADS:
        fits = head_v == head_k
    elif head_k == 192:
        fits = head_v == 128 and shares and heads_per_kv % 8 == 0
    elif head_k == 320:
        fits = head_v == 256 and shares and heads_per_kv % 32 == 0
    else:
        fits = head_k in (512, 576) and head_v == 512 and shares
    if not fits or k.type not in _CACHE_TYPES or v.type not in _CACHE_TYPES:
        return ""
    if mask is not None and mask.ne[2] != 1:
        return ""
    vector = head_k <= 256 and head_k % 64 == 0 and head_k != 192 and k.ne[1] % _MASK_STRIDE == 0
    quantized = k.type not in _FLOAT_TYPES or v.type not in _FLOAT_TYPES
    return "vector" if vector and q.ne[1] == 1 and (quantized or not shares) else "matrix"


def supports(t: T) -> bool:
    """Whether CUDA can run an operation; what it cannot goes to the CPU."""
    if t.op == "FLASH_ATTN_EXT":
        return bool(attention_kernel(t))
    if t.op in ("MUL_MAT", "MUL_MAT_ID"):
        a, b = t.src[:2]
        if t.precise and t.op == "MUL_MAT_ID":
            return False
        plain = a.nb[0] == type_size(a.type)[1] and b.nb[0] == type_size(b.type)[1]
        return plain and a.type not in _NO_PRODUCT and (b.type != "F16" or a.type == "F16")
    if t.op == "GET_ROWS":
        a = t.src[0]
        if a.type in ("IQ4_NL", "MXFP4"):
            return a.ne[0] % _SUPER_BLOCK == 0
        return a.type not in _NO_ROWS
    if t.op == "UNARY":
        return is_contiguous_from(t.src[0], 0)
    if t.op == "GLU":
        return is_contiguous_from(t.src[0], 1)
    if t.op in ("NORM", "RMS_NORM", "L2_NORM", "SUM_ROWS"):
        return has_plain_elements(t.src[0])
    if t.op == "ROPE":
        a = t.src[0]
        return a.nb[0] == type_size(a.type)[1] and is_contiguous_from(a, 2)
    if t.op == "SSM_CONV":
        return t.src[0].ne[1] % 128 == 0
    if t.op == "SSM_SCAN":
        return _scans(t)
    return True


def _scans(t: T) -> bool:
    state, a, b = t.src[0], t.src[3], t.src[4]
    if a.ne[0] == 1:
        return state.ne[0] in (96, 128, 256) and state.ne[1] % 16 == 0
    return state.ne[0] == 16 and state.ne[1] == 1 and state.ne[2] % 128 == 0 and b.ne[1] == 1


def arrange(split: Split) -> tuple[Sequence[T], Kept]:
    """The order stays; fused expert kernels keep what they read until their result is there."""
    nodes, uses = split.nodes, split.uses
    kept: Kept = {}
    i = 0
    while i < len(nodes):
        summed = _weighted_sum(nodes, i, uses)
        if summed is not None:
            count, read = summed
            for t in read:
                keep(kept, t, nodes[i + count - 1])
            i += count - 1
        count = _router(nodes, i, uses)
        if count:
            until = nodes[i + count] if i + count < len(nodes) else split.following
            if until is not None:
                for t in nodes[i : i + count]:
                    keep(kept, t, until)
                    for s in t.src:
                        keep(kept, s, until)
            i += count - 1
        i += 1
    return nodes, kept


def _factors(product: T) -> tuple[T, T] | None:
    """What is weighted and its weights, one for every row, in either order."""
    for full, weights in (product.src, product.src[::-1]):
        if full.ne == product.ne and weights.ne == (1, *product.ne[1:]):
            plain = full.type == weights.type == "F32"
            if plain and is_contiguous_from(full, 0) and is_contiguous_from(weights, 0):
                return full, weights
    return None


def _weighted_sum(
    nodes: Sequence[T], i: int, uses: Mapping[int, int]
) -> tuple[int, list[T]] | None:
    """Nodes of ``experts [* scale] * weights``, its windows and their sum, and what they read."""
    first = nodes[i]
    if first.op != "MUL" or first.type != "F32" or not is_contiguous_from(first, 0):
        return None
    factors = _factors(first)
    if factors is None:
        return None
    weighted, products, read = first, 1, list(factors)
    second = nodes[i + 1] if i + 1 < len(nodes) else None
    if second is not None and second.op == "MUL" and is_contiguous_from(second, 0):
        again = _factors(second)
        if again is not None and again[0] is first:
            weighted, products, read = second, 2, [factors[0], again[1], factors[1]]
    used = weighted.ne[1]
    count = 2 * used + products - 1
    if not 2 <= used <= _MAX_FUSED_EXPERTS or i + count > len(nodes):
        return None
    group = nodes[i : i + count]
    windows = [t for t in group[products:] if t.op == "VIEW" and t.src[0] is weighted]
    sums = [t for t in group[products:] if t.op == "ADD"]
    if len(windows) != used or len(sums) != used - 1 or not is_closed(group, group[-1:], uses):
        return None
    left = windows[0]
    for total, right in zip(sums, windows[1:], strict=True):
        if total.src[0] is not left or total.src[1] is not right:
            return None
        left = total
    return count, read


_NORMALIZE = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
_EXTRA_EXPERT_COUNTS = (288, 576)


def _router(nodes: Sequence[T], i: int, uses: Mapping[int, int]) -> int:
    """Nodes of a router that is one kernel (scores, top k, weights), 0 if it is not."""
    ops = [t.op for t in nodes[i : i + 14]]

    def follows(at: int, *names: str) -> bool:
        return tuple(ops[at : at + len(names)]) == names

    if ops[0] == "UNARY":
        at = 2 if follows(1, "SQRT") else 1
    elif ops[0] == "SOFT_MAX" and len(nodes[i].src) == 1:
        at = 1
    else:
        return 0
    biased = follows(at, "RESHAPE", "ADD")
    if not follows(at + 1 + biased, "ARGSORT", "VIEW", "GET_ROWS") or ops[at] != "RESHAPE":
        return 0
    ids = nodes[i + at + 2 + biased]
    at += 4 + biased
    if follows(at, *_NORMALIZE):
        at += len(_NORMALIZE)
    if follows(at, "SCALE"):
        at += 1
    n_expert = ids.nb[1] // ids.nb[0]
    if n_expert not in _EXTRA_EXPERT_COUNTS and (n_expert > 512 or n_expert & (n_expert - 1)):
        return 0
    group = nodes[i : i + at]
    return at if is_closed(group, (ids, group[-1]), uses) else 0


def sycl_alloc_size(t: T) -> int:
    """Bytes of a tensor in a SYCL buffer; attention stages what oneDNN reads and writes."""
    size = nbytes(t)
    if t.op == "FLASH_ATTN_EXT":
        q, k, v = t.src[:3]
        onednn = _onednn_attends(t)
        halves = [elements(q) if onednn else 0]
        copies = onednn and not k.type == v.type == "F16"
        halves.append(elements(k) if copies or k.type != "F16" else 0)
        own_v = onednn or not v_lies_in_k(k, v)
        halves.append(elements(v) if own_v and (copies or v.type != "F16") else 0)
        halves += [1, elements(q)] if onednn else []
        for n in halves:
            size = -(-size // _ALIGNMENT) * _ALIGNMENT + 2 * n if n else size
    return size + row_padding(t.type, t.ne[0])


def _onednn_attends(t: T) -> bool:
    """oneDNN's attention takes one sequence with a mask, equal heads and no sinks."""
    q, k, v = t.src[:3]
    types = ("F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
    return (
        len(t.src) == 4
        and t.src[3].type == "F16"
        and t.src[3].ne[2:] == (1, 1)
        and k.ne[0] == v.ne[0]
        and q.ne[3] == 1
        and k.type in types
        and v.type in types
    )
