"""From an architecture's row to the builder of its graph."""

from __future__ import annotations

from collections.abc import Callable

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.architectures import ROWS, Architecture

from . import blockwise, compressed, decoder, encoder, gemma, hybrid, indexed, latent, latent_hybrid
from .context import Context

BUILDERS: dict[str, Callable[[Context, Architecture], None]] = {
    "decoder": decoder.build,
    "hybrid": hybrid.build,
    "latent_hybrid": latent_hybrid.build,
    "latent": latent.build,
    "indexed": indexed.build,
    "blockwise": blockwise.build,
    "compressed": compressed.build,
    "encoder": encoder.build,
    "bert": encoder.build_bert,
    "gemma3n": gemma.build_3n,
    "gemma4": gemma.build,
}


def is_modelled(model: ModelSpec) -> bool:
    """Whether somebody has drawn this architecture's graph."""
    return model.architecture in ROWS


def builder_of(model: ModelSpec) -> Callable[[Context], None]:
    """The function that draws this model's graph.

    Raises:
        LookupError: Nobody has modelled this architecture.
    """
    row = ROWS.get(model.architecture)
    if row is None:
        raise LookupError(model.architecture)
    build = BUILDERS[row.graph]
    return lambda ctx: build(ctx, row)
