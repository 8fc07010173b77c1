"""Build safetensors bytes by hand, with any field wrong, and checkpoints of made-up sizes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from nemofit.formats.safetensors.header import BITS

Shapes = Mapping[str, tuple[str, Sequence[int]]]


def entries(shapes: Shapes) -> dict[str, Any]:
    """The header of tensors one after the other."""
    at, out = 0, {}
    for name, (dtype, shape) in shapes.items():
        end = at + prod(shape) * BITS[dtype] // 8
        out[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    return out


def data_bytes(header: Mapping[str, Any]) -> int:
    return max((e["data_offsets"][-1] for e in header.values() if "dtype" in e), default=0)


def file_bytes(header: Mapping[str, Any] | bytes, data: int | None = None) -> bytes:
    """A whole file; its data are zeros."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = data if data is not None else 0 if isinstance(header, bytes) else data_bytes(header)
    return struct.pack("<Q", len(text)) + text + b"\0" * size


def sparse(path: Path, shapes: Shapes) -> int:
    """Write a file whose data is a hole; returns the bytes of its tensors."""
    header = entries(shapes)
    size = data_bytes(header)
    with open(path, "wb") as file:
        file.write(file_bytes(header, 0))
        file.truncate(file.tell() + size)
    return size


def checkpoint(path: Path, config: Mapping[str, Any], *parts: Shapes) -> Path:
    """A directory with a configuration and one or several files of weights, with their index."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if len(parts) == 1:
        sparse(path / "model.safetensors", parts[0])
        return path
    places, total = {}, 0
    for i, shapes in enumerate(parts, 1):
        name = f"model-{i:05d}-of-{len(parts):05d}.safetensors"
        total += sparse(path / name, shapes)
        places |= dict.fromkeys(shapes, name)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return path


LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128,
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
"""A llama of two layers."""


def llama(dtype: str = "BF16", layers: int = 2) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Its tensors."""
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (128, 64)}
    for i in range(layers):
        p = f"model.layers.{i}."
        out |= {
            p + "input_layernorm.weight": (64,),
            p + "self_attn.q_proj.weight": (64, 64),
            p + "self_attn.k_proj.weight": (32, 64),
            p + "self_attn.v_proj.weight": (32, 64),
            p + "self_attn.o_proj.weight": (64, 64),
            p + "post_attention_layernorm.weight": (64,),
            p + "mlp.gate_proj.weight": (96, 64),
            p + "mlp.up_proj.weight": (96, 64),
            p + "mlp.down_proj.weight": (64, 96),
        }
    out |= {"model.norm.weight": (64,), "lm_head.weight": (128, 64)}
    return {name: (dtype, shape) for name, shape in out.items()}


WIDE: dict[str, Any] = LLAMA | {
    "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "head_dim": 64,
    "num_key_value_heads": 2, "vocab_size": 1024,
}  # fmt: skip
"""A llama whose matrices divide into groups of 128."""

GROUP = 128


def wide() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Its tensors in 16 bits."""
    sides = {64: 256, 32: 128, 96: 512, 128: 1024}
    return {name: (d, tuple(sides[n] for n in shape)) for name, (d, shape) in llama().items()}


def quantized(method: str) -> tuple[dict[str, Any], Shapes]:
    """Its configuration and tensors as the quantizer of that name stores them.

    Layouts: casper-hansen/AutoAWQ ``awq/modules/linear/gemm.py``; ModelCloud/GPTQModel
    ``gptqmodel/nn_modules/qlinear``; vllm-project/compressed-tensors ``compressors``; deepseek-ai/
    DeepSeek-V3 ``inference/model.py``; NVIDIA/Model-Optimizer ``modelopt/torch/export``;
    bitsandbytes ``functional.py`` (QuantState.as_dict).
    """
    out: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in wide().items():
        if "_proj" not in name:
            out[name] = (dtype, shape)
            continue
        stem, (rows, width) = name.removesuffix(".weight"), shape
        out |= {f"{stem}.{leaf}": value for leaf, value in _LAYOUTS[method](rows, width).items()}
    return WIDE | {"quantization_config": _CONFIGS[method]}, out


_LAYOUTS: dict[str, Any] = {
    "awq": lambda o, i: {
        "qweight": ("I32", (i, o // 8)), "qzeros": ("I32", (i // GROUP, o // 8)),
        "scales": ("F16", (i // GROUP, o)),
    },
    "gptq": lambda o, i: {
        "qweight": ("I32", (i // 8, o)), "qzeros": ("I32", (i // GROUP, o // 8)),
        "scales": ("F16", (i // GROUP, o)), "g_idx": ("I32", (i,)),
    },
    "fp8": lambda o, i: {
        "weight": ("F8_E4M3", (o, i)), "weight_scale": ("F32", (o, 1)),
    },
    "fp8-blocks": lambda o, i: {
        "weight": ("F8_E4M3", (o, i)), "weight_scale_inv": ("F32", (o // 128, i // 128)),
    },
    "w4a16": lambda o, i: {
        "weight_packed": ("I32", (o, i // 8)), "weight_scale": ("BF16", (o, i // GROUP)),
        "weight_shape": ("I64", (2,)),
    },
    "nvfp4": lambda o, i: {
        "weight": ("U8", (o, i // 2)), "weight_scale": ("F8_E4M3", (o, i // 16)),
        "weight_scale_2": ("F32", ()), "input_scale": ("F32", ()),
    },
    "bnb": lambda o, i: {
        "weight": ("U8", (o * i // 2, 1)), "weight.absmax": ("U8", (o * i // 64,)),
        "weight.quant_map": ("F32", (16,)), "weight.nested_absmax": ("F32", (o * i // 64 // 256,)),
        "weight.nested_quant_map": ("F32", (256,)),
        "weight.quant_state.bitsandbytes__nf4": ("U8", (100,)),
    },
}  # fmt: skip
_CONFIGS: dict[str, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
    "fp8": {
        "quant_method": "compressed-tensors", "format": "float-quantized",
        "config_groups": {"group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
            "input_activations": {"num_bits": 8, "type": "float", "dynamic": True},
        }},
    },
    "fp8-blocks": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "w4a16": {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {
            "targets": ["Linear"], "input_activations": None,
            "weights": {"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group"},
        }},
    },
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16},
    "bnb": {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
}  # fmt: skip
METHODS = tuple(_LAYOUTS)
