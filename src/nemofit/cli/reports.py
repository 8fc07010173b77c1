"""The other records of the JSON contract: check, probe, list and schema; see :mod:`.contract`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nemofit.machine.records import FoundEngine, Gpu, Host

from .contract import (
    Basis,
    ChangeRecord,
    ConfigRecord,
    Envelope,
    MachineSummary,
    PlanRecord,
    Verdict,
)

Status = Literal["ok", "short", "unknown"]
LISTED_WITH = "llama-3.1-8b"
"""The model whose sizes ``nemofit list quants`` shows."""


@dataclass(kw_only=True, eq=False, repr=False)
class ProbeReport(Envelope):
    """``nemofit probe``: the machine as it was read; ``--machine`` takes this document."""

    schema: Literal["nemofit/probe/1"] = "nemofit/probe/1"
    source: str
    host: Host
    gpus: tuple[Gpu, ...]
    hidden_gpus: tuple[Gpu, ...]
    driver: str | None
    cuda_version: str | None
    notes: tuple[str, ...]
    engines: tuple[FoundEngine, ...] | None
    engines_note: str | None
    description: str


@dataclass(kw_only=True, eq=False, repr=False)
class CheckItem:
    """One thing that was checked: what there is, what is needed, and by how much it is short."""

    item: str
    have: str
    status: Status
    have_bytes: int | None = None
    need_bytes: int | None = None
    short_bytes: int | None = None
    note: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class CheckReport(Envelope):
    """``nemofit check``: the machine against one model (``plan``) or the catalog (``plans``)."""

    schema: Literal["nemofit/check/1"] = "nemofit/check/1"
    machine: MachineSummary
    items: tuple[CheckItem, ...]
    verdict: Verdict
    verdict_words: str
    plan: PlanRecord | None
    nearest: str | None
    fitting_models: int | None
    catalog_models: int | None
    changes: tuple[ChangeRecord, ...] = ()
    caution: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class DownloadRecord:
    """What has to be fetched before a run: ``bytes`` in all, of which some may be there.

    Without a ``directory`` the machine is another one; ``free_bytes`` is then null as well.
    """

    what: str
    bytes: int
    present_bytes: int
    partial_bytes: int
    missing_bytes: int
    directory: str | None
    free_bytes: int | None
    licence: str | None
    conditions: str | None
    gated: bool


@dataclass(kw_only=True, eq=False, repr=False)
class LaunchReport(Envelope):
    """``nemofit launch``: ``artifact`` is the text of ``format``; ``arguments`` go to ``program``.

    ``download`` null: the weights are a file of this machine.
    """

    schema: Literal["nemofit/launch/1"] = "nemofit/launch/1"
    engine: str
    format: str
    program: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    artifact: str
    download: DownloadRecord | None
    notes: tuple[str, ...]
    plan: PlanRecord


@dataclass(kw_only=True, eq=False, repr=False)
class ListedModel:
    """A model of the catalog."""

    id: str
    name: str
    aliases: tuple[str, ...]
    architecture: str
    parameters: int
    active_parameters: int | None
    trained_context: int | None
    licence: str | None
    repository: str | None
    ollama_tags: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class ListedQuant:
    """A llama.cpp file type; bits per weight as they come out for Llama 3.1 8B."""

    id: str
    bits_per_weight: float
    needs_imatrix: bool
    kl_divergence: float | None
    kl_divergence_note: str | None
    grade: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class ListedGpu:
    """A card of the catalog."""

    id: str
    name: str
    vendor: str
    memory_bytes: int | None
    bandwidth_gb_s: float | None
    architecture: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class ListedEngine:
    """An engine and what nemofit knows about it."""

    id: str
    name: str
    memory: str
    launch: str
    installed: FoundEngine | None


@dataclass(kw_only=True, eq=False, repr=False)
class ListModelsReport(Envelope):
    """``nemofit list models``."""

    schema: Literal["nemofit/list-models/1"] = "nemofit/list-models/1"
    items: tuple[ListedModel, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class ListQuantsReport(Envelope):
    """``nemofit list quants``."""

    schema: Literal["nemofit/list-quants/1"] = "nemofit/list-quants/1"
    items: tuple[ListedQuant, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class ListGpusReport(Envelope):
    """``nemofit list gpus``."""

    schema: Literal["nemofit/list-gpus/1"] = "nemofit/list-gpus/1"
    items: tuple[ListedGpu, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class ListEnginesReport(Envelope):
    """``nemofit list engines``."""

    schema: Literal["nemofit/list-engines/1"] = "nemofit/list-engines/1"
    items: tuple[ListedEngine, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class ListedMachine:
    """A saved machine in the words of ``--machine``; null: ``description_note`` says why."""

    name: str
    description: str | None
    description_note: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class ListMachinesReport(Envelope):
    """``nemofit list machines``: those that ``nemofit probe --save`` kept."""

    schema: Literal["nemofit/list-machines/1"] = "nemofit/list-machines/1"
    items: tuple[ListedMachine, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class LocalPlace:
    """Where a model lies, and what nemofit takes as that model."""

    store: str
    path: str
    ref: str


@dataclass(kw_only=True, eq=False, repr=False)
class ListedLocal:
    """A model on this disk: ``bytes`` once, ``copies`` of its places have bytes of their own.

    ``kind`` is "model", "projector", "adapter" or "checkpoint" (safetensors). With an ``error``,
    what could not be read is null.
    """

    id: str
    kind: str
    architecture: str | None
    parameters: int | None
    file_type: str | None
    bytes: int
    files: int
    copies: int
    places: tuple[LocalPlace, ...]
    error: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class ListLocalReport(Envelope):
    """``nemofit list models --local``."""

    schema: Literal["nemofit/list-local/1"] = "nemofit/list-local/1"
    items: tuple[ListedLocal, ...]
    total_bytes: int
    notes: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class SchemaReport(Envelope):
    """``nemofit schema`` without a name: what there is to ask for."""

    schema: Literal["nemofit/schema/1"] = "nemofit/schema/1"
    names: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class VerifiedFigure:
    """One figure: what nemofit predicts and what the engine says, in the same unit.

    ``engine`` is known to ``resolution`` (it prints whole or hundredths of MiB); ``agrees`` null:
    one of the two is not known.
    """

    device: str
    kind: str
    unit: Literal["bytes", "tokens", "requests"]
    predicted: float | None
    engine: float | None
    resolution: float
    agrees: bool | None
    basis: Basis


@dataclass(kw_only=True, eq=False, repr=False)
class EngineSource:
    """The engine that was asked: its own word for its version, and where it was found."""

    name: Literal["llama.cpp", "ollama", "vllm"]
    version: str | None
    program: str | None
    devices: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class VerifyReport(Envelope):
    """``nemofit verify``: predicted and engine side by side, per device and kind."""

    schema: Literal["nemofit/verify/1"] = "nemofit/verify/1"
    source: Literal["projection", "running", "log"]
    engine: EngineSource
    model: str | None
    quant: str | None
    config: ConfigRecord | None
    figures: tuple[VerifiedFigure, ...]
    tolerance: float
    verdict: Literal["agrees", "differs", "does-not-fit", "not-compared"]
    verdict_words: str
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class CorrectedDevice:
    """What a device reaches of what was expected of it: factors, 1 as expected.

    ``read`` is on its bandwidth, ``arithmetic`` on the rate of its products, ``overhead`` on the
    time that an operation takes beside both.
    """

    device: str
    read: float
    arithmetic: float
    overhead: float


@dataclass(kw_only=True, eq=False, repr=False)
class MeasuredSpeed:
    """A measured speed, with what was expected without it."""

    model: str
    quant: str | None
    phase: Literal["decode", "prefill"]
    tokens: int
    depth: int
    tokens_per_second: float
    expected_tokens_per_second: float | None
    engine: str
    date: str


@dataclass(kw_only=True, eq=False, repr=False)
class CalibrateReport(Envelope):
    """``nemofit calibrate``: what was measured on this machine, and what follows."""

    schema: Literal["nemofit/calibrate/1"] = "nemofit/calibrate/1"
    file: str
    host: str | None
    in_use: bool
    devices: tuple[CorrectedDevice, ...]
    measured: tuple[MeasuredSpeed, ...]
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class WatchedGpu:
    """Memory held on a card: the process's own, or all programs' where the driver says no more."""

    name: str
    used_bytes: int | None
    whose: Literal["process", "card"]


@dataclass(kw_only=True, eq=False, repr=False)
class WatchedDevice:
    """The most that was held on a device, and what the plan has there; null: no plan was named."""

    device: str
    peak_bytes: int | None
    planned_bytes: int | None


@dataclass(kw_only=True, eq=False, repr=False)
class WatchReport(Envelope):
    """``nemofit watch``: one document per look, and a last one with the peaks.

    ``allocated_bytes`` cannot be given back; ``mapped_bytes`` are pages of files, the weights of a
    mapped model among them, which the system drops when it needs room. Null: not known here.
    """

    schema: Literal["nemofit/watch/1"] = "nemofit/watch/1"
    kind: Literal["look", "summary"]
    pid: int
    seconds: float
    resident_bytes: int | None = None
    allocated_bytes: int | None = None
    mapped_bytes: int | None = None
    gpus: tuple[WatchedGpu, ...] = ()
    peaks: tuple[WatchedDevice, ...] = ()
    looks: int | None = None
    ended: Literal["process", "time", "asked"] | None = None
    notes: tuple[str, ...] = ()
