"""The models of the catalog: found by name, told as cards, built as shapes when asked.

>>> card = find_model("nemotron")
>>> card.id, card.spec().parameters
('nemotron-70b', 70553706560)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from ..errors import UnknownNameError
from . import store
from .model import ModelSpec, Value
from .names import plain, resolve

SHORTEST_FAMILY: Final = 3
"""Characters that a family's name or its beginning must have to list the family."""
CANDIDATES: Final = 12
"""Members of a family that are listed at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Licence:
    """Attributes:
    name: As its makers call it.
    conditions: What it asks of who uses the model, one sentence.
    sources: Where that is said.
    """

    name: str
    conditions: str | None
    sources: tuple[str, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Score:
    """A published benchmark result.

    Attributes:
        benchmark: Its name.
        value: Percent, unless ``how`` names another scale.
        by: Who measured it.
        how: Shots, judge, version; None where not said.
        sources: Where it is published.
    """

    benchmark: str
    value: float
    by: str
    how: str | None
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PublishedSize:
    """The size of a published file or set of files.

    Attributes:
        bytes: As published.
        within: Half a unit of the last printed digit in bytes, 0 where bytes were printed.
    """

    bytes: int
    within: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GgufRepo:
    """A repository of ready GGUF files.

    Attributes:
        repo: owner/name on Hugging Face.
        imatrix: Made with an importance matrix; None where not known.
        file: Name of a file with ``{quant}`` in the file type's place, None where not known.
        sizes: Published size by file type.
        rounded_up: The sizes are printed rounded up instead of to the nearest.
        sources: Where the repository is named; empty: the entry's own sources.
    """

    repo: str
    imatrix: bool | None
    file: str | None
    sizes: Mapping[str, PublishedSize]
    rounded_up: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OllamaTag:
    """Attributes:
    tag: As ``ollama pull`` takes it.
    file_type: llama.cpp file type of its weights, None where not known.
    bytes: All layers of the tag (weights, template, licence), None where not known.
    """

    tag: str
    file_type: str | None
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Checkpoint:
    """A repository that vLLM loads.

    Attributes:
        repo: owner/name on Hugging Face.
        format: bf16, fp8, awq, gptq-int4, w4a16, nvfp4, ...
        size: Published size of its weights, None where not known.
    """

    repo: str
    format: str
    size: PublishedSize | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything that the catalog says of one model.

    Attributes:
        id: The name that every output uses.
        aliases: Other names for it.
        hf_repo: The makers' repository of the original weights, None where not known.
        architecture: GGUF ``general.architecture``.
        metadata: GGUF keys without the architecture's prefix, and the shape's own flags.
        context: Trained context in tokens; ``context_note`` says how to get more.
        parameters: Published count of all parameters, None where none is published.
        active: Published count without the unused experts.
        native: File type that holds the weights as they were trained, None: 16 bits.
        released: Date as far as known: ``2024-07-23``, ``2024-10``.
        languages: ISO 639-1 codes.
        projector: The GGUF repositories may hold a projector for images or sound as well.
        ollama: Tags, the one to pull by default first.
        strengths, limits: What it is good for and what not, one sentence each.
        sources: Where the shape and all that carries no source of its own comes from.
    """

    id: str
    name: str
    family: str
    aliases: tuple[str, ...]
    hf_repo: str | None
    architecture: str
    metadata: Mapping[str, Value] = field(repr=False)
    context: int
    context_note: str | None
    parameters: int | None
    active: int | None
    native: str | None
    licence: Licence | None
    released: str | None
    languages: tuple[str, ...]
    languages_note: str | None
    base_model: str | None
    training: str | None
    chat_template: str | None
    strengths: str | None
    limits: str | None
    scores: tuple[Score, ...]
    gguf: tuple[GgufRepo, ...]
    projector: bool
    ollama: tuple[OllamaTag, ...]
    vllm: tuple[Checkpoint, ...]
    notes: tuple[str, ...]
    sources: tuple[str, ...]

    def spec(self) -> ModelSpec:
        """The model's shape.

        Raises:
            DataError: The architecture's tensors are not known, or the metadata make no sense.
        """
        return self._spec

    @cached_property
    def _spec(self) -> ModelSpec:
        from .shapes import tensors_of

        return ModelSpec(
            id=self.id,
            architecture=self.architecture,
            metadata=self.metadata,
            tensors=tensors_of(self.architecture, self.metadata),
        )

    def ollama_tag(self, file_type: str) -> str | None:
        """The shortest Ollama tag whose weights have that file type, None where none is known."""
        fitting = [t.tag for t in self.ollama if t.file_type == file_type]
        return min(fitting, key=len, default=None)

    def published_sizes(self) -> tuple[tuple[GgufRepo, str, PublishedSize], ...]:
        """Every published file size: repository, file type, size."""
        return tuple((repo, ft, size) for repo in self.gguf for ft, size in repo.sizes.items())


def all_models() -> tuple[ModelCard, ...]:
    """Every model of the catalog, shipped and personal, in the catalog's order."""
    return tuple(store.derived("models", _cards).values())


def find_model(name: str) -> ModelCard:
    """The model that a name means: an id, an alias, a repository, an Ollama tag.

    Case and punctuation are forgiven; what is not known is never replaced by something else. A
    family's name ("llama", "qwen3") is ambiguous.

    Raises:
        UnknownNameError: Not known or ambiguous; carries the near misses as ids.
    """
    cards = store.derived("models", _cards)
    try:
        return cards[resolve("model", name, store.derived("models", _names))]
    except UnknownNameError as e:
        family = plain(name)
        members = [c.id for c in cards.values() if plain(c.family).startswith(family)]
        if e.ambiguous or len(family) < SHORTEST_FAMILY or not members:
            raise
        raise UnknownNameError("model", name, members[:CANDIDATES], ambiguous=True) from None


def active_parameters(model: ModelSpec) -> int:
    """Parameters that work on one token: without the experts that are not chosen for it, and
    without appended blocks that predict further tokens."""
    experts = model.integer("expert_count")
    used = model.integer("expert_used_count")
    end = model.integer("block_count") - model.integer("nextn_predict_layers")
    active = 0
    for tensor in model.tensors:
        if _block(tensor.name) >= end:
            continue
        routed = experts and used and _is_routed(tensor.name)
        active += tensor.elements * used // experts if routed else tensor.elements
    return active


def _block(tensor: str) -> int:
    """The number of a tensor's block, -1 outside the blocks."""
    number = tensor.split(".", 2)[1] if tensor.startswith("blk.") else ""
    return int(number) if number.isdecimal() else -1


def _is_routed(name: str) -> bool:
    """llama.cpp stacks the routed experts of a block into tensors named ``ffn_*_exps``."""
    return "_exps." in name


def _names(entries: store.Entries) -> dict[str, tuple[str, ...]]:
    return {i: _other_names(e) for i, e in entries.items()}


def _other_names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["name"],
        *entry["aliases"],
        *filter(None, [entry.get("hf_repo")]),
        *(r["repo"] for r in entry["gguf"]),
        *entry["ollama"],
    )


def _cards(entries: store.Entries) -> dict[str, ModelCard]:
    return {i: _card(i, e) for i, e in entries.items()}


def _card(id: str, entry: Mapping[str, Any]) -> ModelCard:
    metadata = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["metadata"].items()}
    published = entry.get("parameters") or {}
    licence = entry.get("licence")
    return ModelCard(
        id=id,
        name=entry["name"],
        family=entry["family"],
        aliases=tuple(entry["aliases"]),
        hf_repo=entry.get("hf_repo"),
        architecture=entry["architecture"],
        metadata=metadata,
        context=entry.get("context", entry["metadata"]["context_length"]),
        context_note=entry.get("context_note"),
        parameters=published.get("total"),
        active=published.get("active"),
        native=entry.get("native"),
        licence=Licence(
            name=licence["name"],
            conditions=licence.get("conditions"),
            note=licence.get("note"),
            sources=tuple(licence["source"]),
        )
        if licence
        else None,
        released=entry.get("released"),
        languages=tuple(entry["languages"]),
        languages_note=entry.get("languages_note"),
        base_model=entry.get("base_model"),
        training=entry.get("training"),
        chat_template=entry.get("chat_template"),
        strengths=entry.get("good_for"),
        limits=entry.get("not_good_for"),
        scores=tuple(
            Score(
                benchmark=s["benchmark"],
                value=s["value"],
                by=s["by"],
                how=s.get("how"),
                sources=tuple(s["source"]),
            )
            for s in entry["scores"]
        ),
        gguf=tuple(
            GgufRepo(
                repo=r["repo"],
                imatrix=r.get("imatrix"),
                file=r.get("file"),
                rounded_up=r["rounded_up"],
                sizes={ft: PublishedSize(**size) for ft, size in r["sizes"].items()},
                sources=tuple(r.get("source") or ()),
            )
            for r in entry["gguf"]
        ),
        projector=entry.get("projector", False),
        ollama=tuple(
            OllamaTag(tag=tag, file_type=t.get("file_type"), bytes=t.get("bytes"))
            for tag, t in entry["ollama"].items()
        ),
        vllm=tuple(
            Checkpoint(
                repo=c["repo"],
                format=c["format"],
                size=PublishedSize(**c["size"]) if "size" in c else None,
            )
            for c in entry["vllm"]
        ),
        notes=tuple(entry["notes"]),
        sources=tuple(entry["source"]),
    )
