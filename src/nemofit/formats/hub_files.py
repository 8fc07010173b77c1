"""Which file of a repository a person means, by llama.cpp's own rule, and what that file is called.

Source: ggml-org/llama.cpp, ``common/download.cpp`` (get_gguf_split_info, gguf_filename_is_model,
find_best_model).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from nemofit.catalog.names import near_misses
from nemofit.errors import DataError, UnknownNameError, UsageError

from .gguf.reader import shard_names, shown

_REPOSITORY = re.compile(
    r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*/[A-Za-z0-9_]+(?:[.-]+[A-Za-z0-9_]+)*"
)
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"[-.]([A-Za-z0-9_]+)$")
_NO_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_SHOWN = 12


def parse_reference(ref: str) -> tuple[str, str | None]:
    """Read ``hf:owner/repo[:quant or file]`` into repository and choice.

    Raises:
        UsageError: Not such a reference.
    """
    repository, _, choice = ref.removeprefix("hf:").removeprefix("//").partition(":")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > 256:
        raise UsageError(
            f"{ref!r:.200} names no repository",
            "write hf:owner/repo, hf:owner/repo:Q4_K_M or hf:owner/repo:file.gguf",
        )
    return repository, choice.strip() or None


def is_model(path: str) -> bool:
    """Whether a file is named as a model's, or as the first one of a set."""
    name = path.rpartition("/")[2]
    if not name.endswith(".gguf") or any(word in name for word in _NO_MODELS):
        return False
    split = _SPLIT.fullmatch(name.removesuffix(".gguf"))
    return split is None or int(split.group(3)) < 2 or int(split.group(2)) == 1


def is_checkpoint(paths: Collection[str]) -> bool:
    """Whether a repository holds a model's safetensors files and no GGUF file of it."""
    return (
        "config.json" in paths
        and any(path.endswith(".safetensors") for path in paths)
        and not any(path.lower().endswith(".gguf") for path in paths)
    )


def tag_of(path: str) -> str | None:
    """The file type in a file's name, as llama.cpp reads it there."""
    stem = path.removesuffix(".gguf")
    split = _SPLIT.fullmatch(stem)
    found = _TAG.search(split.group(1) if split else stem)
    return found.group(1).upper() if found else None


def choose(repository: str, paths: Iterable[str], choice: str | None) -> str:
    """The file that is meant; of a set, the first.

    Args:
        repository: For messages.
        paths: Every file there is, in the order of the listing.
        choice: A file type, a file, or None: the only one.

    Raises:
        UnknownNameError: There is no such file, or several are meant.
        DataError: There is no GGUF file at all.
    """
    files = [path for path in paths if path.lower().endswith(".gguf")]
    models = [path for path in files if is_model(path)]
    if not files:
        raise DataError(
            f"hf:{repository} has no GGUF file",
            "name a repository with GGUF files: their names often end in -GGUF",
        )
    if choice is None:
        return _only(repository, models)
    if choice.lower().endswith(".gguf"):
        return _named(repository, files, choice)
    exact = [path for path in models if tag_of(path) == choice.upper()]
    loose = taken(models, choice)
    if not loose and not exact:
        tags = _tags(models)
        near = near_misses(choice, dict.fromkeys(tags, ())) or tags[:_SHOWN]
        raise UnknownNameError(f"file type in hf:{repository}", choice, near)
    return loose[0] if loose and (loose[0] in exact or not exact) else exact[0]


def taken(models: Sequence[str], tag: str) -> list[str]:
    """The files whose path holds the tag; ``-hf repository:tag`` takes the first."""
    pattern = re.compile(re.escape(tag) + "[.-]", re.IGNORECASE)
    return [path for path in models if pattern.search(path)]


def launch_tag(path: str, paths: Iterable[str]) -> str | None:
    """What ``-hf repository:tag`` has to say to take this very file; None: nothing surely does.

    Files of one folder are listed in the same order everywhere, folders are not.
    """
    tag = tag_of(path)
    found = taken([other for other in paths if is_model(other)], tag) if tag else []
    folder = path.rpartition("/")[0]
    is_first = found[:1] == [path] and all(p.rpartition("/")[0] == folder for p in found)
    return tag if is_first else None


def whole_set(path: str, there: Collection[str]) -> tuple[list[str], list[str]]:
    """The paths of all files of a set, and those of them that are not there."""
    folder, slash, name = path.rpartition("/")
    files = [f"{folder}{slash}{part}" for part in shard_names(name)]
    return files, [file for file in files if file not in there]


def _only(repository: str, models: Sequence[str]) -> str:
    if len(models) == 1:
        return models[0]
    if not models:
        raise DataError(
            f"hf:{repository} has no model among its GGUF files", "name the model's repository"
        )
    several = [f"hf:{repository}:{tag}" for tag in _tags(models)[:_SHOWN]]
    raise UnknownNameError("model", f"hf:{repository}", several, ambiguous=True)


def _named(repository: str, files: Sequence[str], choice: str) -> str:
    same = [path for path in files if path == choice]
    same = same or [path for path in files if path.rpartition("/")[2] == choice]
    same = same or [path for path in files if path.lower().endswith(choice.lower())]
    if len(same) != 1:
        near = same or near_misses(choice, {path: (path.rpartition("/")[2],) for path in files})
        raise UnknownNameError(
            f"file in hf:{repository}",
            choice,
            [shown(path) for path in near or files[:_SHOWN]],
            ambiguous=len(same) > 1,
        )
    folder, slash, name = same[0].rpartition("/")
    return f"{folder}{slash}{shard_names(name)[0]}"


def _tags(models: Sequence[str]) -> list[str]:
    """What tells the models apart: their file types, or their paths where two share one."""
    tags = [tag_of(path) for path in models]
    return [
        tag if tag is not None and tags.count(tag) == 1 else shown(path)
        for path, tag in zip(models, tags, strict=True)
    ]
