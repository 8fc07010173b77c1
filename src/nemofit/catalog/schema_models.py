"""What an entry of ``models.yaml`` may hold, and how it is said when one is broken.

The result is plain data, ready for JSON: published sizes become bytes with the half unit that the
printed digits leave open, and every source key becomes the text that the file's ``sources`` table
gives for it, so that an entry stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
)

from ..errors import DataError
from .yaml_schema import broken, place, section

ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REPO: Final = r"^[A-Za-z0-9][\w.-]*/[\w.-]+$"
_KEY: Final = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_SIZE: Final = re.compile(r"(\d{1,6}(?:\.(\d{1,4}))?) (GB|GiB|MB|MiB)")
_UNIT: Final = {"GB": 10**9, "GiB": 1 << 30, "MB": 10**6, "MiB": 1 << 20}
_REQUIRED: Final = (
    "block_count",
    "context_length",
    "vocab_size",
    "embedding_length",
    "tied_embeddings",
)
_LONGEST_LIST: Final = 1024


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("expected one line of text")
    return text.strip()


Text = Annotated[str, Field(max_length=1000), AfterValidator(_line)]
Short = Annotated[str, Field(max_length=100), AfterValidator(_line)]
Repo = Annotated[str, Field(max_length=120, pattern=_REPO)]
Date = Annotated[str, Field(pattern=r"^20\d\d(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?$")]
Count = Annotated[int, Field(strict=True, gt=0, lt=10**14)]
Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Scalar = StrictBool | Number | Short
FileName = Annotated[str, Field(max_length=160, pattern=r"^[^/\\]*\{quant\}[^/\\]*\.gguf$")]
Sources = Annotated[list[Short], Field(min_length=1)]


def _published(value: object) -> object:
    """``42520398752`` or ``42.52 GB`` as bytes and the half unit in the last printed place."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"bytes": value, "within": 0}
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected bytes as a whole number, or a size such as '42.52 GB'")
    figure, decimals, unit = found.groups()
    within = _UNIT[unit] / 10 ** len(decimals or "") / 2
    return {"bytes": round(float(figure) * _UNIT[unit]), "within": round(within)}


def _known_metadata(metadata: dict[str, object]) -> dict[str, object]:
    for key in metadata:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no GGUF key without its architecture's prefix")
    if missing := [key for key in _REQUIRED if key not in metadata]:
        raise ValueError(f"lacks {', '.join(missing)}")
    return metadata


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Size(_Fields):
    bytes: Count
    within: Annotated[int, Field(ge=0)]


class Parameters(_Fields):
    total: Count
    active: Count | None = None
    source: Sources
    note: Text | None = None


class Licence(_Fields):
    name: Text
    conditions: Text | None = None
    source: Sources
    note: Text | None = None


class Score(_Fields):
    benchmark: Short
    value: Number
    by: Short
    how: Text | None = None
    source: Sources


class GgufRepo(_Fields):
    repo: Repo
    imatrix: StrictBool | None = None
    file: FileName | None = None
    rounded_up: StrictBool = False
    sizes: dict[Short, Annotated[Size, BeforeValidator(_published)]] = {}


class OllamaTag(_Fields):
    file_type: Short | None = None
    bytes: Count | None = None
    note: Text | None = None


class Checkpoint(_Fields):
    repo: Repo
    format: Short
    size: Annotated[Size, BeforeValidator(_published)] | None = None


class ModelEntry(_Fields):
    """One model; the file's head says what each field means."""

    name: Short
    family: Short
    aliases: list[Short] = []
    hf_repo: Repo
    released: Date | None = None
    licence: Licence | None = None
    languages: list[Short] = []
    languages_note: Text | None = None
    base_model: Short | None = None
    training: Text | None = None
    chat_template: Short | None = None
    good_for: Text | None = None
    not_good_for: Text | None = None
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")]
    metadata: Annotated[
        dict[str, Scalar | Annotated[list[Scalar], Field(max_length=_LONGEST_LIST)]],
        AfterValidator(_known_metadata),
    ]
    context: Count | None = None
    context_note: Text | None = None
    parameters: Parameters | None = None
    scores: list[Score] = []
    gguf: list[GgufRepo] = []
    ollama: dict[Short, OllamaTag] = {}
    vllm: list[Checkpoint] = []
    notes: list[Text] = []
    source: Sources


def validate(raw: object, file: str) -> dict[str, object]:
    """Check a models file and return its entries by id as plain data.

    Raises:
        DataError: Names file, line, entry, field and what was expected.
    """
    sources = section(raw, file, "sources", required=False)
    found = section(raw, file, "models")
    for key in raw if isinstance(raw, dict) else ():
        if key not in ("models", "sources"):
            raise DataError(
                f"{place(raw, file, (key,))}: {key!r} is not a section that is known",
                "a models file has the sections 'sources' and 'models'",
            )
    out: dict[str, object] = {}
    for key, fields in found.items():
        if not ID.fullmatch(key):
            raise DataError(
                f"{place(found, file, (key,))}: {key!r:.80} is no id",
                "use lower case letters, digits, '.', '_' and '-'",
            )
        try:
            entry = ModelEntry.model_validate(fields)
        except ValidationError as e:
            raise _with_near_misses(broken(e, found, file, "model", key), e) from None
        plain = entry.model_dump(mode="json", exclude_none=True)
        out[key] = _with_sources(plain, sources, file, found, key)
    return out


def _with_near_misses(error: DataError, cause: ValidationError) -> DataError:
    first = cause.errors(include_url=False)[0]
    if first["type"] != "extra_forbidden":
        return error
    known = {name for model in _Fields.__subclasses__() for name in model.model_fields}
    near = get_close_matches(str(first["loc"][-1]), known, n=3)
    return DataError(error.message, "did you mean: " + ", ".join(near)) if near else error


def _with_sources(
    plain: dict[str, Any], table: Mapping[str, object], file: str, found: object, key: str
) -> dict[str, Any]:
    """The entry with every ``source`` as texts instead of keys."""
    for holder in _holders(plain):
        texts = []
        for name in holder["source"]:
            text = table.get(name)
            if not isinstance(text, str):
                near = get_close_matches(name, table, n=3)
                raise DataError(
                    f"{place(found, file, (key,))}: model {key!r}: source {name!r} is not in the"
                    " sources table",
                    "did you mean: " + ", ".join(near) if near else "add it to 'sources:'",
                )
            texts.append(text)
        holder["source"] = texts
    return plain


def _holders(value: object) -> Iterable[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("source"), list):
            yield value
        for inner in value.values():
            yield from _holders(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _holders(inner)
