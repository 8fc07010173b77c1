"""Against the real transformers: what it saves now, and models of full size on the meta device.

``pip install -e '.[transformers-test]'``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from benchmarks.engines.hf_config import config_of
from benchmarks.engines.hf_tiny import save

from nemofit.catalog.models import find_model
from nemofit.formats.safetensors.reader import read_checkpoint

from .build import checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore:::transformers"),
    pytest.mark.filterwarnings("ignore:::huggingface_hub"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    REASON = "no torch and transformers here: pip install -e '.[transformers-test]'"
    torch = pytest.importorskip("torch", reason=REASON)
    transformers = pytest.importorskip("transformers", minversion="5.20", reason=REASON)


@pytest.mark.parametrize(
    "name", ["llama-tied", "mixtral", "qwen3-moe", "gpt-oss", "deepseek-v3", "nemotron-h"]
)
def test_what_the_library_saves_is_read(name: str, tmp_path: Path) -> None:
    path = save(name, tmp_path)
    saved = transformers.AutoModelForCausalLM.from_pretrained(path)
    model = read_checkpoint(path)
    assert model.checkpoint is not None
    loaded = sum(p.numel() for p in saved.parameters())
    assert loaded <= model.parameters <= loaded + 64  # biases that choose experts are buffers
    assert not model.checkpoint.other_bytes


MODELS = ("llama-3.1-8b", "qwen2.5-7b", "qwen3-8b", "gemma-2-9b", "phi-4", "olmo-2-7b",
          "smollm3-3b", "granite-3.0-8b", "command-r-35b", "nemotron-nano-9b-v2")  # fmt: skip


@pytest.mark.parametrize("id", MODELS)
def test_models_of_full_size_come_back_as_the_catalog_has_them(id: str, tmp_path: Path) -> None:
    """The library's own names and shapes, in a file whose data is a hole."""
    shape = find_model(id).spec()
    fields = config_of(shape)
    config = transformers.AutoConfig.for_model(**{"model_type": fields["model_type"], **fields})
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tied: Any = set(built.all_tied_weights_keys)
    stored = {
        name: ("BF16", tuple(t.shape)) for name, t in built.state_dict().items() if name not in tied
    }
    model = read_checkpoint(checkpoint(tmp_path / id, fields, stored))
    assert model.architecture == shape.architecture
    # frequency factors follow from a scaling that these configurations leave out
    expected = sorted(t for t in shape.tensors if not t.name.startswith("rope_"))
    assert sorted(model.tensors) == expected
