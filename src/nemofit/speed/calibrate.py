"""From measurements on this machine to corrections of what the model of speed expects of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.memory import split_of
from nemofit.engines.llama_cpp.placement import place
from nemofit.errors import DataError
from nemofit.machine.records import Machine

from .decode import step
from .estimate import pipelined
from .families import Figures, gpu_figures, host_figures
from .measured import Calibration, Correction, device_keys, host_key, model_key, within
from .prefill import prompt_seconds
from .work import HOST, Work, work_of

_ROUNDS = 30
_OVERHEADS = tuple(2.0 ** (i / 4) for i in range(-8, 13))
_USUAL_ERROR = 0.05
_USUAL_OVERHEAD = 0.4
"""Logarithms: how far a good model of a device may be off, and how unlike each other the overheads
of devices of one family are. Together they keep one model's run from saying anything of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measured speed of one stream.

    Attributes:
        model, quant: What ran; quant None: as in the file.
        config: Its knobs.
        phase: decode or prefill.
        tokens: Prompt tokens of a prefill, generated ones of a decode.
        depth: Tokens in the cache before.
        speed: Tokens per second.
        date: ISO 8601.
    """

    model: ModelSpec
    quant: str | None
    config: RunConfig
    phase: str
    tokens: int
    depth: int
    speed: float
    date: str


@dataclass(frozen=True, slots=True)
class _Run:
    measured: Measured
    works: tuple[Work, ...]
    base: Mapping[int, Figures]
    keys: Mapping[int, str]

    def seconds(self, corrections: Mapping[str, Correction]) -> float:
        """Seconds per token, by the model and the corrections."""
        m, model = self.measured, self.measured.model
        figures = {
            d: corrections[self.keys[d]].applied(f) if self.keys[d] in corrections else f
            for d, f in self.base.items()
        }
        used, experts = model.integer("expert_used_count"), model.integer("expert_count")
        if m.phase == "decode":
            depth = m.depth + m.tokens / 2
            parts = step(self.works, figures, used=used, experts=experts, depth=depth)
            return sum(part.seconds for part in parts)
        whole = prompt_seconds(
            self.works,
            figures,
            tokens=m.tokens,
            ubatch=min(m.config.ubatch, m.config.batch),
            used=used,
            experts=experts,
            depth=m.depth,
            op_offload=m.config.op_offload,
            flash=m.config.flash_attention,
            pipeline=pipelined(self.works, m.config),
        )
        return whole / m.tokens

    def off(self, corrections: Mapping[str, Correction]) -> float:
        """Logarithm of estimated over measured time."""
        return math.log(self.seconds(corrections) * self.measured.speed)

    @property
    def devices(self) -> frozenset[str]:
        return frozenset(self.keys[w.device] for w in self.works)


def calibrate(machine: Machine, measured: Sequence[Measured]) -> Calibration:
    """Find the corrections that the measurements ask for.

    Args:
        machine: Where they were taken.
        measured: All of them, also those of earlier days.

    Raises:
        DataError: A speed is so far from what the hardware can do that something else was measured.
    """
    runs = [_run(machine, m) for m in measured]
    corrections: dict[str, Correction] = {}
    for key in dict.fromkeys(key for run in runs for key in sorted(run.devices)):
        _fit(key, [run for run in runs if key in run.devices], corrections)
    left: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        name = model_key(run.measured.phase, run.works, run.keys, run.measured.model)
        left[name].append(run.off(corrections))
    return Calibration(
        host=host_key(machine.host),
        devices=corrections,
        models={name: math.exp(sum(offs) / len(offs)) for name, offs in left.items()},
        date=max((m.date for m in measured), default=""),
    )


def estimated(machine: Machine, measured: Measured) -> float:
    """Tokens per second that the model of speed alone expects."""
    return 1 / _run(machine, measured).seconds({})


def _run(machine: Machine, m: Measured) -> _Run:
    gpus = () if m.config.backend == "cpu" else machine.gpus
    config = m.config if not gpus else replace(m.config, backend=gpus[0].backend)
    types = tensor_types(m.model, m.quant)
    split = split_of(config, len(gpus), [gpu.total_bytes or 1 for gpu in gpus])
    placement = place(m.model, config, split)
    works = work_of(m.model, types, placement.device_of, placement.units, config)
    base = {i: gpu_figures(gpu, config.backend) for i, gpu in enumerate(gpus)}
    base[HOST] = host_figures(machine.host)
    keys = {d: k for d, k in device_keys(gpus).items() if d in base}
    return _Run(replace(m, config=config), tuple(works), base, keys)


def _fit(key: str, runs: Sequence[_Run], into: dict[str, Correction]) -> None:
    """Correct one device so that the runs on it come out right, on the mean."""
    decodes = [run for run in runs if run.measured.phase == "decode"]
    prompts = [run for run in runs if run.measured.phase == "prefill"]
    models = {run.measured.model.parameters for run in decodes}
    best, least = Correction(), math.inf
    for overhead in _OVERHEADS if len(models) > 1 else (1.0,):
        found = _balanced(key, decodes, prompts, Correction(overhead=overhead), into)
        cost = (math.log(overhead) / _USUAL_OVERHEAD) ** 2
        cost += sum((run.off({**into, key: found}) / _USUAL_ERROR) ** 2 for run in decodes)
        if cost < least:
            best, least = found, cost
    for name, factor in (("bandwidth", best.read), ("arithmetic", best.arithmetic)):
        if not within(factor):
            raise DataError(
                f"the measured speed would mean {factor:.2g} times the {name} expected of {key}",
                "measure again with nothing else running, or check the model that was named",
            )
    into[key] = replace(best, phases=frozenset(run.measured.phase for run in runs))


def _balanced(
    key: str,
    decodes: Sequence[_Run],
    prompts: Sequence[_Run],
    start: Correction,
    others: Mapping[str, Correction],
) -> Correction:
    """Bandwidth and arithmetic such that neither phase is off on the mean."""
    found = start
    for _ in range(_ROUNDS):
        if prompts:
            off = sum(run.off({**others, key: found}) for run in prompts) / len(prompts)
            found = replace(found, arithmetic=_moved(found.arithmetic, off))
        if decodes:
            off = sum(run.off({**others, key: found}) for run in decodes) / len(decodes)
            found = replace(found, read=_moved(found.read, off))
    return found


def _moved(factor: float, off: float) -> float:
    return min(max(factor * math.exp(off), 1e-3), 1e3)
