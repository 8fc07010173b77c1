"""DeepSeek V4: attention to a window and to compressed rows, several residual streams.

Every sequence has caches of its own. A block compresses rows by 4, with an indexer that chooses
among them, by 128, or not at all.
Source: src/models/deepseek4.cpp, llama-kv-cache-dsv4.cpp of llama.cpp 0c1e570.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemofit.engines.llama_cpp.architectures import Architecture
from nemofit.engines.llama_cpp.compressed_cache import INDEXED_RATIO, cells_of, ratios

from . import ops
from .attention import attend, rotate
from .context import Context
from .decoder import Decoder, draw, finish
from .feed_forward import dense, experts
from .indexed import KeyCache, hadamard, only
from .ops import T


@dataclass(slots=True)
class Compressor:
    """What the blocks of one ratio share: cache, mask and where rows come from and go to.

    Attributes:
        prefix: Of its tensors: ``attn`` or ``indexer``.
        width: Of a compressed row.
        overlap: A row also takes in the rows before its own.
    """

    prefix: str
    ratio: int
    width: int
    overlap: bool
    keys: KeyCache
    state_pos: T
    persist_from: T
    persist_to: T
    read: T
    write: T
    write_pos: T
    rotation: T | None

    @property
    def rows(self) -> int:
        """Rows of one sequence's state."""
        return self.ratio * (2 if self.overlap else 1)


class Compressed(Decoder):
    """A decoder with hyper-connections and compressed attention."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        m, s = ctx.model, ctx.shape
        self.head = self.sizes[0][0]
        self.ratios = ratios(m)
        self.streams = m.integer("hyper_connection.count")
        self.raw = KeyCache(ctx, s.window_cells, self.head)
        if self.head == m.integer("attention.indexer.key_length"):
            self.raw.k_rot = hadamard(self.head)
        ctx.g.expand(self.raw.mask)
        self.rows = {r: self._compressor("attn", r, self.head) for r in {*self.ratios} - {0}}
        width = m.integer("attention.indexer.key_length")
        self.index = self._compressor("indexer", INDEXED_RATIO, width)
        x = ops.reshape(self.x, ctx.n_embd, 1, ctx.n_tokens)
        self.x = ops.repeat(x, ctx.n_embd, self.streams, ctx.n_tokens)

    def _compressor(self, prefix: str, ratio: int, width: int) -> Compressor:
        ctx, s = self.ctx, self.ctx.shape
        overlap = ratio == INDEXED_RATIO
        factor = 2 if overlap else 1
        made = s.tokens // ratio + s.sequences
        kept = min(s.tokens, factor * ratio * s.streams)
        indexes = prefix == "indexer"
        keys = KeyCache(ctx, cells_of(s.cells, ratio), width, "F16" if indexes else None, prefix)
        # the engine takes any cache as wide as the indexer's for the indexer's
        is_rotated = indexes or width == ctx.model.integer("attention.indexer.key_length")
        rotation = hadamard(width) if is_rotated else keys.k_rot
        return Compressor(
            prefix, ratio, width, overlap, keys,
            ops.input_("I32", s.tokens), ops.input_("I32", kept), ops.input_("I32", kept),
            ops.input_("I32", factor * ratio * made), ops.input_("I64", made),
            ops.input_("I32", made), rotation,
        )  # fmt: skip

    def block(self, il: int, last: bool) -> None:  # noqa: ARG002
        ctx, before = self.ctx, self.x
        h, post, mix = self._gather(il, "attn", before)
        y = self.attention(il, ctx.norm(h, ctx.w(il, "attn_norm"), il=il))
        before = self._spread(y, before, post, mix)
        h, post, mix = self._gather(il, "ffn", before)
        for t in (before, post, mix):
            ctx.g.expand(t)
        h = ctx.norm(h, ctx.w(il, "ffn_norm"), il=il)
        table = ctx.w(il, "ffn_gate_tid2eid")
        chosen = None if table is None else ops.get_rows(table, ctx.tokens)
        y = experts(ctx, self.row, il, h, chosen=chosen)
        y = ops.add(y, dense(ctx, self.row, il, h, suffix="_shexp"))
        self.x = self._spread(y, before, post, mix)
        if ctx.shape.pins:
            ctx.g.pin(self.x, ctx.shape.device_of[il])

    # residual streams ----------------------------------------------------------------------

    def _gather(self, il: int, part: str, x: T) -> tuple[T, T, T]:
        """One input from all streams, and how its result is spread over them."""
        ctx, n = self.ctx, self.streams
        flat = ops.rms_norm(ops.reshape(x, ctx.n_embd * n, ctx.n_tokens))
        mixes = ops.mul_mat(ctx.must(il, f"hc_{part}_fn"), flat)
        scale, base = ctx.must(il, f"hc_{part}_scale"), ctx.must(il, f"hc_{part}_base")

        def share() -> T:
            y = ops.view(mixes, (n, ctx.n_tokens), mixes.nb[1:2])
            return _affine(y, ops.view(scale, (1,)), ops.view(base, (n,)))

        before, post = ops.scale(ops.unary(share())), ops.scale(ops.unary(share()))
        mix = ops.T("DSV4_HC_COMB", "F32", (n, n, ctx.n_tokens, 1), (mixes, scale, base))
        y = ops.T("DSV4_HC_PRE", "F32", (ctx.n_embd, ctx.n_tokens, 1, 1), (x, before))
        return y, post, mix

    def _spread(self, y: T, x: T, post: T, mix: T) -> T:
        return ops.T("DSV4_HC_POST", "F32", x.ne, (y, x, post, mix))

    def finish(self) -> None:
        ctx, n = self.ctx, self.streams
        x = ops.get_rows(ops.reshape(self.x, ctx.n_embd * n, ctx.n_tokens), self.out_ids)
        count = x.ne[1]
        x = ops.reshape(x, ctx.n_embd, n, count)
        fn, scale, base = (ctx.root(f"output_hc_{part}") for part in ("fn", "scale", "base"))
        assert fn is not None and scale is not None and base is not None
        mixes = ops.mul_mat(fn, ops.rms_norm(ops.reshape(x, ctx.n_embd * n, count)))
        shares = ops.scale(ops.unary(_affine(mixes, scale, base)))
        out = ops.mul(_stream(x), _column(shares, 1))
        for _ in range(n - 1):
            out = ops.add(out, ops.mul(_stream(x), _column(shares, 1)))
        finish(ctx, self.row, ctx.norm(out, ctx.root("output_norm")))

    # attention -----------------------------------------------------------------------------

    def attention(self, il: int, h: T) -> T:
        ctx, n, head, heads = self.ctx, self.ctx.n_tokens, self.head, self.heads[il]
        source = ctx.norm(
            ops.mul_mat(ctx.must(il, "attn_q_a"), h), ctx.must(il, "attn_q_a_norm"), il=il
        )
        q = ops.reshape(ops.mul_mat(ctx.must(il, "attn_q_b"), source), head, heads, n)
        q = ops.rope(ops.rms_norm(q), self.pos)
        kv = ops.mul_mat(ctx.must(il, "attn_kv"), h)
        kv = ctx.norm(kv, ctx.must(il, "attn_kv_a_norm"), il=il)
        kv = ops.rope(ops.reshape(kv, head, 1, n), self.pos)
        ratio = self.ratios[il]
        more = chosen = None
        if ratio:
            more = self.rows[ratio]
            self._compress(il, h, more)
            if ratio == INDEXED_RATIO:
                self._compress(il, h, self.index)
                chosen = self._choose(il, h, source)
        out = self._attend(il, q, kv, more, chosen)
        out = ops.reshape(out, head, heads, n)
        out = ops.like("ROPE", out, out, self.pos)
        return self._project_groups(il, out)

    def _project_groups(self, il: int, out: T) -> T:
        """The output projection by way of a short vector for each group of heads."""
        ctx, m = self.ctx, self.ctx.model
        groups = m.integer("attention.output_group_count")
        rank = m.integer("attention.output_lora_rank")
        width = out.ne[0] * out.ne[1] // groups
        first = ctx.must(il, "attn_output_a")
        first.ne = (width, rank, groups, 1)
        first.nb = ops.strides(first.type, first.ne)
        out = ops.permute(ops.reshape(out, width, groups, ctx.n_tokens), 0, 2, 1, 3)
        out = ops.permute(ops.mul_mat(first, out), 0, 2, 1, 3)
        out = ops.cont(out, rank * groups, ctx.n_tokens)
        return ops.mul_mat(ctx.must(il, "attn_output_b"), out)

    def _attend(self, il: int, q: T, kv: T, more: Compressor | None, chosen: T | None) -> T:
        """Attention over the window, and over the compressed rows where there are any."""
        ctx, rotation = self.ctx, self.raw.k_rot
        if rotation is not None:
            q, kv = rotate(q, rotation), rotate(kv, rotation)
        ctx.g.expand(q)
        ctx.g.expand(kv)
        k, mask = self.raw.keep(il, kv), self.raw.mask
        if more is not None:
            rows = more.keys.all(il)
            k = ops.concat(k, ops.view(rows, rows.ne, rows.nb[1:]), 2)
            shown = more.keys.mask
            if chosen is not None:
                shown = only(shown, chosen, "F16" if ctx.shape.flash else "F32")
            mask = ops.concat(mask, shown, 0)
        out = attend(ctx, q, k, k, mask, sinks=ctx.w(il, "attn_sinks"))
        return out if rotation is None else rotate(out, rotation)

    def _choose(self, il: int, h: T, source: T) -> T:
        ctx, c, n = self.ctx, self.index, self.ctx.n_tokens
        heads = ctx.model.integer("attention.indexer.head_count")
        q = ops.mul_mat(ctx.must(il, "indexer.attn_q_b"), source)
        q = ops.rope(ops.reshape(q, c.width, heads, n), self.pos)
        assert c.rotation is not None
        q = rotate(q, c.rotation)
        w = ops.scale(ops.mul_mat(ctx.must(il, "indexer.proj"), h))
        keys = c.keys.all(il)
        keys = ops.view(keys, keys.ne, keys.nb[1:])
        streams = keys.ne[3]
        per = n // streams
        q = ops.view(q, (c.width, heads, per, streams), (q.nb[1], q.nb[2], q.nb[3] // streams))
        w = ops.view(w, (heads, per, 1, streams), (w.nb[1], w.nb[2] // streams, w.nb[3] // streams))
        scores = ops.lightning_indexer(q, keys, w, c.keys.mask)
        most = ctx.model.integer("attention.indexer.top_k")
        return ops.cont(ops.top_k(scores, min(scores.ne[0], most)))

    # compression ---------------------------------------------------------------------------

    def _compress(self, il: int, h: T, c: Compressor) -> None:
        """Compress the finished rows into the cache and keep the unfinished ones as a state."""
        ctx = self.ctx
        width = 2 * c.width if c.overlap else c.width
        kv = ops.mul_mat(ctx.must(il, f"{c.prefix}_compressor_kv"), h)
        score = ops.mul_mat(ctx.must(il, f"{c.prefix}_compressor_gate"), h)
        places = ops.get_rows(ctx.must(il, f"{c.prefix}_compressor_ape"), c.state_pos)
        score = ops.add(score, places)
        count = c.rows * ctx.shape.streams
        states = [self._state(il, c, name, width) for name in ("kv", "score")]

        def whole(state: T) -> T:
            return ops.view(state, (width, count), state.nb[1:2])

        def source(state: T, fresh: T) -> T:
            return ops.concat(ops.view(whole(state), (width, count), state.nb[1:2]), fresh, 1)

        both = source(states[0], kv), source(states[1], score)
        rows = self._overlapping(c, *both) if c.overlap else self._apart(c, *both)
        norm = ctx.must(il, f"{c.prefix}_compressor_norm")
        rows = ops.rope(ctx.norm(rows, norm, il=il), c.write_pos)
        if c.rotation is not None:
            rows = rotate(rows, c.rotation)
        c.keys.keep(il, rows, c.write)
        for state, fresh in zip(states, (kv, score), strict=True):
            kept = ops.get_rows(fresh, c.persist_from)
            ctx.g.expand(ops.set_rows(whole(state), kept, c.persist_to))

    def _state(self, il: int, c: Compressor, name: str, width: int) -> T:
        made, s = self.ctx.weights.made, self.ctx.shape
        key = f"state_{c.prefix}_{name}_{il}"
        if key not in made:
            home = s.device_of[il] if s.kv_offload else s.cpu
            made[key] = ops.stored(home, "F32", width, c.rows, s.streams)
        return made[key]

    def _apart(self, c: Compressor, kv: T, score: T) -> T:
        made = c.write_pos.ne[0]
        values = ops.reshape(ops.get_rows(kv, c.read), c.width, c.ratio, made)
        scores = ops.reshape(ops.get_rows(score, c.read), c.width, c.ratio, made)
        return _pooled(values, scores)

    def _overlapping(self, c: Compressor, kv: T, score: T) -> T:
        made = c.write_pos.ne[0]
        n = c.ratio * made
        kv, score = _with_neutral_row(kv), _with_neutral_row(score)
        rows = ops.get_rows(kv, c.read), ops.get_rows(score, c.read)

        def half(x: T) -> T:
            part = ops.cont(ops.view(x, (c.width, n), x.nb[1:2]))
            return ops.reshape(part, c.width, c.ratio, made)

        before = [half(x) for x in rows]
        own = [half(x) for x in rows]
        values, scores = (ops.concat(a, b, 1) for a, b in zip(before, own, strict=True))
        return _pooled(values, scores)


def _affine(x: T, scale: T, base: T) -> T:
    return ops.add(ops.mul(x, scale), base)


def _stream(x: T) -> T:
    """One residual stream."""
    return ops.view(x, (x.ne[0], x.ne[2]), x.nb[2:3])


def _column(x: T, dim: int) -> T:
    """One factor per token."""
    return ops.view(x, (1, x.ne[dim]), x.nb[dim : dim + 1])


def _with_neutral_row(x: T) -> T:
    row = ops.scale(ops.view(x, (x.ne[0],)))
    return ops.concat(x, ops.reshape(row, x.ne[0], 1), 1)


def _pooled(values: T, scores: T) -> T:
    """The mean of each group of rows, weighted by the scores, channel by channel."""
    values = ops.cont(ops.permute(values, 1, 0, 2, 3))
    scores = ops.cont(ops.permute(scores, 1, 0, 2, 3))
    y = ops.sum_rows(ops.mul(values, ops.soft_max(scores)))
    return ops.cont(ops.permute(y, 1, 0, 2, 3))


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph into ``ctx.g``."""
    draw(Compressed(ctx, row))
