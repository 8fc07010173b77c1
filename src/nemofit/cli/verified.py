"""Predicted against the engine's own: the records and the table of ``nemofit verify``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.verify import TOLERANCE, Difference
from nemofit.units import MIB

from . import records
from .contract import Basis
from .output import Block, Column, Line, Table, Tone
from .reports import EngineSource, VerifiedFigure, VerifyReport

Source = Literal["projection", "running", "log"]
Verdict = Literal["agrees", "differs", "does-not-fit", "not-compared"]


def figures(
    differences: Iterable[Difference], basis: str, resolution: int
) -> tuple[VerifiedFigure, ...]:
    """The contract's records for figures of llama.cpp, which it prints to ``resolution`` bytes."""
    return tuple(
        VerifiedFigure(
            device=d.device,
            kind=d.kind,
            unit="bytes",
            predicted=d.predicted,
            engine=d.engine,
            resolution=resolution,
            agrees=d.agrees,
            basis=cast(Basis, basis),
        )
        for d in differences
    )


def alone(device: str, sizes: Mapping[str, int], resolution: int) -> Iterable[VerifiedFigure]:
    """Figures of an engine that stand beside no prediction."""
    for kind, size in sizes.items():
        if size:
            yield VerifiedFigure(
                device=device,
                kind=kind,
                unit="bytes",
                predicted=None,
                engine=size,
                resolution=resolution,
                agrees=None,
                basis="measured",
            )


def verdict(compared: Sequence[VerifiedFigure]) -> tuple[Verdict, str]:
    """Whether they agree, and in words how far they are apart."""
    known = [f for f in compared if f.agrees is not None]
    if not known:
        return "not-compared", "not compared: see the note"
    off = [f for f in known if not f.agrees]
    if not off:
        same = " to the last digit it prints" if all(map(_is_same, known)) else ""
        part = f" in {len(known)} of {len(compared)} figures" if len(known) < len(compared) else ""
        return "agrees", f"the engine agrees{part}{same}"
    worst = max(off, key=lambda f: abs((f.predicted or 0) - (f.engine or 0)))
    return (
        "differs",
        f"the engine differs: {worst.kind} on {worst.device} is {_text(worst.engine, worst)}, "
        f"predicted {_text(worst.predicted, worst)}",
    )


def report(
    source: Source,
    engine: EngineSource,
    model: ModelSpec | None,
    quant: str | None,
    figures: tuple[VerifiedFigure, ...],
    notes: Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    config: RunConfig | None = None,
) -> VerifyReport:
    """The document of a comparison with an engine that has run already."""
    judged, words = verdict(figures)
    return VerifyReport(
        source=source,
        engine=engine,
        model=model.id if model else None,
        quant=quant,
        config=None if config is None else records.config_record(config),
        figures=figures,
        tolerance=tolerance,
        verdict=judged,
        verdict_words=words,
        notes=tuple(notes),
    )


def view(report: VerifyReport) -> Iterable[Block]:
    """What was asked, the two columns, the verdict."""
    engine = report.engine
    title = " ".join(filter(None, (report.model, report.quant))) or "the model"
    context = f", {report.config.context} tokens" if report.config else ""
    yield Line(f"{title}{context}: predicted, and as {_name(report)} says", "strong")
    for device in engine.devices:
        yield Line(device, "quiet")
    yield Line()
    rows, tones = [], list[Tone]()
    for f in report.figures:
        difference = "" if f.predicted is None or f.engine is None else _difference(f)
        rows.append([f.device, f.kind, _text(f.predicted, f), _text(f.engine, f), difference])
        tones.append("bad" if f.agrees is False else "plain")
    titles = ("Predicted", "Engine", "Difference")
    columns = [Column("Device"), Column("Kind"), *(Column(t, right=True) for t in titles)]
    yield Table(columns, rows, tones)
    yield Line()
    yield Line(report.verdict_words, "good" if report.verdict == "agrees" else "bad")
    for note in report.notes:
        yield Line(f"note: {note}", "quiet")


def _name(report: VerifyReport) -> str:
    version = report.engine.version
    return f"{report.engine.name} {version}" if version else report.engine.name


def _is_same(f: VerifiedFigure) -> bool:
    """Whether the prediction prints as the engine's figure does: whole MiB are rounded down."""
    predicted, engine = f.predicted or 0, f.engine or 0
    if f.unit == "bytes" and f.resolution >= MIB:
        return predicted // f.resolution == engine // f.resolution
    return abs(predicted - engine) <= f.resolution


def _difference(f: VerifiedFigure) -> str:
    if _is_same(f):
        return "0"
    off = (f.predicted or 0) - (f.engine or 0)
    return ("+" if off > 0 else "-") + _text(abs(off), f)


def _text(value: float | None, figure: VerifiedFigure) -> str:
    if value is None:
        return "?"
    if figure.unit != "bytes":
        return f"{value:,.0f}" if figure.resolution >= 1 else f"{value:.2f}"
    if figure.resolution >= MIB:
        return f"{int(value // MIB)} MiB"
    return f"{value / MIB:.2f} MiB"
