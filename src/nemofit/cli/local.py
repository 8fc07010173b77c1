"""``nemofit list models --local``: what is already on this disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from nemofit.units import gib

from .answer import Answer
from .output import Block, Column, Line, Table
from .reports import ListedLocal, ListLocalReport, LocalPlace


def answer() -> Answer:
    """List the models of every store of this machine."""
    from nemofit.formats.local import local_models
    from nemofit.formats.places import Places

    models, notes = local_models(Places.here())
    report = ListLocalReport(
        items=tuple(
            ListedLocal(**{**asdict(m), "places": tuple(LocalPlace(**asdict(p)) for p in m.places)})
            for m in models
        ),
        total_bytes=sum(model.bytes * model.copies for model in models),
        notes=tuple(notes),
    )
    return Answer(report, lambda: _view(report))


def _view(report: ListLocalReport) -> Iterable[Block]:
    if not report.items:
        yield Line("no model was found on this disk")
        yield Line("looked into: Ollama, the hub's cache, LM Studio, llama.cpp, this directory")
    columns = [
        Column("Model"),
        Column("Kind", rank=2),
        Column("Type"),
        Column("Size", right=True),
        Column("Parameters", right=True, rank=3),
        Column("Where", rank=1),
        Column("Name for nemofit"),
    ]
    rows = [
        [
            m.id,
            m.kind,
            "broken" if m.error else m.file_type or "?",
            gib(m.bytes),
            "?" if m.parameters is None else f"{m.parameters / 1e9:.2f}B",
            ", ".join(dict.fromkeys(place.store for place in m.places)),
            m.places[0].ref,
        ]
        for m in report.items
    ]
    if rows:
        yield Table(columns, rows)
        yield Line()
        yield Line(f"{len(rows)} on this disk, {gib(report.total_bytes)}")
    for m in report.items:
        if m.error:
            yield Line(f"broken: {m.places[0].path}: {m.error}", "bad")
        if m.copies > 1:
            also = ", ".join(place.path for place in m.places[1:])
            yield Line(f"note: {m.id} lies here {m.copies} times, also as {also}", "quiet")
    for note in report.notes:
        yield Line(f"note: {note}", "quiet")
