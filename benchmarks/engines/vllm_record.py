"""Record what the real vLLM says of weights per rank and of the cache, for the tests.

    python -m benchmarks.engines.vllm_record UNPACKED_WHEEL tests/fixtures/vllm

See :mod:`benchmarks.engines.vllm_stand_in` for the environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.engines.hf_config import config_of
from benchmarks.engines.vllm_stand_in import VERSION, StandIn

from nemofit.catalog.models import find_model

_GIB = 1 << 30
_MODELS = (
    "llama-3.1-8b", "nemotron-70b", "mixtral-8x22b", "qwen2.5-0.5b", "qwen2.5-72b", "qwen3-8b",
    "qwen3-30b-a3b", "gemma-2-9b", "gemma-3-27b", "phi-4", "phi-3.5-mini", "gpt-oss-20b",
    "deepseek-v2-lite", "deepseek-v3", "glm-4.5-air", "minimax-m2.5", "qwen3-next-80b-a3b",
    "nemotron-nano-9b-v2", "nemotron-3-nano-30b-a3b", "command-r-35b", "granite-3.0-8b",
    "nemotron-mini-4b",
)  # fmt: skip
_DIVISIONS = ((1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (1, 2), (2, 3))
_QUANTIZED = ("llama-3.1-8b", "qwen2.5-72b", "qwen3-30b-a3b", "mixtral-8x22b")
_CACHES = (
    # tensor, pipeline, max_model_len, kv_cache_dtype, GiB left on every rank
    (1, 1, 8192, "auto", 20.0), (2, 1, 8192, "auto", 7.3), (4, 1, 32768, "fp8", 33.3),
    (1, 2, 16384, "auto", 12.1), (8, 1, 131072, "auto", 40.0), (2, 3, 4096, "fp8", 3.7),
    (1, 1, 131072, "auto", 6.5),
)  # fmt: skip


def _packed(bits: int, group: int) -> dict[str, object]:
    weights = {
        "num_bits": bits, "type": "int", "symmetric": True, "dynamic": False,
        "strategy": "group" if group else "channel", "group_size": group or None,
    }  # fmt: skip
    return _compressed("pack-quantized", weights, None)


def _eight_bits(kind: str) -> dict[str, object]:
    def numbers(**more: object) -> dict[str, object]:
        return {"num_bits": 8, "type": kind, "symmetric": True, **more}

    return _compressed(
        "float-quantized" if kind == "float" else "int-quantized",
        numbers(strategy="channel", dynamic=False),
        numbers(strategy="token", dynamic=True),
    )


def _compressed(name: str, weights: object, activations: object) -> dict[str, object]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {
        "quant_method": "compressed-tensors", "format": name,
        "ignore": ["lm_head", "re:.*mlp.gate$", "re:.*block_sparse_moe.gate$"],
        "config_groups": {"group_0": group},
    }  # fmt: skip


_KEPT = ["lm_head", "mlp.gate", "block_sparse_moe.gate"]  # routers, where there are experts
_INT = {"group_size": 128}
_FORMATS: dict[str, dict[str, object]] = {
    "awq": {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm", **_INT},
    "gptq-int4": {"quant_method": "gptq", "bits": 4, "desc_act": False, "sym": True, **_INT},
    "gptq-int8": {"quant_method": "gptq", "bits": 8, "desc_act": False, "sym": True, **_INT},
    "fp8": _eight_bits("float"),
    "w8a8": _eight_bits("int"),
    "w4a16": _packed(4, 128),
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16,
              "ignore": ["lm_head", "*.mlp.gate", "*.block_sparse_moe.gate"]},
}  # fmt: skip


def weights(vllm: StandIn) -> Iterator[dict[str, object]]:
    """One row for each model, division and format; a refusal is a row too."""
    for name in _MODELS:
        for tensor, pipeline in _DIVISIONS:
            yield _weights_row(vllm, name, "bf16", tensor, pipeline)
    for name in _QUANTIZED:
        for fmt in _FORMATS:
            for tensor in (1, 2, 8):
                yield _weights_row(vllm, name, fmt, tensor, 1)
    for tensor in (1, 2, 4, 8):
        yield _weights_row(vllm, "gpt-oss-20b", "mxfp4", tensor, 1)


def caches(vllm: StandIn) -> Iterator[dict[str, object]]:
    """One row for each model, division, length and type of the cache."""
    for name in _MODELS:
        for tensor, pipeline, length, kv_type, left in _CACHES:
            yield _cache_row(vllm, name, tensor, pipeline, length, kv_type, int(left * _GIB))


def _weights_row(
    vllm: StandIn, name: str, fmt: str, tensor: int, pipeline: int
) -> dict[str, object]:
    row: dict[str, object] = {"model": name, "format": fmt, "tp": tensor, "pp": pipeline}
    config = config_of(find_model(name).spec())
    if fmt != "bf16":
        stored = dict(_FORMATS.get(fmt, {"quant_method": fmt}))
        if find_model(name).spec().integer("expert_count"):
            stored["modules_to_not_convert"] = _KEPT
        config["quantization_config"] = stored
    vllm.capability = (10, 0) if fmt == "nvfp4" else (8, 9)
    stages, tables = [], []
    try:
        for stage in range(pipeline):
            model, _ = vllm.build(
                config, tensor=tensor, pipeline=pipeline, stage=stage, max_model_len=4096
            )
            stages.append(sum(p.numel() * p.element_size() for p in model.parameters()))
            own = {n: b for n, b in model.named_buffers() if n.endswith("cos_sin_cache")}
            tables.append(sum(b.numel() * b.element_size() for b in own.values()))
    except Exception as e:
        return row | {"refused": _first_line(e)}
    return row | {"parameters": stages, "rotary": tables}


def _cache_row(
    vllm: StandIn, name: str, tensor: int, pipeline: int, length: int, kv_type: str, left: int
) -> dict[str, object]:
    from vllm.v1.core import kv_cache_planning as planning
    from vllm.v1.core import kv_cache_utils as printing

    model = find_model(name).spec()
    length = min(length, model.integer("context_length"))
    row: dict[str, object] = {
        "model": name, "tp": tensor, "pp": pipeline, "max_model_len": length,
        "kv_cache_dtype": kv_type, "available_bytes": left,
    }  # fmt: skip
    vllm.capability = (8, 9)
    try:
        specs: list[dict[str, Any]] = []
        for stage in range(pipeline):
            _, config = vllm.build(
                config_of(model), tensor=tensor, pipeline=pipeline, stage=stage,
                max_model_len=length, kv_cache_dtype=kv_type,
            )  # fmt: skip
            config.cache_config.kv_cache_layout = "LBNHC"
            vllm.platform.update_block_size_for_backend(config)
            specs.append(_specs(config))
        groups = planning.get_global_kv_cache_groups(config, specs)
        row["batched_tokens"] = config.scheduler_config.max_num_batched_tokens
        plans = planning.get_kv_cache_configs(config, specs, [left] * pipeline, groups)
    except Exception as e:
        return row | {"refused": _first_line(e)}
    tokens, concurrency = printing.get_kv_cache_capacity(config, plans[0])
    return row | {"blocks": plans[0].num_blocks, "tokens": tokens, "concurrency": concurrency}


def _specs(config: Any) -> dict[str, Any]:
    """What each layer with a cache asks for."""
    layers = config.compilation_config.static_forward_context.items()
    asking = ((n, x) for n, x in layers if hasattr(x, "get_kv_cache_spec"))
    found = ((n, x.get_kv_cache_spec(config)) for n, x in asking)
    return {n: spec for n, spec in found if spec is not None}


def _first_line(e: Exception) -> str:
    text = str(e).strip().split("\n")[0] or type(e).__name__
    return text[:300]


def main() -> None:
    vllm = StandIn(Path(sys.argv[1]))
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("weights", weights(vllm)), ("caches", caches(vllm))):
        with (out / f"{name}.jsonl").open("w") as f:
            f.write(json.dumps({"vllm": VERSION}) + "\n")
            for row in rows:
                f.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
