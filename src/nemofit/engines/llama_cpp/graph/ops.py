"""Tensors, the operations on them, and the order in which ggml visits them.

Only what decides memory is kept: type, extents, strides, what is read, what is a view of what.
Function names are ggml's without the prefix; sizes are bytes, extents elements.
"""

from __future__ import annotations

from math import prod

from nemofit.catalog.ggml import ggml_type

Shape = tuple[int, int, int, int]

VIEW_OPS = frozenset(("VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"))
# ggml-alloc.c: ggml_op_can_inplace
INPLACE_OPS = frozenset(
    ("FILL", "SCALE", "ADD", "ADD_ID", "SUB", "MUL", "DIV", "SQR", "SQRT", "LOG", "UNARY", "ROPE",
     "RMS_NORM", "CLAMP", "SOFT_MAX")
)  # fmt: skip

_sizes: dict[str, tuple[int, int]] = {"F32": (1, 4), "F16": (1, 2), "I32": (1, 4), "I64": (1, 8)}


def type_size(name: str) -> tuple[int, int]:
    """Elements and bytes of one block of a ggml type."""
    found = _sizes.get(name)
    if found is None:
        t = ggml_type(name)
        found = _sizes[name] = (t.block, t.bytes)
    return found


def row_size(type_: str, n: int) -> int:
    """Bytes of a row of n elements."""
    block, size = type_size(type_)
    return n * size // block


class T:
    """One tensor of a graph.

    ``home`` is the backend index whose buffer already holds it (weights, caches), None for what
    the allocator has to place. ``root`` is the tensor a view looks into. The remaining slots are
    scratch space of the scheduler and the allocator.
    """

    __slots__ = (
        "backend", "children", "copies", "home", "is_input", "is_output", "is_weight", "name", "nb",
        "ne", "offset", "op", "own", "placed", "precise", "root", "seen", "src", "type", "views",
    )  # fmt: skip

    def __init__(
        self,
        op: str,
        type_: str,
        ne: Shape,
        src: tuple[T, ...] = (),
        nb: Shape | None = None,
        root: T | None = None,
    ) -> None:
        self.op = op
        self.type = type_
        self.ne = ne
        self.src = src
        self.nb = nb or strides(type_, ne)
        self.root = root
        self.home: int | None = None
        self.is_weight = False
        self.is_input = False
        self.is_output = False
        self.seen = False
        self.backend = -1
        self.copies: dict[int, list[T]] | None = None
        self.children = 0
        self.views = 0
        self.own = False
        self.placed = -1
        self.offset = 0
        self.precise = False
        self.name = ""

    def __repr__(self) -> str:
        return f"{self.name or self.op}{list(self.ne)}"


def strides(type_: str, ne: Shape) -> Shape:
    block, size = type_size(type_)
    nb1 = size * (ne[0] // block)
    nb2 = nb1 * ne[1]
    return (size, nb1, nb2, nb2 * ne[2])


def nbytes(t: T) -> int:
    """Bytes from the first to the last element, as ggml_nbytes."""
    ne, nb = t.ne, t.nb
    if min(ne) <= 0:
        return 0
    block, size = type_size(t.type)
    first = size + (ne[0] - 1) * nb[0] if block == 1 else ne[0] * nb[0] // block
    return first + (ne[1] - 1) * nb[1] + (ne[2] - 1) * nb[2] + (ne[3] - 1) * nb[3]


def is_contiguous(t: T) -> bool:
    return t.nb == strides(t.type, t.ne)


def rows(t: T) -> int:
    return t.ne[1] * t.ne[2] * t.ne[3]


def elements(t: T) -> int:
    return prod(t.ne)


class Graph:
    """Nodes and leaves in the order in which ggml_build_forward_expand finds them."""

    def __init__(self) -> None:
        self.nodes: list[T] = []
        self.leaves: list[T] = []
        self.pins: list[tuple[T, int]] = []

    def expand(self, t: T) -> None:
        """Add a tensor with everything it depends on, sources first."""
        if t.seen:
            return
        t.seen = True
        for s in t.src:
            if not s.seen:
                self.expand(s)
        (self.leaves if t.op == "NONE" else self.nodes).append(t)

    def pin(self, t: T, backend: int) -> None:
        """Force a tensor onto a backend before the scheduler looks at it."""
        self.pins.append((t, backend))


def _ne(a: int, b: int = 1, c: int = 1, d: int = 1) -> Shape:
    return (a, b, c, d)


def leaf(type_: str, *ne: int) -> T:
    return T("NONE", type_, _ne(*ne))


def input_(type_: str, *ne: int) -> T:
    t = leaf(type_, *ne)
    t.is_input = True
    return t


def stored(home: int, type_: str, *ne: int, weight: bool = False) -> T:
    """A tensor in a buffer of its own: a weight or a cache on backend ``home``."""
    t = leaf(type_, *ne)
    t.home = home
    t.is_weight = weight
    return t


def _view(op: str, a: T, ne: Shape, nb: Shape | None = None, src: tuple[T, ...] | None = None) -> T:
    return T(op, a.type, ne, (a,) if src is None else src, nb, a.root or a)


def like(op: str, a: T, *src: T) -> T:
    """A new contiguous tensor of a's type and extents."""
    return T(op, a.type, a.ne, src or (a,))


def unary(a: T) -> T:
    return like("UNARY", a)


def add(a: T, b: T) -> T:
    return like("ADD", a, a, b)


def add_inplace(a: T, b: T) -> T:
    return _view("ADD", a, a.ne, a.nb, (a, b))


def sub(a: T, b: T) -> T:
    return like("SUB", a, a, b)


def mul(a: T, b: T) -> T:
    return like("MUL", a, a, b)


def div(a: T, b: T) -> T:
    return like("DIV", a, a, b)


def scale(a: T) -> T:
    return like("SCALE", a)


def scale_inplace(a: T) -> T:
    return _view("SCALE", a, a.ne, a.nb)


def clamp(a: T) -> T:
    return like("CLAMP", a)


def fill(a: T) -> T:
    return like("FILL", a)


def rms_norm(a: T) -> T:
    return like("RMS_NORM", a)


def norm(a: T) -> T:
    return like("NORM", a)


def rope(a: T, pos: T, factors: T | None = None) -> T:
    return like("ROPE", a, *((a, pos) if factors is None else (a, pos, factors)))


def soft_max(a: T, mask: T | None = None, sinks: T | None = None) -> T:
    return like("SOFT_MAX", a, *(t for t in (a, mask, sinks) if t is not None))


def glu(a: T, b: T | None = None) -> T:
    """A gated linear unit of two halves of one tensor, or of two tensors."""
    if b is not None:
        return like("GLU", a, a, b)
    return T("GLU", a.type, (a.ne[0] // 2, *a.ne[1:]), (a,))


def mul_mat(a: T, b: T) -> T:
    return T("MUL_MAT", "F32", (a.ne[1], b.ne[1], b.ne[2], b.ne[3]), (a, b))


def mul_mat_id(experts: T, b: T, ids: T) -> T:
    return T("MUL_MAT_ID", "F32", (experts.ne[1], ids.ne[0], b.ne[2], 1), (experts, b, ids))


def add_id(a: T, b: T, ids: T) -> T:
    return like("ADD_ID", a, a, b, ids)


def get_rows(a: T, ids: T) -> T:
    type_ = "I32" if a.type == "I32" else "F32"
    return T("GET_ROWS", type_, (a.ne[0], ids.ne[0], ids.ne[1], ids.ne[2]), (a, ids))


def set_rows(a: T, values: T, ids: T) -> T:
    return _view("SET_ROWS", a, a.ne, a.nb, (values, ids, a))


def cpy(a: T, to: T) -> T:
    return _view("CPY", to, to.ne, to.nb, (a, to))


def cast(a: T, type_: str) -> T:
    t = T("CPY", type_, a.ne, (a,))
    t.src = (a, t)
    return t


def cont(a: T, *ne: int) -> T:
    return T("CONT", a.type, _ne(*ne) if ne else a.ne, (a,))


def concat(a: T, b: T, dim: int) -> T:
    ne = list(a.ne)
    ne[dim] += b.ne[dim]
    return T("CONCAT", a.type, _ne(*ne), (a, b))


def pad(a: T, p0: int, p1: int = 0, p2: int = 0, p3: int = 0) -> T:
    ne = (a.ne[0] + p0, a.ne[1] + p1, a.ne[2] + p2, a.ne[3] + p3)
    return T("PAD", a.type, ne, (a,))


def repeat(a: T, *ne: int) -> T:
    return T("REPEAT", a.type, _ne(*ne), (a,))


def sum_rows(a: T) -> T:
    return T("SUM_ROWS", a.type, (1, *a.ne[1:]), (a,))


def weighted_sum(a: T, weights: T) -> T:
    """Over the second extent of [width, n, tokens]; ggml_dsv4_hc_pre."""
    return T("DSV4_HC_PRE", "F32", _ne(a.ne[0], a.ne[2]), (a, weights))


def argsort_top_k(a: T, k: int) -> T:
    order = T("ARGSORT", "I32", a.ne, (a,))
    return view(order, (k, *a.ne[1:]), order.nb[1:])


def top_k(a: T, k: int) -> T:
    """Indices of the largest k elements of each row."""
    return T("TOP_K", "I32", (k, *a.ne[1:]), (a,))


def lightning_indexer(q: T, k: T, weights: T, mask: T) -> T:
    """Scores of every cached key, summed over the query's heads, [cells, tokens, 1, streams]."""
    return T("LIGHTNING_INDEXER", "F32", (k.ne[2], q.ne[2], 1, q.ne[3]), (q, k, weights, mask))


def flash_attn_ext(q: T, k: T, v: T, mask: T | None, sinks: T | None = None) -> T:
    ne = (v.ne[0], q.ne[2], q.ne[1], q.ne[3])
    return T("FLASH_ATTN_EXT", "F32", ne, tuple(t for t in (q, k, v, mask, sinks) if t is not None))


def ssm_conv(x: T, kernel: T) -> T:
    """A causal convolution over [kernel - 1 + tokens, channels, sequences]."""
    ne = (x.ne[1], x.ne[0] - kernel.ne[0] + 1, x.ne[2], 1)
    return T("SSM_CONV", "F32", ne, (x, kernel))


def ssm_scan(state: T, x: T, dt: T, a: T, b: T, c: T, ids: T) -> T:
    """Mamba's recurrence: its results, and behind them the new state of each sequence."""
    n = elements(x) + state.ne[0] * state.ne[1] * state.ne[2] * ids.ne[0]
    return T("SSM_SCAN", "F32", _ne(n), (state, x, dt, a, b, c, ids))


def gated_delta_net(q: T, k: T, v: T, gate: T, beta: T, state: T) -> T:
    """The delta rule's recurrence: its results, and behind them the new states."""
    width, heads, tokens, sequences = v.ne
    ne = (width * heads, (tokens + width) * sequences, 1, 1)
    return T("GATED_DELTA_NET", "F32", ne, (q, k, v, gate, beta, state))


def view(a: T, ne: tuple[int, ...], nb: tuple[int, ...] = ()) -> T:
    """A window on a tensor.

    Args:
        ne: Extents.
        nb: Strides in bytes from the second one on, as ggml's view functions take them; the
            missing ones are those of a contiguous tensor.
    """
    full = _ne(*ne)
    own = list(strides(a.type, full))
    for i in range(1, 4):
        own[i] = nb[i - 1] if i <= len(nb) else own[i - 1] * full[i - 1]
    if not nb:
        own[1:] = strides(a.type, full)[1:]
    return _view("VIEW", a, full, (own[0], own[1], own[2], own[3]))


def reshape(a: T, *ne: int) -> T:
    return _view("RESHAPE", a, _ne(*ne))


def permute(a: T, *axes: int) -> T:
    ne, nb = [0] * 4, [0] * 4
    for i, axis in enumerate(axes):
        ne[axis], nb[axis] = a.ne[i], a.nb[i]
    return _view("PERMUTE", a, _ne(*ne), (nb[0], nb[1], nb[2], nb[3]))


def transpose(a: T) -> T:
    ne, nb = a.ne, a.nb
    return _view("TRANSPOSE", a, (ne[1], ne[0], ne[2], ne[3]), (nb[1], nb[0], nb[2], nb[3]))
