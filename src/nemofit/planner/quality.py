"""What a file type and a cache type cost in quality: expected KL divergence, with its source."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

from nemofit.catalog.ggml import ggml_type


@dataclass(frozen=True, slots=True)
class Quality:
    """Expected mean KL divergence to the 16-bit model with a 16-bit cache.

    Attributes:
        loss: In nats; None: nothing published.
        grade: near-lossless, slight, noticeable or heavy; None where the loss is not known.
        basis: "published" where both parts were measured, "assumed" where one is inferred.
        note: Where the figures come from, or why there are none.
    """

    loss: float | None
    grade: str | None
    basis: str
    note: str


GRADES = ((0.02, "near-lossless"), (0.05, "slight"), (0.15, "noticeable"), (float("inf"), "heavy"))
"""Upper bounds in nats. Q5_K_M and above are near-lossless on Llama 3 8B, Q4_K_M and IQ4_XS
slight, Q3_K_M and IQ3_XS noticeable."""

_CACHE = {"f32": 0.0, "f16": 0.0, "bf16": 0.0, "q8_0": 0.0016, "q4_0": 0.1}
"""Mean KL divergence of the cache type alone. q8_0: Qwen 3.6 35B-A3B at 4096 tokens
(openclawradar.com/article/qwen-kv-cache-quantization-deep-dive); 0.0008 on Llama 3 8B at 512
(ggml-org/llama.cpp pull request 7412). q4_0: 0.087 to 0.117 on Qwen 3.6 over 250k tokens
(localbench.substack.com/p/kv-cache-quantization-benchmark); Gemma models lose far more."""


def grade(loss: float) -> str:
    """The word for a loss in nats."""
    return next(word for bound, word in GRADES if loss < bound)


def cache_loss(kv_type: str) -> tuple[float, bool]:
    """Loss in nats of one cache type, and whether it was measured or lies between two that were."""
    known = _CACHE.get(kv_type)
    if known is not None:
        return known, True
    bits = _bits(kv_type)
    low, high = _bits("q4_0"), _bits("q8_0")
    share = (bits - low) / (high - low)
    return exp(log(_CACHE["q4_0"]) * (1 - share) + log(_CACHE["q8_0"]) * share), False


def _bits(kv_type: str) -> float:
    t = ggml_type(kv_type)
    return 8 * t.bytes / t.block
