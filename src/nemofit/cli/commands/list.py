"""``nemofit list``: what is known."""

from __future__ import annotations

from collections.abc import Iterable

from nemofit.errors import UsageError
from nemofit.machine.records import FoundEngine

from .. import local
from .. import reports as c
from ..answer import Answer
from ..environment import prepare
from ..options import Options
from ..output import Block, Column, Line, Table


def answer(options: Options) -> Answer:
    """List models, quants, gpus, engines or saved machines.

    Raises:
        UsageError: Something else was asked for.
    """
    prepare(options.catalog)
    if options.local:
        if options.what != "models":
            raise UsageError("--local lists models", "write: nemofit list models --local")
        return local.answer()
    if options.what == "machines":
        return _machines(options.catalog)
    make = _LISTS.get(options.what or "")
    if make is None:
        raise UsageError(
            f"there is no list of {options.what!r}", "one of: " + ", ".join((*_LISTS, "machines"))
        )
    return make()


def _models() -> Answer:
    from nemofit.catalog.models import active_parameters, all_models

    report = c.ListModelsReport(
        items=tuple(
            c.ListedModel(
                id=card.id,
                name=card.name,
                aliases=card.aliases,
                architecture=card.architecture,
                parameters=card.spec().parameters,
                active_parameters=active_parameters(card.spec()),
                trained_context=card.context,
                licence=card.licence.name if card.licence else None,
                repository=card.gguf[0].repo if card.gguf else None,
                ollama_tags=tuple(tag.tag for tag in card.ollama),
            )
            for card in all_models()
        )
    )
    return Answer(report, lambda: _model_table(report))


def _model_table(report: c.ListModelsReport) -> Iterable[Block]:
    columns = [
        Column("Model"),
        Column("Parameters", right=True),
        Column("Active", right=True, rank=1),
        Column("Context", right=True),
        Column("Architecture", rank=2),
        Column("Licence", rank=3),
        Column("Aliases", rank=4),
    ]
    yield Table(
        columns,
        [
            [
                m.id,
                _billions(m.parameters),
                _billions(m.active_parameters),
                str(m.trained_context),
                m.architecture,
                m.licence or "?",
                ", ".join(m.aliases[:3]),
            ]
            for m in report.items
        ],
    )


def _billions(n: int | None) -> str:
    return "?" if n is None else f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.0f}M"


def _quants() -> Answer:
    from nemofit.catalog.filetypes import file_types, weights_bytes
    from nemofit.catalog.models import find_model
    from nemofit.planner.quality import expected

    model = find_model(c.LISTED_WITH).spec()
    rows = []
    for name, file_type in file_types().items():
        quality = expected(name, file_type.needs_imatrix, model.parameters)
        rows.append(
            c.ListedQuant(
                id=name,
                bits_per_weight=8 * weights_bytes(model, name) / model.parameters,
                needs_imatrix=file_type.needs_imatrix,
                kl_divergence=quality.loss,
                kl_divergence_note=None if quality.loss is not None else quality.note,
                grade=quality.grade,
            )
        )
    report = c.ListQuantsReport(items=tuple(rows))
    return Answer(report, lambda: _quant_table(report))


def _quant_table(report: c.ListQuantsReport) -> Iterable[Block]:
    columns = [
        Column("Quant"),
        Column("Bits per weight", right=True),
        Column("KL divergence", right=True),
        Column("Loss"),
        Column("Importance matrix", rank=1),
    ]
    yield Table(
        columns,
        [
            [
                q.id,
                f"{q.bits_per_weight:.2f}",
                "?" if q.kl_divergence is None else f"{q.kl_divergence:.4f}",
                q.grade or "?",
                "needed" if q.needs_imatrix else "optional",
            ]
            for q in report.items
        ],
    )


def _gpus() -> Answer:
    from nemofit.catalog.cards import all_cards

    report = c.ListGpusReport(
        items=tuple(
            c.ListedGpu(
                id=card.id,
                name=card.name,
                vendor=card.vendor,
                memory_bytes=card.memory_bytes,
                bandwidth_gb_s=card.bandwidth_gb_s,
                architecture=card.architecture,
            )
            for card in all_cards().values()
        )
    )
    return Answer(report, lambda: _gpu_table(report))


def _gpu_table(report: c.ListGpusReport) -> Iterable[Block]:
    columns = [
        Column("Card"),
        Column("Memory", right=True),
        Column("GB/s", right=True),
        Column("Architecture", rank=1),
        Column("Id", rank=2),
    ]
    yield Table(
        columns,
        [
            [
                g.name,
                "shared" if g.memory_bytes is None else f"{g.memory_bytes / (1 << 30):.0f} GiB",
                "?" if g.bandwidth_gb_s is None else f"{g.bandwidth_gb_s:.0f}",
                g.architecture or "?",
                g.id,
            ]
            for g in report.items
        ],
    )


_ENGINES = (
    (
        "llama.cpp",
        "llama.cpp",
        "every buffer, as a build of October 2026 allocates it",
        "llama-server",
    ),
    (
        "ollama",
        "Ollama",
        "its runner is llama.cpp; it chooses context, batch and layers by itself",
        "ollama run",
    ),
    ("vllm", "vLLM", "weights, profiled peak, graphs and the cache that is left", "vllm serve"),
    ("transformers", "transformers", "the placement that accelerate chooses", "a Python script"),
)


def _engines() -> Answer:
    from nemofit.probe import find_engines

    found = {e.id: e for e in find_engines(ask_versions=True, ask_servers=True)}
    report = c.ListEnginesReport(
        items=tuple(
            c.ListedEngine(id=id, name=name, memory=memory, launch=launch, installed=found.get(id))
            for id, name, memory, launch in _ENGINES
        )
    )
    return Answer(report, lambda: _engine_table(report))


def _engine_table(report: c.ListEnginesReport) -> Iterable[Block]:
    columns = [
        Column("Engine"),
        Column("Here"),
        Column("Runs with"),
        Column("Memory", rank=1),
    ]
    yield Table(columns, [[e.id, _here(e.installed), e.launch, e.memory] for e in report.items])


def _here(engine: FoundEngine | None) -> str:
    if engine is None:
        return "no"
    serving = f", serving at {engine.server}" if engine.server else ""
    return (engine.version or "yes") + serving


def _machines(catalog: str | None) -> Answer:
    from ..profiles import names, summary

    report = c.ListMachinesReport(
        items=tuple(
            c.ListedMachine(name=name, description=words, description_note=note)
            for name in names(catalog)
            for words, note in [summary(name, catalog)]
        )
    )
    return Answer(report, lambda: _machine_table(report))


def _machine_table(report: c.ListMachinesReport) -> Iterable[Block]:
    if not report.items:
        yield Line("no machine is saved yet: nemofit probe --save NAME")
        return
    columns = [Column("Machine"), Column("In words")]
    yield Table(
        columns, [[m.name, m.description or m.description_note or ""] for m in report.items]
    )


_LISTS = {"models": _models, "quants": _quants, "gpus": _gpus, "engines": _engines}
