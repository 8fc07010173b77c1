"""``nemofit verify --running``: what an engine that runs now takes, beside what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from nemofit.engines.llama_cpp.arguments import config_of
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.memory import Estimator
from nemofit.engines.llama_cpp.server_log import parse_server_log
from nemofit.engines.ollama import verify as ollama
from nemofit.errors import DataError, HardwareError
from nemofit.machine.records import Gpu, Machine
from nemofit.probe.processes import log_of, memory_of
from nemofit.probe.served import ask_server
from nemofit.units import MIB

from . import request, servers, verified, verify_log
from .answer import Answer
from .options import Options
from .reports import EngineSource, VerifiedFigure

MEASURED_TOLERANCE = 0.1
MEASURED_LEAST = 512 * MIB
"""Process sizes hold what no plan counts: the program, its libraries, its vocabulary."""
_NO = 3


def answer(options: Options) -> Answer:
    """Compare with the first engine that runs here, or with the one at ``--url``.

    Raises:
        HardwareError: None runs, or it does not answer.
    """
    found, notes = servers.find(options)
    if isinstance(found, servers.OllamaServer):
        return _ollama(found, options)
    return _llama_server(found, options, notes)


def _llama_server(server: servers.LlamaServer, options: Options, notes: list[str]) -> Answer:
    process, arguments = server.process, server.arguments
    engine = EngineSource(
        name="llama.cpp",
        version=server.build,
        program=process.command[0],
        devices=(f"process {process.pid}, port {arguments.port}",),
    )
    path = arguments.log_file or log_of(process.pid)
    if path is not None:
        try:
            log = parse_server_log(islice(verify_log.lines_of(path), verify_log.MOST_LINES))
            if log.weights:
                return verify_log.from_llama_log(log, server.naming(options), "running", engine)
        except DataError:
            notes.append(f"its log {path} has no figures: start it with -lv 4")
    return _measured(server, options, engine, notes)


def _measured(
    server: servers.LlamaServer, options: Options, engine: EngineSource, notes: list[str]
) -> Answer:
    """Process sizes beside the plan of the command line, where there is no log."""
    process, arguments = server.process, server.arguments
    named = server.naming(options)
    model = request.model_of(named)
    machine = request.machine_of(replace(options, machine=None))
    gpus = () if arguments.no_gpu else machine.gpus
    config = config_of_server(server, gpus)
    quant = request.goal_of(options).quant
    memory = Estimator(model, quant).memory(
        config,
        len(gpus),
        budgets=[gpu.total_bytes or 0 for gpu in gpus],
        generations=[gpu.architecture for gpu in gpus],
    )
    figures = []
    for number, (gpu, device) in enumerate(zip(gpus, memory.gpus, strict=True)):
        held = next((h.bytes for h in gpu.holders if h.pid == process.pid), None)
        figures.append(_figure(f"GPU {number}", "in use", device.total_bytes, held))
    host, own = memory.host, memory_of(process.pid)
    allocated = host.kv_bytes + host.compute_bytes + (0 if config.mmap else host.weights_bytes)
    figures.append(_figure("Host", "allocated", allocated, own.allocated if own else None))
    if config.mmap:
        mapped = own.mapped if own else None
        figures.append(replace(_figure("Host", "mapped", host.weights_bytes, mapped), agrees=None))
        notes.append("mapped pages come and go: they are not judged")
    notes.append("measured by the system; by kind only from a log: start it with -lv 4")
    report = verified.report(
        "running",
        engine,
        model,
        quant or model.file_type,
        tuple(figures),
        notes,
        tolerance=MEASURED_TOLERANCE,
        config=config,
    )
    return Answer(report, lambda: verified.view(report), 0 if report.verdict == "agrees" else _NO)


def config_of_server(server: servers.LlamaServer, gpus: Sequence[Gpu]) -> RunConfig:
    """The knobs that it was started with, on the GPUs of this machine."""
    more = _of_server(server.props)
    if not gpus:
        more |= {"backend": "cpu", "gpu_layers": 0, "op_offload": False, "tensor_split": None}
    else:
        more["backend"] = gpus[0].backend
    return config_of(server.arguments, **more)


def _of_server(said: dict[str, object]) -> dict[str, object]:
    """Context and slots as the server answers: it says the context of one slot."""
    slots = said.get("total_slots")
    settings = said.get("default_generation_settings")
    context = settings.get("n_ctx") if isinstance(settings, dict) else None
    if isinstance(slots, int) and isinstance(context, int) and 0 < slots <= 256 and context > 0:
        return {"context": min(context * slots, 1 << 31), "parallel": slots}
    return {}


def _figure(device: str, kind: str, predicted: int, engine: int | None) -> VerifiedFigure:
    agrees = None
    if engine is not None:
        agrees = abs(predicted - engine) <= max(MEASURED_TOLERANCE * engine, MEASURED_LEAST)
    return VerifiedFigure(
        device=device,
        kind=kind,
        unit="bytes",
        predicted=predicted,
        engine=engine,
        resolution=MIB,
        agrees=agrees,
        basis="computed",
    )


def _ollama(server: servers.OllamaServer, options: Options) -> Answer:
    loaded = ollama.parse_ps(server.answer)
    if not loaded:
        raise HardwareError(
            "Ollama runs and has no model in memory", "load one: ollama run MODEL, then ask again"
        )
    said = ask_server(server.host, server.port, "/api/version", servers.SECONDS)
    version = said.get("version") if isinstance(said, dict) else None
    engine = EngineSource(
        name="ollama",
        version=version if isinstance(version, str) else None,
        program=None,
        devices=tuple(f"{one.name} in memory" for one in loaded),
    )
    one = loaded[0]
    notes = [f"also in memory: {other.name}" for other in loaded[1:]]
    model = (
        request.model_of(options) if options.model is not None else servers.model_of_tag(one.name)
    )
    quant = request.goal_of(options).quant
    if quant is None and model.is_shape:
        quant = one.quant
    machine: Machine = request.machine_of(options)
    count = len(machine.gpus) if one.gpu_bytes else 0
    if one.gpu_bytes and not count:
        count = 1
        notes.append("Ollama has it on a GPU that is not seen from here: one is assumed")
    backend = machine.gpus[0].backend if machine.gpus else "cuda"
    estimator = Estimator(model, quant)
    config = ollama.matching_config(estimator, one, count, backend)
    memory = estimator.memory(config, count)
    pairs = (
        ("GPUs", ollama.gpu_bytes(memory), one.gpu_bytes),
        ("GPUs and host", ollama.all_bytes(memory), one.size_bytes),
    )
    figures = tuple(
        VerifiedFigure(
            device=device,
            kind="in memory",
            unit="bytes",
            predicted=predicted,
            engine=engine_says,
            resolution=MIB,
            agrees=abs(predicted - engine_says) <= max(0.05 * engine_says, 64 * MIB),
            basis="computed",
        )
        for device, predicted, engine_says in pairs
        if predicted or engine_says
    )
    report = verified.report(
        "running",
        engine,
        model,
        quant or model.file_type,
        figures,
        notes,
        tolerance=0.05,
        config=config,
    )
    return Answer(report, lambda: verified.view(report), 0 if report.verdict == "agrees" else _NO)
