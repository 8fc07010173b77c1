"""How a checkpoint is quantized, from what its configuration says.

Source: huggingface/transformers, ``src/transformers/utils/quantization_config.py``;
vllm-project/compressed-tensors, ``src/compressed_tensors/quantization/quant_config.py``; and for
``hf_quant_config.json`` NVIDIA/Model-Optimizer, ``modelopt/torch/export``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemofit.catalog.checkpoint import Quantization

MODELOPT = "hf_quant_config.json"


def quantization(
    config: Mapping[str, Any], modelopt: Mapping[str, Any] | None = None
) -> Quantization | None:
    """The quantization of a checkpoint.

    Args:
        config: Its ``config.json``.
        modelopt: Its ``hf_quant_config.json``, where it has one.

    Returns:
        None where nothing is said, which means weights of 16 or 32 bits.
    """
    stated = _object(config.get("quantization_config"))
    if not stated:
        stated = _object(_object(config.get("text_config")).get("quantization_config"))
    if not stated:
        stated = _object(config.get("compression_config"))
    if not stated and modelopt is not None:
        stated = {"quant_method": "modelopt", **_object(modelopt.get("quantization"))}
    if not stated:
        return None
    method = _text(stated.get("quant_method")) or _unnamed(stated)
    return _METHODS.get(method, _other)(stated, method)


def _awq(q: Mapping[str, Any], _: str) -> Quantization:
    bits, group = _count(q, "bits", "w_bit"), _group(q, "group_size", "q_group_size")
    return Quantization(
        method="awq", bits=bits, group=group, format="awq" if bits == 4 and group == 128 else None
    )


def _gptq(q: Mapping[str, Any], _: str) -> Quantization:
    bits, group = _count(q, "bits"), _group(q, "group_size")
    known = group == 128 and bits in (4, 8)
    return Quantization(
        method="gptq", bits=bits, group=group, format=f"gptq-int{bits}" if known else None
    )


def _fp8(q: Mapping[str, Any], _: str) -> Quantization:
    block = q.get("weight_block_size")
    group = block[-1] if isinstance(block, list) and block and type(block[-1]) is int else 0
    return Quantization(method="fp8", bits=8, group=group, format="fp8")


def _mxfp4(_: Mapping[str, Any], __: str) -> Quantization:
    return Quantization(method="mxfp4", bits=4, group=32, format="mxfp4")


def _bitsandbytes(q: Mapping[str, Any], _: str) -> Quantization:
    if q.get("load_in_8bit") is True:
        return Quantization(method="bitsandbytes", bits=8, group=0, format=None)
    double = "-double" if q.get("bnb_4bit_use_double_quant") is True else ""
    is_nf4 = q.get("bnb_4bit_quant_type", "nf4") == "nf4"
    return Quantization(
        method="bitsandbytes",
        bits=4,
        group=64,
        format="bitsandbytes-nf4" + double if is_nf4 else None,
    )


def _compressed(q: Mapping[str, Any], _: str) -> Quantization:
    """Of several groups the first: they are for different layers."""
    groups = [_object(g) for g in _object(q.get("config_groups")).values()]
    weights = next((w for g in groups if (w := _object(g.get("weights")))), {})
    activations = any(_object(g.get("input_activations")) for g in groups)
    packing = _text(q.get("format"))
    bits, group = _count(weights, "num_bits"), _group(weights, "group_size")
    floats = _text(weights.get("type")) == "float"
    if "nvfp4" in packing or (floats and bits == 4 and group == 16):
        return Quantization(method="nvfp4", bits=4, group=16, format="nvfp4")
    if "mxfp4" in packing or (floats and bits == 4 and group == 32):
        return Quantization(method="mxfp4", bits=4, group=32, format="mxfp4")
    if floats and bits == 8:
        name = "fp8" if activations else "compressed-tensors-w8a16"
    elif bits == 8:
        name = "compressed-tensors-w8a8" if activations else "compressed-tensors-w8a16"
    elif bits == 4 and group == 128 and not activations:
        name = "compressed-tensors-w4a16"
    else:
        name = ""
    return Quantization(method="compressed-tensors", bits=bits, group=group, format=name or None)


def _modelopt(q: Mapping[str, Any], _: str) -> Quantization:
    algorithm = _text(q.get("quant_algo")).lower()
    if "nvfp4" in algorithm:
        return Quantization(
            method="nvfp4", bits=4, group=_group(q, "group_size") or 16, format="nvfp4"
        )
    if algorithm.startswith("fp8"):
        return Quantization(method="fp8", bits=8, group=0, format="fp8")
    if algorithm in ("", "mixed_precision") and _object(q.get("config_groups")):
        return _compressed(q, "")
    return Quantization(
        method=algorithm or "modelopt",
        bits=4 if "w4" in algorithm else None,
        group=_group(q, "group_size"),
        format=None,
    )


def _fbgemm(_: Mapping[str, Any], __: str) -> Quantization:
    return Quantization(method="fp8", bits=8, group=0, format="fp8")


def _other(q: Mapping[str, Any], method: str) -> Quantization:
    return Quantization(
        method=method or "unknown",
        bits=_count(q, "bits", "nbits", "w_bit"),
        group=_group(q, "group_size"),
        format=None,
    )


_METHODS = {
    "awq": _awq,
    "gptq": _gptq,
    "auto-round": _gptq,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "mxfp4": _mxfp4,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
}


def _unnamed(q: Mapping[str, Any]) -> str:
    """The method of configurations from before it was named."""
    if q.get("load_in_4bit") is True or q.get("load_in_8bit") is True:
        return "bitsandbytes"
    if "quant_algo" in q:
        return "modelopt"
    return "compressed-tensors" if "config_groups" in q else ""


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value[:40] if isinstance(value, str) and value.isprintable() else ""


def _count(q: Mapping[str, Any], *keys: str) -> int | None:
    value = next((q[k] for k in keys if k in q), None)
    return value if type(value) is int and 1 <= value <= 32 else None


def _group(q: Mapping[str, Any], *keys: str) -> int | None:
    """Weights in a group; -1 stands for a whole row."""
    value = next((q[k] for k in keys if k in q), None)
    if type(value) is not int:
        return None
    return max(value, 0)
