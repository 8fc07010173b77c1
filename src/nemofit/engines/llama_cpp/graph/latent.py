"""The graph of a decoder with latent attention (MLA): keys and values are kept compressed.

Where a file splits the matrix that expands them, one half is multiplied into the query and the
other behind the weighted sum: attention then reads the compressed rows alone. Where it does not,
keys and values are expanded first, and their cache is a plain one.

Source: src/models/deepseek2.cpp, minicpm3.cpp of llama.cpp 0c1e570.
"""

from __future__ import annotations

from nemofit.engines.llama_cpp.architectures import Architecture
from nemofit.engines.llama_cpp.kv_cache import is_latent

from . import ops
from .context import Context
from .decoder import Decoder, draw
from .ops import T


class Latent(Decoder):
    """A decoder whose attention reads compressed keys and values."""

    def __init__(self, ctx: Context, row: Architecture) -> None:
        super().__init__(ctx, row)
        m = ctx.model
        self.rank = m.integer("attention.kv_lora_rank")
        k, v = self.sizes[0]
        self.absorbed = is_latent(m)
        self.head_k = m.integer("attention.key_length_mla") if self.absorbed else k
        self.head_v = m.integer("attention.value_length_mla") if self.absorbed else v
        self.rotated = m.integer("rope.dimension_count", k)
        self.projection: str | None = "attn_output"

    def attention(self, il: int, h: T) -> T:
        q = self.query(il, h)
        both = ops.mul_mat(self.ctx.must(il, "attn_kv_a_mqa"), h)
        row = both.nb[1]
        compressed = ops.view(both, (self.rank, self.ctx.n_tokens), (row,))
        k_rope = ops.view(both, (self.rotated, 1, self.ctx.n_tokens), (row, row))
        k_rope = self.rotate(il, k_rope)
        compressed = self.ctx.norm(compressed, self.ctx.must(il, "attn_kv_a_norm"), il=il)
        if self.absorbed:
            return self._over_compressed(il, q, compressed, k_rope)
        return self._over_expanded(il, q, compressed, k_rope)

    def query(self, il: int, h: T) -> T:
        """The query of every head."""
        weight = self.ctx.must(il, "attn_q_b", "attn_q")
        q = ops.mul_mat(weight, self.query_input(il, h))
        return ops.reshape(q, self.head_k, self.heads[il], self.ctx.n_tokens)

    def query_input(self, il: int, h: T) -> T:
        """What the query is projected from: a compressed form where there is one."""
        ctx = self.ctx
        down = ctx.w(il, "attn_q_a")
        if down is None:
            return h
        return ctx.norm(ops.mul_mat(down, h), ctx.must(il, "attn_q_a_norm"), il=il)

    def mask(self, il: int) -> T | None:  # noqa: ARG002
        """Another mask than the common one."""
        return None

    def rotate(self, il: int, x: T) -> T:
        return ops.rope(x, self.pos, self.rope_factors(il))

    def tempered(self, q: T) -> T:
        return q if self.temperature is None else ops.mul(q, self.temperature)

    def _over_compressed(self, il: int, q: T, compressed: T, k_rope: T) -> T:
        q, k, v = self.absorb(il, q, compressed, k_rope)
        return self.attend(il)(
            il, self.tempered(q), k, v,
            v_mla=self.ctx.must(il, "attn_v_b"), output=self.projection, mask=self.mask(il),
        )  # fmt: skip

    def absorb(self, il: int, q: T, compressed: T, k_rope: T) -> tuple[T, T, T]:
        """Query and key over the compressed rows, of which the value is the first part."""
        heads, n = self.heads[il], self.ctx.n_tokens
        plain = self.head_k - self.rotated
        q_plain = ops.view(q, (plain, heads, n), q.nb[1:3])
        q_rope = self.rotate(il, ops.view(q, (self.rotated, heads, n), q.nb[1:3]))
        q_plain = ops.permute(q_plain, 0, 2, 1, 3)
        q_plain = ops.mul_mat(self.ctx.must(il, "attn_k_b"), q_plain)
        q = ops.concat(ops.permute(q_plain, 0, 2, 1, 3), q_rope, 0)
        compressed = ops.reshape(compressed, self.rank, 1, n)
        return q, ops.concat(compressed, k_rope, 0), compressed

    def _over_expanded(self, il: int, q: T, compressed: T, k_rope: T) -> T:
        heads, n = self.heads[il], self.ctx.n_tokens
        plain = self.head_k - self.rotated
        kv = ops.mul_mat(self.ctx.must(il, "attn_kv_b"), compressed)
        width = ops.row_size(kv.type, plain + self.head_v)
        strides = (width, width * heads)
        k_plain = ops.view(kv, (plain, heads, n), strides)
        v = ops.cont(ops.view(kv, (self.head_v, heads, n), strides))
        q = self.rotate(il, q)
        k = ops.concat(k_plain, ops.repeat(k_rope, self.rotated, heads, n), 0)
        return self.attend(il)(il, self.tempered(q), k, v, output=self.projection)


def build(ctx: Context, row: Architecture) -> None:
    """Draw the whole graph into ``ctx.g``."""
    draw(Latent(ctx, row))
