"""From a directory with ``config.json`` and safetensors files to the model that they hold.

    model = read_checkpoint(Path("Llama-3.1-8B-Instruct"))
    model.checkpoint.total_bytes          # as stored, which vLLM and transformers load
    weights_bytes(model, "Q4_K_M")        # as a GGUF file of it would be

Only headers are read. The GGUF side stands on ``config.json``, and every matrix of the files is
held against it: a model is sized for llama.cpp only if both agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path

from nemofit.catalog.checkpoint import (
    COPY,
    FLOATS,
    NEXT_TOKENS,
    SCALES,
    Checkpoint,
    StoredTensor,
)
from nemofit.catalog.model import ModelSpec, Tensor
from nemofit.catalog.shapes import tensors_of
from nemofit.errors import DataError
from nemofit.formats.gguf.reader import check_sizes, shown
from nemofit.units import gb

from .config import Config
from .families import Family, family_of, metadata_of
from .folder import CONFIG, INDEX, Folder, LocalFolder, model_id, read_json, snapshot
from .folder import weight_files as all_files
from .header import BITS, Entry, read_header
from .keys_shared import Metadata
from .names import NameMap, Place, is_cache_scale, place_of
from .quantization import MODELOPT, quantization

_MAX_ALL = 1 << 20  # tensors of all files together
_MAX_APPENDED = 8
# What quantizers call the packed matrix itself; everything else beside it is a scale of some kind.
_MATRICES = ("weight", "qweight", "weight_packed")
_STACKED = ("_proj", "_proj_blocks")


def read_checkpoint(place: Path | Folder, id: str | None = None) -> ModelSpec:
    """Read a model from a checkpoint without touching its weights.

    Args:
        place: A directory, a model of the Hugging Face cache, a .safetensors file or an index; or
            any other place that holds the files.
        id: What to call the model; None: by the directory's name.

    Returns:
        The model's GGUF shape, as the converter would make it, with ``checkpoint`` as it is stored.

    Raises:
        DataError: Not a checkpoint, damaged or incomplete; or of a family whose GGUF shape is not
            known, or that differs from its configuration. The message then tells the stored bytes.
    """
    folder, files, own_id = _opened(place)
    if CONFIG not in folder.files():
        stored = _checkpoint(folder, files, None)
        raise DataError(
            f"{folder.name} holds {gb(stored.total_bytes)} in {_dtypes(stored)} without a"
            f" {CONFIG}, which says what model it is",
            f"download {CONFIG} of the same repository into it",
        )
    c = Config(read_json(folder, CONFIG), f"{folder.name}/{CONFIG}")
    stored = _checkpoint(folder, files, c)
    family = family_of(c)
    if family is None:
        raise DataError(
            f"{folder.name} holds {gb(stored.total_bytes)} in {_dtypes(stored)}; its GGUF shape is"
            f" not known, because {c.family} is not among the families that are mapped",
            "use a GGUF file of the model, or a family that is known (docs/checkpoints.md)",
        )
    return _model(folder, c, family, stored, id or own_id)


def _opened(place: Path | Folder) -> tuple[Folder, tuple[str, ...], str]:
    """The folder, its files of weights, and the model's name."""
    if not isinstance(place, Path):
        return place, all_files(place), place.name
    if place.is_dir():
        place = snapshot(place)
        folder = LocalFolder(place)
        return folder, all_files(folder), model_id(place)
    folder = LocalFolder(place.parent)
    if place.name not in folder.files():
        raise DataError(f"{str(place)!r:.200} does not exist", "check the path")
    if place.name.endswith(".json"):
        if place.name != INDEX:
            raise DataError(f"{shown(place.name)} is not called {INDEX}", "name its directory")
        return folder, all_files(folder), model_id(place.parent)
    whole = all_files(folder)
    files = whole if place.name in whole else (place.name,)
    return folder, files, model_id(place.parent)


def _checkpoint(folder: Folder, files: Iterable[str], c: Config | None) -> Checkpoint:
    """What the files hold; each tensor once, however often it is stored."""
    seen: dict[str, Entry] = {}
    size = 0
    for file in files:
        with folder.open(file) as source:
            header = read_header(source, shown(file))
        size += header.file_bytes
        for entry in header.tensors:
            other = seen.setdefault(entry.name, entry)
            if other is not entry and (other.dtype, other.shape) != (entry.dtype, entry.shape):
                raise DataError(
                    f"{shown(file)} holds tensor {shown(entry.name)} once more, with another shape",
                    "remove stray files from the directory",
                )
        if len(seen) > _MAX_ALL:
            raise DataError(f"{folder.name} holds more than {_MAX_ALL} tensors", "check the files")
    tensors = tuple(StoredTensor(e.name, e.dtype, e.shape, e.bytes) for e in seen.values())
    modelopt = read_json(folder, MODELOPT) if c and MODELOPT in folder.files() else None
    return Checkpoint(
        tensors=tensors,
        files=tuple(files),
        file_bytes=size,
        family=c.family if c else "",
        dtype=c.text("dtype", "torch_dtype") or None if c else None,
        quantization=quantization(c.values, modelopt) if c else None,
        tied=bool(c and c.values.get("tie_word_embeddings") is True),
    )


def _model(folder: Folder, c: Config, family: Family, stored: Checkpoint, id: str) -> ModelSpec:
    m = metadata_of(c, family)
    check_sizes(m, family.architecture + ".", c.where)
    blocks = int(m["block_count"])  # type: ignore[arg-type]
    places = [place_of(t.name, blocks, family.architecture) for t in stored.tensors]
    appended = _append(m, places, blocks) if family.next_tokens else 0
    _flags(m, c, places, blocks, stored)
    tensors = tensors_of(family.architecture, m)
    table = NameMap(family.architecture, tensors)
    named: list[StoredTensor] = []
    unknown: list[str] = []
    others: dict[str, int] = {}
    for t, place in zip(stored.tensors, places, strict=True):
        kept = place is not None and (place.layer is None or place.layer < blocks + appended)
        parts = table.parts(place) if kept and place is not None else ()
        named.append(t._replace(parts=parts))
        if parts:
            continue
        if place is not None and place.layer is not None and kept and not is_cache_scale(t.name):
            unknown.append(t.name)
        what = _outside(t.name, place)
        others[what] = others.get(what, 0) + t.bytes
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        _disagree(folder, c, stored, f"{shown(unknown[0])}{more} is no part of that family")
    tied = stored.tied or all("output.weight" not in t.parts for t in named)
    stored = replace(stored, tensors=tuple(named), tied=tied, other_bytes=others)
    _compare(folder, c, stored, tensors)
    return ModelSpec(
        id=id,
        architecture=family.architecture,
        metadata=m,
        tensors=tensors,
        source=str(folder.path) if isinstance(folder, LocalFolder) else folder.name,
        checkpoint=stored,
        notes=_notes(stored),
    )


def _outside(name: str, place: Place | None) -> str:
    """What a tensor that is no part of the language model is."""
    if place is not None and place.layer is not None:
        return SCALES if is_cache_scale(name) else NEXT_TOKENS
    if "lm_head" in name:
        return COPY
    return name.removeprefix("model.").split(".", 1)[0][:40]


def _append(m: Metadata, places: Iterable[Place | None], blocks: int) -> int:
    """Count next-token layers as blocks, as many as are stored."""
    highest = max((p.layer for p in places if p and p.layer is not None), default=blocks - 1)
    appended = highest + 1 - blocks
    if not 0 < appended <= _MAX_APPENDED:
        return 0
    m["block_count"] = blocks + appended
    m["nextn_predict_layers"] = appended
    for key, value in m.items():
        if isinstance(value, tuple) and len(value) == blocks:
            added = False if isinstance(value[0], bool) else max(value)
            m[key] = (*value, *(added,) * appended)
    return appended


def _flags(
    m: Metadata, c: Config, places: Iterable[Place | None], blocks: int, stored: Checkpoint
) -> None:
    """What the tensors' names say that GGUF says with the tensors it has."""
    modules: set[str] = set()
    appended: set[str] = set()
    root: dict[str, StoredTensor] = {}
    for t, p in zip(stored.tensors, places, strict=True):
        if p is None:
            continue
        if p.layer is None:
            root[p.module] = t
        else:
            (modules if p.layer < blocks else appended).add(p.module)

    def has(*names: str) -> bool:
        return any(name in modules for name in names)

    m["tied_embeddings"] = not any("lm_head" in r or r == "output.weight" for r in root)
    for flag, names in (
        ("attention_bias", ("self_attn.q_proj.bias", "self_attn.qkv_proj.bias")),
        ("attention_output_bias", ("self_attn.o_proj.bias",)),
        ("feed_forward_bias", ("mlp.up_proj.bias", "mlp.gate_proj.bias")),
        ("attention_qk_norm", ("self_attn.q_norm.weight", "self_attn.q_layernorm.norms.0.weight")),
        ("attention_norm_2", ("ln_attn.weight",)),
    ):
        if has(*names):
            m[flag] = True
    balanced = any(name.endswith("e_score_correction_bias") for name in modules)
    if balanced != (m.get("expert_gating_func") == _SIGMOID) and m.get("expert_count"):
        m["expert_bias"] = balanced
    if any(a.startswith("embed_tokens.") for a in appended):
        m["nextn_embedding"] = True
    if any(a.startswith("shared_head.head.") for a in appended):
        m["nextn_output"] = True
    embedding = next(
        (t for name, t in root.items() if name.endswith(_EMBEDDINGS) and len(t.shape) == 2), None
    )
    if embedding is not None and embedding.dtype in BITS and embedding.shape[0]:
        m["vocab_size"] = _rows(c, embedding.shape[0])


_SIGMOID = 2
_EMBEDDINGS = ("embed_tokens.weight", "embeddings.weight", "word_embeddings.weight", "wte.weight")
_GEMMA_TEXT, _GEMMA_PADDED = 262144, 262208


def _rows(c: Config, rows: int) -> int:
    """Rows of the embedding; Gemma 3's beyond its tokenizer are left out by the converter."""
    is_gemma3 = c.family.startswith("Gemma3For")
    return _GEMMA_TEXT if is_gemma3 and rows == _GEMMA_PADDED else rows


def _compare(folder: Folder, c: Config, stored: Checkpoint, tensors: tuple[Tensor, ...]) -> None:
    """Hold the files against the shape that the configuration gives."""
    expected = {t.name: t.elements for t in tensors if not t.name.startswith("rope_")}
    found: dict[tuple[str, ...], int | None] = {}
    for t in stored.tensors:
        if t.parts:
            found.setdefault(t.parts, 0)
            if _is_matrix(t.name) and (count := _elements(t, stored)) is not None:
                found[t.parts] = (found[t.parts] or 0) + count
    covered = {name for parts in found for name in parts}
    for name in expected:
        if name not in covered:
            _disagree(folder, c, stored, f"nothing is stored for {name}")
    for parts, count in found.items():
        wanted = sum(expected[p] for p in parts)
        padded = parts[0] in ("token_embd.weight", "output.weight")
        if count and count != wanted and not (padded and count > wanted):
            _disagree(
                folder,
                c,
                stored,
                f"{parts[0]} has {count} elements in the files and {wanted} by the configuration",
            )


def _is_matrix(name: str) -> bool:
    """Whether a stored tensor is the matrix or vector itself and not a companion of it."""
    last = name.rpartition(".")[2]
    return last in _MATRICES or last.endswith(_STACKED) or last not in _COMPANIONS


_COMPANIONS = frozenset(
    {
        "qzeros", "scales", "g_idx", "weight_scale", "weight_scale_inv", "weight_scale_2",
        "weight_shape", "weight_zero_point", "weight_g_idx", "weight_global_scale", "input_scale",
        "input_global_scale", "input_zero_point", "absmax", "quant_map", "nested_absmax",
        "nested_quant_map", "bitsandbytes__nf4", "bitsandbytes__fp4", "SCB", "weight_format",
        "gate_up_proj_scales", "down_proj_scales", "pre_quant_scale", "input_scale_ub",
        "gate_up_proj_scale", "down_proj_scale", "gate_up_proj_scale_inv", "down_proj_scale_inv",
    }
)  # fmt: skip


def _elements(t: StoredTensor, stored: Checkpoint) -> int | None:
    """Weights in a stored matrix, None where the packing is not known."""
    if t.dtype in FLOATS or t.dtype.startswith("F8_") or t.dtype == "I8":
        return prod(t.shape)
    q = stored.quantization
    if t.dtype in ("U8", "I32", "I64", "F4") and q is not None and q.bits:
        bits = 4 if t.dtype == "U8" and q.bits == 8 else q.bits
        return t.bytes * 8 // bits
    return None


def _disagree(folder: Folder, c: Config, stored: Checkpoint, what: str) -> None:
    raise DataError(
        f"{folder.name} holds {gb(stored.total_bytes)} in {_dtypes(stored)}; its GGUF shape is not"
        f" known, because {c.family} and the files disagree: {what}",
        "use a GGUF file of the model, or download the checkpoint again",
    )


def _dtypes(stored: Checkpoint) -> str:
    return ", ".join(list(stored.dtype_bytes)[:3]) or "no tensors"


_CONVERTED = ("compressed-tensors", "fp8", "gptq", "mxfp4", "nvfp4")  # conversion/base.py


def _notes(stored: Checkpoint) -> tuple[str, ...]:
    notes = []
    if stored.quantization is not None:
        notes.append(f"stored as {stored.quantization}")
        if stored.quantization.method not in _CONVERTED:
            notes.append(
                f"llama.cpp's converter does not read {stored.quantization.method}: for a GGUF"
                " file take the 16-bit original"
            )
    others = stored.other_bytes
    if others:
        listed = ", ".join(f"{word} {gb(n)}" for word, n in list(others.items())[:4])
        notes.append(f"beside the language model the files hold: {listed}")
    return tuple(notes)
