"""``nemofit verify``: predicted and engine side by side, before anything is downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nemofit.catalog.filetypes import tensor_types
from nemofit.engines.base import Memory
from nemofit.engines.llama_cpp import verify as oracle
from nemofit.engines.llama_cpp.memory import estimate_memory
from nemofit.errors import DoesNotFitError, HardwareError, UsageError
from nemofit.formats.gguf.writer import write_sparse
from nemofit.planner.records import Plan
from nemofit.planner.single import single
from nemofit.units import MIB, mib

from .. import records, request, scratch, verified
from ..answer import Answer
from ..environment import prepare
from ..options import Options
from ..programs import ask, llama_program
from ..reports import EngineSource, VerifyReport

_SECONDS = 120.0
_ASIDE_SECONDS = 60.0
_TRIES = 5
_NO = 3


def answer(options: Options) -> Answer:
    """Compare; exit code 3 where the engine says otherwise or has not the room.

    Raises:
        HardwareError: There is no engine, or it does not answer.
        DoesNotFitError: The engine refuses the model or the configuration.
    """
    prepare(options.catalog)
    asked = [options.running or options.url is not None, options.log is not None]
    if all(asked):
        raise UsageError("--running and --log ask different things", "give one of them")
    if options.model is None and not any(asked):
        raise UsageError(
            "what to verify is not said", "name a model, or give --running or --log FILE"
        )
    if options.engine not in (None, "llama.cpp") and not any(asked):
        raise UsageError(
            f"{options.engine} has no program that answers before a download",
            "leave --engine out, or compare with what it says when it runs: --running or --log",
        )
    if options.log is not None:
        from ..verify_log import answer as of_log

        return of_log(options)
    if options.running or options.url is not None:
        from ..verify_running import answer as of_running

        return of_running(options)
    return _projected(options)


def _projected(options: Options) -> Answer:
    model = request.model_of(options)
    plan, _ = single(model, request.machine_of(options), request.goal_of(options))
    config = plan.config
    if config.kv_unified and config.parallel > 1:
        raise UsageError(
            "llama-fit-params does not know a unified cache", "leave --kv-unified out to verify"
        )
    command = llama_program(oracle.PROGRAM, options.program)
    aside = _sibling(command)
    version = oracle.parse_version(_print(aside, "--version"))
    devices = oracle.parse_devices(_print(aside, "--list-devices"))
    with scratch.directory() as directory:
        path = _file(plan, directory)
        flags = oracle.arguments(config, path, len(plan.memory.gpus), devices)
        rows = _rows([*command, *flags], version)
    memory, notes = _prediction(plan, rows)
    differences = oracle.compare(memory, rows)
    figures = verified.figures(differences, memory.basis, MIB)
    short = _short(rows, memory, devices) if options.machine is None else []
    verdict, words = verified.verdict(figures)
    if verdict == "agrees" and (short or not plan.fits):
        verdict = "does-not-fit"
        words = f"the engine agrees, and it does not fit: {', '.join(short) or 'see nemofit plan'}"
    report = VerifyReport(
        source="projection",
        engine=EngineSource(
            name="llama.cpp",
            version=version,
            program=" ".join(command),
            devices=tuple(f"{d.name}: {d.description}" for d in devices),
        ),
        model=model.id,
        quant=plan.quant or model.file_type,
        config=records.config_record(config),
        figures=figures,
        tolerance=oracle.TOLERANCE,
        verdict=verdict,
        verdict_words=words,
        notes=(*notes, *memory.notes),
    )
    return Answer(report, lambda: verified.view(report), 0 if verdict == "agrees" else _NO)


def _file(plan: Plan, directory: Path) -> str:
    """The model's own file where it lies here, otherwise one with a true header and no data."""
    model = plan.model
    own = not model.is_shape and plan.quant in (None, model.file_type)
    if own and os.path.isfile(model.source):
        return model.source
    path = directory / "model.gguf"
    types = tensor_types(model, plan.quant, plan.imatrix)
    write_sparse(path, replace(model, file_type=plan.quant or model.file_type), types)
    return str(path)


def _sibling(command: Sequence[str]) -> list[str]:
    """llama-server beside the program, which knows its version and the devices; else itself."""
    try:
        return llama_program("llama-server", command[0])
    except HardwareError:
        return list(command)


def _print(command: Sequence[str], flag: str) -> str:
    done = ask([*command, flag], _ASIDE_SECONDS)
    return done.out + done.err


def _rows(command: Sequence[str], version: str | None) -> tuple[oracle.Row, ...]:
    """The engine's own figures.

    Raises:
        DoesNotFitError: It refuses the model or the configuration.
        HardwareError: It is too old, crashes or prints something else.
    """
    done = ask(command, _SECONDS)
    name = f"llama.cpp {version}" if version else "this llama.cpp"
    flag = oracle.unknown_flag(done.err + done.out)
    if flag is not None:
        raise HardwareError(
            f"{name} does not know {flag}: another build than the one this version speaks to",
            "update llama.cpp, or name a newer one with --program",
        )
    if done.code == 0:
        return oracle.parse_projection(done.out)
    why = oracle.refusal(done.err)
    for _ in range(_TRIES if oracle.refuses(done.err) else 0):
        why = why or oracle.refusal(ask(command, _SECONDS).err)
    if why is not None or oracle.refuses(done.err):
        raise DoesNotFitError(
            f"{name} refuses it: {why or 'it does not say why':.200}",
            "a newer llama.cpp may know the model",
        )
    end = f"signal {-done.code}" if done.code < 0 else f"exit code {done.code}"
    raise HardwareError(
        f"{oracle.PROGRAM} ended with {end}: {oracle.last_words(done.err)}",
        "run again with --debug, or try another build with --program",
    )


def _prediction(plan: Plan, rows: Sequence[oracle.Row]) -> tuple[Memory, list[str]]:
    """What nemofit expects of that program on the devices that it used."""
    gpus = plan.memory.gpus
    backend, notes = plan.config.backend, []
    found = oracle.backend_of(rows[0].device) if gpus else backend
    if found is None:
        notes.append(f"the rules of {rows[0].device} are not known; those of {backend} stand in")
    elif found != backend:
        notes.append(f"the devices are {found}'s, not {backend}'s as in the plan")
        backend = found
    memory = estimate_memory(
        plan.model,
        plan.quant,
        oracle.projected(plan.config, backend),
        len(gpus),
        imatrix=plan.imatrix,
    )
    if plan.config.devices is not None:
        memory = replace(memory, gpus=tuple(memory.gpus[d] for d in plan.config.devices))
    return memory, notes


def _short(
    rows: Sequence[oracle.Row], memory: Memory, devices: Sequence[oracle.EngineDevice]
) -> list[str]:
    """Devices whose free memory, by the engine, is less than its figures and the driver's part."""
    free = {device.name: device.free_bytes for device in devices}
    out = []
    for row, device in zip(rows[:-1], memory.gpus, strict=True):
        need = row.total_bytes + device.overhead_bytes
        if free.get(row.device, need) < need:
            out.append(f"{row.device} needs {mib(need)} and has {mib(free[row.device])} free")
    return out
