"""Attention over a KV cache: inputs, storing, and the two ways of computing it.

Source: llama-graph.cpp (build_attn, build_attn_mha), llama-kv-cache.cpp, llama.cpp 0c1e570.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemofit.engines.llama_cpp.kv_cache import head_sizes

from . import ops
from .context import Context
from .ops import T

_QUANTIZED = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Widths of one kind of cache in elements.

    Attributes:
        cells: Per stream.
        k_head, v_head: One head's width, -1 where layers differ, 0 where there is no V.
        v_widest: The widest V row of any layer, which transposed caches are padded to; 0 where K
            alone is cached.
    """

    cells: int
    k_head: int
    v_head: int
    v_widest: int


class Attention:
    """One attention input: masks, indices and rotations, shared by the layers that use it."""

    def __init__(
        self, ctx: Context, layout: CacheLayout, *, with_v: bool = True, rotate: bool = True
    ) -> None:
        s = ctx.shape
        self.ctx = ctx
        self.layout = layout
        n = ctx.n_tokens
        self.k_ids = ops.input_("I64", n)
        self.v_ids = None
        if with_v:
            self.v_ids = ops.input_("I64", n if s.flash else n * layout.v_widest)
        self.mask = ops.input_(
            "F16" if s.flash else "F32", layout.cells, n // s.streams, 1, s.streams
        )
        self.k_rot = self.v_rot = None
        if rotate and layout.k_head > 0 and s.type_k in _QUANTIZED and layout.k_head % 64 == 0:
            n_rot = 64
            while layout.k_head % (2 * n_rot) == 0:
                n_rot *= 2
            self.k_rot = ops.input_("F32", n_rot, n_rot)
        if (
            rotate
            and with_v
            and layout.v_head > 0
            and s.type_v in _QUANTIZED
            and layout.v_head % 64 == 0
        ):
            self.v_rot = ops.input_("F32", 64, 64)

    def __call__(
        self,
        il: int,
        q: T,
        k: T | None,
        v: T | None,
        *,
        sinks: T | None = None,
        output: str | None = "attn_output",
        store_order: str = "qvk",
        cache_of: int | None = None,
        soft_cap: bool = False,
        kq_bias: T | None = None,
        v_mla: T | None = None,
        mask: T | None = None,
    ) -> T:
        """Store k and v, attend, and project the result.

        Without a V cache of its own, the first ``v.ne[0]`` elements of every cached K are its V.

        Args:
            store_order: In which order q, k and v enter the graph.
            cache_of: The layer whose cache is read, where layers share one.
            soft_cap: Scores pass through tanh when they are computed apart.
            v_mla: Expands a compressed V behind the weighted sum.
            mask: Instead of the common one.
        """
        ctx = self.ctx
        if self.k_rot is not None:
            q = rotate(q, self.k_rot)
            k = None if k is None else rotate(k, self.k_rot)
        if self.v_rot is not None and v is not None:
            v = rotate(v, self.v_rot)
        read_k, read_v = self.store(il, q, k, v, store_order, cache_of)
        out = attend(
            ctx, q, read_k, read_v, mask or self.mask,
            sinks=sinks, soft_cap=soft_cap, bias=kq_bias, v_mla=v_mla,
        )  # fmt: skip
        if self.v_rot is not None:
            out = rotate(out, self.v_rot)
        return self.project(il, out, output)

    def store(
        self, il: int, q: T, k: T | None, v: T | None, order: str, cache_of: int | None = None
    ) -> tuple[T, T]:
        """Enter q, k and v into the graph, store k and v, and return all that is cached."""
        ctx = self.ctx
        for which in order:
            t = {"q": q, "k": k, "v": v}[which]
            if t is not None:
                ctx.g.expand(t)
        source = il if cache_of is None else cache_of
        cache_k, cache_v = caches(ctx, self.layout, source, (k, v))
        if k is not None:
            ctx.g.expand(self._store_k(cache_k, k))
        if v is not None and cache_v is not None:
            ctx.g.expand(self._store_v(cache_v, v))
        heads = cache_k.ne[0] // self.head_k(source)
        read_k = self._read_k(cache_k, self.head_k(source), heads)
        if cache_v is not None:
            return read_k, self._read_v(cache_v, source, heads)
        assert v is not None
        return read_k, ops.view(read_k, (v.ne[0], *read_k.ne[1:]), read_k.nb[1:])

    def project(self, il: int, x: T, output: str | None) -> T:
        """The output projection, where there is one."""
        weight = None if output is None else self.ctx.w(il, output)
        if output is None or weight is None:
            return x
        return self.ctx.linear(weight, x, self.ctx.b(il, output))

    def head_k(self, il: int) -> int:
        return self.layout.k_head if self.layout.k_head > 0 else head_sizes(self.ctx.model)[il][0]

    def _store_k(self, cache: T, k: T) -> T:
        width = k.ne[0] * k.ne[1]
        flat = ops.view(k, (width, k.ne[2]), (k.nb[2],))
        if cache.ne[2] > 1:
            cache = ops.reshape(cache, width, cache.ne[1] * cache.ne[2])
        return ops.set_rows(cache, flat, self.k_ids)

    def _store_v(self, cache: T, v: T) -> T:
        assert self.v_ids is not None
        width, n = v.ne[0] * v.ne[1], v.ne[2]
        if self.ctx.shape.flash:
            flat = ops.view(v, (width, n), (v.nb[2],))
            if cache.ne[2] > 1:
                cache = ops.reshape(cache, width, cache.ne[1] * cache.ne[2])
            return ops.set_rows(cache, flat, self.v_ids)
        if ops.row_size(v.type, width) == v.nb[2]:
            flat = ops.reshape(v, width, n)
        else:
            flat = ops.cont(v, width, n)
        if width < cache.ne[0]:
            flat = ops.pad(flat, cache.ne[0] - width)
        single = ops.reshape(cache, 1, ops.elements(cache))
        return ops.set_rows(single, ops.reshape(flat, 1, ops.elements(flat)), self.v_ids)

    def _read_k(self, cache: T, head: int, heads: int) -> T:
        cells, streams = cache.ne[1], cache.ne[2]
        row = ops.row_size(cache.type, cache.ne[0])
        return ops.view(
            cache, (head, heads, cells, streams), (ops.row_size(cache.type, head), row, row * cells)
        )

    def _read_v(self, cache: T, il: int, heads: int) -> T:
        head = head_sizes(self.ctx.model)[il][1]
        cells, streams, width, t = cache.ne[1], cache.ne[2], cache.ne[0], cache.type
        if self.ctx.shape.flash:
            row = ops.row_size(t, width)
            return ops.view(
                cache, (head, heads, cells, streams), (ops.row_size(t, head), row, row * cells)
            )
        return ops.view(
            cache,
            (cells, heads, head, streams),
            (ops.row_size(t, cells * head), ops.row_size(t, cells), ops.row_size(t, cells * width)),
        )


class BatchAttention(Attention):
    """Attention over the micro-batch alone, without a cache."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        n = ctx.n_tokens
        self.mask = ops.input_("F16" if ctx.shape.flash else "F32", n, n)

    def __call__(
        self,
        il: int,
        q: T,
        k: T | None,
        v: T | None,
        *,
        sinks: T | None = None,
        output: str | None = "attn_output",
        store_order: str = "qkv",  # noqa: ARG002
        cache_of: int | None = None,  # noqa: ARG002
        soft_cap: bool = False,
        kq_bias: T | None = None,
        v_mla: T | None = None,
        mask: T | None = None,
    ) -> T:
        assert k is not None and v is not None
        for t in (q, k, v):
            self.ctx.g.expand(t)
        out = attend(
            self.ctx,
            q,
            k,
            v,
            mask or self.mask,
            sinks=sinks,
            soft_cap=soft_cap,
            bias=kq_bias,
            v_mla=v_mla,
        )
        return self.project(il, out, output)


def rotate(x: T, rot: T) -> T:
    n = rot.ne[0]
    count = ops.elements(x) // n
    flat = ops.reshape(x, n, count) if ops.is_contiguous(x) else ops.cont(x, n, count)
    return ops.reshape(ops.mul_mat(rot, flat), *x.ne)


def caches(
    ctx: Context, layout: CacheLayout, il: int, stored: tuple[T | None, T | None]
) -> tuple[T, T | None]:
    """The cache tensors of a layer, made when first asked for."""
    s = ctx.shape
    name_k, name_v = f"cache_k_{il}", f"cache_v_{il}"
    made = ctx.weights.made
    if name_k not in made:
        k, v = stored
        assert k is not None
        home = s.device_of[il] if s.kv_offload else s.cpu
        made[name_k] = ops.stored(home, s.type_k, k.ne[0] * k.ne[1], layout.cells, s.streams)
        made[name_k].name = name_k
        if v is not None and layout.v_widest:
            width = v.ne[0] * v.ne[1] if s.flash else layout.v_widest
            made[name_v] = ops.stored(home, s.type_v, width, layout.cells, s.streams)
            made[name_v].name = name_v
    return made[name_k], made.get(name_v)


def attend(
    ctx: Context,
    q: T,
    k: T,
    v: T,
    mask: T,
    *,
    sinks: T | None = None,
    soft_cap: bool = False,
    bias: T | None = None,
    v_mla: T | None = None,
) -> T:
    """Scores, softmax and weighted sum, fused (flash attention) or apart."""
    transposed = v.nb[1] > v.nb[2]
    streams = k.ne[3]
    per = q.ne[2] // streams
    q = ops.view(q, (q.ne[0], q.ne[1], per, streams), (q.nb[1], q.nb[2], q.nb[2] * per))
    q, k, v = (ops.permute(t, 0, 2, 1, 3) for t in (q, k, v))
    if ctx.shape.flash and bias is None:
        if transposed:
            v = ops.transpose(v)
        k = ops.cast(k, "F16") if k.type == "F32" else k
        v = ops.cast(v, "F16") if v.type == "F32" else v
        out = ops.flash_attn_ext(q, k, v, mask, sinks)
        if v_mla is not None:
            out = ops.mul_mat(v_mla, ops.permute(out, 0, 2, 1, 3))
            out = ops.cont(ops.permute(out, 0, 2, 1, 3))
        out = ops.reshape(out, out.ne[0] * out.ne[1], out.ne[2] * out.ne[3])
    else:
        scores = ops.mul_mat(k, q)
        if soft_cap:
            scores = ops.scale(ops.unary(ops.scale(scores)))
        if bias is not None:
            scores = ops.add(scores, bias)
        scores = ops.soft_max(scores, mask, sinks)
        if not transposed:
            v = ops.cont(ops.transpose(v))
        out = ops.mul_mat(v, scores)
        if v_mla is not None:
            out = ops.mul_mat(v_mla, out)
        out = ops.permute(out, 0, 2, 1, 3)
        out = ops.cont(out, out.ne[0] * out.ne[1], out.ne[2] * out.ne[3])
        if not ctx.shape.kv_offload:
            ctx.g.pin(out, ctx.shape.cpu)
    ctx.g.expand(out)
    return out
