"""Models and machines in a line."""

from __future__ import annotations

import pytest

from nemofit.catalog.model import ModelSpec
from nemofit.catalog.shapes import tensors_of
from nemofit.machine.records import Gpu

RTX_3090 = Gpu(
    name="NVIDIA GeForce RTX 3090",
    vendor="nvidia",
    bandwidth_gb_s=936.2,
    fp32_tflops=35.58,
    compute_capability="8.6",
)


@pytest.fixture
def llama_8b() -> ModelSpec:
    """Llama 3 8B."""
    metadata = {
        "block_count": 32,
        "embedding_length": 4096,
        "vocab_size": 128256,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
        "feed_forward_length": 14336,
    }
    return ModelSpec(
        id="llama-3-8b",
        architecture="llama",
        metadata=metadata,
        tensors=tensors_of("llama", metadata),
    )


@pytest.fixture
def rtx_3090() -> Gpu:
    return RTX_3090
