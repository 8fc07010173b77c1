"""One row per architecture: what its graph and caches do that its tensors alone do not tell.

Whatever a row leaves out has the default of a Llama-like decoder. Nothing else in this package
knows an architecture by name.

Source of every row: src/models/<architecture>.cpp of llama.cpp 0c1e570.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How an architecture differs from a Llama-like decoder.

    Attributes:
        graph: Which builder in ``graph.models`` draws it.
        norm: "rms", "layer", or "epsilon": whichever the metadata has an epsilon for.
        plain_norm: Norms have no weights.
        activation: Of the dense feed-forward: silu, gelu, relu, relu_sqr, situ.
        clamps_fused: Limits of the gated activation are part of its operation.
        embedding_scale: The embedding is multiplied by a constant; None: where the metadata names
            one.
        qk_norm: Norms of q and k, where the tensors are there, come "before" the rotation,
            "after" it, on the "flat" projection; "plain_after": norms without weights after the
            rotation.
        rope_factors: The rotation uses the frequency factors that a file may have.
        positions_per_token: Numbers that say where a token is: 4 with a rotation in several
            dimensions.
        positions_by_sections: It is 4 where the metadata names sections of the rotation.
        rope: Which layers rotate: "all", "none", "window" (only those with a window, where there
            are any), "window_or_leading" (and the leading blocks without experts), "finetuned" (all
            unless the metadata denies that the model was tuned with a rotation).
        window_factors: Layers with a window rotate with the factors too.
        no_rope_step: Every n-th layer does not rotate; 0: none of them.
        temperature: The query is multiplied by a temperature input: "unrotated" in layers that do
            not rotate, "metadata" where the metadata names a scale.
        query_scale: The query is multiplied by a constant after the rotation.
        residual_scale: Block results are multiplied by a constant; None: where the metadata names
            one.
        parallel: Feed-forward beside the attention instead of behind it, by the order of the
            sums: "ffn_residual_attention", "attention_ffn_residual", "ffn_attention_residual".
        residual_first: The residual is the left side of the last sum.
        skip_first: The skipped path is the left side of the sum behind the mixer.
        post_norm_pinned: The norm behind the feed-forward belongs to its layer's device.
        rows_at_end: Rows without logits are dropped after the last block instead of inside it.
        rows_behind_norm: They are dropped behind the last norm, whose whole result is an output.
        last_norm: The tensor of the last norm.
        keeps_hidden: The last block's result is an output of the graph.
        window_period: Every n-th layer is a full one, the others see a sliding window; 0: all
            layers do; None: there is no window whatever the metadata says.
        window_dense_first: The first of every period is the full one instead of the last.
        window_default: Width of the window where the metadata names none.
        window_blocks: There is a window only in models of so many blocks; 0: in all.
        soft_cap: Attention scores pass through tanh.
        single_sequence: Buffers are reserved for a micro-batch of one sequence too.
        cached: Keys and values are kept in a cache; False: every token sees its batch alone.
        keys_only: The value is the key itself.
        streams_apart: Sequences have caches of their own even where the cache is unified.
        causal: Tokens see earlier ones only; None: as the metadata says.
        own_caches: So many blocks have a cache of their own, the others read the last one of their
            kind; 0: all but as many as the metadata names.
        indexer: Which cache an indexer has that chooses what is attended to: "" for none,
            "keys" of one head, "both" keys and values of one head behind the leading dense blocks.
        tied: Without an output matrix the embedding serves as one.
        output_first: The output matrix is loaded before the embedding: where one serves as both,
            the host then holds it twice.
        next_loads: What of the next-token blocks is loaded although they take no part, as a regular
            expression on tensor names.
        logits: Operations at the output product: "", "scale", "cap" behind it, "scale_first" before
            it; a scale or cap that the metadata sets to zero is left out.
        gating: Of the experts' router, where the metadata names none: softmax, sigmoid,
            softmax_weight, sqrt_softplus.
        normalize_experts: The router's weights are normalized; None: as the metadata says.
        weight_first: The router's weights multiply the experts' input.
        precise_experts: Their last product asks for full precision, which not every backend has.
        shared_halved: The sum of the routed and the shared experts is halved.
        sparse_blocks: So many blocks zero all but the largest activations.
        shared_gate: How the shared expert's gate is made, where it has one: "sigmoid", or
            "silu_ratio" (silu of the scores divided by them).
    """

    graph: str = "decoder"
    norm: str = "rms"
    plain_norm: bool = False
    activation: str = "silu"
    clamps_fused: bool = False
    embedding_scale: bool | None = None
    qk_norm: str = "before"
    rope: str = "all"
    rope_factors: bool = True
    positions_per_token: int = 1
    positions_by_sections: bool = False
    window_factors: bool = True
    no_rope_step: int = 0
    temperature: str = ""
    query_scale: bool = False
    residual_scale: bool | None = None
    parallel: str = ""
    residual_first: bool = False
    skip_first: bool = False
    post_norm_pinned: bool = False
    rows_at_end: bool = False
    rows_behind_norm: bool = False
    last_norm: str = "output_norm"
    keeps_hidden: bool = False
    window_period: int | None = None
    window_dense_first: bool = False
    window_default: int = 0
    window_blocks: int = 0
    soft_cap: bool = False
    single_sequence: bool = False
    cached: bool = True
    keys_only: bool = False
    streams_apart: bool = False
    causal: bool | None = None
    own_caches: int = 0
    indexer: str = ""
    tied: bool = True
    output_first: bool = False
    next_loads: str = ""
    logits: str = ""
    gating: str = "softmax"
    normalize_experts: bool | None = None
    weight_first: bool = False
    precise_experts: bool = False
    shared_halved: bool = False
    sparse_blocks: int = 0
    shared_gate: str = "sigmoid"


_PLAIN = Architecture()
_MOE = Architecture(normalize_experts=True)
_GEMMA = Architecture(embedding_scale=True, query_scale=True, activation="gelu")
_ROUTED_BY_KEYS = Architecture(gating="sigmoid")
_NEMOTRON_H = Architecture(
    graph="hybrid", rope="none", activation="relu_sqr", gating="sigmoid", rows_behind_norm=True
)
_DELTA_NET = Architecture(graph="hybrid", normalize_experts=True, rows_behind_norm=True)
_SHORT_CONVOLUTION = Architecture(
    graph="hybrid",
    rope_factors=False,
    skip_first=True,
    residual_first=True,
    last_norm="token_embd_norm",
    window_period=0,
    normalize_experts=True,
)
_LATENT = Architecture(graph="latent", rope_factors=False, temperature="metadata")
_BERT = Architecture(
    graph="bert", norm="layer", activation="gelu", rope="none", cached=False, tied=False
)
_INDEXED = replace(
    _LATENT,
    graph="indexed",
    temperature="",
    indexer="keys",
    gating="sigmoid",
    next_loads="exp_probs_b",
)

ROWS: dict[str, Architecture] = {
    "llama": _MOE,
    "deci": _PLAIN,
    "mistral3": Architecture(temperature="metadata", normalize_experts=True),
    "llama4": Architecture(
        qk_norm="plain_after",
        no_rope_step=4,
        temperature="unrotated",
        window_period=4,
        window_default=8192,
        gating="sigmoid",
        normalize_experts=False,
        weight_first=True,
    ),
    "qwen2": _PLAIN,
    "qwen2moe": Architecture(normalize_experts=False, shared_gate="silu_ratio"),
    "qwen3": _PLAIN,
    "qwen3moe": _MOE,
    "seed_oss": _PLAIN,
    "internlm2": _PLAIN,
    "exaone": _PLAIN,
    "xverse": _PLAIN,
    "smollm3": Architecture(no_rope_step=4),
    "exaone4": Architecture(rope="window", window_period=4, window_default=4096, window_blocks=64),
    "olmo2": Architecture(qk_norm="flat", window_period=4),
    "olmoe": Architecture(qk_norm="flat", normalize_experts=False),
    "phi3": Architecture(query_scale=True, residual_first=True),
    "phimoe": Architecture(query_scale=True, residual_first=True, normalize_experts=True),
    "phi2": Architecture(
        norm="layer", query_scale=True, activation="gelu", parallel="attention_ffn_residual"
    ),
    "falcon": Architecture(norm="layer", activation="gelu", parallel="ffn_attention_residual"),
    "command-r": Architecture(norm="layer", parallel="ffn_residual_attention", logits="scale"),
    "cohere2": Architecture(
        norm="layer",
        parallel="ffn_residual_attention",
        logits="scale",
        rope="window",
        window_period=4,
    ),
    "gemma": _GEMMA,
    "gemma2": Architecture(
        embedding_scale=True,
        query_scale=True,
        activation="gelu",
        window_period=2,
        window_default=4096,
        soft_cap=True,
        logits="cap",
    ),
    "gemma3": Architecture(
        embedding_scale=True, query_scale=True, activation="gelu", window_period=6, logits="cap"
    ),
    "starcoder2": Architecture(norm="layer", activation="gelu"),
    "nemotron": Architecture(norm="layer", activation="relu_sqr"),
    "stablelm": Architecture(norm="layer"),
    "granite": Architecture(rope="finetuned", logits="scale", normalize_experts=True),
    "granitemoe": Architecture(rope="finetuned", logits="scale", normalize_experts=True),
    "minicpm": Architecture(
        embedding_scale=True, residual_scale=True, logits="scale", normalize_experts=True
    ),
    "glm4": Architecture(post_norm_pinned=True, positions_by_sections=True),
    "glm4moe": Architecture(gating="sigmoid", positions_by_sections=True),
    "dots1": _ROUTED_BY_KEYS,
    "bailingmoe2": _ROUTED_BY_KEYS,
    "minimax-m2": Architecture(qk_norm="flat", gating="sigmoid", normalize_experts=True),
    "ernie4_5": _PLAIN,
    "ernie4_5-moe": _MOE,
    "hunyuan-dense": Architecture(qk_norm="after"),
    "hunyuan-moe": Architecture(qk_norm="after", normalize_experts=True),
    "gpt-oss": Architecture(
        window_period=2,
        gating="softmax_weight",
        normalize_experts=False,
        rows_at_end=True,
        keeps_hidden=True,
    ),
    "nemotron_h": _NEMOTRON_H,
    "nemotron_h_moe": _NEMOTRON_H,
    "mamba": Architecture(graph="hybrid"),
    "mamba2": Architecture(graph="hybrid"),
    "falcon-h1": Architecture(graph="hybrid", rope_factors=False),
    "qwen3next": _DELTA_NET,
    "qwen35": replace(_DELTA_NET, positions_per_token=4),
    "qwen35moe": replace(_DELTA_NET, positions_per_token=4),
    "granitehybrid": Architecture(
        graph="hybrid", rope="finetuned", logits="scale", normalize_experts=True
    ),
    "jamba": Architecture(
        graph="hybrid",
        rope="none",
        skip_first=True,
        residual_first=True,
        normalize_experts=False,
    ),
    "lfm2": _SHORT_CONVOLUTION,
    "lfm2moe": replace(_SHORT_CONVOLUTION, gating="sigmoid"),
    "kimi-k3": Architecture(
        graph="latent_hybrid", rope="none", activation="situ", gating="sigmoid", rows_at_end=True
    ),
    "kimi-linear": Architecture(
        graph="latent_hybrid",
        rope="none",
        single_sequence=True,
        gating="sigmoid",
        normalize_experts=True,
    ),
    "olmo": Architecture(norm="layer", plain_norm=True),
    "arcee": Architecture(activation="relu_sqr"),
    "apertus": _PLAIN,
    "deepseek": Architecture(normalize_experts=False),
    "bailingmoe": _PLAIN,
    "exaone-moe": Architecture(
        rope="window", window_period=4, window_default=128, gating="sigmoid"
    ),
    "cohere2moe": Architecture(
        norm="epsilon",
        parallel="ffn_residual_attention",
        rope="window_or_leading",
        rows_behind_norm=True,
        next_loads=r"nextn\.(embed_tokens|shared_head)",
        window_period=4,
        window_dense_first=True,
        logits="scale",
        gating="sigmoid",
        shared_halved=True,
    ),
    "hunyuan_vl": Architecture(qk_norm="after", positions_by_sections=True),
    "mimo2": Architecture(
        rope_factors=False, window_period=0, gating="sigmoid", normalize_experts=True
    ),
    "step35": Architecture(
        window_factors=False,
        window_period=0,
        gating="sigmoid",
        rows_at_end=True,
        keeps_hidden=True,
        next_loads=r"attn_(q_norm|k_norm|gate)|ffn_(?!norm)|exp_probs_b|nextn\.(embed_tokens|shared_head)",
    ),
    "qwen2vl": Architecture(rope_factors=False, positions_per_token=4),
    "qwen3vl": Architecture(rope_factors=False, positions_per_token=4),
    "qwen3vlmoe": Architecture(rope_factors=False, positions_per_token=4, normalize_experts=True),
    "deepseek2": _LATENT,
    "mistral4": replace(_LATENT, precise_experts=True),
    "minicpm3": Architecture(
        graph="latent", embedding_scale=True, residual_scale=True, logits="scale_first"
    ),
    "bert": _BERT,
    "jina-bert-v2": _BERT,
    "nomic-bert": replace(_BERT, rope="all", activation="silu"),
    "nomic-bert-moe": replace(_BERT, rope="all", normalize_experts=False),
    "modern-bert": Architecture(
        graph="encoder",
        norm="layer",
        activation="gelu",
        cached=False,
        tied=False,
        window_period=3,
        window_dense_first=True,
    ),
    "gemma-embedding": Architecture(
        graph="encoder",
        embedding_scale=True,
        query_scale=True,
        activation="gelu",
        cached=False,
        causal=False,
        window_period=6,
    ),
    "gemma3n": Architecture(
        graph="gemma3n",
        embedding_scale=True,
        rope_factors=False,
        window_period=5,
        own_caches=20,
        output_first=True,
        sparse_blocks=10,
        logits="cap",
    ),
    "gemma4": Architecture(
        graph="gemma4",
        embedding_scale=True,
        window_factors=False,
        window_period=0,
        output_first=True,
        rows_behind_norm=True,
        logits="cap",
    ),
    "deepseek32": _INDEXED,
    "glm-dsa": _INDEXED,
    "minimax-m3": Architecture(
        graph="blockwise", rope_factors=False, indexer="both", gating="sigmoid"
    ),
    "deepseek4": Architecture(
        graph="compressed",
        clamps_fused=True,
        window_period=0,
        keys_only=True,
        streams_apart=True,
        tied=False,
        gating="sqrt_softplus",
    ),
}
