"""Model files for the oracle: a shape at a file type, a few KiB each, typed by llama-quantize."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from nemofit.catalog.model import ModelSpec, Tensor
from nemofit.formats.gguf.writer import write_sparse

from .engine import Engine

_ALWAYS_F32 = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "position_embd.weight",
    "token_types.weight", "ssm_conv1d.weight", "ssm_conv1d_q.weight", "ssm_conv1d_k.weight",
    "ssm_conv1d_v.weight", "shortconv.conv.weight", "time_mix_first.weight", "time_mix_w1.weight",
    "time_mix_w2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight", "altup_correct_coef.weight", "altup_predict_coef.weight",
    "indexer.proj.weight",
)  # fmt: skip
_ALSO_F32 = {"minimax-m3": ".indexer."}
"""Part of a name, by architecture; ``tensor_force_quant`` in ``conversion/minimax.py``."""


def converted_types(model: ModelSpec, dtype: str = "F16") -> list[str]:
    """Types as the converter writes them before any quantization.

    Source: ``prepare_tensors`` in llama.cpp's ``conversion/base.py``.
    """
    part = _ALSO_F32.get(model.architecture)
    return [t.type or ("F32" if _is_f32(t, part) else dtype) for t in model.tensors]


def _is_f32(tensor: Tensor, part: str | None) -> bool:
    name = tensor.name
    named = name.endswith(_ALWAYS_F32) or (part is not None and part in name)
    return named or len(tensor.shape) == 1 or not name.endswith(".weight")


def cut(model: ModelSpec, layers: int) -> ModelSpec:
    """Keep the first ``layers`` blocks, so that a real load of a large shape takes seconds."""
    blocks = model.integer("block_count")
    if layers >= blocks:
        return model
    metadata = {
        key: value[:layers] if isinstance(value, tuple) and len(value) == blocks else value
        for key, value in model.metadata.items()
    }
    metadata["block_count"] = layers
    metadata.pop("nextn_predict_layers", None)
    kept = tuple(t for t in model.tensors if not t.name.startswith("blk.") or _block(t) < layers)
    return replace(model, id=f"{model.id}@{layers}", metadata=metadata, tensors=kept)


def _block(tensor: Tensor) -> int:
    return int(tensor.name.split(".")[1])


class ModelFiles:
    """Sparse files, written once each.

    Args:
        engine: llama-quantize decides the types, so that nothing of nemofit's own is in them.
        directory: Where the files go; whoever made it removes it.
    """

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory

    def path(self, model: ModelSpec, file_type: str, imatrix: bool = False) -> Path:
        """Return the file of ``model`` quantized to ``file_type``."""
        shape = hashlib.sha256(repr((sorted(model.metadata.items()), model.tensors)).encode())
        stem = f"{model.id}-{shape.hexdigest()[:8]}".replace("/", "_")
        source = self._directory / f"{stem}-F16.gguf"
        if not source.exists():
            write_sparse(source, replace(model, file_type="F16"), converted_types(model))
        path = self._directory / f"{stem}-as-{file_type}{'-imatrix' if imatrix else ''}.gguf"
        if not path.exists():
            types = dict(self._engine.dry_run_quantize(source, file_type, imatrix))
            write_sparse(
                path,
                replace(model, file_type=file_type),
                [types[t.name] for t in model.tensors],
            )
        return path
