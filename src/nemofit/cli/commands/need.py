"""``nemofit need``: the least hardware for a model, a context and a speed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from nemofit.catalog.prices import Prices, read_prices
from nemofit.errors import UsageError
from nemofit.planner.energy import BASIS
from nemofit.planner.need import SORTS, Hardware, Need, need

from .. import records, request, views
from ..answer import Answer
from ..choices import EnergyRecord, HardwareRecord, NeedReport
from ..environment import prepare
from ..options import Options
from ..output import Block, Column, Command, Line, Table, Tone

_SHOWN = 20


def answer(options: Options) -> Answer:
    """Find it; an error with exit code 3 where nothing of the table does it."""
    prepare(options.catalog)
    limit, power_price = request.limit_of(options), request.power_price_of(options)
    prices = read_prices(Path(options.prices).expanduser()) if options.prices else Prices()
    sort = options.sort or ("price" if options.prices else "memory")
    if sort not in SORTS:
        raise UsageError(f"hardware cannot be sorted by {sort!r:.40}", "by " + ", ".join(SORTS))
    if sort == "price" and not options.prices:
        raise UsageError("nothing is known about prices", "name a list with --prices FILE")
    goal = request.goal_of(options)
    model = request.model_of(options)
    found = need(model, goal, prices, sort)
    best = found.hardware[0].plan
    report = NeedReport(
        model=records.model_record(model),
        quant=records.quant_record(best),
        quality=records.quality_record(best),
        goal=records.goal_record(goal),
        context=found.context,
        hardware=tuple(
            _record(n, hardware, options.prices is not None, power_price)
            for n, hardware in enumerate(found.hardware[:limit], 1)
        ),
        fitting=len(found.hardware),
        considered=found.considered,
        sort=sort,  # type: ignore[arg-type]
        currency=prices.currency,
        power_price=power_price,
        command=best.command("llama.cpp"),
        notes=(*prices.notes, *_notes(found)),
    )
    return Answer(report, lambda: _view(report, limit or _SHOWN))


def _notes(found: Need) -> Iterable[str]:
    yield "on cards everything lies in their memory; the host beside them only has to be this large"
    if any(h.count > 1 for h in found.hardware):
        yield "several cards hold more and are not faster: they work on a token one after another"


def _record(n: int, h: Hardware, priced: bool, power_price: float | None) -> HardwareRecord:
    note = "not in the price list" if priced else "no price list was given"
    return HardwareRecord(
        rank=n,
        kind=h.kind,  # type: ignore[arg-type]
        name=h.name,
        count=h.count,
        machine=h.machine.source,
        hardware_bytes=h.memory_bytes,
        memory=records.memory_record(h.plan),
        config=records.config_record(h.plan.config),
        speed=records.speed_record(h.plan.speed),
        energy=energy_record(h.power_w, h.kwh_per_million, power_price),
        price=h.price,
        price_note=None if h.price is not None else note,
    )


def energy_record(
    power_w: float | None, kwh: float | None, power_price: float | None
) -> EnergyRecord:
    """Electricity for a million tokens; without a known power the basis says so."""
    cost = None if kwh is None or power_price is None else kwh * power_price
    basis = BASIS if power_w is not None else "the power of this hardware is not known"
    return EnergyRecord(
        power_w=power_w, kwh_per_million_tokens=kwh, cost_per_million_tokens=cost, basis=basis
    )


def _view(report: NeedReport, shown: int) -> Iterable[Block]:
    speed = report.goal.min_tokens_per_second
    fast = f", at least {speed:g} tokens per second" if speed else ""
    yield Line(
        f"{report.model.name} as {report.quant.id} ({report.quality.grade or 'loss not known'}) "
        f"at {report.context} tokens{fast}",
        "strong",
    )
    yield Line()
    yield _table(report, shown)
    hidden = len(report.hardware) - shown
    if hidden > 0:
        yield Line(f"{hidden} more: --limit {len(report.hardware)}", "quiet")
    yield Line()
    yield Line(
        f"{report.fitting} of {report.considered} kinds of hardware do it, by {report.sort}."
    )
    for note in report.notes:
        yield Line(f"note: {note}", "quiet")
    yield Line(f"note: energy: {BASIS}", "quiet")
    if report.command:
        yield Line()
        yield Command(report.command)


def _table(report: NeedReport, shown: int) -> Table:
    money = f" {report.currency}" if report.currency else ""
    columns = {
        "machine": Column("Hardware"),
        "bought": Column("Memory GB", right=True, rank=3),
        "used": Column("Used GiB", right=True, rank=2),
        "speed": Column("tokens/s", right=True),
        "power": Column("Watt", right=True, rank=1),
        "kwh": Column("kWh/M tokens", right=True, rank=1),
        "cost": Column("Cost/M tokens", right=True),
        "price": Column(f"Price{money}", right=True),
    }
    unwanted = {"cost"} if report.power_price is None else set()
    if all(h.price is None for h in report.hardware):
        unwanted.add("price")
    keys = [key for key in columns if key not in unwanted]
    rows = [_row(h) for h in report.hardware[:shown]]
    tones = cast(list[Tone], ["strong"] + ["plain"] * (len(rows) - 1))
    return Table([columns[key] for key in keys], [[r[key] for key in keys] for r in rows], tones)


def _row(h: HardwareRecord) -> dict[str, str]:
    used = sum(d.total_bytes for d in h.memory.gpus) or h.memory.host.total_bytes
    energy = h.energy
    return {
        "machine": h.machine,
        "bought": f"{h.hardware_bytes / (1 << 30):.0f}",
        "used": f"{used / (1 << 30):.1f}",
        "speed": views.speed_text(h.speed),
        "power": "?" if energy.power_w is None else f"{energy.power_w:.0f}",
        "kwh": _figure(energy.kwh_per_million_tokens),
        "cost": _figure(energy.cost_per_million_tokens),
        "price": "?" if h.price is None else f"{h.price:.0f}",
    }


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
