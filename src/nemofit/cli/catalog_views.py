"""The text of ``nemofit catalog``."""

from __future__ import annotations

from collections.abc import Iterable

from nemofit.catalog.personal import dump

from . import catalog_reports as c
from .output import Block, Column, Command, Line, Table

_GB = 10**9
_MOST = 20


def model(report: c.CatalogShowReport) -> Iterable[Block]:
    """Everything known of one model."""
    yield Line(f"{report.name} ({report.id})", "strong")
    yield Line()
    yield Table([Column("Fact"), Column("")], list(_facts(report)))
    if report.scores:
        yield Line()
        columns = [Column("Benchmark"), Column("Value", right=True), Column("Measured by"),
                   Column("How", rank=1), Column("Source", rank=2)]  # fmt: skip
        yield Table(
            columns,
            [[s.benchmark, f"{s.value:g}", s.by, s.how or "", "; ".join(s.sources)]
             for s in report.scores],
        )  # fmt: skip
    if files := list(_files(report)):
        yield Line()
        yield Table([Column("Where"), Column("Files"), Column("Importance matrix", rank=1)], files)
    yield Line()
    yield Table(
        [Column("Key"), Column("Value")], [[k, _value(v)] for k, v in report.metadata.items()]
    )
    for note in report.notes:
        yield Line(f"note: {note}", "quiet")
    for title, sources in _sources(report):
        yield Line(f"{title}: {'; '.join(sources)}", "quiet")


def _facts(r: c.CatalogShowReport) -> Iterable[list[str]]:
    licence = r.licence
    rows = (
        ("repository", r.repository),
        ("also called", ", ".join(r.aliases)),
        ("released", r.released),
        ("licence", licence and licence.name),
        ("conditions", licence and licence.conditions),
        ("architecture", r.architecture),
        ("parameters", f"{r.parameters:,}"),
        ("active", f"{r.active_parameters:,}" if r.active_parameters != r.parameters else None),
        ("published", f"{r.published_parameters:,}" if r.published_parameters else None),
        ("context", f"{r.trained_context:,} tokens"),
        ("more context", r.context_note),
        ("languages", ", ".join(r.languages) or r.languages_note),
        ("base model", r.base_model),
        ("training", r.training),
        ("chat template", r.chat_template),
        ("good for", r.good_for),
        ("not good for", r.not_good_for),
        ("catalog file", "shipped with nemofit" if r.shipped else r.file),
    )
    return ([name, value] for name, value in rows if value)


def _files(r: c.CatalogShowReport) -> Iterable[list[str]]:
    for repo in r.gguf:
        sizes = ", ".join(f"{name} {_size(size)}" for name, size in repo.sizes.items())
        made = {True: "yes", False: "no", None: "?"}[repo.imatrix]
        yield [repo.repository, sizes or "not seen listed", made]
    for tag in r.ollama:
        size = f" {tag.bytes / _GB:.2f} GB" if tag.bytes else ""
        yield [f"ollama {tag.tag}", f"{tag.file_type or '?'}{size}", ""]
    for point in r.checkpoints:
        size = f" {_size(point.size)}" if point.size else ""
        yield [point.repository, f"{point.format}{size}", ""]


def _size(size: c.SizeRecord) -> str:
    digits = 2 if size.within < 10**7 else 1
    return f"{size.bytes / _GB:.{digits}f} GB"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sources(r: c.CatalogShowReport) -> Iterable[tuple[str, tuple[str, ...]]]:
    if r.licence:
        yield "licence from", r.licence.sources
    for repo in r.gguf:
        if repo.sources:
            yield f"{repo.repository} named in", repo.sources
    yield "shape and the rest from", r.sources


def added(report: c.CatalogAddReport) -> Iterable[Block]:
    """The entry as it stands in the file."""
    yield Line(f"{'replaced' if report.replaced else 'added'} in {report.file}:")
    yield Line()
    entry = {report.id: {**report.entry, "source": [report.id]}}
    yield Command(dump({"sources": {report.id: report.source}, "models": entry}).rstrip())
    yield Line()
    yield Command(f"nemofit plan {report.id}")


def checked(report: c.CatalogCheckReport) -> Iterable[Block]:
    """The catalog's files, then every file beside its entry."""
    yield Table(
        [Column("Catalog file"), Column("Entries", right=True)],
        [[row.file, str(row.entries)] for row in report.files],
    )
    for row in report.compared:
        yield Line()
        if row.model is None:
            yield Line(f"{row.file}: {row.note}", "quiet")
        elif not row.differences:
            yield Line(f"{row.file} is as {row.model} says", "good")
        else:
            yield Line(f"{row.file} differs from {row.model}:", "bad")
            columns = [Column("What"), Column("Name"), Column("Catalog"), Column("File")]
            yield Table(
                columns,
                [
                    [d.what, d.name, d.catalog or "none", d.file or "none"]
                    for d in row.differences[:_MOST]
                ],
            )
            if (more := len(row.differences) - _MOST) > 0:
                yield Line(f"{more} more: --json", "quiet")
