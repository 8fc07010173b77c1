"""The one question: how fast does this configuration run on this machine?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError
from nemofit.machine.records import Machine

from .constants import CONSTANTS, Constants
from .decode import limit, step
from .families import Figures, gpu_figures, host_figures
from .prefill import prompt_seconds
from .records import Range, Speed
from .work import HOST, Work, work_of


def estimate_speed(
    model: ModelSpec,
    quant: str | None = None,
    config: RunConfig | None = None,
    machine: Machine | None = None,
    prompt_tokens: int = 512,
    generated_tokens: int = 128,
    depth: int = 0,
    streams: int = 1,
    imatrix: bool = False,
) -> Speed:
    """Estimate how fast a configuration runs on a machine.

    Args:
        model: The model's shape or file.
        quant: llama.cpp file type; None: as in the file.
        config: llama.cpp's knobs; None: its defaults.
        machine: The host and its GPUs; None: nothing known but four cores.
        prompt_tokens: Length of the prompt.
        generated_tokens: Tokens generated after it.
        depth: Tokens already in the cache before the prompt.
        streams: Streams that decode at the same time.
        imatrix: The file was made with an importance matrix.

    Returns:
        Ranges with a reason. Nothing here is checked against the memory: see ``estimate_memory``.

    Raises:
        UsageError: A count that makes no sense, or a quant that is not known.
    """
    from nemofit.catalog.filetypes import tensor_types
    from nemofit.engines.llama_cpp.placement import place

    config = config or RunConfig()
    machine = machine or Machine()
    types = tensor_types(model, quant, imatrix=imatrix)
    n_gpus = 0 if config.backend == "cpu" else len(machine.gpus)
    placement = place(model, types, config, n_gpus, _split(machine, config, n_gpus))
    works = work_of(model, types, placement.device_of, placement.units, config)
    return speed_of(
        works,
        figures_of(machine, config),
        model=model,
        config=config,
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        depth=depth,
        streams=streams,
    )


def figures_of(machine: Machine, config: RunConfig) -> dict[int, Figures]:
    """What each device of a machine can do; the host is -1."""
    out = {i: gpu_figures(gpu) for i, gpu in enumerate(machine.gpus)}
    if config.backend == "cpu":
        out = {}
    out[HOST] = host_figures(machine.host)
    return out


def speed_of(
    works: Sequence[Work],
    figures: Mapping[int, Figures],
    *,
    model: ModelSpec,
    config: RunConfig,
    prompt_tokens: int = 512,
    generated_tokens: int = 128,
    depth: int = 0,
    streams: int = 1,
    constants: Constants = CONSTANTS,
) -> Speed:
    """The same once the work is known: about 50 microseconds, for ranking many plans."""
    for name, value, least in (
        ("prompt_tokens", prompt_tokens, 0),
        ("generated_tokens", generated_tokens, 0),
        ("depth", depth, 0),
        ("streams", streams, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise UsageError(f"{name} {value!r} is not a whole number from {least}")
    used = model.integer("expert_used_count")
    experts = model.integer("expert_count")
    parts = step(
        works,
        figures,
        used=used,
        experts=experts,
        depth=depth + prompt_tokens + generated_tokens / 2,
        streams=streams,
        constants=constants,
    )
    per_token = sum(p.seconds for p in parts)
    gpus = [w for w in works if w.device != HOST]
    prompt = prompt_seconds(
        works,
        figures,
        tokens=max(prompt_tokens, 1),
        ubatch=min(config.ubatch, config.batch),
        used=used,
        experts=experts,
        depth=depth,
        op_offload=config.op_offload,
        pipeline=len(gpus) > 1 and len(gpus) == len(works) and config.kv_offload,
        constants=constants,
    )
    notes = tuple(f"assumed {text}" for w in works for text in figures[w.device].assumed)
    first = prompt + per_token
    s = constants.spread
    return Speed(
        decode=_around(1 / per_token, s),
        prefill=_around(max(prompt_tokens, 1) / prompt, s),
        time_to_first_token_ms=_around(1e3 * first, s),
        total_ms=_around(1e3 * (prompt + per_token * generated_tokens), s),
        basis="assumed" if notes else "computed",
        limit=limit(parts),
        notes=notes,
    )


def _around(value: float, spread: float) -> Range:
    return Range(value / spread, value, value * spread)


def _split(machine: Machine, config: RunConfig, n_gpus: int) -> tuple[float, ...] | None:
    if config.tensor_split is not None:
        return config.tensor_split
    budgets = [gpu.free_bytes or gpu.total_bytes for gpu in machine.gpus[:n_gpus]]
    if not budgets or any(b is None for b in budgets):
        return None
    return tuple(float(b or 0) for b in budgets)
