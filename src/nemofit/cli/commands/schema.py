"""``nemofit schema``: the JSON Schema of any ``--json`` output."""

from __future__ import annotations

from collections.abc import Iterable

from ..answer import Answer
from ..options import Options
from ..output import Block, Command, Line
from ..reports import SchemaReport
from ..schemas import REPORTS, json_schema


def answer(options: Options) -> Answer:
    """One schema, or the names of all."""
    if options.name:
        return Answer(json_schema(options.name), None)
    report = SchemaReport(names=tuple(REPORTS))
    return Answer(report, lambda: _view(report))


def _view(report: SchemaReport) -> Iterable[Block]:
    yield Line("Ask for one of these: nemofit schema NAME", "quiet")
    for name in report.names:
        yield Command(name)
