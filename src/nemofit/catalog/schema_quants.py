"""What ``quants.yaml`` may hold.

Entries of all sections come out in one mapping, named ``section/name``, so that a person's own file
adds and replaces single entries::

    file_types/Q4_K_M -> {"id": 15, "type": "Q4_K", "mixture": "standard", "rules": {...}, ...}
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ..errors import DataError
from .clauses import CATEGORIES, MIXTURES, parse_clause
from .yaml_schema import entries, place, section

Name = Annotated[str, Field(min_length=1, max_length=100)]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Capability = Annotated[float, Field(ge=1, le=99)]
Positive = Annotated[int, Field(ge=1, le=1 << 32)]


def _clause(text: str) -> str:
    try:
        parse_clause(text)
    except DataError as e:
        raise ValueError(f"{e.message}: {e.hint}") from None
    return text


Clause = Annotated[Name, AfterValidator(_clause)]
Rules = dict[Literal[CATEGORIES], list[Clause]]  # type: ignore[valid-type]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Source(_Entry):
    """Where a stranger finds the figures."""

    what: Annotated[str, Field(min_length=1)]
    url: str | None = None


class Type(_Entry):
    """A ggml type: how one row of a tensor is stored."""

    id: Count
    block: Positive
    bytes: Positive
    fallback: Name | None = None


class Recipe(_Entry):
    """A file type of llama-quantize."""

    id: Count
    type: Name
    mixture: Literal[MIXTURES] = "standard"  # type: ignore[valid-type]
    aliases: list[Name] = []
    needs_imatrix: bool = False
    rules: Rules = {}


class Family70B(_Entry):
    """When llama.cpp calls a model of this architecture "70B"."""

    blocks: Positive
    more_heads: bool = False
    fewer_experts: bool = False


class Architecture(_Entry):
    """Where llama-quantize or the converter treats one architecture differently."""

    family_70b: Family70B | None = None
    keep: list[Name] = []
    float32: list[Name] = []
    float16: list[Name] = []
    q8_0: list[Name] = []
    output: Name | None = None
    rules: dict[Name, Rules] = {}
    expert_kinds: list[Literal[CATEGORIES]] | None = None  # type: ignore[valid-type]
    extra_layers: Count = 0
    layers_times: Name | None = None


class CacheType(_Entry):
    """A type of the KV cache."""

    type: Name
    bytes_per_32: Positive


class Checkpoint(_Entry):
    """A format of safetensors checkpoints."""

    weight_bits: Positive
    group_bits: Annotated[float, Field(ge=0, le=64)] = 0.0
    group: Count = 0
    native: Capability | None = None
    weight_only: Capability | None = None
    source: Name


class Loss(_Entry):
    """What one file type lost in one published table."""

    quant: Name
    imatrix: bool = False
    perplexity: Annotated[float, Field(gt=0)] | None = None
    percent: float | None = None
    kl: Annotated[float, Field(ge=0)] | None = None


class LossTable(_Entry):
    """A published table of losses; percent is worked out where perplexities are given."""

    model: Name
    parameters: Annotated[int, Field(ge=1, le=1 << 50)]
    source: Name
    kl: Literal["mean", "median"] | None = None
    reference: Annotated[float, Field(gt=0)] | None = None
    general: bool = False
    note: str | None = None
    rows: Annotated[list[Loss], Field(min_length=1)]

    @model_validator(mode="after")
    def _work_out(self) -> LossTable:
        for row in self.rows:
            if row.perplexity is not None:
                if self.reference is None:
                    raise ValueError("perplexity needs the field reference beside rows")
                row.percent = round((row.perplexity / self.reference - 1) * 100, 4)
            if row.kl is not None and self.kl is None:
                raise ValueError("kl needs the field kl beside rows: mean or median")
        return self


class _Tensors(BaseModel):
    names: list[Name]


SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "sources": Source,
    "ggml_types": Type,
    "file_types": Recipe,
    "architectures": Architecture,
    "kv_cache_types": CacheType,
    "checkpoint_formats": Checkpoint,
    "quality": LossTable,
}


def validate(raw: object, file: str) -> dict[str, object]:
    """Check a quants file and return its entries as plain data, named ``section/name``.

    Args:
        raw: The parsed file.
        file: Its name, for messages.

    Raises:
        DataError: Names file, line, entry, field and what was expected.
    """
    out: dict[str, object] = {}
    for name, model in SECTIONS.items():
        found = entries(section(raw, file, name, required=False), file, name, model)
        out |= {f"{name}/{key}": entry for key, entry in found.items()}
    lists = section(raw, file, "tensors", required=False)
    wrapped: dict[str, object] = {key: {"names": value} for key, value in lists.items()}
    out |= {f"tensors/{k}": v for k, v in entries(wrapped, file, "tensors", _Tensors).items()}
    assert isinstance(raw, dict)
    for key in raw:
        if key not in SECTIONS and key != "tensors":
            raise DataError(
                f"{place(raw, file, (key,))}: {key!r:.60} is not a section that is known",
                f"the sections are {', '.join(SECTIONS)} and tensors",
            )
    return out
