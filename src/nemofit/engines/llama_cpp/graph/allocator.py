"""ggml's graph allocator: where each result of a graph lies, and how high the addresses go.

Source: ggml-alloc.c (ggml_dyn_tallocr_*, ggml_gallocr_alloc_graph_impl), llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .ops import INPLACE_OPS, T

_ENDLESS = 1 << 62
_CHUNK = 1 << 63
_MAX_CHUNKS = 16  # GGML_VBUFFER_MAX_CHUNKS


class Arena:
    """Free blocks of one backend's buffers: best fit, the open last block only if nothing fits.

    Addresses count on over the chunks that a backend splits its buffer into: a chunk's number times
    ``_CHUNK``, plus the offset in it.

    Args:
        alignment: Bytes to which every block is rounded up.
        chunk: The most bytes of one chunk, None: endless. A larger tensor gets one of its own.
    """

    __slots__ = ("alignment", "chunk", "free", "sizes")

    def __init__(self, alignment: int, chunk: int | None = None) -> None:
        self.alignment = alignment
        self.chunk = chunk
        self.free: list[list[list[int]]] = []
        self.sizes: list[int] = []

    @property
    def peak(self) -> int:
        """Bytes of all chunks, each as large as it had to become."""
        return sum(self.sizes)

    def take(self, size: int) -> int:
        size = -(-size // self.alignment) * self.alignment
        c, i = self._fit(size)
        if c < 0:
            c, i = self._extend(size)
        free = self.free[c]
        block = free[i]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if block[1] == 0:
            del free[i]
        if offset + size > self.sizes[c]:
            self.sizes[c] = offset + size
        return c * _CHUNK + offset

    def _fit(self, size: int) -> tuple[int, int]:
        """Chunk and index of the smallest block that fits; the last chunk with one wins."""
        found, at = -1, -1
        for c, free in enumerate(self.free):
            best_size = _ENDLESS
            for i in range(len(free) - 1):
                n = free[i][1]
                if size <= n <= best_size:
                    found, at, best_size = c, i, n
        return found, at

    def _extend(self, size: int) -> tuple[int, int]:
        """Chunk and index of the open block that grows or wastes least; a new chunk if need be."""
        found, best = -1, -_ENDLESS
        for c, free in enumerate(self.free):
            if free and free[-1][1] >= size:
                spare = self.sizes[c] - free[-1][0] - size
                if (best < 0 and spare > best) or 0 <= spare < best:
                    found, best = c, spare
        if found < 0:
            found = len(self.free)
            is_last = found == _MAX_CHUNKS - 1
            room = _ENDLESS if self.chunk is None or is_last else max(size, self.chunk)
            self.free.append([[0, room]])
            self.sizes.append(0)
        return found, len(self.free[found]) - 1

    def give(self, offset: int, size: int) -> None:
        size = -(-size // self.alignment) * self.alignment
        chunk, offset = divmod(offset, _CHUNK)
        free = self.free[chunk]
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
        arenas: The memory of each backend.
        size_of: Bytes that a backend's buffer needs for a tensor.
    """

    def __init__(self, arenas: Sequence[Arena], size_of: SizeOf) -> None:
        self.arenas = arenas
        self.size_of = size_of

    def reserve(self, nodes: list[tuple[T, int]], leaves: list[tuple[T, int]]) -> list[int]:
        """Walk the graph once and return the size of each buffer in bytes."""
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
                    self._trim(t, s)
                    return
        t.placed = backend
        t.offset = self.arenas[backend].take(self.size_of(backend, t))

    def _trim(self, t: T, parent: T) -> None:
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
