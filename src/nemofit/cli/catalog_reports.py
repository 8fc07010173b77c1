"""What ``nemofit catalog`` prints with ``--json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .contract import Envelope


@dataclass(kw_only=True, eq=False, repr=False)
class LicenceRecord:
    """A licence, and in one sentence what it asks for."""

    name: str
    conditions: str | None
    note: str | None
    sources: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class ScoreRecord:
    """A published benchmark result: who measured it, how, and where it stands."""

    benchmark: str
    value: float
    by: str
    how: str | None
    sources: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class SizeRecord:
    """A published size; ``within`` is half a unit of its last printed digit."""

    bytes: int
    within: int


@dataclass(kw_only=True, eq=False, repr=False)
class RepositoryRecord:
    """A repository of GGUF files; no sources of its own: the model's."""

    repository: str
    imatrix: bool | None
    sizes: dict[str, SizeRecord]
    sources: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class TagRecord:
    """An Ollama tag; ``bytes`` is the sum of its layers."""

    tag: str
    file_type: str | None
    bytes: int | None


@dataclass(kw_only=True, eq=False, repr=False)
class CheckpointRecord:
    """A repository that vLLM and transformers load."""

    repository: str
    format: str
    size: SizeRecord | None


@dataclass(kw_only=True, eq=False, repr=False)
class CatalogShowReport(Envelope):
    """``nemofit catalog show``: everything known of one model, with where it is from.

    ``parameters`` and ``active_parameters`` are counted from the shape;
    ``published_parameters`` is what the makers or a log print. ``file`` is the catalog file that
    the entry stands in, ``shipped`` whether it is nemofit's own.
    """

    schema: Literal["nemofit/catalog-show/1"] = "nemofit/catalog-show/1"
    id: str
    name: str
    family: str
    aliases: tuple[str, ...]
    file: str
    shipped: bool
    repository: str | None
    architecture: str
    parameters: int
    active_parameters: int
    published_parameters: int | None
    trained_context: int
    context_note: str | None
    metadata: dict[str, Any]
    released: str | None
    licence: LicenceRecord | None
    languages: tuple[str, ...]
    languages_note: str | None
    base_model: str | None
    training: str | None
    chat_template: str | None
    good_for: str | None
    not_good_for: str | None
    scores: tuple[ScoreRecord, ...]
    gguf: tuple[RepositoryRecord, ...]
    ollama: tuple[TagRecord, ...]
    checkpoints: tuple[CheckpointRecord, ...]
    notes: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class CatalogAddReport(Envelope):
    """``nemofit catalog add``: the entry that was written, and where."""

    schema: Literal["nemofit/catalog-add/1"] = "nemofit/catalog-add/1"
    id: str
    file: str
    source: str
    replaced: bool
    entry: dict[str, Any]


@dataclass(kw_only=True, eq=False, repr=False)
class DifferenceRecord:
    """A key or a tensor that catalog and file say differently; null: not there."""

    what: Literal["key", "tensor"]
    name: str
    catalog: str | None
    file: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class ComparedRecord:
    """One file beside its entry. ``model`` null: the catalog has no model of that name."""

    file: str
    model: str | None
    note: str | None
    differences: tuple[DifferenceRecord, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class CheckedFile:
    """A catalog file that is valid, and its entries."""

    file: str
    entries: int


@dataclass(kw_only=True, eq=False, repr=False)
class CatalogCheckReport(Envelope):
    """``nemofit catalog check``: the catalog files, and the model files beside their entries."""

    schema: Literal["nemofit/catalog-check/1"] = "nemofit/catalog-check/1"
    files: tuple[CheckedFile, ...]
    compared: tuple[ComparedRecord, ...]
    verdict: Literal["same", "differs"]
