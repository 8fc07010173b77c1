"""From a GGUF file, or any shard of a set, to the model that it holds."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from nemofit.catalog.ggml import file_types, ggml_types, tensor_bytes
from nemofit.catalog.model import ModelSpec, Origin, Scalar, Tensor, Value
from nemofit.errors import DataError

from . import keys as k
from .header import Header, TensorInfo, read_header

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
_MAX_SHARDS = 1024
_LARGEST = 1 << 63
_LONGEST_NAME = 64


def read_gguf(path: str | os.PathLike[str]) -> ModelSpec:
    """Read a model from a GGUF file without touching its weights.

    Args:
        path: The file; of a split model any of its files, the others beside it.

    Returns:
        The model with the tensor types of the file. ``metadata`` holds the architecture's keys
        without its prefix, ``vocab_size`` the number of tokens. A tensor type that is not known is
        called "type 99", and ``notes`` says so.

    Raises:
        DataError: No such file, not a GGUF file, damaged, incomplete, or no language model.
    """
    files = shards(Path(path))
    origin = Origin(path=str(files[0]))
    return model_of([shown(p.name) for p in files], [open_header(p) for p in files], origin)


def model_of(
    names: Sequence[str], headers: Sequence[Header], origin: Origin, source: str | None = None
) -> ModelSpec:
    """Put a model together from the headers of its files.

    Args:
        names: The files' names, as messages may hold them; more than one: a set, in order.
        headers: What each file says.
        origin: Where the first file lies.
        source: For ``ModelSpec.source``; None: the path.

    Raises:
        DataError: Not a whole set, incomplete files, or no language model.
    """
    first = headers[0]
    count = first.values.get("split.count", 1)
    if isinstance(count, int) and count > 1 and len(names) != count:
        raise DataError(
            f"{names[0]} is one of {count} files of a split model",
            f"give the files their own names again: NAME-00001-of-{count:05d}.gguf and so on",
        )
    if "split.no" in first.values and first.values["split.no"] != 0:
        raise DataError(
            f"{names[0]} holds part {first.values['split.no']}, not the first",
            "give the files their own names again",
        )
    for name, header in zip(names, headers, strict=True):
        _check_data(name, header)
    infos = [t for header in headers for t in header.tensors]
    if len({t.name for t in infos}) != len(infos):
        raise DataError(f"the files beside {names[0]} hold a tensor twice", "remove strays")
    return _model(names[0], headers, infos, origin, source)


def shard_names(name: str) -> list[str]:
    """The names of all files of the set that a file belongs to, in order; itself where it is whole.

    Raises:
        DataError: The name claims a set beyond any model's.
    """
    found = _SHARD.fullmatch(name)
    count = int(found.group(3)) if found else 1
    if found is None or count < 2:
        return [name]
    if count > _MAX_SHARDS:
        raise DataError(f"{shown(name)} claims to be one of {count} files", "check the file's name")
    ending = name[-len(".gguf") :]
    return [f"{found.group(1)}-{i:05d}-of-{count:05d}{ending}" for i in range(1, count + 1)]


def missing_error(missing: Sequence[str], count: int, where: str) -> DataError:
    """What to say of a set that lacks files."""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    names = ", ".join(shown(name) for name in missing[:3])
    return DataError(f"{len(missing)} of {count} files are missing: {names}{more}", where)


def shards(path: Path) -> list[Path]:
    """All files of the set that ``path`` belongs to, in order."""
    files = [path.with_name(name) for name in shard_names(path.name)] if path.name else [path]
    missing = [p.name for p in files if not p.exists()] if len(files) > 1 else []
    if missing:
        raise missing_error(missing, len(files), f"download them into {str(path.parent)!r}")
    return files


def open_header(path: Path) -> Header:
    """Read the header of one file on this disk.

    Raises:
        DataError: No such file, none that can be read as one, or not a GGUF file.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "a device or a pipe"
            raise DataError(f"{str(path)!r} is {what}", "name a .gguf file")
        with open(path, "rb") as file:
            return read_header(file, shown(path.name))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {str(path)!r:.200}: {reason}", "check the path") from error


def shown(name: str) -> str:
    """A file's name as a message may hold it: on one line."""
    return name if name.isprintable() else ascii(name)


def _check_data(name: str, header: Header) -> None:
    """Refuse a file that ends before its tensors do, as llama.cpp does."""
    names = {t.id: name for name, t in ggml_types().items()}
    end = header.data_offset
    for t in header.tensors:
        type_name = names.get(t.type)
        size = tensor_bytes(type_name, t.shape) if type_name else 0
        end = max(end, header.data_offset + t.offset + size)
    if header.tensors and end > header.file_bytes:
        has = header.file_bytes
        raise DataError(
            f"{name} is incomplete: its tensors end at byte {end}, it has {has}",
            "finish the download, or download it again",
        )


def _model(
    name: str,
    headers: Sequence[Header],
    infos: list[TensorInfo],
    origin: Origin,
    source: str | None,
) -> ModelSpec:
    first = headers[0]
    architecture = _architecture(first, name)
    metadata = _metadata(first, architecture, name)
    metadata["vocab_size"] = _vocab_size(first, metadata, infos)
    kinds = first.values.get(f"tokenizer.ggml.{k.TOKEN_KINDS}")
    if isinstance(kinds, int):
        metadata[k.TOKEN_KINDS] = kinds
    if all(t.name != "token_embd.weight" for t in infos):
        raise DataError(
            f"{name} has no token_embd.weight", "the file is damaged or not a language model"
        )
    types = {t.id: n for n, t in ggml_types().items()}
    tensors = tuple(Tensor(t.name, t.shape, types.get(t.type, f"type {t.type}")) for t in infos)
    file_type, notes = _file_type(first)
    unknown = [t for t in infos if t.type not in types]
    if unknown:
        notes.append(
            f"{len(unknown)} tensors have a type that is not known, the first {unknown[0].name} "
            f"({unknown[0].type}): their size is not known"
        )
    return ModelSpec(
        id=id_of(name),
        architecture=architecture,
        metadata=metadata,
        tensors=tensors,
        source=source or origin.path or name,
        origin=origin,
        file_type=file_type,
        file_bytes=sum(h.file_bytes for h in headers),
        notes=tuple(notes),
    )


def id_of(name: str) -> str:
    """What a model is called after its file: without the place in a set and without ``.gguf``."""
    shard = _SHARD.fullmatch(name)
    return shard.group(1) if shard else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def _architecture(header: Header, name: str) -> str:
    architecture = header.values.get("general.architecture")
    kind = header.values.get("general.type", "model")
    if architecture == "clip" or kind == "mmproj":
        what = "a projector for images or sound"
    elif kind != "model":
        what = f"of the kind {kind!r:.40}"
    elif not isinstance(architecture, str) or not architecture:
        what = "without general.architecture"
    elif not architecture.isprintable() or len(architecture) > _LONGEST_NAME:
        what = f"of the architecture {architecture!r:.40}"
    else:
        return architecture
    raise DataError(f"{name} is {what}, not a language model", "name the model's own file")


def _metadata(header: Header, architecture: str, name: str) -> dict[str, Value]:
    prefix = architecture + "."
    metadata: dict[str, Value] = {}
    for full, value in header.values.items():
        if not full.startswith(prefix):
            continue
        key = full[len(prefix) :]
        if isinstance(value, str) and key not in k.TEXTS:
            continue
        if not all(map(_is_sound, value if isinstance(value, tuple) else (value,))):
            raise DataError(f"{name}: {full} is {value!r:.80}", "the file is damaged")
        metadata[key] = value
    check_sizes(metadata, prefix, name)
    return metadata


def check_sizes(metadata: Mapping[str, Value], prefix: str, name: str) -> None:
    """Refuse counts that llama.cpp refuses and that a loop over them would not survive."""
    for key, (least, most, default) in k.LIMITS.items():
        value = metadata.get(key, default)
        sizes = value if isinstance(value, tuple) and key in k.PER_BLOCK else (value,)
        for size in sizes:
            if type(size) is not int or not least <= size <= most:
                raise DataError(
                    f"{name}: {prefix}{key} is {size!r:.80}, not {least} to {most}",
                    "the file is damaged or not a language model",
                )
    blocks = metadata["block_count"]
    for key in k.PER_BLOCK & metadata.keys():
        value = metadata[key]
        if isinstance(value, tuple) and len(value) != blocks:
            raise DataError(
                f"{name}: {prefix}{key} has {len(value)} values for {blocks} blocks",
                "the file is damaged: download it again",
            )


def _is_sound(value: Scalar) -> bool:
    return isinstance(value, str) or (math.isfinite(value) and abs(value) < _LARGEST)


def _vocab_size(header: Header, metadata: Mapping[str, Value], infos: Sequence[TensorInfo]) -> int:
    tokens = header.lengths.get("tokenizer.ggml.tokens", 0)
    said = metadata.get("vocab_size", 0)
    rows = next((t.shape[-1] for t in infos if t.name == "token_embd.weight"), 0)
    return tokens or (said if isinstance(said, int) else 0) or rows


def _file_type(header: Header) -> tuple[str | None, list[str]]:
    number = header.values.get("general.file_type")
    if number is None:
        return None, ["the file does not say its file type"]
    for name, file_type in file_types().items():
        if isinstance(number, int) and file_type.id == number & ~1024:  # LLAMA_FTYPE_GUESSED
            return name, []
    return None, [f"file type {number!r:.40} is not known"]
