"""What ``--json`` prints: one envelope per command.

These records are the contract: ``nemofit schema`` derives the JSON Schema from them, and the text
output reads the same records. Sizes are bytes; what is unknown is null, and the field of the same
name with ``_note`` says why. Adding a field keeps a schema's number; removing or changing one
raises it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from nemofit import __version__

Basis = Literal["exact", "computed", "measured", "published", "assumed"]
CompanionKind = Literal["projector", "adapter", "draft"]
Verdict = Literal["fits", "does-not-fit"]


@dataclass(kw_only=True, eq=False, repr=False)
class Envelope:
    """The two fields that every document begins with: its schema and nemofit's version."""

    schema: str
    nemofit: str = __version__


@dataclass(kw_only=True, eq=False, repr=False)
class RangeRecord:
    """An estimate: nine of ten real runs are expected from ``low`` to ``high``."""

    low: float
    likely: float
    high: float


@dataclass(kw_only=True, eq=False, repr=False)
class ModelRecord:
    """A model; ``parameters`` is the sum over its weight tensors."""

    id: str
    name: str
    architecture: str
    parameters: int
    active_parameters: int | None
    trained_context: int | None
    source: str
    licence: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class QuantRecord:
    """A file type; bits per weight are its tensors' bytes over the parameters."""

    id: str
    bits_per_weight: float
    imatrix: bool


@dataclass(kw_only=True, eq=False, repr=False)
class QualityRecord:
    """What the file type and the cache type cost: expected KL divergence to the 16-bit model.

    From ``kl_low`` to ``kl_high``: what other models lost to the same file type.
    """

    kl_divergence: float | None
    grade: str | None
    basis: Basis
    note: str
    kl_low: float | None = None
    kl_high: float | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class ConfigRecord:
    """llama.cpp's knobs; see ``nemofit.RunConfig``. ``tensor_split`` null: one device;
    ``devices`` null: all of them, else the numbers of the GPUs that are used."""

    context: int
    batch: int
    ubatch: int
    flash_attention: bool
    kv_type_k: str
    kv_type_v: str
    parallel: int
    kv_unified: bool
    gpu_layers: int
    tensor_split: tuple[float, ...] | None
    devices: tuple[int, ...] | None
    cpu_moe_layers: int
    kv_offload: bool
    op_offload: bool
    mmap: bool
    repack: bool
    backend: str
    program: str


@dataclass(kw_only=True, eq=False, repr=False)
class VllmConfigRecord:
    """vLLM's knobs by its own names; null: vLLM's default for the card."""

    max_model_len: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    gpu_memory_utilization: float
    kv_cache_dtype: str
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    cpu_offload_gb: float
    enforce_eager: bool
    block_size: int
    dtype: str
    language_model_only: bool


@dataclass(kw_only=True, eq=False, repr=False)
class TransformersConfigRecord:
    """What decides a run with transformers; ``max_memory`` in bytes by device, null: not set."""

    context: int
    batch: int
    dtype: str
    quantization: str
    double_quant: bool
    device_map: str
    max_memory: dict[str, int] | None
    attention: str


@dataclass(kw_only=True, eq=False, repr=False)
class LineRecord:
    """One line of an engine's own account; what it subtracts from its share is negative."""

    name: str
    bytes: int
    basis: Basis
    note: str


@dataclass(kw_only=True, eq=False, repr=False)
class ServingRecord:
    """What vLLM will print of its cache, and the longest ``max_model_len`` that would start."""

    kv_tokens: int
    max_concurrency: float
    longest_model_len: int


@dataclass(kw_only=True, eq=False, repr=False)
class DeviceRecord:
    """Bytes on one device by kind. Without a budget, ``budget_bytes_note`` says why.

    ``lines`` is the engine's own account of the device where it keeps one.
    """

    name: str
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    overhead_bytes: int
    total_bytes: int
    budget_bytes: int | None
    budget_bytes_note: str | None = None
    lines: tuple[LineRecord, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class MemoryRecord:
    """What lies where; ``file_bytes`` is the size of the weights on disk. ``weights_basis``:
    "exact" where a file's own header says what it holds."""

    gpus: tuple[DeviceRecord, ...]
    host: DeviceRecord
    file_bytes: int
    basis: Basis
    notes: tuple[str, ...] = ()
    weights_basis: Basis = "computed"


@dataclass(kw_only=True, eq=False, repr=False)
class SpeedRecord:
    """Tokens per second for one stream: a 512-token prompt, 128 tokens generated; and what is
    generated with the context full."""

    decode_tokens_per_second: RangeRecord
    prefill_tokens_per_second: RangeRecord
    time_to_first_token_ms: RangeRecord
    basis: Basis
    limit: str
    notes: tuple[str, ...] = ()
    full_context_decode_tokens_per_second: RangeRecord | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class PartRecord:
    """Bytes of a companion on one device, also part of that device's own figures."""

    device: str
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    total_bytes: int


@dataclass(kw_only=True, eq=False, repr=False)
class CompanionRecord:
    """What runs beside the model: a projector, a LoRA adapter or a draft model."""

    kind: CompanionKind
    name: str
    file_bytes: int | None
    parts: tuple[PartRecord, ...]
    basis: Basis
    note: str


@dataclass(kw_only=True, eq=False, repr=False)
class PlanRecord:
    """A configuration with everything known about it.

    ``verdict`` is for programs, ``verdict_words`` for people. ``command`` null: ``command_note``
    says why there is none. ``config`` is that of ``engine``. ``checkpoint``, ``serving`` and
    ``device_map`` are there for the engines that have such.
    """

    model: ModelRecord
    quant: QuantRecord
    engine: str
    config: ConfigRecord | VllmConfigRecord | TransformersConfigRecord
    memory: MemoryRecord
    speed: SpeedRecord | None
    speed_note: str | None
    quality: QualityRecord
    verdict: Verdict
    verdict_words: str
    command: str | None
    command_note: str | None
    notes: tuple[str, ...] = ()
    checkpoint: str | None = None
    serving: ServingRecord | None = None
    device_map: dict[str, int | str] | None = None
    companions: tuple[CompanionRecord, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class Step:
    """One line of the arithmetic: what, how it is made, how many bytes, where the rule is from."""

    device: str
    kind: str
    text: str
    bytes: int
    source: str


@dataclass(kw_only=True, eq=False, repr=False)
class ChangeRecord:
    """One change that mends a plan that misses, and what it leads to.

    ``flags`` null: no flag does it, ``action`` says what does.
    """

    what: Literal["offload", "process", "kv-type", "quant", "context", "several", "ram", "card"]
    flags: str | None
    action: str
    cost: str
    text: str
    memory: MemoryRecord
    config: ConfigRecord
    quant: QuantRecord
    speed: SpeedRecord | None


@dataclass(kw_only=True, eq=False, repr=False)
class PlanReport(PlanRecord, Envelope):
    """``nemofit plan``. ``explanation`` is there with ``--explain``.

    ``misses`` says which limit the plan breaks, ``changes`` what would mend it, least given up
    first; ``nearest`` is the first of them in words.
    """

    schema: Literal["nemofit/plan/1"] = "nemofit/plan/1"
    explanation: tuple[Step, ...] | None = None
    nearest: str | None = None
    misses: str | None = None
    changes: tuple[ChangeRecord, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class GpuSummary:
    """One device and what a plan may use of it."""

    name: str
    total_bytes: int | None
    free_bytes: int | None
    budget_bytes: int | None
    shared: bool
    error: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class MachineSummary:
    """The machine that the answer is about. ``source``: "probe", a description or a file."""

    source: str
    gpus: tuple[GpuSummary, ...]
    ram_total_bytes: int | None
    ram_available_bytes: int | None
    ram_budget_bytes: int | None
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class GoalRecord:
    """What was asked for; ``fixed`` are the knobs that the person set, by name."""

    prefer: str
    min_tokens_per_second: float | None
    context: int | None
    fixed: dict[str, Any] = field(default_factory=dict)
    min_context: int | None = None
    max_vram_bytes: int | None = None
    quality: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class EvidenceRecord:
    """A published score. ``compared`` false: measured otherwise than those of the other rows."""

    benchmark: str
    value: float
    by: str
    how: str | None
    sources: tuple[str, ...]
    compared: bool
    text: str


@dataclass(kw_only=True, eq=False, repr=False)
class RankedPlan(PlanRecord):
    """A plan with its place: ``score`` is between 0 and 1, by the preference's formula.

    ``evidence`` and ``variants`` are there with ``--use-case``; without a published score
    ``evidence_note`` says so.
    """

    rank: int
    score: float
    evidence: EvidenceRecord | None = None
    evidence_note: str | None = None
    variants: tuple[str, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class RecommendReport(Envelope):
    """``nemofit recommend``: the plans of one model, or one plan for each model, best first."""

    schema: Literal["nemofit/recommend/1"] = "nemofit/recommend/1"
    scope: Literal["model", "catalog"]
    machine: MachineSummary
    goal: GoalRecord
    plans: tuple[RankedPlan, ...]
    reason: str
    considered: int
    use_case: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class ErrorReport(Envelope):
    """What ``--json`` prints where a command ends in an error."""

    schema: Literal["nemofit/error/1"] = "nemofit/error/1"
    message: str
    hint: str | None
    exit_code: int
    changes: tuple[ChangeRecord, ...] = ()


def to_json(value: Any) -> Any:
    """Turn records into what :mod:`json` writes; a float keeps six significant digits."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return float(f"{value:.6g}")
    names = getattr(kind, "__dataclass_fields__", None)
    if names is not None:
        return {
            name: v if type(v := getattr(value, name)) in _PLAIN else to_json(v) for name in names
        }
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return value


_PLAIN = frozenset({str, int, bool, type(None)})
