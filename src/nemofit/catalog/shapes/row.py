"""What a row of the table says, and the pieces that many rows share."""

from __future__ import annotations

from dataclasses import dataclass

from . import feed_forward as ffn
from . import rules
from .attention import attention
from .dims import Dims, Layer
from .feed_forward import experts, feed_forward
from .pieces import Piece, Root, norm, unless
from .roots import head, rope_factors
from .rules import Mark, Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How an architecture's files are made up.

    Attributes:
        root: Tensors outside the blocks.
        block: The pieces of a block, in order.
        sparse, recurrent, sliding: Which blocks have experts, a recurrent mixer, a window.
        mark: What else differs between blocks.
    """

    root: tuple[Root, ...] = (head(),)
    block: tuple[Piece, ...]
    sparse: Rule = rules.never
    recurrent: Rule = rules.never
    sliding: Rule = rules.never
    mark: Mark = rules.no_mark

    def layers(self, d: Dims) -> list[Layer]:
        """Describe each block of a model."""
        nextn = (False,) * (d.blocks - d.nextn) + (True,) * d.nextn
        per_block = (
            d.heads, d.kv_heads, d.ff, d.expert_ff,
            self.sparse(d), self.recurrent(d), self.sliding(d), nextn, self.mark(d),
        )  # fmt: skip
        return [Layer(*values) for values in zip(*per_block, strict=True)]


ATTN_NORM = norm("attn_norm")
FFN_NORM = norm("ffn_norm")
POST_ATTN_NORM = norm("post_attention_norm")
POST_FFN_NORM = norm("post_ffw_norm")
ATTN_NORM_BIAS = norm("attn_norm", bias=True)
FFN_NORM_BIAS = norm("ffn_norm", bias=True)

ROOT_FACTORS = (head(), rope_factors)
ROOT_ALWAYS = (head(output="always"),)
ROOT_TIED = (head(output="never"),)
ROOT_BIASES = (head(output="always", norm_bias=True, output_bias=True),)

HEAD_NORMS = attention(norms=True)
DENSE = unless("sparse", feed_forward(bias=False))
SAME_WIDTH = experts(ffn.dense_width)
BALANCED = experts(router_bias=ffn.sigmoid_router)
