"""From options to what the planner takes: a machine, a model, a goal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemofit.catalog.model import ModelSpec
from nemofit.errors import DataError, UnknownNameError, UsageError
from nemofit.machine.budgets import Reserve
from nemofit.machine.records import Machine
from nemofit.planner.goal import Goal
from nemofit.planner.records import ENGINES
from nemofit.units import parse_context, parse_size

from .options import Options

if TYPE_CHECKING:
    from nemofit.planner.checkpoints import CheckpointGoal

    from . import contract as c

_COUNTS = (
    ("parallel", "--parallel", 1),
    ("ubatch", "--ubatch", 1),
    ("cpu_moe_layers", "--cpu-moe-layers", 0),
)


_LLAMA_CPP_ONLY = (
    ("imatrix", "--imatrix"),
    ("ubatch", "--ubatch"),
    ("flash_attention", "--flash-attention"),
    ("gpu_layers", "--gpu-layers"),
    ("tensor_split", "--tensor-split"),
    ("cpu_moe_layers", "--cpu-moe-layers"),
    ("min_tps", "--min-tps"),
    ("quality", "--quality"),
)
_VLLM_ONLY = (
    ("kv_type", "--kv-type"),
    ("tensor_parallel", "--tensor-parallel-size"),
    ("pipeline_parallel", "--pipeline-parallel-size"),
    ("utilization", "--gpu-memory-utilization"),
    ("cpu_offload", "--cpu-offload-gb"),
    ("eager", "--enforce-eager"),
)


def model_of(options: Options) -> ModelSpec:
    """The model that was named; of a repository with several files, the one of ``--quant``.

    Raises:
        UnknownNameError: Not known.
        DataError: A file that cannot be read.
        HardwareError: A server or a store that cannot be read.
    """
    from nemofit.formats.load import load_model

    assert options.model is not None
    try:
        return load_model(options.model)
    except UnknownNameError as error:
        if error.ambiguous and options.quant and options.model.startswith("hf:"):
            return load_model(f"{options.model}:{options.quant}")
        raise


def machine_of(options: Options) -> Machine:
    """This machine, or the one that ``--machine`` names: a file, a saved one, a description.

    Raises:
        UsageError, UnknownNameError: A description that makes no sense or names no card.
        DataError: A file that is no machine.
    """
    spec = options.machine
    if spec is None:
        from nemofit.probe import probe_machine

        from .profiles import with_measured

        return with_measured(probe_machine())
    if spec == "-":
        return _from_stdin()
    from . import profiles

    saved = profiles.load(spec, options.catalog)
    if saved is not None:
        return saved
    path = Path(spec).expanduser()
    if spec.endswith(".json") or _is_file(path):
        from nemofit.machine.file import read_machine

        return read_machine(path)
    from nemofit.machine import parse_machine

    try:
        return parse_machine(spec)
    except (UsageError, UnknownNameError):
        from difflib import get_close_matches

        near = get_close_matches(spec, profiles.names(options.catalog), n=3)
        if near and profiles.NAME.fullmatch(spec):
            raise UnknownNameError("saved machine", spec, near) from None
        raise


def goal_of(options: Options) -> Goal:
    """What was asked for; everything that the person set is fixed.

    Raises:
        UsageError: A value that makes no sense.
        UnknownNameError: A file type that is not known.
    """
    for name, flag in _VLLM_ONLY[1:]:
        if getattr(options, name):
            raise UsageError(f"{flag} is a knob of vLLM", "add --engine vllm, or leave it out")
    return Goal(
        context=None if options.context is None else parse_context(options.context),
        prefer=options.prefer or "balanced",
        min_tokens_per_second=None if options.min_tps is None else _speed(options.min_tps),
        min_context=None if options.min_context is None else parse_context(options.min_context),
        max_vram_bytes=None if options.max_vram is None else parse_size(options.max_vram),
        quality=None if options.quality is None else options.quality.lower(),
        quant=_quant(options.quant),
        imatrix=options.imatrix,
        knobs=_knobs(options),
        reserve_bytes=reserve_of(options),
        assume_idle=options.assume_idle,
    )


def power_price_of(options: Options) -> float | None:
    """What a kilowatt-hour costs; None: not said.

    Raises:
        UsageError: Not a number above zero.
    """
    text = options.power_price
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = 0.0
    if not 0 < price < 1e6:
        raise UsageError(
            f"--power-price {text!r:.40} is not a price of a kilowatt-hour",
            "write for example --power-price 0.30",
        )
    return price


def checkpoint_goal_of(options: Options, engine: str) -> CheckpointGoal:
    """What was asked for of an engine that loads checkpoints.

    Raises:
        UsageError: A value that makes no sense, or a knob of llama.cpp.
    """
    from nemofit.planner.checkpoints import CheckpointGoal

    for name, flag in _LLAMA_CPP_ONLY:
        if getattr(options, name) is not None:
            raise UsageError(f"{engine} has nothing like {flag}", "leave it out")
    for name, flag in _VLLM_ONLY if engine == "transformers" else ():
        if getattr(options, name):
            raise UsageError(f"{engine} has nothing like {flag}", "leave it out")
    return CheckpointGoal(
        context=None if options.context is None else parse_context(options.context),
        prefer=options.prefer or "balanced",
        quant=options.quant,
        kv_type=None if options.kv_type is None else options.kv_type.lower(),
        parallel=_optional("--parallel", options.parallel),
        tensor_parallel=_optional("--tensor-parallel-size", options.tensor_parallel),
        pipeline_parallel=_optional("--pipeline-parallel-size", options.pipeline_parallel),
        utilization=_number("--gpu-memory-utilization", options.utilization, "0.9"),
        cpu_offload_gb=_number("--cpu-offload-gb", options.cpu_offload, "4") or 0.0,
        eager=options.eager,
        min_context=None if options.min_context is None else parse_context(options.min_context),
        max_vram_bytes=None if options.max_vram is None else parse_size(options.max_vram),
        reserve_bytes=reserve_of(options),
        assume_idle=options.assume_idle,
    )


def _optional(flag: str, text: str | None) -> int | None:
    return None if text is None else whole(flag, text, 1)


def _number(flag: str, text: str | None, example: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1 << 20:
        raise UsageError(
            f"{flag} {text!r:.40} is not a number above zero", f"write for example {flag} {example}"
        )
    return value


def reserve_of(options: Options) -> Reserve:
    """Bytes to leave free on every GPU, or by its number; None: not said.

    Raises:
        UsageError: Not a size.
    """
    return None if options.reserve is None else _reserve(options.reserve)


def limits_of(options: Options, engine: str) -> Goal | CheckpointGoal:
    """The goal, for what it says of the machine."""
    if engine in ("vllm", "transformers"):
        return checkpoint_goal_of(options, engine)
    return goal_of(options)


def goal_record(options: Options, engine: str) -> c.GoalRecord:
    """What was asked for, whatever the engine."""
    from . import records

    if engine not in ("vllm", "transformers"):
        return records.goal_record(goal_of(options))
    from .checkpoints import goal_record as of_checkpoints

    return of_checkpoints(checkpoint_goal_of(options, engine))


def engine_of(options: Options) -> str:
    """The engine whose command is printed.

    Raises:
        UsageError: Not one that is known.
    """
    engine = options.engine or ENGINES[0]
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is not known", "one of: " + ", ".join(ENGINES))
    return engine


def file_engine_of(options: Options) -> str:
    """The engine, one of those that run GGUF files.

    Raises:
        UsageError: Another one, or none that is known.
    """
    engine = engine_of(options)
    if engine in ("vllm", "transformers"):
        raise UsageError(
            f"no speeds are modelled for {engine}, so nothing is compared",
            "leave --engine out, or ask: nemofit recommend -m MODEL --engine " + engine,
        )
    return engine


def limit_of(options: Options) -> int | None:
    """How many rows to show at most; None: not said.

    Raises:
        UsageError: Below 1.
    """
    return None if options.limit is None else whole("--limit", options.limit, 1)


def _reserve(text: str) -> int | dict[int | None, int]:
    """``"1GiB"`` for every card, ``"0:2GiB,1:512MiB"`` by number, ``"1GiB,0:2GiB"`` both."""
    if "," not in text and ":" not in text:
        return parse_size(text)
    found: dict[int | None, int] = {}
    for part in text.split(","):
        number, colon, size = part.rpartition(":")
        if colon and not (number.strip().isdecimal() and len(number) <= 4):
            raise UsageError(
                f"--reserve {part!r:.40}: {number!r:.20} is no number of a GPU",
                "write for example --reserve 0:2GiB,1:512MiB",
            )
        key = int(number) if colon else None
        if key in found:
            raise UsageError(f"--reserve {text!r:.80} says the same card twice", "say it once")
        found[key] = parse_size(size)
    return found


def _quant(name: str | None) -> str | None:
    if name is None:
        return None
    from nemofit.catalog.ggml import find_file_type

    return find_file_type(name).name


def _knobs(options: Options) -> dict[str, Any]:
    knobs: dict[str, Any] = {}
    if options.kv_type is not None:
        k, _, v = options.kv_type.lower().partition(",")
        knobs["kv_type_k"], knobs["kv_type_v"] = k.strip(), (v or k).strip()
    if options.flash_attention is not None:
        knobs["flash_attention"] = _on_off(options.flash_attention)
    if options.gpu_layers is not None:
        knobs["gpu_layers"] = _layers(options.gpu_layers)
    if options.tensor_split is not None:
        knobs["tensor_split"] = _split(options.tensor_split)
    for name, flag, least in _COUNTS:
        text = getattr(options, name)
        if text is not None:
            knobs[name] = whole(flag, text, least)
    if knobs.get("ubatch", 0) > 2048:
        knobs["batch"] = knobs["ubatch"]
    return knobs


def whole(flag: str, text: str, least: int) -> int:
    """A count that was typed.

    Raises:
        UsageError: It is none.
    """
    if not text.isdecimal() or int(text) < least or len(text) > 9:
        raise UsageError(
            f"{flag} {text!r:.40} is not a whole number from {least} up",
            f"write for example {flag} {max(least, 4)}",
        )
    return int(text)


def _speed(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--min-tps {text!r:.40} is not a number", "write for example --min-tps 10"
        ) from None


def _on_off(text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise UsageError(f"flash attention {text!r} is neither on nor off", "write on or off")
    return text.lower() == "on"


def _layers(text: str) -> int:
    return (1 << 16) - 1 if text.lower() == "all" else whole("--gpu-layers", text, 0)


def _split(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace("/", ",").split(","))
    except ValueError:
        raise UsageError(
            f"tensor split {text!r} is not a list of numbers",
            "write one number per GPU, for example 1,1 or 3,2",
        ) from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _from_stdin() -> Machine:
    import json

    from nemofit.machine.file import MAX_BYTES, machine_from_json

    text = sys.stdin.read(MAX_BYTES + 1) if sys.stdin else ""
    if len(text) > MAX_BYTES:
        raise DataError("stdin holds more than a machine", "pipe in: nemofit probe --json")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError("stdin is not JSON", "pipe in: nemofit probe --json") from None
    return machine_from_json(document, "stdin")
