"""What a model weighs in each of llama.cpp's file types.

    from nemofit.catalog.filetypes import tensor_types, weights_bytes

    weights_bytes(model, "Q4_K_M")             # bytes, as llama-quantize adds them up
    tensor_types(model, "Q4_K_M")[0]           # "Q6_K"

Source of every rule: llama.cpp's ``src/llama-quant.cpp``, written down in ``data/quants.yaml``.
"""

from __future__ import annotations

from ..errors import DataError
from . import quantize_rules
from .ggml import (
    FileType,
    GgmlType,
    file_types,
    find_file_type,
    ggml_type,
    ggml_types,
    row_bytes,
    tensor_bytes,
)
from .model import ModelSpec
from .quality import QualityLoss, quality

__all__ = [
    "FileType",
    "GgmlType",
    "QualityLoss",
    "file_types",
    "find_file_type",
    "ggml_type",
    "ggml_types",
    "needs_imatrix",
    "quality",
    "row_bytes",
    "source_types",
    "tensor_bytes",
    "tensor_types",
    "weights_bytes",
]


def tensor_types(model: ModelSpec, quant: str | None, imatrix: bool = False) -> tuple[str, ...]:
    """The type of every tensor, in the order of ``model.tensors``.

    Args:
        model: A catalog shape or a file.
        quant: A file type; None: as in the file.
        imatrix: Quantized with an importance matrix, which changes some choices.

    Raises:
        UnknownNameError: No such file type.
        DataError: ``quant`` is None and the model is only a shape.
        UsageError: llama-quantize cannot make this file type of this model.
    """
    if quant is None:
        return _own_types(model)
    file_type = find_file_type(quant)
    found = quantize_rules.table(model)
    out = [""] * len(model.tensors)
    for place, type_name in found.kept:
        out[place] = type_name
    for group in found.groups:
        types = quantize_rules.group_types(file_type, found, group, imatrix)
        for n, place in enumerate(group.members):
            out[place] = types[n] if len(types) > 1 else types[0]
    return tuple(out)


def weights_bytes(model: ModelSpec, quant: str | None = None, imatrix: bool = False) -> int:
    """Bytes of all weight tensors, as llama-quantize prints its total.

    Arguments and errors as for :func:`tensor_types`. Without ``quant`` a checkpoint's weights are
    those of its safetensors files, whatever is in them. The GGUF file is larger by its metadata: a
    few MB, most of it the vocabulary.
    """
    if quant is None:
        if model.checkpoint is not None:
            return model.checkpoint.total_bytes
        types = _own_types(model)
        return sum(tensor_bytes(n, t.shape) for n, t in zip(types, model.tensors, strict=True))
    file_type = find_file_type(quant)
    return quantize_rules.total_bytes(file_type, quantize_rules.table(model), imatrix)


def source_types(model: ModelSpec) -> tuple[str, ...]:
    """The types of the 16-bit file that llama.cpp's converter makes: F16 with F32 norms."""
    return tuple(quantize_rules.source_type(model.architecture, t) for t in model.tensors)


def needs_imatrix(model: ModelSpec, quant: str) -> bool:
    """Whether llama-quantize refuses to make this file without an importance matrix.

    Raises:
        UnknownNameError: No such file type.
    """
    return quantize_rules.needs_imatrix(find_file_type(quant), quantize_rules.table(model))


def _own_types(model: ModelSpec) -> tuple[str, ...]:
    types = tuple(t.type for t in model.tensors if t.type is not None)
    if len(types) < len(model.tensors):
        kind = "a checkpoint" if model.checkpoint else "a shape of the catalog"
        raise DataError(
            f"{model.id} is {kind}, which has no types of its own",
            "name a quantization, for example Q4_K_M",
        )
    return types
