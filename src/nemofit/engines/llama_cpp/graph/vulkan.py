"""What Vulkan changes: nodes that do not wait for one another move next to each other.

What lives at the same time changes with the order, and with it the compute buffer. Fused patterns
stay whole, and fused routers keep what they read alive until their result is there.

Sources: ggml-vulkan.cpp (ggml_vk_graph_optimize, supports_op), patterns of ggml-vulkan-types.h,
llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Sequence

from .fusion import Kept, Split, has_plain_elements, is_contiguous_from
from .ops import T, nbytes, type_size

_EMPTY = frozenset(("NONE", "RESHAPE", "TRANSPOSE", "VIEW", "PERMUTE"))
_WINDOW = 20  # nodes that are looked at together
_NEAR = 15  # how far away the rest of a fused group is searched

_NORMALIZE = ("GET_ROWS", "RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
_ROUTERS = (
    ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", *_NORMALIZE),
    ("UNARY", "RESHAPE", "ADD", "ARGSORT", "VIEW", *_NORMALIZE),
    ("UNARY", "SQRT", "RESHAPE", "ADD", "ARGSORT", "VIEW", *_NORMALIZE),
    ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS"),
    ("ARGSORT", "VIEW", "GET_ROWS", "RESHAPE", "SOFT_MAX", "RESHAPE"),
)
_SPARSE = ("GET_ROWS", "PERMUTE", "CONT", "CPY", "RESHAPE", "ADD", "TOP_K")
_WHOLE = (
    ("MUL", "SIN", "SQR", "MUL", "ADD"),
    _SPARSE,
    ("RMS_NORM", "MUL", "ADD", "MUL"),
    ("RMS_NORM", "MUL", "ADD"),
    ("RMS_NORM", "MUL", "ROPE", "VIEW", "SET_ROWS"),
    ("RMS_NORM", "VIEW", "SET_ROWS"),
    ("ROPE", "VIEW", "SET_ROWS"),
)
_HYPER = ("SCALE", "UNARY", "SCALE", "DSV4_HC_POST")
_PATTERNS = (*_ROUTERS, *_WHOLE, _HYPER)
_STARTS = frozenset(p[0] for p in _PATTERNS)
# a node may follow the one it reads at once, where both are one kernel
_PAIRS = frozenset(
    (
        ("MUL_MAT", "ADD"),
        ("MUL_MAT_ID", "ADD_ID"),
        ("MUL_MAT_ID", "MUL"),
        ("ADD", "ADD"),
        ("SSM_CONV", "ADD"),
        ("SSM_CONV", "UNARY"),
    )
)


# maxStorageBufferRange of current drivers, bytes
_LARGEST = (1 << 32) - 1


def supports(t: T) -> bool:
    """Whether Vulkan can run an operation; what it cannot goes to the CPU."""
    if nbytes(t) > _LARGEST or any(nbytes(s) > _LARGEST for s in t.src):
        return False
    if t.op in ("MUL_MAT", "MUL_MAT_ID"):
        return _multiplies(t)
    if t.op == "FLASH_ATTN_EXT":
        k, v = t.src[1:3]
        return k.ne[0] % 8 == 0 and v.ne[0] % 8 == 0 and (k.type == "BF16") == (v.type == "BF16")
    if t.op in ("SCALE", "SOFT_MAX", "ARGSORT"):
        return is_contiguous_from(t.src[0], 0)
    if t.op in ("ROPE", "SUM_ROWS"):
        return has_plain_elements(t.src[0])
    if t.op == "SSM_SCAN":
        state, a = t.src[0], t.src[3]
        return a.nb[1] == 4 and state.ne[0] in (128, 256) and state.ne[1] % 16 == 0
    if t.op == "GATED_DELTA_NET":
        return t.src[2].ne[0] in (16, 32, 64, 128)
    return True


def _multiplies(t: T) -> bool:
    a, b = t.src[:2]
    if t.precise and t.op == "MUL_MAT_ID":
        return False
    if (t.src[2] if t.op == "MUL_MAT_ID" else a).ne[3] != b.ne[3]:
        return False
    if not _is_matrix(a) and a.type not in ("F32", "F16", "BF16"):
        return False
    if not _is_matrix(b) and b.type not in ("F32", "F16"):
        return False
    return (a.type, b.type) != ("BF16", "F16") and (b.type != "BF16" or a.type == "BF16")


def _is_matrix(t: T) -> bool:
    """Rows lie behind one another, and so do the outer dimensions (ggml_vk_dim01_contiguous)."""
    block, size = type_size(t.type)
    return (
        t.nb[0] == size
        and t.nb[1] == size * t.ne[0] // block
        and (t.ne[3] == 1 or t.nb[3] == t.nb[2] * t.ne[2])
    )


def arrange(split: Split) -> tuple[list[T], Kept]:
    """Order the nodes of one split as the Vulkan backend does."""
    order = _Order(split)
    while order.first < order.n:
        if not order.keep_pattern():
            order.gather()
    return order.result, order.kept


class _Order:
    def __init__(self, split: Split) -> None:
        nodes = split.nodes
        self.nodes = nodes
        self.uses = split.uses
        self.n = len(nodes)
        self.ops = [t.op for t in nodes]
        self.empty = [t.op in _EMPTY for t in nodes]
        self.base = [id(t.root or t) for t in nodes]
        self.reads = [frozenset(id(s) for s in t.src) for t in nodes]
        self.reads_base = [frozenset(id(s.root or s) for s in t.src) for t in nodes]
        self.used = [False] * self.n
        self.done: set[int] = set()
        self.first = 0
        self.result: list[T] = []
        self.kept: Kept = {}

    def matches(self, pattern: tuple[str, ...], start: int) -> bool:
        end = start + len(pattern)
        return (
            end <= self.n
            and tuple(self.ops[start:end]) == pattern
            and not any(self.used[start:end])
        )

    def is_protected(self, j: int) -> bool:
        """Part of a pattern that must not be torn apart."""
        if self.ops[j] in _STARTS and any(self.matches(p, j) for p in _PATTERNS):
            return True
        return any(j >= o and self.matches(_SPARSE, j - o) for o in range(1, len(_SPARSE)))

    def depends(self, j: int, c: int) -> bool:
        """Whether node j has to wait for the earlier node c."""
        if id(self.nodes[c]) in self.reads[j] or self.base[j] == self.base[c]:
            return True
        if self.empty[j] or self.empty[c]:
            return False
        return self.base[c] in self.reads_base[j] or self.base[j] in self.reads_base[c]

    def push(self, indices: Sequence[int]) -> None:
        for c in indices:
            self.result.append(self.nodes[c])
            self.done.add(id(self.nodes[c]))
            self.used[c] = True
        while self.first < self.n and self.used[self.first]:
            self.first += 1

    def keep_pattern(self) -> bool:
        """Put a fused pattern that starts here as it is."""
        if self.ops[self.first] not in _STARTS:
            return False
        for pattern in _PATTERNS:
            if self.matches(pattern, self.first):
                last = self.first + len(pattern) - 1
                if pattern in _ROUTERS:
                    scaled = last + 1 < self.n and self.ops[last + 1] == "SCALE"
                    self._keep_alive(len(pattern), last + scaled)
                elif pattern is _HYPER:
                    self._keep_alive(len(pattern), last)
                self.push(range(self.first, last + 1))
                return True
        return False

    def _keep_alive(self, count: int, last: int) -> None:
        held = self.kept.setdefault(id(self.nodes[last]), [])
        seen = {id(t) for t in held}
        for t in self.nodes[self.first : self.first + count]:
            for s in t.src:
                if id(s) not in seen:
                    seen.add(id(s))
                    held.append(s)
            seen.add(id(t))

    def gather(self) -> None:
        """Take the next node and every near one that could run beside it, then their views."""
        current = [self.first]
        end = min(self.first + _WINDOW, self.n)
        for j in range(self.first + 1, end):
            if self.used[j] or self.empty[j] or self.is_protected(j):
                continue
            if self._is_free(j, current):
                current.append(j)
                self._pull(j, current)
        if self.ops[current[-1]] != "ADD":
            for j in range(self.first + 1, end):
                if not self.used[j] and self.empty[j] and self._is_view_of(j, current):
                    current.append(j)
        self.push(current)

    def _is_free(self, j: int, current: list[int]) -> bool:
        for c in range(self.first, j):
            if self.used[c] or not self.depends(j, c):
                continue
            if c != current[-1]:
                return False
            pair = (self.ops[c], self.ops[j])
            if j == c + 1 and pair in _PAIRS:
                continue
            if pair in (("RMS_NORM", "MUL"), ("UNARY", "MUL")) and all(
                self.used[v] or self.empty[v] for v in range(c + 1, j)
            ):
                continue
            return False
        return True

    def _is_view_of(self, j: int, current: list[int]) -> bool:
        return not any(
            not self.used[c] and self.depends(j, c) and c not in current
            for c in range(self.first, j)
        )

    def _take(self, k: int, current: list[int]) -> None:
        current.append(k)
        self.used[k] = True

    def _pull(self, j: int, current: list[int]) -> None:
        """Bring the rest of a fused group next to the node that was just taken."""
        before = self.ops[j - 1]
        op = self.ops[j]
        head = j
        if op == "MUL" and before == "RMS_NORM":
            head = self._pull_rope(j, current)
        if self.ops[head] in ("ROPE", "RMS_NORM"):
            self._pull_store(head, current)
        if op == "ADD_ID" and before == "MUL_MAT_ID":
            self._pull_reader(j, "MUL", current)
        if op == "ADD" and before == "MUL_MAT":
            self._pull_reader(j, "ADD", current)
        if op == "ADD" and before == "SSM_CONV":
            for k in self._near(j):
                if self.ops[k] == "UNARY" and self.nodes[k].src[0] is self.nodes[j]:
                    self._take(k, current)
                    break
        if op == "UNARY":
            self._pull_product(j, current)

    def _near(self, j: int) -> range:
        return range(j + 1, min(j + _NEAR, self.n))

    def _is_ready(self, t: T) -> bool:
        return t.op == "NONE" or id(t) in self.done

    def _pull_rope(self, j: int, current: list[int]) -> int:
        for k in self._near(j):
            t = self.nodes[k]
            if (
                t.op == "ROPE"
                and t.src[0] is self.nodes[j]
                and all(s.op == "NONE" for s in t.src[1:3])
            ):
                self._take(k, current)
                return k
        return j

    def _pull_store(self, head: int, current: list[int]) -> None:
        view = -1
        for k in self._near(head):
            if self.used[k]:
                continue
            t = self.nodes[k]
            if view == -1:
                if t.op == "VIEW" and t.src[0] is self.nodes[head]:
                    view = k
            elif t.op == "SET_ROWS" and t.src[0] is self.nodes[view]:
                if self._can_store(head, view, k):
                    self._take(view, current)
                    self._take(k, current)
                return

    def _can_store(self, head: int, view: int, store: int) -> bool:
        """The head is read by the view alone, the view by the store alone, nothing else waits."""
        t = self.nodes[head]
        if t.is_output or t.root is not None:
            return False
        if self.uses.get(id(t)) != 1 or self.uses.get(id(self.nodes[view])) != 1:
            return False
        return not any(
            not self.used[c] and c != view and not self.empty[c] and self.depends(store, c)
            for c in range(head + 1, store)
        )

    def _pull_reader(self, j: int, op: str, current: list[int]) -> None:
        for k in self._near(j):
            t = self.nodes[k]
            if t.op == op and t.src[0] is self.nodes[j] and self._is_ready(t.src[1]):
                self._take(k, current)
                return

    def _pull_product(self, j: int, current: list[int]) -> None:
        gate = self.nodes[j]
        for k in self._near(j):
            t = self.nodes[k]
            if t.op != "MUL" or all(s is not gate for s in t.src):
                continue
            other = t.src[1] if t.src[0] is gate else t.src[0]
            if self._is_ready(other) and _is_gated(gate, t, other):
                self._take(k, current)
                return


def _is_gated(gate: T, product: T, other: T) -> bool:
    """An activation times a tensor, as one kernel (ggml_vk_can_fuse_unary_mul)."""
    if gate.type not in ("F32", "F16") or not gate.type == product.type == other.type:
        return False
    if not is_contiguous_from(other, 1) or not is_contiguous_from(gate.src[0], 1):
        return False
    small, large = (other, gate) if product.src[0] is gate else (gate, other)
    return all(b % a == 0 for a, b in zip(small.ne, large.ne, strict=True))
