"""What Metal adds: scratch space behind results, fused groups kept alive, another order of work.

Sources: ggml-metal.cpp (get_alloc_size, graph_optimize), ggml-metal-ops.cpp (the *_extra_*
functions), ggml-metal-fusion.cpp, ggml-metal-common.cpp (ggml_graph_optimize),
ggml-metal-device.m (supports_op), llama.cpp 0c1e570. Assumes what every Apple chip can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from .fusion import (
    Kept,
    Split,
    has_plain_elements,
    is_closed,
    is_contiguous_from,
    keep,
    v_lies_in_k,
)
from .ops import T, elements, nbytes

_CELLS = 64  # OP_FLASH_ATTN_EXT_NCPSG: cells of one step of the attention kernel
_QUERIES = 8  # OP_FLASH_ATTN_EXT_NQPSG
_VECTOR_CELLS = 32  # OP_FLASH_ATTN_EXT_VEC_NCPSG
_VECTOR_BELOW = 20  # tokens
_GROUPS = 32  # threadgroups whose partial results are kept
_HALVES_FROM = 32  # tokens from which a quantized cache is read as halves
_HALVED_TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
_SCALES = 8 + 4 * 256  # ggml_metal_op_mul_mat_id_extra_amax, bytes
_HEADS = (32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576)
_LONGEST_FUSION = 16  # GGML_METAL_FUSION_MAX
_LOOK_AHEAD = 64  # nodes
_UNALLOCATED = ("cache_k_", "cache_v_")

_EMPTY = frozenset(("NONE", "RESHAPE", "TRANSPOSE", "VIEW", "PERMUTE"))
# over these, other nodes may be moved forward
_SAFE = _EMPTY | frozenset(
    ("MUL_MAT", "MUL_MAT_ID", "ROPE", "NORM", "RMS_NORM", "GROUP_NORM", "L2_NORM", "SUM_ROWS",
     "SSM_CONV", "SSM_SCAN", "CLAMP", "TRI", "DIAG", "MUL", "ADD", "SUB", "DIV", "GLU", "SCALE",
     "UNARY", "GET_ROWS", "SET_ROWS", "SET", "CPY", "CONT", "REPEAT")
)  # fmt: skip


def alloc_size(t: T) -> int:
    """Bytes of a tensor in a Metal buffer, with the scratch space of its kernel."""
    size = nbytes(t)
    if t.op == "FLASH_ATTN_EXT":
        return size + _attention_scratch(t)
    if t.op == "MUL_MAT_ID":
        experts, ids = t.src[0].ne[2], t.src[2].ne[1]
        return size + 4 * experts * (1 + ids) + _SCALES
    if t.op in ("CUMSUM", "ARGSORT"):
        return 2 * size
    if t.op == "TOP_K":
        return 8 * elements(t.src[0])
    return size


def _attention_scratch(t: T) -> int:
    """Padding, mask blocks, partial results, and K and V as halves, all always reserved."""
    q, k, v = t.src[:3]
    mask = t.src[3] if len(t.src) > 3 else None
    shared = v_lies_in_k(k, v)
    row_k, row_v = k.nb[1], v.nb[1]
    if q.ne[1] >= _HALVES_FROM and k.type in _HALVED_TYPES:
        row_k, row_v = 2 * k.ne[0], 2 * (k.ne[0] if shared else v.ne[0])
    pad = row_k * k.ne[2] * k.ne[3] + row_v * v.ne[2] * v.ne[3]
    blocks = 0
    if mask is not None:
        planes = mask.ne[2] * mask.ne[3]
        pad += 2 * mask.ne[1] * planes
        vector = q.ne[1] < _VECTOR_BELOW and q.ne[0] % 32 == 0
        queries, cells = (1, _VECTOR_CELLS) if vector else (_QUERIES, _CELLS)
        blocks = _round(-(-q.ne[1] // queries) * -(-mask.ne[0] // cells) * planes, 32)
    partial = 4 * min(q.ne[1], 32) * q.ne[2] * q.ne[3] * _GROUPS * (v.ne[0] + 2)
    halves = _round(2 * elements(k), 16) + (0 if shared else _round(2 * elements(v), 16))
    return _CELLS * pad + blocks + partial + halves


def _round(n: int, to: int) -> int:
    return -(-n // to) * to


def supports(t: T) -> bool:
    """Whether Metal can run an operation; what it cannot goes to the CPU."""
    if t.op == "FLASH_ATTN_EXT":
        q, k, v = t.src[:3]
        return (
            q.ne[0] in _HEADS
            and k.ne[0] >= v.ne[0]
            and not (k.ne[0] == 72 and v.ne[0] != 72)
            and k.type == v.type
            and k.type in ("F32", "F16", "BF16", *_HALVED_TYPES)
        )
    if t.op in ("ADD", "SUB", "MUL", "DIV", "ADD_ID"):
        a, b = t.src[:2]
        return has_plain_elements(a) and has_plain_elements(b) and a.type == b.type
    if t.op == "GLU":
        return is_contiguous_from(t.src[0], 1)
    if t.op in ("SCALE", "FILL", "CLAMP", "SQR", "SQRT", "UNARY", "SUM_ROWS", "SOFT_MAX", "L2_NORM",
                "NORM", "RMS_NORM"):  # fmt: skip
        return has_plain_elements(t.src[0])
    if t.op in ("MUL_MAT", "MUL_MAT_ID", "GET_ROWS"):
        return t.src[0].type not in ("NVFP4", "TQ1_0")
    if t.op == "GATED_DELTA_NET":
        return t.src[2].ne[0] % 32 == 0
    return True


def arrange(split: Split) -> tuple[Sequence[T], Kept]:
    """Keep the inputs of fused groups, then move forward what can run beside a group."""
    nodes = split.nodes
    places = _Places(nodes, split.measured)
    groups = [_Group(group, places) for group in _packed(nodes, split.uses)]
    return _reorder(groups), _dependencies(nodes)


_ROUTE = ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS")
_NORMALIZE = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
_ROUTERS: tuple[tuple[str, ...], ...] = (
    _ROUTE,
    (*_ROUTE, "SCALE"),
    (*_ROUTE, *_NORMALIZE),
    (*_ROUTE, *_NORMALIZE, "SCALE"),
)
_SUMS: tuple[tuple[str, ...], ...] = tuple(
    ("MUL", *("VIEW",) * n, *("ADD",) * (n - 1)) for n in range(2, 9)
)
_PLAIN = (
    *(
        (norm, *rest)
        for norm in ("NORM", "RMS_NORM")
        for rest in (("MUL",), ("MUL", "ADD"), ("SCALE",))
    ),
    *(("ADD",) * n for n in range(2, 8)),
    ("SSM_CONV", "UNARY"),
)
_OTHER = (("MUL", "SIN", "SQR", "MUL", "ADD"), ("GATED_DELTA_NET", "CPY"))
_RAW = tuple(sorted((*_PLAIN, *_OTHER, *_ROUTERS, *_SUMS), key=len, reverse=True))
_STARTS = frozenset(p[0] for p in _RAW)


def _dependencies(nodes: Sequence[T]) -> Kept:
    """Whatever looks like a fused group keeps all it reads from outside until its last node."""
    kept: Kept = {}
    ops = [t.op for t in nodes]
    i = 0
    while i < len(nodes):
        pattern = None
        if ops[i] in _STARTS:
            pattern = next((p for p in _RAW if tuple(ops[i : i + len(p)]) == p), None)
        if pattern is None:
            i += 1
            continue
        group = nodes[i : i + len(pattern)]
        inside: set[int] = set()
        for t in group:
            for s in t.src:
                if id(s) not in inside:
                    keep(kept, s, group[-1])
            inside.add(id(t))
        i += len(pattern)
    return kept


def _packed(nodes: Sequence[T], uses: Mapping[int, int]) -> list[list[T]]:
    """Groups of nodes that stay together: fused ones, with the views between them."""
    groups = []
    i = 0
    while i < len(nodes):
        n = _fused(nodes, i, uses)
        groups.append(list(nodes[i : i + n]))
        i += n
    return groups


def _fused(nodes: Sequence[T], i: int, uses: Mapping[int, int]) -> int:
    """Nodes from i on that are fused, one group after another; at least 1."""
    if nodes[i].op in _EMPTY:
        return 1
    at = [i]
    for j in range(i + 1, len(nodes)):
        if len(at) == _LONGEST_FUSION:
            break
        if nodes[j].op not in _EMPTY:
            at.append(j)
    done = 0
    while done < len(at):
        n = _next_group(nodes, at, done, uses)
        if n == 1 or done + n > _LONGEST_FUSION:
            break
        done += n
    return min(_LONGEST_FUSION, at[done - 1] - i + 1) if done else 1


def _next_group(nodes: Sequence[T], at: list[int], first: int, uses: Mapping[int, int]) -> int:
    """How many of the nodes at these indices make one fused group from ``first`` on."""
    best = 1
    if nodes[at[first]].op not in _STARTS:
        return best
    found = [nodes[j] for j in at[first:]]
    ops = [t.op for t in found]
    for pattern in _PLAIN:
        n = len(pattern)
        if n > best and tuple(ops[:n]) == pattern and _is_chain(found[:n], uses):
            best = n
    for patterns, check in ((_ROUTERS, _is_router), (_SUMS, _is_sum)):
        for raw in patterns:
            n = sum(op not in _EMPTY for op in raw)
            if n > best and check(nodes, at[first], raw, uses):
                best = n
    if best == 1 and ops[:2] == ["GATED_DELTA_NET", "CPY"] and _is_state_copy(*found[:2]):
        best = 2
    return best


def _is_chain(group: list[T], uses: Mapping[int, int]) -> bool:
    first = group[0]
    for before, t in pairwise(group):
        if before not in t.src[:2] or t.ne != before.ne or t.type != "F32":
            return False
        if t.op == "UNARY":
            if not has_plain_elements(t):
                return False
        elif t.src[0] is not before:
            return False
        elif first.op == "ADD":
            other, last = t.src[1], before.src[1]
            if (other.type, other.ne, other.nb) != (last.type, last.ne, last.nb):
                return False
        elif t.op != "SCALE":
            weight = t.src[1]
            if weight.ne[0] != first.ne[0] or not has_plain_elements(weight):
                return False
    return is_closed(group, group[-1:], uses)


def _raw_group(nodes: Sequence[T], i: int, pattern: tuple[str, ...]) -> list[T] | None:
    group = list(nodes[i : i + len(pattern)])
    return group if tuple(t.op for t in group) == pattern else None


def _is_router(
    nodes: Sequence[T], i: int, pattern: tuple[str, ...], uses: Mapping[int, int]
) -> bool:
    group = _raw_group(nodes, i, pattern)
    if group is None or len(group[0].src) > 1:
        return False
    scores, ids, result = group[0].src[0], group[3], group[-1]
    if scores.ne[0] > 1024 or scores.ne[2:] != (1, 1) or ids.ne[1] != scores.ne[1]:
        return False
    return is_closed(group, (ids, result), uses)


def _is_sum(nodes: Sequence[T], i: int, pattern: tuple[str, ...], uses: Mapping[int, int]) -> bool:
    group = _raw_group(nodes, i, pattern)
    if group is None:
        return False
    product, used = group[0], len(pattern) // 2
    experts, weights = product.src
    if experts.ne[1] != used or weights.ne[:2] != (1, used):
        return False
    if any(t.src[0] is not product for t in group[1 : used + 1]):
        return False
    left = group[1]
    for right, total in zip(group[2 : used + 1], group[used + 1 :], strict=True):
        if total.src[0] is not left or total.src[1] is not right:
            return False
        left = total
    return is_closed(group, group[-1:], uses)


def _is_state_copy(net: T, copy: T) -> bool:
    """The new states of the delta rule go straight into the cache."""
    source, target = copy.src[:2]
    width, heads, _, sequences = net.src[2].ne
    return (
        not net.is_output
        and not copy.is_output
        and source.op == "VIEW"
        and source.root is net
        and target.ne == (width * width * heads, sequences, 1, 1)
    )


class _Places:
    """Where tensors lie when the order is chosen.

    What is not allocated yet is a place of its own. Caches lie one behind the other in a buffer,
    and the engine takes one that ends where another begins for overlapping it. While sizes are
    only measured, recurrent states are allocated all the same, but all keys and values of a
    buffer begin at address 0.
    """

    def __init__(self, nodes: Sequence[T], measured: bool) -> None:
        self.measured = measured
        self.behind: dict[int, int] = {}
        last: dict[int, int] = {}
        for t in nodes:
            for s in (*t.src, t):
                base = s.root or s
                if base.home is None or base.is_weight or id(base) in self.behind:
                    continue
                self.behind[id(base)] = 0
                if base.home in last:
                    self.behind[last[base.home]] = id(base)
                last[base.home] = id(base)

    def of(self, t: T) -> int:
        base = t.root or t
        if self.measured and base.home is not None and base.name.startswith(_UNALLOCATED):
            return -1 - base.home
        return id(base)


class _Group:
    """Nodes that stay together, and the places that they read and write."""

    __slots__ = ("empty", "nodes", "read", "read_on", "safe", "written", "written_on")

    def __init__(self, nodes: list[T], places: _Places) -> None:
        self.nodes = nodes
        inside = {id(t) for t in nodes}
        self.read = {places.of(s) for t in nodes for s in t.src if id(s) not in inside}
        self.written = {places.of(t) for t in nodes}
        self.read_on = self.read | {places.behind.get(p, p) for p in self.read}
        self.written_on = self.written | {places.behind.get(p, p) for p in self.written}
        self.empty = nodes[0].op in _EMPTY
        self.safe = nodes[0].op in _SAFE


class _Ranges:
    """The places that a set of groups reads and writes."""

    def __init__(self) -> None:
        self.read: set[int] = set()
        self.written: set[int] = set()

    def clear(self) -> None:
        self.read.clear()
        self.written.clear()

    def add(self, group: _Group) -> None:
        self.read |= group.read
        self.written |= group.written

    def allows(self, group: _Group) -> bool:
        return (
            self.written.isdisjoint(group.read_on)
            and self.written.isdisjoint(group.written_on)
            and self.read.isdisjoint(group.written_on)
        )


def _reorder(groups: list[_Group]) -> list[T]:
    used = [False] * len(groups)
    order: list[T] = []
    beside, before = _Ranges(), _Ranges()
    for i, group in enumerate(groups):
        if used[i]:
            continue
        if not group.empty and not beside.allows(group):
            before.clear()
            before.add(group)
            for j in range(i + 1, min(i + _LOOK_AHEAD, len(groups))):
                other = groups[j]
                if used[j]:
                    continue
                if not other.safe:
                    break
                if (other.empty or beside.allows(other)) and before.allows(other):
                    beside.add(other)
                    order += other.nodes
                    used[j] = True
                else:
                    before.add(other)
            beside.clear()
        beside.add(group)
        order += group.nodes
    return order
