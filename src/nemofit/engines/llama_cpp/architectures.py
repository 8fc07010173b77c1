"""One row per architecture: what its graph and caches do that its tensors alone do not tell.

Whatever a row leaves out has the default of a Llama-like decoder. Nothing else in this package
knows an architecture by name. Source of every row: src/models/<architecture>.cpp of llama.cpp 0c1e570.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How an architecture differs from a Llama-like decoder.

    Attributes:
        graph: Which builder in ``graph.models`` draws it.
        norm: "rms" or "layer".
        activation: Of the dense feed-forward: silu, gelu, relu, relu_sqr, swiglu (one fused
            projection split in two).
        embedding_scale: The embedding is multiplied by a constant.
        query_scale: The query is multiplied by a constant after the rotation.
        norm_after: Norms of q and k come after the rotation.
        window_period: Every n-th layer is a full one, the others see a sliding window; 0: all
            layers do; None: there is no window whatever the metadata says.
        window_dense_first: The first of every period is the full one instead of the last.
        window_key: The period is read from ``attention.sliding_window_pattern`` when given.
        soft_cap: Attention scores pass through tanh.
        logit_scale: Operations between the output product and the logits: "scale", "cap".
        parallel: Attention and feed-forward read the same normed input.
        gating: Of the experts' router.
        normalize_experts, scale_experts: What happens to the router's weights; "key" reads it
            from the metadata.
    """

    graph: str = "decoder"
    norm: str = "rms"
    activation: str = "silu"
    embedding_scale: bool = False
    query_scale: bool = False
    window_period: int | None = None
    window_dense_first: bool = False
    soft_cap: bool = False
    logit_scale: str = ""
    gating: str = "softmax"
    normalize_experts: bool = False


ROWS: dict[str, Architecture] = {
    "llama": Architecture(normalize_experts=True),
    "qwen2": Architecture(),
    "qwen2moe": Architecture(),
    "qwen3": Architecture(),
    "qwen3moe": Architecture(normalize_experts=True),
    "gemma3": Architecture(
        embedding_scale=True, query_scale=True, activation="gelu", window_period=6, logit_scale="cap"
    ),
}
