"""``nemofit verify --running``: what an engine that runs now takes, beside what was predicted."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from itertools import islice

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.arguments import ServerArguments, config_of, parse_arguments
from nemofit.engines.llama_cpp.memory import Estimator
from nemofit.engines.llama_cpp.server_log import parse_server_log
from nemofit.engines.llama_cpp.verify import TOLERANCE
from nemofit.engines.ollama import verify as ollama
from nemofit.errors import DataError, HardwareError, NemofitError, UsageError
from nemofit.formats.load import load_model
from nemofit.machine.records import Machine
from nemofit.probe.ask import ask_server
from nemofit.probe.processes import Running, log_of, memory_of, running
from nemofit.units import MIB

from . import records, request, verified, verify_log
from .answer import Answer
from .options import Options
from .reports import EngineSource, VerifiedFigure, VerifyReport

MEASURED_TOLERANCE = 0.1
MEASURED_LEAST = 512 * MIB
"""Process sizes hold what no plan counts: the program, its libraries, its vocabulary."""
_SECONDS = 3.0
_NO = 3
_URL = re.compile(r"(?:http://)?(127\.0\.0\.1|localhost|\[::1\])(?::(\d{1,5}))?/?")


def answer(options: Options) -> Answer:
    """Compare with the first engine that runs here, or with the one at ``--url``.

    Raises:
        HardwareError: None runs, or it does not answer.
    """
    servers = [p for p in running(("llama-server", "llama")) if p.parent != "ollama"]
    known = [(p, parse_arguments(p.command)) for p in servers]
    if options.url is not None:
        host, port = _address(options.url)
        models = ask_server(host, port, "/api/ps", _SECONDS)
        if isinstance(models, dict) and "models" in models:
            return _ollama(models, options, port)
        known = [(p, a) for p, a in known if a.port == port]
        if not known:
            raise HardwareError(
                f"no llama-server of this user and no Ollama answers at {options.url:.200}",
                "name the port that it listens on, for example --url http://127.0.0.1:8080",
            )
    if known:
        process, arguments = known[0]
        more = [f"also running: process {p.pid} at port {a.port}: --url" for p, a in known[1:]]
        return _llama_server(process, arguments, options, more)
    port = _ollama_port()
    models = ask_server("127.0.0.1", port, "/api/ps", _SECONDS)
    if models is None:
        raise HardwareError(
            f"no llama-server runs here, and no Ollama answers at port {port}",
            "start one, name its address with --url, or give its log with --log",
        )
    return _ollama(models, options, port)


def _llama_server(
    process: Running, arguments: ServerArguments, options: Options, notes: list[str]
) -> Answer:
    props = ask_server("127.0.0.1", arguments.port, "/props", _SECONDS)
    said = props if isinstance(props, dict) else {}
    version = said.get("build_info")
    engine = EngineSource(
        name="llama.cpp",
        version=version if isinstance(version, str) else None,
        program=process.command[0],
        devices=(f"process {process.pid}, port {arguments.port}",),
    )
    path = arguments.log_file or log_of(process.pid)
    if path is not None:
        try:
            log = parse_server_log(islice(verify_log.lines_of(path), verify_log.MOST_LINES))
            if log.weights:
                named = replace_model(options, arguments, said)
                return verify_log.from_llama_log(log, named, "running", engine)
        except DataError:
            notes.append(f"its log {path} has no figures: start it with -lv 4")
    return _measured(process, arguments, said, options, engine, notes)


def replace_model(options: Options, arguments: ServerArguments, said: dict[str, object]) -> Options:
    """The options with the model that the server says it runs, where none was named."""
    path = said.get("model_path") or arguments.path
    if options.model is None and isinstance(path, str) and os.path.isfile(path):
        return replace(options, model=path)
    return options


def _measured(
    process: Running,
    arguments: ServerArguments,
    said: dict[str, object],
    options: Options,
    engine: EngineSource,
    notes: list[str],
) -> Answer:
    """Process sizes beside the plan of the command line, where there is no log."""
    named = replace_model(options, arguments, said)
    if named.model is None:
        raise UsageError(
            "what the server runs is not known", "name it: nemofit verify MODEL --running"
        )
    model = request.model_of(named)
    machine = request.machine_of(replace(options, machine=None))
    gpus = () if arguments.no_gpu else machine.gpus
    more = _of_server(said)
    if not gpus:
        more |= {"backend": "cpu", "gpu_layers": 0, "op_offload": False, "tensor_split": None}
    else:
        more["backend"] = gpus[0].backend
    config = config_of(arguments, **more)
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
    report = _report(engine, model, quant, tuple(figures), MEASURED_TOLERANCE, notes)
    report.config = records.config_record(config)
    return Answer(report, lambda: verified.view(report), 0 if report.verdict == "agrees" else _NO)


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


def _ollama(answer: object, options: Options, port: int) -> Answer:
    loaded = ollama.parse_ps(answer)
    if not loaded:
        raise HardwareError(
            "Ollama runs and has no model in memory", "load one: ollama run MODEL, then ask again"
        )
    said = ask_server("127.0.0.1", port, "/api/version", _SECONDS)
    version = said.get("version") if isinstance(said, dict) else None
    engine = EngineSource(
        name="ollama",
        version=version if isinstance(version, str) else None,
        program=None,
        devices=tuple(f"{one.name} in memory" for one in loaded),
    )
    one = loaded[0]
    notes = [f"also in memory: {other.name}" for other in loaded[1:]]
    model = request.model_of(options) if options.model is not None else _of_ollama(one.name)
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
    report = _report(engine, model, quant, figures, 0.05, notes)
    report.config = records.config_record(config)
    return Answer(report, lambda: verified.view(report), 0 if report.verdict == "agrees" else _NO)


def _of_ollama(name: str) -> ModelSpec:
    """The model behind a tag: its file in Ollama's store, else the catalog's of that name."""
    for candidate in (f"ollama:{name}", name, name.partition(":")[0]):
        try:
            return load_model(candidate)
        except NemofitError:
            continue
    raise UsageError(
        f"{name!r:.100} is neither readable in Ollama's store nor in the catalog",
        "name the model: nemofit verify MODEL --running",
    )


def _report(
    engine: EngineSource,
    model: ModelSpec,
    quant: str | None,
    figures: tuple[VerifiedFigure, ...],
    tolerance: float,
    notes: list[str],
) -> VerifyReport:
    verdict, words = verified.verdict(figures)
    return VerifyReport(
        source="running",
        engine=engine,
        model=model.id,
        quant=quant or model.file_type,
        config=None,
        figures=figures,
        tolerance=tolerance or TOLERANCE,
        verdict=verdict,
        verdict_words=words,
        notes=tuple(notes),
    )


def _address(url: str) -> tuple[str, int]:
    """Host and port of an engine on this machine.

    Raises:
        UsageError: It is another machine's, or no address.
    """
    found = _URL.fullmatch(url.strip())
    if found is None:
        raise UsageError(
            f"{url!r:.200} is no address of this machine", "for example http://127.0.0.1:8080"
        )
    host = "::1" if found[1] == "[::1]" else "127.0.0.1"
    return host, int(found[2] or 80)


def _ollama_port() -> int:
    found = _URL.fullmatch(os.environ.get("OLLAMA_HOST", "").strip().rstrip("/") or "localhost")
    return int(found[2] or 11434) if found else 11434
