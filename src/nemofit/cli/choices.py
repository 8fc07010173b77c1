"""The records of need and compare in the JSON contract; see :mod:`.contract`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .contract import (
    ConfigRecord,
    Envelope,
    GoalRecord,
    MachineSummary,
    MemoryRecord,
    ModelRecord,
    PlanRecord,
    QualityRecord,
    QuantRecord,
    SpeedRecord,
    Verdict,
)


@dataclass(kw_only=True, eq=False, repr=False)
class EnergyRecord:
    """What generating costs in electricity, and what of the machine is counted."""

    power_w: float | None
    kwh_per_million_tokens: float | None
    cost_per_million_tokens: float | None
    basis: str


@dataclass(kw_only=True, eq=False, repr=False)
class HardwareRecord:
    """Something that does it. ``machine`` is a description that ``--machine`` takes."""

    rank: int
    kind: Literal["cards", "unified", "cpu"]
    name: str
    count: int
    machine: str
    hardware_bytes: int
    memory: MemoryRecord
    config: ConfigRecord
    speed: SpeedRecord | None
    energy: EnergyRecord
    price: float | None
    price_note: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class NeedReport(Envelope):
    """``nemofit need``: the least of each card, chip or host that does it, least first."""

    schema: Literal["nemofit/need/1"] = "nemofit/need/1"
    model: ModelRecord
    quant: QuantRecord
    quality: QualityRecord
    goal: GoalRecord
    context: int
    hardware: tuple[HardwareRecord, ...]
    fitting: int
    considered: int
    sort: Literal["memory", "power", "price", "speed"]
    currency: str | None
    power_price: float | None
    command: str | None
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class ComparedRecord:
    """One column: the best plan, or one that misses with the reason in ``reason``."""

    asked: str
    verdict: Verdict
    reason: str | None
    score: float
    plan: PlanRecord
    energy: EnergyRecord
    licence_conditions: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class CompareReport(Envelope):
    """``nemofit compare``: models side by side, as they were named."""

    schema: Literal["nemofit/compare/1"] = "nemofit/compare/1"
    machine: MachineSummary
    goal: GoalRecord
    models: tuple[ComparedRecord, ...]
    power_price: float | None
