"""ggml's backend scheduler: which device runs which node, and what is copied between them.

Source: ggml-backend.cpp (ggml_backend_sched_split_graph, ggml_backend_sched_backend_id_from_cur),
llama.cpp 0c1e570. Backends are numbered as there: GPUs in device order, the CPU last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .allocator import Arena, GraphAllocator
from .backends import Backend
from .fusion import Split
from .ops import VIEW_OPS, Graph, T


class Scheduler:
    """Splits one graph over backends.

    Args:
        backends: GPUs in device order, the CPU last.
        copies: Pipeline copies of every split's inputs: 1, or 4 with pipeline parallelism.
        op_offload: GPUs take over large-batch products whose weights lie on the host.
    """

    def __init__(self, backends: list[Backend], copies: int = 1, op_offload: bool = True) -> None:
        self.backends = backends
        self.copies = copies
        self.op_offload = op_offload
        self.cpu = len(backends) - 1
        self.splits: list[tuple[int, int, int, list[T]]] = []

    def peaks(self, graph: Graph, pins: bool) -> list[int]:
        """Compute buffer in bytes per backend.

        Args:
            pins: Honour the tensors that llama.cpp pinned to a backend while building the graph;
                its measuring path loses them.
        """
        if pins:
            for t, backend in graph.pins:
                t.backend = backend
        uses = Counter(id(s) for t in graph.nodes for s in t.src)
        self._assign(graph)
        self._split(graph)
        nodes, leaves = self._schedule(graph, uses, measured=not pins)
        allocator = GraphAllocator(
            [Arena(b.alignment, b.chunk) for b in self.backends],
            lambda i, t: self.backends[i].alloc_size(t),
        )
        return allocator.reserve(nodes, leaves)

    def _current(self, t: T) -> int:
        """Backend by where a tensor or the weight it reads lies, -1 where nothing says."""
        if t.home is not None or (t.root is not None and t.root.home is not None):
            return self._runner(t, t)
        if t.is_input:
            return self.cpu
        if t.op in ("ROPE", "FLASH_ATTN_EXT"):
            return -1
        for s in t.src:
            if s.home is not None and s.is_weight:
                if s.home == self.cpu and self.op_offload:
                    for i, b in enumerate(self.backends[: self.cpu]):
                        if b.supports(t) and b.offloads(t):
                            return i
                return self._runner(s, t)
        return -1

    def _runner(self, held: T, t: T) -> int:
        """The backend in whose buffer a tensor is held, -1 where it cannot run an operation."""
        home = held.root.home if held.root is not None else held.home
        return home if home is not None and self.backends[home].supports(t) else -1

    def _assign(self, graph: Graph) -> None:
        for t in graph.leaves:
            if t.backend == -1:
                t.backend = self._current(t)
        for t in graph.nodes:
            if t.backend == -1:
                t.backend = self._current(t)
        work = [t for t in graph.nodes if t.op not in VIEW_OPS]
        self._expand(work, gpu_only=True)
        self._expand(reversed(work), gpu_only=True)
        self._expand(work, gpu_only=False)
        self._expand(reversed(work), gpu_only=False)
        for t in work:
            if t.backend == -1:
                t.backend = self._best(t)
        for t in graph.nodes:
            if t.root is not None and t.backend == -1:
                t.backend = t.root.backend
            for s in t.src:
                if s.backend == -1:
                    s.backend = s.root.backend if s.root is not None else t.backend
            if t.backend == -1:
                t.backend = 0

    def _expand(self, nodes: object, gpu_only: bool) -> None:
        current = -1
        for t in nodes:  # type: ignore[attr-defined]
            if t.backend != -1:
                current = -1 if gpu_only and t.backend == self.cpu else t.backend
            elif current != -1 and self.backends[current].supports(t):
                t.backend = current

    def _best(self, t: T) -> int:
        best, found = -1, -1
        for i, b in enumerate(self.backends):
            if b.supports(t):
                n = sum(self._reachable(s, i) for s in t.src if s.backend != -1)
                if n > found:
                    best, found = i, n
        return best

    def _reachable(self, t: T, backend: int) -> bool:
        """Whether a backend can read a tensor where it is."""
        at = t.root.home if t.root is not None else t.home
        if at is None:
            at = t.backend
            if at == -1 and t.root is not None:
                at = t.root.backend
        return at == backend or (at == self.cpu and self.backends[backend].reads_host)

    def _split(self, graph: Graph) -> None:
        nodes = graph.nodes
        start = next((i for i, t in enumerate(nodes) if t.op not in VIEW_OPS), len(nodes))
        if start == len(nodes):
            self.splits = []
            return
        current = nodes[start].backend
        begin, inputs = 0, list[T]()
        splits = []
        for i in range(start, len(nodes)):
            t = nodes[i]
            if t.op in VIEW_OPS:
                continue
            fresh = t.backend != current
            if not fresh and inputs:
                fresh = any(
                    s.is_weight and s.home != current and not self._reachable(s, current)
                    for s in t.src
                )
            if fresh:
                splits.append((current, begin, i, inputs))
                current, begin, inputs = t.backend, i, []
            moved = None
            for j, s in enumerate(t.src):
                if s.backend == current or self._reachable(s, current):
                    continue
                if s.copies is None:
                    s.copies = {}
                made = s.copies.get(current)
                if made is None:
                    made = s.copies[current] = [self._copy_of(s) for _ in range(self.copies)]
                    inputs.append(s)
                moved = moved or list(t.src)
                moved[j] = made[0]
            if moved is not None:
                t.src = tuple(moved)
        splits.append((current, begin, len(nodes), inputs))
        self.splits = splits

    def _copy_of(self, t: T) -> T:
        c = T("NONE", t.type, t.ne, (), t.nb)
        if self.copies > 1:
            c.is_input = c.is_output = True
        return c

    def _schedule(
        self, graph: Graph, uses: Mapping[int, int], *, measured: bool
    ) -> tuple[list[tuple[T, int]], list[tuple[T, int]]]:
        nodes: list[tuple[T, int]] = []
        leaves: list[tuple[T, int]] = []
        if self.copies > 1:
            for t in graph.leaves:
                if t.is_input:
                    t.is_output = True
                    others = [self._copy_of(t) for _ in range(self.copies - 1)]
                    leaves.extend((c, t.backend) for c in (t, *others))
        for backend, begin, end, inputs in self.splits:
            split = Split(
                graph.nodes[begin:end],
                uses,
                graph.nodes[end] if end < len(graph.nodes) else None,
                measured,
            )
            order, keep = self.backends[backend].arrange(split)
            for s in inputs:
                held = T("NONE", s.type, s.ne, (s,), s.nb, s.root or s)
                nodes.append((held, s.backend))
                assert s.copies is not None
                copies = s.copies[backend]
                nodes.append((copies[0], backend))
                if self.copies > 1:
                    leaves.extend((c, backend) for c in copies)
            for t in order:
                nodes.append((t, t.backend))
                kept = keep.get(id(t))
                if kept:
                    first = kept[0]
                    dep = T(
                        "NONE", first.type, first.ne, tuple(kept), first.nb, first.root or first
                    )
                    nodes.append((dep, backend))
        leaves.extend((t, t.backend) for t in graph.leaves)
        return nodes, leaves
