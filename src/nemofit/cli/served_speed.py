"""How fast an engine that runs here answers one question: ``nemofit calibrate --running``."""

from __future__ import annotations

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.memory import Estimator
from nemofit.engines.ollama import verify as ollama
from nemofit.errors import HardwareError, UsageError
from nemofit.machine.records import Machine
from nemofit.probe.served import post
from nemofit.speed.calibrate import Measured

from . import request, servers
from .calibration import Taken
from .options import Options
from .verify_running import config_of_server

_SECONDS = 600.0
_WORDS = " ".join(f"{n}" for n in range(100, 330))
"""Some 512 tokens for most vocabularies; how many they were, the engine says."""
_GENERATED = 96
_LEAST = 8


def ask(options: Options, machine: Machine, now: str) -> Taken:
    """Have it read a prompt and generate, and take the times that it reports.

    Raises:
        HardwareError: It does not answer, or says no times.
        UsageError: It works on something that is not known here.
    """
    found, notes = servers.find(options)
    if isinstance(found, servers.OllamaServer):
        return _ollama(found, options, machine, now)
    named = found.naming(options)
    model = request.model_of(named)
    gpus = () if found.arguments.no_gpu else machine.gpus
    config = config_of_server(found, gpus)
    question = {
        "prompt": _WORDS,
        "n_predict": _GENERATED,
        "cache_prompt": False,
        "ignore_eos": True,
        "temperature": 0,
    }
    answer = post("127.0.0.1", found.arguments.port, "/completion", question, _SECONDS)
    times = answer.get("timings") if isinstance(answer, dict) else None
    figures = times if isinstance(times, dict) else {}
    measured = _measured(
        {
            "prefill": (figures.get("prompt_n"), figures.get("prompt_ms")),
            "decode": (figures.get("predicted_n"), figures.get("predicted_ms")),
        },
        1e-3,
        model=model,
        quant=request.goal_of(options).quant,
        config=config,
        date=now,
    )
    if not measured:
        raise HardwareError(
            "llama-server reported no times for its answer", "update llama.cpp, or use llama-bench"
        )
    engine = f"llama.cpp {found.build or ''}".strip()
    return Taken(measured, str(named.model), model, engine, tuple(notes))


def _ollama(server: servers.OllamaServer, options: Options, machine: Machine, now: str) -> Taken:
    loaded = ollama.parse_ps(server.answer)
    if not loaded:
        raise HardwareError(
            "Ollama runs and has no model in memory", "load one: ollama run MODEL, then ask again"
        )
    one = loaded[0]
    model = request.model_of(options) if options.model else servers.model_of_tag(one.name)
    quant = request.goal_of(options).quant
    if quant is None and model.source == "catalog":
        quant = one.quant
        if quant is None:
            raise UsageError("Ollama does not say the file type", "name it with --quant")
    gpus = machine.gpus if one.gpu_bytes else ()
    if one.gpu_bytes and not gpus:
        raise UsageError("Ollama has it on a GPU that is not seen from here", "see: nemofit probe")
    backend = gpus[0].backend if gpus else "cpu"
    config = ollama.matching_config(Estimator(model, quant), one, len(gpus), backend)
    question = {
        "model": one.name,
        "prompt": _WORDS,
        "stream": False,
        "raw": True,
        "options": {"num_predict": _GENERATED, "temperature": 0},
    }
    answer = post(server.host, server.port, "/api/generate", question, _SECONDS)
    said = answer if isinstance(answer, dict) else {}
    measured = _measured(
        {
            "prefill": (said.get("prompt_eval_count"), said.get("prompt_eval_duration")),
            "decode": (said.get("eval_count"), said.get("eval_duration")),
        },
        1e-9,
        model=model,
        quant=quant,
        config=config,
        date=now,
    )
    if not measured:
        raise HardwareError("Ollama reported no times for its answer", "update Ollama")
    ref = options.model or f"ollama:{one.name}"
    return Taken(measured, ref, model, "ollama")


def _measured(
    phases: dict[str, tuple[object, object]],
    unit: float,
    *,
    model: ModelSpec,
    quant: str | None,
    config: RunConfig,
    date: str,
) -> tuple[Measured, ...]:
    """A speed for each phase whose tokens and time, in ``unit`` seconds, say anything.

    What is generated stands behind the prompt.
    """
    prompts = phases["prefill"][0]
    behind = prompts if isinstance(prompts, int) else 0
    rates = {phase: _rate(*said, unit) for phase, said in phases.items()}
    return tuple(
        Measured(
            model=model,
            quant=quant,
            config=config,
            phase=phase,
            tokens=rate[0],
            depth=0 if phase == "prefill" else behind,
            speed=rate[1],
            date=date,
        )
        for phase, rate in rates.items()
        if rate is not None
    )


def _rate(count: object, duration: object, unit: float) -> tuple[int, float] | None:
    """Tokens, and tokens per second; None where too few say anything."""
    if not isinstance(count, int) or not isinstance(duration, (int, float)):
        return None
    seconds = duration * unit
    if not _LEAST <= count < 1 << 24 or not 0 < seconds < 1e6:
        return None
    return count, count / seconds
