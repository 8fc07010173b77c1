"""Sparse attention: an indexer with a cache of its own chooses what each token attends to.

Source: src/models/deepseek32.cpp, glm-dsa.cpp, llama-graph.cpp (build_attn over
llm_graph_input_attn_k_dsa), llama.cpp 0c1e570.
"""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture
from nemofit.engines.llama_cpp.kv_cache import indexed_layers

from . import ops
from .attention import Attention, CacheLayout
from .context import Context
from .decoder import draw
from .latent import Latent
from .ops import T


class KeyCache(Attention):
    """A cache of keys with one head, and the mask over it.

    Args:
        mask: Its type, where flash attention does not decide it.
        name: Tells several caches of a block apart.
    """

    def __init__(
        self, ctx: Context, cells: int, width: int, mask: str | None = None, name: str = "key"
    ) -> None:
        super().__init__(ctx, CacheLayout(cells, width, 0, 0), with_v=False)
        if mask is not None:
            self.mask.type = mask
            self.mask.nb = ops.strides(mask, self.mask.ne)
        self.name = name

    def keep(self, il: int, k: T, ids: T | None = None) -> T:
        """Store keys and return all of them."""
        ctx, s = self.ctx, self.ctx.shape
        home = s.device_of[il] if s.kv_offload else s.cpu
        cache = ops.stored(home, s.type_k, self.layout.k_head, self.layout.cells, s.streams)
        ctx.weights.made[f"{self.name}_{il}"] = cache
        if ids is not None:
            self.k_ids = ids
        ctx.g.expand(self._store_k(cache, k))
        return self.all(il)

    def all(self, il: int) -> T:
        """What is stored."""
        return self._read_k(self.ctx.weights.made[f"{self.name}_{il}"], self.layout.k_head, 1)


def hadamard(width: int) -> T:
    """The largest rotation by which a width divides.

    Raises:
        ArithmeticError: Everything divides a width of nothing.
    """
    if width < 1:
        raise ArithmeticError(f"a key of width {width}")
    n = 64
    while width % (2 * n) == 0:
        n *= 2
    return ops.input_("F32", n, n)


def only(mask: T, chosen: T, type_: str) -> T:
    """The mask that leaves the chosen tokens alone visible.

    Args:
        chosen: Their cells, [count, tokens, 1, streams].
        type_: Of the constant that is written into the mask.
    """
    cells, batch, _, streams = mask.ne
    count = chosen.ne[0]
    hidden = ops.fill(mask)
    hidden = ops.view(hidden, (1, cells, batch, streams), hidden.nb[:3])
    rows = ops.view(
        chosen, (count, batch, streams, 1), (chosen.nb[1], chosen.nb[2], streams * chosen.nb[3])
    )
    zeros = ops.fill(ops.leaf(type_, 1, count, batch, streams))
    shown = ops.set_rows(hidden, zeros, rows)
    shown = ops.view(shown, (cells, batch, 1, streams), (shown.nb[2], shown.nb[3], shown.nb[3]))
    return ops.add(shown, mask)


class Indexed(Latent):
    """Latent attention to the best tokens only, as an indexer scores them."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        m = ctx.model
        self.width = m.integer("attention.indexer.key_length")
        self.index_heads = m.integer("attention.indexer.head_count")
        self.most = m.integer("attention.indexer.top_k")
        self.chooses = indexed_layers(m)
        self.index = KeyCache(ctx, ctx.shape.cells, self.width, "F16")
        self.rotation = hadamard(self.width)
        self.chosen: T | None = None

    def query_input(self, il: int, h: T) -> T:
        source = super().query_input(il, h)
        if self.chooses[il]:
            self.chosen = self._choose(il, h, source)
        return source

    def _choose(self, il: int, h: T, source: T) -> T:
        """The tokens that each token attends to, best first."""
        ctx, n, width, heads = self.ctx, self.ctx.n_tokens, self.width, self.index_heads
        q = ops.mul_mat(ctx.must(il, "indexer.attn_q_b"), source)
        q = ops.rope(ops.reshape(q, width, heads, n), self.pos)
        k = ops.mul_mat(ctx.must(il, "indexer.attn_k"), h)
        k = ctx.norm(
            k, ctx.w(il, "indexer.k_norm"), ctx.b(il, "indexer.k_norm"), il=il, kind="layer"
        )
        k = ops.rope(ops.reshape(k, width, 1, n), self.pos)
        q, k = ops.mul_mat(self.rotation, q), ops.mul_mat(self.rotation, k)
        keys = self.index.keep(il, k)
        streams = keys.ne[3]
        per = n // streams
        q = ops.view(q, (width, heads, per, streams), (q.nb[1], q.nb[2], q.nb[3] // streams))
        w = ops.mul_mat(ctx.must(il, "indexer.proj"), h)
        w = ops.view(
            w, (w.ne[0], per, w.ne[2], streams),
            (w.nb[1], w.nb[2] // streams, w.nb[3] // streams),
        )  # fmt: skip
        scores = ops.lightning_indexer(q, keys, ops.scale(w), self.index.mask)
        return ops.cont(ops.top_k(scores, min(scores.ne[0], self.most)))

    def mask(self, il: int) -> T | None:  # noqa: ARG002
        assert self.chosen is not None
        return only(self.full.mask, self.chosen, "F32")


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph into ``ctx.g``."""
    draw(Indexed(ctx, row))
