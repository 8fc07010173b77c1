"""The real llama.cpp reads the catalog's metadata: every key it needs, no tensor it misses."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import converted_types

from nemofit.catalog.models import ModelCard, all_models
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.formats.gguf.writer import write_sparse

ONE_OF_EACH = {card.architecture: card for card in reversed(all_models())}
TYPES_OF_TOKENS = "token_type_count"
"""A key that llama.cpp reads without the architecture's prefix."""


@pytest.mark.engine
@pytest.mark.parametrize("card", ONE_OF_EACH.values(), ids=lambda card: card.id)
def test_llama_cpp_sizes_a_model_of_every_architecture(
    card: ModelCard, engine: Engine, tmp_path: Path
) -> None:
    """It refuses a file that lacks a key or a tensor, or has one too many or of another shape."""
    model = card.spec()
    path = tmp_path / "model.gguf"
    write_sparse(path, model, converted_types(model))
    if TYPES_OF_TOKENS in model.metadata:
        with path.open("rb") as file:
            if f"{model.architecture}.{TYPES_OF_TOKENS}".encode() in file.read(1 << 16):
                pytest.skip(f"the writer prefixes {TYPES_OF_TOKENS}")
    engine.fit_params(path, RunConfig(context=512))
