"""Against the real transformers, accelerate and bitsandbytes, on the CPU.

Models are built on the meta device: no weights. ``pip install -e '.[transformers-test]'``.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from benchmarks.engines.hf_config import config_of

from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import find_model
from nemofit.engines.transformers.config import TransformersConfig
from nemofit.engines.transformers.memory import cache_bytes
from nemofit.engines.transformers.parameters import Parameter
from nemofit.engines.transformers.placement import linear_bytes, module_tree, place
from nemofit.errors import UsageError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # deprecations inside those packages
]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    REASON = "no torch and transformers here: pip install -e '.[transformers-test]'"
    torch = pytest.importorskip("torch", reason=REASON)
    transformers = pytest.importorskip("transformers", minversion="5.20", reason=REASON)
    pytest.importorskip("accelerate", reason=REASON)

MODELS = (
    "llama-3.1-8b", "nemotron-70b", "qwen2.5-0.5b", "qwen3-8b", "gemma-2-9b", "phi-3.5-mini",
    "mixtral-8x22b", "qwen3-30b-a3b", "gpt-oss-20b", "deepseek-v3", "glm-4.5-air",
    "nemotron-nano-9b-v2", "qwen3-next-80b-a3b", "olmo-2-7b", "granite-3.0-8b", "smollm3-3b",
)  # fmt: skip
# What the modules hold beyond the checkpoint: a scalar scale of the embedding, two bytes (Gemma),
# and biases of routers that are kept in float32 (GLM 4.5: 256 bytes a layer).
TOLERANCE_BYTES = 512
SHARES = ((2.0,), (0.6,), (0.5, 0.8), (0.4, 0.4, 0.4), (0.2, 0.3, 0.3, 0.9), (0.1, 0.1))

_built: dict[str, Any] = {}


def spec(name: str) -> ModelSpec:
    return find_model(name).spec()


def built(name: str) -> Any:
    """The real model, without weights."""
    if name not in _built:
        fields = config_of(spec(name))
        config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
        with torch.device("meta"):
            _built[name] = transformers.AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16
            )
    return _built[name]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library that decides, told what memory there is instead of asking for it."""
    from transformers.integrations import accelerate as integration

    monkeypatch.setattr(integration, "accelerate_max_memory", dict)
    return integration


def device(device_map: dict[str, Any], name: str) -> Any:
    while name not in device_map:
        name = name.rpartition(".")[0]
    return device_map[name]


@pytest.mark.parametrize("name", MODELS)
def test_every_module_is_as_large_as_the_real_one(name: str) -> None:
    from transformers.integrations.accelerate import compute_module_sizes

    sizes, _ = compute_module_sizes(built(name))
    compared = 0
    for top in module_tree(spec(name), TransformersConfig()):
        for module in top.wholes():
            real = sizes.get(module.name, 0)
            assert abs(module.bytes - real) <= TOLERANCE_BYTES, module.name
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("device_map", ["auto", "balanced_low_0", "sequential"])
@pytest.mark.parametrize("name", MODELS)
def test_the_placement_is_the_one_that_is_chosen(no_gpu: Any, name: str, device_map: str) -> None:
    """From everything on one GPU to a tenth on each of two and the rest on host and disk."""
    total = sum(m.bytes for m in module_tree(spec(name), TransformersConfig()))
    for shares in SHARES:
        free = [int(total * share) for share in shares]
        limits: dict[int | str, int] = {**dict(enumerate(free)), "cpu": int(total * 0.7)}
        chosen = no_gpu._get_device_map(built(name), device_map, dict(limits), None)
        config = TransformersConfig(device_map=device_map, max_memory=limits, offload_folder="x")
        mine = place(spec(name), config, free, limits["cpu"]).device_of
        assert mine == {n: device(chosen, n) for n in mine}, shares


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen2.5-0.5b", "mixtral-8x22b"])
def test_accelerate_itself_agrees(name: str) -> None:
    """accelerate.infer_auto_device_map, from which that code was taken."""
    from accelerate import infer_auto_device_map

    model = built(name)
    model.tie_weights()
    total = sum(m.bytes for m in module_tree(spec(name), TransformersConfig()))
    for shares in ((0.6,), (0.5, 0.8), (0.4, 0.4, 0.4)):
        limits: dict[int | str, int] = {
            **{i: int(total * s) for i, s in enumerate(shares)}, "cpu": total
        }  # fmt: skip
        chosen = infer_auto_device_map(
            model, dict(limits), no_split_module_classes=list(model._no_split_modules)
        )
        config = TransformersConfig(device_map="sequential", max_memory=limits, offload_folder="x")
        mine = place(spec(name), config, [limits[i] for i in range(len(shares))], total).device_of
        assert mine == {n: device(chosen, n) for n in mine}, shares


@pytest.mark.parametrize("quantization", ["bnb-4bit", "bnb-8bit"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "nemotron-70b", "mixtral-8x22b"])
def test_a_quantized_model_is_placed_as_its_quantizer_wants(
    no_gpu: Any, name: str, quantization: str
) -> None:
    pytest.importorskip("bitsandbytes", reason=REASON)
    from transformers import BitsAndBytesConfig
    from transformers.quantizers import AutoHfQuantizer

    bits = {"bnb-4bit": "load_in_4bit", "bnb-8bit": "load_in_8bit"}[quantization]
    wanted = BitsAndBytesConfig(**{bits: True})
    quantizer = AutoHfQuantizer.from_config(wanted, pre_quantized=False)
    fields = config_of(spec(name))
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        quantizer._process_model_before_weight_loading(model, device_map=None)
    mine_config = TransformersConfig(quantization=quantization)
    total = sum(m.bytes for m in module_tree(spec(name), mine_config))
    for shares in ((1.5,), (0.9, 0.9), (0.7, 0.7, 0.7)):
        free = [int(total * s) for s in shares]
        limits: dict[int | str, int] = {**dict(enumerate(free)), "cpu": total}
        try:
            chosen = no_gpu._get_device_map(model, "auto", dict(limits), quantizer)
        except ValueError:
            with pytest.raises(UsageError, match="refuses for quantized"):
                place(spec(name), mine_config.replace(max_memory=limits), free, total)
            continue
        mine = place(spec(name), mine_config.replace(max_memory=limits), free, total).device_of
        assert mine == {n: device(chosen, n) for n in mine}, shares


@pytest.mark.parametrize(("rows", "columns"), [(256, 512), (300, 200), (1, 63)])
@pytest.mark.parametrize("double", [False, True])
def test_a_4_bit_matrix_is_as_large_as_bitsandbytes_makes_it(
    rows: int, columns: int, double: bool
) -> None:
    functional = pytest.importorskip("bitsandbytes", reason=REASON).functional
    packed, state = functional.quantize_4bit(
        torch.randn(rows, columns), quant_type="nf4", compress_statistics=double
    )
    parts = [packed, *(v for v in state.as_dict().values() if isinstance(v, torch.Tensor))]
    real = sum(t.numel() * t.element_size() for t in parts) + (4 if double else 0)  # the offset
    parameter = Parameter("x", 0, "linear", "outputs", inputs=columns, outputs=rows)
    config = TransformersConfig(quantization="bnb-4bit", double_quant=double)
    assert linear_bytes(parameter, config) == real


def test_the_cache_is_as_large_as_the_real_one() -> None:
    """Two small models run on the CPU: full attention, and a window that is filled."""
    small: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    window = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
    for kind, more in (("llama", {}), ("gemma2", window)):
        config = transformers.AutoConfig.for_model(kind, **small, **more)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            cache = model(torch.ones(3, 20, dtype=torch.long), use_cache=True).past_key_values
        real = [
            t.numel() * t.element_size()
            for layer in cache.layers
            for t in (layer.keys, layer.values)
        ]
        mine = cache_bytes(
            _small_spec(kind), TransformersConfig(context=20, batch=3, dtype="float32")
        )
        assert list(mine) == [k + v for k, v in zip(real[::2], real[1::2], strict=True)], kind


def _small_spec(architecture: str) -> ModelSpec:
    from nemofit.catalog.shapes import tensors_of

    metadata: dict[str, Any] = {
        "block_count": 4, "vocab_size": 64, "embedding_length": 64, "feed_forward_length": 96,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
        "attention.value_length": 16, "context_length": 64, "tied_embeddings": True,
        "attention.sliding_window": 8,
    }  # fmt: skip
    return ModelSpec(
        id="small", architecture=architecture, metadata=metadata,
        tensors=tensors_of(architecture, metadata),
    )  # fmt: skip
