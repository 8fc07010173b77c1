"""Blocks that several commands show: a plan's devices, its speed, its machine, its command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nemofit.units import gib, mib, rate

from .contract import (
    ChangeRecord,
    ConfigRecord,
    DeviceRecord,
    MachineSummary,
    PlanRecord,
    RangeRecord,
    SpeedRecord,
    TransformersConfigRecord,
    VllmConfigRecord,
)
from .output import Bar, Bars, Block, Column, Command, Line, Table, Tone

KINDS = ("weights", "KV cache", "compute", "overhead")


def tokens(n: int) -> str:
    """A context for people: ``8k`` where it is a whole number of 1024."""
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)


def speed_text(speed: SpeedRecord | None) -> str:
    """Tokens per second as a range."""
    if speed is None:
        return "?"
    return range_text(speed.decode_tokens_per_second)


def range_text(range: RangeRecord) -> str:
    """Both ends of a range, once where they print the same."""
    low, high = rate(range.low), rate(range.high)
    return low if low == high else f"{low}-{high}"


def machine_line(machine: MachineSummary) -> str:
    """The machine in one line: equal cards counted, what a plan may use of each."""
    groups: dict[tuple[str, int | None, str | None], int] = {}
    for gpu in machine.gpus:
        key = gpu.name, gpu.budget_bytes, gpu.error
        groups[key] = groups.get(key, 0) + 1
    parts = []
    for (name, budget, error), count in groups.items():
        each = " each" if count > 1 else ""
        offer = f"{gib(budget)} to use{each}" if budget is not None else error or "memory unknown"
        parts.append(f"{count}x {name} ({offer})")
    if not machine.gpus:
        parts.append("a machine without a GPU")
    ram = machine.ram_budget_bytes
    parts.append("RAM not known" if ram is None else f"RAM {gib(ram)} to use")
    return ", ".join(parts)


BASES = {
    "measured": "measured here",
    "published": "published for this card",
    "computed": "modelled",
    "assumed": "modelled, with assumptions",
    "exact": "exact",
}
"""Where an estimate of speed comes from, for people."""


def kv_text(k: str, v: str) -> str:
    """The cache types, once where they are equal."""
    return k if k == v else f"{k},{v}"


Config = ConfigRecord | VllmConfigRecord | TransformersConfigRecord


def context_of(config: Config) -> int:
    """Tokens of context: over all sequences, of vLLM of the longest request."""
    return config.max_model_len if isinstance(config, VllmConfigRecord) else config.context


def kv_of(config: Config) -> str:
    """The cache's types."""
    if isinstance(config, ConfigRecord):
        return kv_text(config.kv_type_k, config.kv_type_v)
    return config.kv_cache_dtype if isinstance(config, VllmConfigRecord) else config.dtype


def split_of(config: Config) -> str:
    """How the layers are shared out: of llama.cpp their number, of vLLM its ranks."""
    if isinstance(config, ConfigRecord):
        return str(config.gpu_layers)
    if isinstance(config, VllmConfigRecord):
        return f"tp {config.tensor_parallel_size}, pp {config.pipeline_parallel_size}"
    return config.device_map


def account(plan: PlanRecord) -> Iterable[Block]:
    """What an engine reckons beside the four kinds: its own lines, its cache, its placement."""
    if plan.device_map is not None:
        rows = [[name, _device_name(d)] for name, d in plan.device_map.items()]
        yield Table([Column("Module"), Column("Device")], rows)
        yield Line()
    shown: list[tuple[str, ...]] = []
    for name, device in devices(plan):
        sizes = tuple(f"{line.name} {line.bytes}" for line in device.lines)
        if not sizes or sizes in shown:
            continue
        shown.append(sizes)
        columns = [Column(name), Column("Size", right=True), Column("Basis"), Column("How", rank=1)]
        yield Table(
            columns,
            [[line.name, _signed(line.bytes), line.basis, line.note] for line in device.lines]
            + [["left for the cache", _signed(sum(line.bytes for line in device.lines)), "", ""]],
        )
        yield Line()


def _device_name(device: int | str) -> str:
    return f"GPU {device}" if isinstance(device, int) else "RAM" if device == "cpu" else device


def _signed(n: int) -> str:
    return size(n) if n >= 0 else f"-{size(-n)}"


def devices(plan: PlanRecord) -> list[tuple[str, DeviceRecord]]:
    """Every device of a plan with its short name."""
    found = [(f"GPU {i}", device) for i, device in enumerate(plan.memory.gpus)]
    return [*found, ("RAM", plan.memory.host)]


def bars(plan: PlanRecord) -> Bars:
    """One bar per device against its budget."""
    return Bars(
        bars=[
            Bar(
                label=name,
                parts=(d.weights_bytes, d.kv_bytes, d.compute_bytes, d.overhead_bytes),
                budget=d.budget_bytes,
                text=_of(d.total_bytes, d.budget_bytes) if d.total_bytes else "not used",
            )
            for name, d in devices(plan)
        ],
        legend=KINDS,
    )


def _of(total: int, budget: int | None) -> str:
    return gib(total) if budget is None else f"{gib(total)} of {gib(budget)}"


def memory_table(plan: PlanRecord) -> Table:
    """Bytes by device and kind."""
    columns = [
        Column("Device"),
        *(Column(kind, right=True) for kind in KINDS),
        Column("Total", right=True),
        Column("Budget", right=True),
    ]
    rows, tones = [], list[Tone]()
    for name, d in devices(plan):
        parts = (d.weights_bytes, d.kv_bytes, d.compute_bytes, d.overhead_bytes, d.total_bytes)
        budget = "?" if d.budget_bytes is None else size(d.budget_bytes)
        rows.append([name, *(size(n) for n in parts), budget])
        tones.append(
            "bad" if d.budget_bytes is not None and d.total_bytes > d.budget_bytes else "plain"
        )
    return Table(columns, rows, tones)


def size(n: int) -> str:
    """GiB from 1 GiB on, MiB below."""
    return gib(n) if n >= 1 << 30 else mib(n) if n else "0"


def verdict_line(plan: PlanRecord) -> Line:
    """The verdict with its colour."""
    return Line(plan.verdict_words, "good" if plan.verdict == "fits" else "bad")


def ending(plan: PlanRecord) -> Iterable[Block]:
    """Notes, licence, and the command as the very last line."""
    for note in plan.notes:
        yield Line(f"note: {note}", "quiet")
    if plan.model.licence:
        yield Line(f"licence: {plan.model.licence}", "quiet")
    if plan.verdict != "fits":
        return
    yield Line()
    if plan.command is None:
        yield Line(f"no command: {plan.command_note}", "quiet")
    else:
        yield Command(plan.command)


def changed(changes: Sequence[ChangeRecord], nearest: str | None = None) -> Iterable[Block]:
    """What would have to change, one line each; else the nearest thing that would do."""
    if nearest and not changes:
        yield Line(f"what would fit: {nearest}")
    if changes:
        yield Line("any one of these would do:")
    for change in changes:
        yield Line(f"- {change.text}")


def speed_words(speed: SpeedRecord) -> str:
    """The range with its middle, where it comes from, and what limits it."""
    decode, prefill = speed.decode_tokens_per_second, speed.prefill_tokens_per_second
    likely = "" if rate(decode.low) == rate(decode.high) else f", likely {rate(decode.likely)}"
    full = speed.full_context_decode_tokens_per_second
    filled = f"{range_text(full)} with the context full, " if full else ""
    return (
        f"{speed_text(speed)} tokens per second{likely} ({BASES[speed.basis]}), {filled}"
        f"prompts {rate(prefill.low)}-{rate(prefill.high)}; {speed.limit}"
    )


def facts(plan: PlanRecord) -> Sequence[Block]:
    """Speed and quality in words."""
    lines: list[Block] = []
    speed = plan.speed
    if speed is None:
        lines.append(Line(f"speed: {plan.speed_note}"))
    else:
        lines.append(Line(f"speed: {speed_words(speed)}"))
    quality = plan.quality
    if quality.kl_divergence is None:
        lines.append(Line(f"quality loss: not known, {quality.note}"))
    else:
        lines.append(
            Line(
                f"quality loss: {quality.grade}, {quality.kl_divergence:.4f} nats of KL divergence "
                f"({quality.basis}: {quality.note})"
            )
        )
    return lines
