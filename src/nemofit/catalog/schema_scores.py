"""Tables of published scores in ``models.yaml``: one party, one way of measuring, many models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from ..errors import DataError
from .yaml_schema import place

Word = Annotated[str, Field(min_length=1, max_length=200)]
Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]


class ScoreTable(BaseModel):
    """The head of the file says what each field means."""

    model_config = ConfigDict(extra="forbid")

    by: Word
    how: Word | None = None
    source: Annotated[list[Word], Field(min_length=1)]
    benchmarks: Annotated[list[Word], Field(min_length=1, max_length=40)]
    rows: Annotated[dict[Word, list[Number | None]], Field(min_length=1)]


def tabled(raw: Mapping[str, Any], file: str) -> dict[str, list[dict[str, Any]]]:
    """The scores of each model as an entry would hold them, with the sources' keys.

    Raises:
        DataError: Names file, line, table and what was expected.
    """
    tables = raw.get("score_tables") or []
    if not isinstance(tables, list):
        where = place(raw, file, ("score_tables",))
        raise DataError(f"{where}: score_tables: expected a list of tables", "docs/catalog.md")
    out: dict[str, list[dict[str, Any]]] = {}
    for number, fields in enumerate(tables):
        table = _checked(raw, file, number, fields)
        for model, values in table.rows.items():
            scores = zip(table.benchmarks, values, strict=True)
            out.setdefault(model, []).extend(
                {
                    "benchmark": benchmark,
                    "value": value,
                    "by": table.by,
                    **({"how": table.how} if table.how else {}),
                    "source": list(table.source),
                }
                for benchmark, value in scores
                if value is not None
            )
    return out


def _checked(raw: Mapping[str, Any], file: str, number: int, fields: object) -> ScoreTable:
    where = f"{place(raw, file, ('score_tables', number))}: score table {number + 1}"
    try:
        table = ScoreTable.model_validate(fields)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        raise DataError(f"{where}: {path}: {first['msg'].lower()}", "docs/catalog.md") from None
    for model, values in table.rows.items():
        if len(values) != len(table.benchmarks):
            raise DataError(
                f"{where}: {model!r:.60} has {len(values)} values for "
                f"{len(table.benchmarks)} benchmarks",
                "write one for each, ~ where there is none",
            )
    return table
