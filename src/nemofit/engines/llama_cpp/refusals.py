"""Configurations that llama.cpp refuses for a model, refused with its own reason.

Source: llama_init_from_model in llama-context.cpp, llama.cpp 0c1e570. What it refuses for every
model is checked where the configuration is made (:mod:`.config`).
"""

from __future__ import annotations

from nemofit.catalog.ggml import ggml_type
from nemofit.catalog.model import ModelSpec
from nemofit.errors import UsageError

from .config import RunConfig
from .kv_cache import is_causal, keeps_keys_only, micro_batch, pools, row_of


def check(model: ModelSpec, config: RunConfig) -> None:
    """Refuse what the engine would refuse.

    Raises:
        UsageError: With the engine's reason and what to change.
    """
    _check_pooling(model, config)
    _check_single_sequence(model, config)
    k, v = config.kv_type_k, config.kv_type_v
    if keeps_keys_only(model):
        if k != v:
            raise UsageError(
                f"{model.id} does not support different K ({k}) and V ({v}) cache types:"
                " it caches one latent for both",
                f"use one type for both, for example --kv-type {k}",
            )
        return
    heads = max(model.integer("attention.head_count"), 1)
    default = model.integer("embedding_length") // heads
    for name, type_, key in (("K", k, "attention.key_length"), ("V", v, "attention.value_length")):
        width = model.integer(key, default)
        block = ggml_type(type_).block
        if block > 1 and width % block:
            raise UsageError(
                f"{name} cache type {type_} with block size {block} does not divide"
                f" the heads of {model.id}, {width} wide",
                "use --kv-type f16",
            )


def _check_single_sequence(model: ModelSpec, config: RunConfig) -> None:
    """A sequence alone must split over the caches of all; llama.cpp aborts otherwise."""
    row = row_of(model)
    tokens = micro_batch(config)
    streams = 1 if config.kv_unified else config.parallel
    if row is not None and row.single_sequence and tokens % streams:
        raise UsageError(
            f"{model.id} cannot split a micro-batch of {tokens} tokens over {streams} sequences"
            " with caches of their own",
            "use a number of sequences that divides it, for example 1, 2 or 4, or a unified cache",
        )


def _check_pooling(model: ModelSpec, config: RunConfig) -> None:
    """A mean over sequences needs micro-batches that divide by them; llama.cpp aborts otherwise."""
    tokens = micro_batch(config, is_causal(model))
    if pools(model, config) and model.integer("pooling_type") == 1 and tokens % config.parallel:
        raise UsageError(
            f"{model.id} averages over {config.parallel} sequences, which do not divide a"
            f" micro-batch of {tokens} tokens",
            "use a number of sequences that divides it, for example 1, 2 or 4",
        )
