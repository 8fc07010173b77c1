"""What Gemma 3n and 4 add to a block."""

from __future__ import annotations

from .dims import Dims, Layer
from .pieces import Shapes
from .roots import alternating_streams, per_layer_width

LAUREL_RANK = 64  # ggml-org/llama.cpp src/llama-hparams.h; no metadata key holds it


def layer_input(d: Dims, _: Layer) -> Shapes:
    """A block's own token embedding, gated into the stream."""
    width = per_layer_width(d)
    if not width:
        return []
    return [
        ("inp_gate.weight", (d.embd, width)),
        ("proj.weight", (width, d.embd)),
        ("post_norm.weight", (d.embd,)),
    ]


def streams(d: Dims, _: Layer) -> Shapes:
    """Gemma 3n's alternating streams and low-rank residual."""
    n = alternating_streams(d)
    return [
        ("altup_correct_coef.weight", (n, n)),
        ("altup_correct_scale.weight", (d.embd,)),
        ("altup_predict_coef.weight", (n, n * n)),
        ("altup_router.weight", (d.embd, n)),
        ("altup_router_norm.weight", (d.embd,)),
        ("laurel_l.weight", (d.embd, LAUREL_RANK)),
        ("laurel_r.weight", (LAUREL_RANK, d.embd)),
        ("laurel_post_norm.weight", (d.embd,)),
    ]
