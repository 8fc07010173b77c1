"""``--mmproj``, ``--lora`` and ``--draft``: what runs beside a model, and how it is told."""

from __future__ import annotations

from typing import cast

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory
from nemofit.errors import UsageError
from nemofit.formats.companions import Attachment, belongs, projector_of, read_attachment
from nemofit.formats.places import Places
from nemofit.machine.records import Machine
from nemofit.planner.companions import Companions, single_with
from nemofit.planner.explain import Step
from nemofit.planner.limits import unmet
from nemofit.planner.records import Beside, Plan
from nemofit.units import gib, mib

from . import contract as c
from . import request
from .engines import Found
from .options import Options

_SOURCES = {
    "projector": "llama.cpp tools/mtmd/clip.cpp",
    "adapter": "llama.cpp src/llama-adapter.cpp, src/llama-graph.cpp (build_lora_mm)",
    "draft": "llama.cpp common/speculative.cpp; the same rules as for the model",
}
_KINDS = {"weights": "weights_bytes", "KV cache": "kv_bytes", "compute": "compute_bytes"}


def single(options: Options, machine: Machine) -> tuple[Found, Plan]:
    """One plan with what shall run beside the model, and the model's own part of it.

    Raises:
        UsageError: A projector of another width than the model's, or a file of another kind.
        NemofitError: A file that cannot be read.
    """
    goal, model = request.goal_of(options), request.model_of(options)
    plan, alone, changes = single_with(model, machine, goal, companions_of(options, model))
    found = Found(
        plan=plan,
        changes=changes,
        nearest=changes[0].text if changes else None,
        misses=unmet(plan, goal),
    )
    return found, alone


def refuse(options: Options, engine: str) -> None:
    """Companions are llama.cpp's.

    Raises:
        UsageError: One was asked for.
    """
    asked = {"--mmproj": options.mmproj, "--lora": options.lora, "--draft": options.draft}
    for flag, value in asked.items():
        if value not in (None, "auto", "none"):
            raise UsageError(f"{flag} is not planned for {engine}", "use --engine llama.cpp")


def companions_of(options: Options, model: ModelSpec) -> Companions:
    """What shall run beside a model; a projector that lies beside it comes along unasked."""
    places = Places.here()
    projector, is_found_again = None, False
    if options.mmproj in (None, "auto"):
        projector = projector_of(model, places)
        is_found_again = bool(projector and model.origin and model.origin.repository)
    elif options.mmproj != "none":
        projector = _attachment(options.mmproj or "", "projector", places)
        if not belongs(projector, model):
            raise UsageError(
                f"the projector {projector.name!r:.100} is not of the width of {model.id} "
                f"({model.integer('embedding_length')})",
                "name the projector that was published with the model",
            )
    draft = None
    if options.draft is not None:
        from nemofit.formats.load import load

        draft = load(options.draft, places)
    return Companions(
        projector=projector,
        is_found_again=is_found_again,
        adapter=_attachment(options.lora, "adapter", places) if options.lora else None,
        draft=draft,
    )


def _attachment(ref: str, kind: str, places: Places) -> Attachment:
    found = read_attachment(ref, places)
    if found.kind != kind:
        raise UsageError(
            f"{found.name!r:.100} is no {kind} but a {'LoRA ' * (found.kind == 'adapter')}"
            f"{found.kind}",
            "--mmproj takes a projector, --lora an adapter",
        )
    return found


def records_of(plan: Plan) -> tuple[c.CompanionRecord, ...]:
    """The companions of a plan, each with its bytes by device."""
    return tuple(
        c.CompanionRecord(
            kind=cast(c.CompanionKind, one.kind),
            name=one.name,
            file_bytes=one.bytes,
            parts=tuple(
                c.PartRecord(
                    device=name,
                    weights_bytes=part.weights_bytes,
                    kv_bytes=part.kv_bytes,
                    compute_bytes=part.compute_bytes,
                    total_bytes=part.total_bytes,
                )
                for name, part in _parts(one)
                if part.total_bytes
            ),
            basis=cast(c.Basis, one.basis),
            note=one.note,
        )
        for one in plan.beside
    )


def steps_of(plan: Plan) -> tuple[Step, ...]:
    """The lines of ``--explain`` for the companions."""
    return tuple(
        Step(
            device=name,
            kind=kind,
            text=f"{one.kind} {one.name}",
            bytes=getattr(part, field),
            source=_SOURCES[one.kind],
        )
        for one in plan.beside
        for name, part in _parts(one)
        for kind, field in _KINDS.items()
        if getattr(part, field)
    )


def _parts(one: Beside) -> list[tuple[str, DeviceMemory]]:
    named = [(f"GPU {i}", device) for i, device in enumerate(one.memory.gpus)]
    return [*named, ("RAM", one.memory.host)]


def line_of(record: c.CompanionRecord) -> str:
    """One companion in words: ``projector mmproj.gguf: 0.90 GiB on GPU 0``."""
    parts = ", ".join(f"{_size(part.total_bytes)} on {part.device}" for part in record.parts)
    return f"{record.kind} {record.name}: {parts or 'nothing'}; {record.note}"


def _size(n: int) -> str:
    return gib(n) if n >= 1 << 30 else mib(n)
