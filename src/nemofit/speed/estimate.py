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
from .fitted import CARDS
from .measured import Known, device_keys, known, matching, mismatch, nearer
from .prefill import prompt_seconds
from .records import Range, Speed
from .spread import kind_of, spread, unmeasured
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
        machine: The host and its GPUs; None: a host of which nothing is known.
        prompt_tokens: Length of each stream's prompt.
        generated_tokens: Tokens that each stream generates after it.
        depth: Tokens already in each stream's cache before the prompt.
        streams: Streams that start together and decode together.
        imatrix: The file was made with an importance matrix.

    Returns:
        Ranges with a reason. Nothing here is checked against the memory: see ``estimate_memory``.

    Raises:
        UsageError: A count that makes no sense, or a split that is not one number per GPU.
        UnknownNameError: No such file type.
    """
    from nemofit.catalog.filetypes import tensor_types
    from nemofit.engines.llama_cpp.memory import split_of
    from nemofit.engines.llama_cpp.placement import place

    config = config or RunConfig()
    machine = machine or Machine()
    types = tensor_types(model, quant, imatrix=imatrix)
    gpus = () if config.backend == "cpu" else machine.gpus
    budgets = [gpu.total_bytes if gpu.free_bytes is None else gpu.free_bytes for gpu in gpus]
    known = [b for b in budgets if b is not None]
    split = split_of(config, len(gpus), known if len(known) == len(gpus) else None)
    placement = place(model, config, split)
    return speed_of(
        work_of(model, types, placement.device_of, placement.units, config),
        figures_of(machine, config),
        model=model,
        config=config,
        machine=machine,
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        depth=depth,
        streams=streams,
    )


def figures_of(
    machine: Machine, config: RunConfig, constants: Constants = CONSTANTS
) -> dict[int, Figures]:
    """What each device of a machine can do, by model and by what was measured; the host is -1."""
    gpus = () if config.backend == "cpu" else machine.gpus
    out = {i: gpu_figures(gpu, config.backend, constants) for i, gpu in enumerate(gpus)}
    out[HOST] = host_figures(machine.host, constants)
    own = matching(machine.host)
    return out if own is None else own.correction(out, device_keys(gpus))


def speed_of(
    works: Sequence[Work],
    figures: Mapping[int, Figures],
    *,
    model: ModelSpec,
    config: RunConfig,
    machine: Machine | None = None,
    prompt_tokens: int = 512,
    generated_tokens: int = 128,
    depth: int = 0,
    streams: int = 1,
) -> Speed:
    """The same once the work and the figures are known, for ranking many plans.

    Args:
        works: What each device does for a token, from :func:`.work.work_of`.
        figures: What each device can do, from :func:`figures_of`.
        machine: Whose figures they are, for what was measured on it.
        model, config, prompt_tokens, generated_tokens, depth, streams: See ``estimate_speed``.
    """
    _check(prompt_tokens=prompt_tokens, generated_tokens=generated_tokens, depth=depth)
    _check(least=1, streams=streams)
    used = model.integer("expert_used_count")
    experts = model.integer("expert_count")
    parts = step(
        works,
        figures,
        used=used,
        experts=experts,
        depth=depth + prompt_tokens + generated_tokens / 2,
        streams=streams,
    )
    token_s = sum(p.seconds for p in parts)
    prompt_s = prompt_seconds(
        works,
        figures,
        tokens=max(prompt_tokens, 1) * streams,
        ubatch=min(config.ubatch, config.batch),
        used=used,
        experts=experts,
        depth=depth,
        op_offload=config.op_offload,
        flash=config.flash_attention,
        pipeline=pipelined(works, config),
    )
    kind = kind_of(works, figures)
    slow, fast = spread("decode", kind, experts > 0, streams, figures)
    slow_prompt, fast_prompt = spread("prefill", kind, experts > 0, streams, figures)
    own = _measured(machine, config, works, model)
    if "decode" in own and streams == 1:
        token_s *= own["decode"].factor
        slow, fast = nearer(own["decode"].range, (slow, fast))
    if "prefill" in own:
        prompt_s *= own["prefill"].factor
        slow_prompt, fast_prompt = nearer(own["prefill"].range, (slow_prompt, fast_prompt))
    token = Range(token_s / fast, token_s, token_s / slow)
    prompt = Range(prompt_s / fast_prompt, prompt_s, prompt_s / slow_prompt)
    assumed = [text for w in works for text in figures[w.device].assumed]
    notes = [f"assumed {text}" for text in dict.fromkeys(assumed)]
    if "decode" not in own:
        notes += [f"no measured speed of a {f} card: a wider range" for f in unmeasured(figures)]
    if machine is not None and (why := mismatch(machine)):
        notes.append(why)
    return Speed(
        decode=_rate(1, token),
        prefill=_rate(max(prompt_tokens, 1) * streams, prompt),
        time_to_first_token_ms=_total(prompt, token, 1),
        total_ms=_total(prompt, token, generated_tokens),
        basis="measured" if "decode" in own else basis_of(works, machine, bool(assumed)),
        limit=limit(parts),
        notes=tuple(notes),
    )


def decode_at(
    depth: int,
    speed: Speed,
    works: Sequence[Work],
    figures: Mapping[int, Figures],
    model: ModelSpec,
) -> Range:
    """The tokens per second of an estimate of :func:`speed_of` at another depth.

    Args:
        depth: Tokens before the prompt of 512; the estimate is for none.
    """

    def seconds(before: int) -> float:
        parts = step(
            works,
            figures,
            used=model.integer("expert_used_count"),
            experts=model.integer("expert_count"),
            depth=before + 512 + 128 / 2,
        )
        return sum(part.seconds for part in parts)

    share, at_first = seconds(0) / seconds(depth), speed.decode
    return Range(at_first.low * share, at_first.likely * share, at_first.high * share)


def basis_of(works: Sequence[Work], machine: Machine | None, assumed: bool) -> str:
    """Where an estimate without measurements of one's own comes from.

    "published" where every card it runs on, and nothing else, has speeds in data/measurements.yaml.
    """
    if assumed:
        return "assumed"
    devices = [w.device for w in works]
    if machine is None or HOST in devices or not devices:
        return "computed"
    cards = [machine.gpus[d].card_id for d in devices if d < len(machine.gpus)]
    return "published" if cards and all(card in CARDS for card in cards) else "computed"


def _measured(
    machine: Machine | None, config: RunConfig, works: Sequence[Work], model: ModelSpec
) -> dict[str, Known]:
    """What was measured on this machine that concerns a run, by phase."""
    own = None if machine is None else matching(machine.host)
    if own is None or machine is None:
        return {}
    keys = device_keys(() if config.backend == "cpu" else machine.gpus)
    found = {phase: known(own, phase, works, keys, model) for phase in ("decode", "prefill")}
    return {phase: one for phase, one in found.items() if one is not None}


def pipelined(works: Sequence[Work], config: RunConfig) -> bool:
    """Whether the GPUs work on several micro-batches at once.

    llama.cpp does so with more than one GPU, everything offloaded and nothing overridden
    (llama-context.cpp, ``pipeline_parallel``).
    """
    return (
        sum(w.device != HOST for w in works) > 1
        and all(w.device != HOST for w in works)
        and config.kv_offload
        and not config.cpu_moe_layers
        and not config.override_tensors
    )


def _rate(tokens: int, seconds: Range) -> Range:
    return Range(tokens / seconds.high, tokens / seconds.likely, tokens / seconds.low)


def _total(prompt: Range, token: Range, tokens: int) -> Range:
    return Range(
        1e3 * (prompt.low + token.low * tokens),
        1e3 * (prompt.likely + token.likely * tokens),
        1e3 * (prompt.high + token.high * tokens),
    )


def _check(least: int = 0, **counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 1 << 31:
            raise UsageError(f"{name} {value!r} is not a whole number from {least} to {1 << 31}")
