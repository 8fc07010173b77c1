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
