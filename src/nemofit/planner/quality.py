"""What a file type and a cache type cost in quality together, with its source."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

from nemofit.catalog.ggml import ggml_type
from nemofit.catalog.quality import grade, quality


@dataclass(frozen=True, slots=True)
class Quality:
    """Expected mean KL divergence to the 16-bit model with a 16-bit cache.

    Attributes:
        loss: In nats; None: nothing published.
        grade: near-lossless, slight, noticeable or heavy; None where the loss is not known.
        basis: "published" where file type and cache type were measured, "assumed" where one of
            them is inferred.
        low, high: What other models lost to the file type; see :mod:`nemofit.catalog.quality`.
        note: Where the figures come from, or why there are none.
    """

    loss: float | None
    grade: str | None
    basis: str
    note: str
    low: float | None = None
    high: float | None = None


_CACHE = {"f32": 0.0, "f16": 0.0, "bf16": 0.0, "q8_0": 0.0016, "q4_0": 0.1}
"""Mean KL divergence of the cache type alone. q8_0: Qwen 3.6 35B-A3B at 4096 tokens
(openclawradar.com/article/qwen-kv-cache-quantization-deep-dive); 0.0008 on Llama 3 8B at 512
(ggml-org/llama.cpp pull request 7412). q4_0: 0.087 to 0.117 on Qwen 3.6 over 250k tokens
(localbench.substack.com/p/kv-cache-quantization-benchmark); Gemma models lose far more."""


def expected(
    file_type: str | None,
    imatrix: bool,
    parameters: int,
    kv_type_k: str = "f16",
    kv_type_v: str = "f16",
    *,
    native: str | None = None,
) -> Quality:
    """The loss of a file type and a pair of cache types together: the parts are added.

    Args:
        file_type: llama.cpp file type; None where a file does not say.
        imatrix: Made with an importance matrix.
        parameters: Weights of the model: the measured model nearest in size answers.
        kv_type_k, kv_type_v: Cache types; each contributes half of what both would.
        native: The file type that the weights were trained in; see ``data/models.yaml``.
    """
    (k, k_known), (v, v_known) = cache_loss(kv_type_k), cache_loss(kv_type_v)
    cache, basis = (k + v) / 2, "published" if k_known and v_known else "assumed"
    of_cache = ["cache types as measured on Qwen 3.6"] if k or v else []
    if file_type is not None and file_type == native:
        notes = [f"{native} is what the makers trained and published", *of_cache]
        return Quality(cache, grade(cache), basis, ", ".join(notes), cache, cache)
    found = quality(file_type, imatrix, parameters) if file_type else None
    if found is None:
        what = f"of {file_type}" if file_type else "of a file that does not name its type"
        return Quality(None, None, "assumed", f"no loss {what} is published")
    loss = found.kl_divergence + cache
    notes = [f"{found.quant} as measured on {found.kl_model}"]
    if found.imatrix is not imatrix and file_type not in ("F16", "BF16", "Q8_0"):
        notes.append(f"{'with' if found.imatrix else 'without'} an importance matrix")
    low, high = found.kl_low + cache, found.kl_high + cache
    return Quality(loss, grade(loss), basis, ", ".join([*notes, *of_cache]), low, high)


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
