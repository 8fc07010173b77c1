"""ggml's graph allocator: where each result of a graph lies, and how high the addresses go.

Source: ggml-alloc.c (ggml_dyn_tallocr_*, ggml_gallocr_alloc_graph_impl), llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .ops import INPLACE_OPS, T

_ENDLESS = 1 << 62


class Arena:
    """Free blocks of one buffer, best fit first, the endless last block only if nothing fits."""

    __slots__ = ("alignment", "free", "peak")

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.free: list[list[int]] = [[0, _ENDLESS]]
        self.peak = 0

    def take(self, size: int) -> int:
        size = -(-size // self.alignment) * self.alignment
        free = self.free
        last = len(free) - 1
        best, best_size = last, _ENDLESS
        for i in range(last):
            n = free[i][1]
            if size <= n <= best_size:
                best, best_size = i, n
        block = free[best]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if block[1] == 0:
            del free[best]
        self.peak = max(self.peak, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        size = -(-size // self.alignment) * self.alignment
        free = self.free
        for i, block in enumerate(free):
            if block[0] + block[1] == offset:
                block[1] += size
                if i + 1 < len(free) and block[0] + block[1] == free[i + 1][0]:
                    block[1] += free[i + 1][1]
                    del free[i + 1]
                return
            if offset + size == block[0]:
                block[0] = offset
                block[1] += size
                if i > 0 and free[i - 1][0] + free[i - 1][1] == offset:
                    free[i - 1][1] += block[1]
                    del free[i]
                return
        at = 0
        while at < len(free) and free[at][0] < offset:
            at += 1
        free.insert(at, [offset, size])


SizeOf = Callable[[int, T], int]


class GraphAllocator:
    """Lays out a scheduled graph over several buffers.

    Args:
        alignments: Alignment in bytes of each backend's buffer.
        size_of: Bytes that a backend's buffer needs for a tensor.
    """

    def __init__(self, alignments: Sequence[int], size_of: SizeOf) -> None:
        self.arenas = [Arena(a) for a in alignments]
        self.size_of = size_of

    def reserve(self, nodes: list[tuple[T, int]], leaves: list[tuple[T, int]]) -> list[int]:
        """Walk the graph once and return the peak address of each buffer in bytes."""
        for t, backend in leaves:
            self._place(t, backend)
        for t, backend in nodes:
            if t.root is not None and t.op != "NONE":
                t.root.views += 1
            if t.is_input:
                self._place(t, backend)
            for s in t.src:
                s.children += 1
                if s.is_input:
                    self._place(s, backend)
        for t, backend in nodes:
            for s in t.src:
                self._place(s, backend)
            self._place(t, backend)
            for s in t.src:
                s.children -= 1
                if s.children == 0 and s.views == 0:
                    root = s.root
                    if root is not None:
                        root.views -= 1
                        if root.views == 0 and root.children == 0 and root.own:
                            self._release(root)
                    elif s.own:
                        self._release(s)
        return [a.peak for a in self.arenas]

    def _place(self, t: T, backend: int) -> None:
        if t.own or t.home is not None or t.root is not None:
            return
        t.own = True
        if t.op in INPLACE_OPS:
            for s in t.src:
                if (
                    s.own
                    and s.children == 1
                    and s.views == 0
                    and not s.is_output
                    and s.root is None
                    and s.type == t.type
                    and s.ne == t.ne
                    and s.nb == t.nb
                ):
                    t.placed, t.offset = s.placed, s.offset
                    s.own = False
                    self._trim(t, s, backend)
                    return
        t.placed = backend
        t.offset = self.arenas[backend].take(self.size_of(backend, t))

    def _trim(self, t: T, parent: T, backend: int) -> None:
        """Give back what the reused parent had beyond the new tensor's need."""
        arena = self.arenas[parent.placed]
        had = self.size_of(parent.placed, parent)
        needs = self.size_of(t.placed, t)
        a = arena.alignment
        had, needs = -(-had // a) * a, -(-needs // a) * a
        if had > needs:
            arena.give(t.offset + needs, had - needs)

    def _release(self, t: T) -> None:
        if t.is_output:
            return
        self.arenas[t.placed].give(t.offset, self.size_of(t.placed, t))
        t.own = False
