"""``nemofit compare``: models side by side on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nemofit.catalog.model import ModelSpec
from nemofit.errors import UnknownNameError, UsageError
from nemofit.planner.energy import kwh_per_million, power_of
from nemofit.planner.records import room_for
from nemofit.planner.side_by_side import Column as Compared
from nemofit.planner.side_by_side import compare
from nemofit.planner.sources import card_of
from nemofit.units import gb, gib, rate

from .. import records, request, views
from ..answer import Answer
from ..choices import ComparedRecord, CompareReport
from ..contract import PlanRecord
from ..environment import prepare
from ..options import Options
from ..output import Block, Column, Line, Table
from .need import energy_record

_NO = 3
_WHOLE = ("hf:", "ollama:", "http:", "https:")
"""References that have a meaning of their own for what follows a colon."""


def answer(options: Options) -> Answer:
    """Compare; exit code 3 where none of them fits."""
    prepare(options.catalog)
    engine, power_price = request.file_engine_of(options), request.power_price_of(options)
    if len(options.models) < 2:
        raise UsageError(
            "one model is nothing to compare",
            "nemofit compare MODEL MODEL, or MODEL:Q4_K_M MODEL:Q8_0",
        )
    asked = [(text, *_named(text)) for text in options.models]
    machine, goal = request.machine_of(options), request.goal_of(options)
    columns = compare(asked, machine, goal)
    report = CompareReport(
        machine=records.machine_summary(room_for(machine, goal), machine),
        goal=records.goal_record(goal),
        models=tuple(_record(column, engine, power_price) for column in columns),
        power_price=power_price,
    )
    fits = any(column.reason is None for column in columns)
    return Answer(report, lambda: _view(report), 0 if fits else _NO)


def _named(text: str) -> tuple[ModelSpec, str | None]:
    """A model, and the file type behind a colon where there is one.

    Raises:
        UnknownNameError, DataError: As of ``load_model``.
    """
    from nemofit.catalog.ggml import find_file_type
    from nemofit.formats.load import load_model

    name, colon, quant = text.rpartition(":")
    if colon and name and not text.lower().startswith(_WHOLE):
        try:
            return load_model(name), find_file_type(quant).name
        except UnknownNameError:
            pass
    return load_model(text), None


def _record(column: Compared, engine: str, power_price: float | None) -> ComparedRecord:
    plan = column.plan
    power = power_of(plan.room.machine)
    card = card_of(plan.model)
    return ComparedRecord(
        asked=column.asked,
        verdict="fits" if column.reason is None else "does-not-fit",
        reason=column.reason,
        score=plan.score,
        plan=PlanRecord(**records.plan_fields(plan, engine)),
        energy=energy_record(power, kwh_per_million(power, plan.tokens_per_second), power_price),
        licence_conditions=card.licence.conditions if card and card.licence else None,
    )


_Tell = Callable[[ComparedRecord], str]


def _view(report: CompareReport) -> Iterable[Block]:
    yield Line(f"On {views.machine_line(report.machine)}", "strong")
    yield Line()
    columns = [Column(""), *(Column(compared.asked) for compared in report.models)]
    rows = [[name, *(tell(m) for m in report.models)] for name, tell in _rows(report)]
    yield Table(columns, rows)
    for compared in report.models:
        if compared.reason:
            yield Line()
            yield Line(f"{compared.asked}: {compared.reason}", "bad")
    fitting = [m for m in report.models if m.reason is None]
    if fitting:
        best = max(fitting, key=lambda m: m.score)
        yield Line()
        yield Line(f"{best.asked} has the best plan by --prefer {report.goal.prefer}; its command:")
        yield from views.ending(best.plan)


def _rows(report: CompareReport) -> Iterable[tuple[str, _Tell]]:
    yield "verdict", lambda m: m.plan.verdict_words if m.reason is None else "does not do"
    yield "parameters", _parameters
    yield "quant", lambda m: m.plan.quant.id
    yield "file", lambda m: gb(m.plan.memory.file_bytes)
    if report.machine.gpus:
        yield "GPU memory", lambda m: gib(sum(d.total_bytes for d in m.plan.memory.gpus))
    yield "RAM", lambda m: gib(m.plan.memory.host.total_bytes)
    yield "context", lambda m: views.tokens(views.context_of(m.plan.config))
    yield "trained context", lambda m: views.tokens(m.plan.model.trained_context or 0)
    yield "KV cache", lambda m: views.kv_of(m.plan.config)
    yield "tokens/s", lambda m: views.speed_text(m.plan.speed)
    yield "prompt tokens/s", _prefill
    yield "quality loss", _loss
    yield "licence", lambda m: m.plan.model.licence or "?"
    yield "kWh/M tokens", lambda m: _figure(m.energy.kwh_per_million_tokens)
    if report.power_price is not None:
        yield "cost/M tokens", lambda m: _figure(m.energy.cost_per_million_tokens)
    yield "score", lambda m: f"{m.score:.2f}" if m.reason is None else ""


def _parameters(m: ComparedRecord) -> str:
    total, active = m.plan.model.parameters, m.plan.model.active_parameters
    words = f"{total / 1e9:.1f}B"
    return words if active in (None, total) else f"{words}, {(active or 0) / 1e9:.1f}B active"


def _prefill(m: ComparedRecord) -> str:
    if m.plan.speed is None:
        return "?"
    prefill = m.plan.speed.prefill_tokens_per_second
    return f"{rate(prefill.low)}-{rate(prefill.high)}"


def _loss(m: ComparedRecord) -> str:
    quality = m.plan.quality
    if quality.kl_divergence is None:
        return "not known"
    return f"{quality.grade}, {quality.kl_divergence:.4f}"


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
