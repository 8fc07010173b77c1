"""What an entry of ``models.yaml`` may hold, and how it is said when one is broken.

The result is plain data, ready for JSON: published sizes become bytes with the half unit that the
printed digits leave open, and every source key becomes the text that the file's ``sources`` table
gives for it, so that an entry stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from math import isfinite
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
    TypeAdapter,
    ValidationError,
)

from ..errors import DataError
from .schema_scores import tabled
from .yaml_schema import broken, place, section

_SIZE: Final = re.compile(r"(\d{1,6}(?:\.(\d{1,4}))?) (GB|GiB|MB|MiB)")
_UNIT: Final = {"GB": 10**9, "GiB": 1 << 30, "MB": 10**6, "MiB": 1 << 20}
_NUMBERS: Final = ("block_count", "context_length", "vocab_size", "embedding_length")
_LONGEST_LIST: Final = 1024
_FIELDS_PAGE: Final = "docs/catalog.md lists the fields"


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("expected one line of text")
    return text.strip()


def _form(pattern: str, expected: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


Text = Annotated[str, Field(max_length=1000), AfterValidator(_line)]
Short = Annotated[str, Field(max_length=100), AfterValidator(_line)]
Id = Annotated[
    str, _form(r"[a-z0-9][a-z0-9._-]{0,63}", "lower case letters, digits, '.', '_' and '-'")
]
Repo = Annotated[str, _form(r"[A-Za-z0-9][\w.-]{0,60}/[\w.-]{1,100}", "owner/name")]
FileName = Annotated[
    str, _form(r"[^/\\]{0,120}\{quant\}[^/\\]{0,40}\.gguf", "a name such as Model-{quant}.gguf")
]
Date = Annotated[
    str,
    _form(
        r"20\d\d(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?",
        "a date such as 2024, 2024-07 or 2024-07-23",
    ),
]
Architecture = Annotated[str, _form(r"[a-z0-9_-]{1,40}", "GGUF's general.architecture")]
Key = Annotated[
    str, _form(r"[a-z0-9_]{1,60}(\.[a-z0-9_]{1,60}){0,3}", "a GGUF key without its prefix")
]
Count = Annotated[int, Field(strict=True, gt=0, lt=10**14)]
Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
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


def _value(value: object) -> object:
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= _LONGEST_LIST or not all(map(_is_scalar, values)):
        raise ValueError("expected a number, true, false, a word, or a list of them")
    return value


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= 100 and value.isprintable()
    return isinstance(value, (bool, int)) or (isinstance(value, float) and isfinite(value))


def _shape(metadata: dict[str, object]) -> dict[str, object]:
    for key in _NUMBERS:
        value = metadata.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"expected {key} with a whole number above 0")
    if not isinstance(metadata.get("tied_embeddings"), bool):
        raise ValueError("expected tied_embeddings with true or false")
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
    source: Sources | None = None


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
    hf_repo: Repo | None = None
    released: Date | None = None
    licence: Licence | None = None
    languages: list[Short] = []
    languages_note: Text | None = None
    base_model: Short | None = None
    training: Text | None = None
    chat_template: Short | None = None
    good_for: Text | None = None
    not_good_for: Text | None = None
    architecture: Architecture
    metadata: Annotated[
        dict[Key, Annotated[object, AfterValidator(_value)]], AfterValidator(_shape)
    ]
    context: Count | None = None
    context_note: Text | None = None
    parameters: Parameters | None = None
    native: Short | None = None
    scores: list[Score] = []
    gguf: list[GgufRepo] = []
    projector: StrictBool = False
    ollama: dict[Short, OllamaTag] = {}
    vllm: list[Checkpoint] = []
    notes: list[Text] = []
    source: Sources


_ID: Final = TypeAdapter(Id)


def validate(raw: object, file: str) -> dict[str, object]:
    """Check a models file and return its entries by id as plain data.

    Raises:
        DataError: Names file, line, entry, field and what was expected.
    """
    for key in raw if isinstance(raw, dict) else ():
        if key not in ("models", "sources", "score_tables"):
            raise DataError(
                f"{place(raw, file, (key,))}: {key!r} is not a section that is known",
                "a models file has the sections 'sources', 'models' and 'score_tables'",
            )
    found = section(raw, file, "models")
    sources = section(raw, file, "sources", required=False)
    assert isinstance(raw, dict)
    scores = tabled(raw, file)
    for model in scores:
        if model not in found:
            near = get_close_matches(model, found, n=3)
            raise DataError(
                f"{place(raw, file, ('score_tables',))}: {model!r:.60} is not a model of this file",
                "did you mean: " + ", ".join(near) if near else "write its entry under 'models:'",
            )
    out: dict[str, object] = {}
    for key, fields in found.items():
        try:
            _ID.validate_python(key)
            entry = ModelEntry.model_validate(fields)
        except ValidationError as e:
            raise _unknown_field(e, found, file, key) or broken(
                e, found, file, "model", key
            ) from None
        plain = entry.model_dump(mode="json", exclude_none=True)
        plain["scores"] += scores.get(key, [])
        out[key] = _with_sources(plain, sources, file, found, key)
    return out


def _unknown_field(
    error: ValidationError, found: dict[str, object], file: str, key: str
) -> DataError | None:
    """The first field that no entry has, with those it resembles: often why another is missing."""
    for one in error.errors(include_url=False):
        if one["type"] == "extra_forbidden":
            path = ".".join(str(step) for step in one["loc"])
            known = {name for model in _Fields.__subclasses__() for name in model.model_fields}
            near = get_close_matches(str(one["loc"][-1]), sorted(known), n=3)
            return DataError(
                f"{place(found, file, (key, *one['loc']))}: model {key!r}: {path}:"
                " is not a field that is known",
                "did you mean: " + ", ".join(near) if near else _FIELDS_PAGE,
            )
    return None


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
