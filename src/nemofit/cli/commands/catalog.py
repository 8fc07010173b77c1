"""``nemofit catalog``: show a model with its sources, add one from a header, check them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemofit.catalog import personal, store
from nemofit.errors import NemofitError, UnknownNameError, UsageError

from .. import catalog_reports as c
from .. import catalog_views as views
from ..answer import Answer
from ..environment import personal_place, prepare
from ..options import Options

if TYPE_CHECKING:
    from nemofit.catalog.model import ModelSpec
    from nemofit.catalog.models import ModelCard, PublishedSize

_DIFFERS = 3
_LONGEST = 100  # characters of a source


def answer(options: Options) -> Answer:
    """Do what the first word says.

    Raises:
        UsageError: Another word, or a name too few.
    """
    make = _ACTIONS.get(options.what or "")
    if make is None:
        raise UsageError(f"the catalog knows no {options.what!r}", "one of: " + ", ".join(_ACTIONS))
    return make(options)


def _named(options: Options, what: str) -> str:
    if not options.name:
        raise UsageError(f"catalog {options.what} needs {what}", "nemofit catalog --help")
    return options.name


def _show(options: Options) -> Answer:
    from nemofit.catalog.models import active_parameters, find_model

    name = _named(options, "a model")
    prepare(options.catalog)
    card = find_model(name)
    spec = card.spec()
    file = _file_of(card.id)
    licence = card.licence
    report = c.CatalogShowReport(
        id=card.id,
        name=card.name,
        family=card.family,
        aliases=card.aliases,
        file=str(file),
        shipped=file == store.files("models")[0][0],
        repository=card.hf_repo,
        architecture=card.architecture,
        parameters=spec.parameters,
        active_parameters=active_parameters(spec),
        published_parameters=card.parameters,
        trained_context=card.context,
        context_note=card.context_note,
        metadata=dict(card.metadata),
        released=card.released,
        licence=c.LicenceRecord(
            name=licence.name,
            conditions=licence.conditions,
            note=licence.note,
            sources=licence.sources,
        )
        if licence
        else None,
        languages=card.languages,
        languages_note=card.languages_note,
        base_model=card.base_model,
        training=card.training,
        chat_template=card.chat_template,
        good_for=card.strengths,
        not_good_for=card.limits,
        scores=tuple(
            c.ScoreRecord(
                benchmark=s.benchmark, value=s.value, by=s.by, how=s.how, sources=s.sources
            )
            for s in card.scores
        ),
        gguf=tuple(
            c.RepositoryRecord(
                repository=r.repo,
                imatrix=r.imatrix,
                sizes={name: _size(size) for name, size in r.sizes.items()},
                sources=r.sources,
            )
            for r in card.gguf
        ),
        ollama=tuple(
            c.TagRecord(tag=t.tag, file_type=t.file_type, bytes=t.bytes) for t in card.ollama
        ),
        checkpoints=tuple(
            c.CheckpointRecord(
                repository=v.repo, format=v.format, size=_size(v.size) if v.size else None
            )
            for v in card.vllm
        ),
        notes=card.notes,
        sources=card.sources,
    )
    return Answer(report, lambda: views.model(report))


def _size(size: PublishedSize) -> c.SizeRecord:
    return c.SizeRecord(bytes=size.bytes, within=size.within)


def _add(options: Options) -> Answer:
    from nemofit.formats.entry import plain_id, plain_name, shape_of
    from nemofit.formats.load import load_model

    ref = _named(options, "the file to read")
    place = personal_place(options.catalog)
    prepare(options.catalog)
    model = load_model(ref)
    if model.source == "catalog":
        raise UsageError(
            f"{ref!r:.200} is a model of the catalog already",
            f"name a file; nemofit catalog show {model.id} shows what is known",
        )
    id = options.entry_name or plain_id(model)
    file = place / personal.FILE
    entry: dict[str, Any] = {
        "name": plain_name(model),
        "family": id.partition("-")[0],
        **({"hf_repo": options.repo} if options.repo else {}),
        "architecture": model.architecture,
        "metadata": shape_of(model),
        **_published(model),
    }
    source = f"header of {_place(model)}"[:_LONGEST]
    shadowed, replaced = (id in entries for entries in _both(file))
    text = personal.with_entry(file, id, entry, source, options.force)
    personal.write(file, text)
    store.reload()
    report = c.CatalogAddReport(
        id=id, file=str(file), source=source, replaced=replaced, entry=entry
    )
    notes = (f"{id} is also a model of the shipped catalog; yours counts from now on",)
    return Answer(report, lambda: views.added(report), notes=notes if shadowed else ())


def _place(model: ModelSpec) -> str:
    """Where the header can be read again; of a file on this disk its name alone."""
    origin = model.origin
    if origin is not None and origin.repository:
        return f"hf:{origin.repository}:{origin.file}"
    if origin is not None and origin.ollama:
        return f"ollama:{origin.ollama}"
    return origin.url if origin and origin.url else Path(model.source).name


def _published(model: ModelSpec) -> dict[str, Any]:
    """The repository that the file lies in, with its size; nothing for another place."""
    origin = model.origin
    if origin is None or not origin.repository:
        return {}
    repo: dict[str, Any] = {"repo": origin.repository}
    if model.file_type and model.file_bytes:
        repo["sizes"] = {model.file_type: model.file_bytes}
    return {"gguf": [repo]}


def _file_of(id: str) -> Path:
    """The catalog file whose entry of that id counts."""
    return next(path for path, entries in reversed(store.files("models")) if id in entries)


def _both(own: Path) -> tuple[store.Entries, store.Entries]:
    """The shipped entries, and those of the person's own file."""
    (_, shipped), *more = store.files("models")
    return shipped, next((entries for path, entries in more if path == own), {})


def _check(options: Options) -> Answer:
    prepare(options.catalog)
    files = [
        c.CheckedFile(file=str(path), entries=len(entries))
        for kind in store.KINDS
        for path, entries in store.files(kind)
    ]
    from nemofit.catalog.models import all_models

    for card in all_models():
        card.spec()
    compared, notes = _compared(options)
    differs = any(row.differences for row in compared)
    report = c.CatalogCheckReport(
        files=tuple(files), compared=compared, verdict="differs" if differs else "same"
    )
    code = _DIFFERS if differs else 0
    return Answer(report, lambda: views.checked(report), exit_code=code, notes=notes)


def _compared(options: Options) -> tuple[tuple[c.ComparedRecord, ...], tuple[str, ...]]:
    """The file that was named beside its entry; without one, every file on this disk whose own
    name is that of an entry."""
    if options.name:
        return (_compare(options.name, options.entry_name),), ()
    from nemofit.formats.local import local_models
    from nemofit.formats.places import Places

    models, notes = local_models(Places.here())
    found = []
    for model in models:
        if model.kind == "model" and model.error is None and model.places:
            try:
                compared = _compare(model.places[0].ref, None)
            except NemofitError as error:  # it changed since it was listed
                notes.append(f"{model.id}: {error.message}")
                continue
            if compared.model is not None:
                found.append(compared)
    return tuple(found), tuple(notes)


def _compare(ref: str, name: str | None) -> c.ComparedRecord:
    from nemofit.formats.entry import differences
    from nemofit.formats.load import load_model

    model = load_model(ref)
    if model.source == "catalog":
        raise UsageError(
            f"{ref!r:.200} is a model of the catalog", "name a file to compare with it"
        )
    card = _card_for(model, name)
    if card is None:
        note = "the catalog has no model of that name: --name says which entry it is"
        return c.ComparedRecord(file=model.source, model=None, note=note, differences=())
    found = differences(card.spec(), model)
    return c.ComparedRecord(
        file=model.source,
        model=card.id,
        note=None,
        differences=tuple(
            c.DifferenceRecord(
                what="key" if d.what == "key" else "tensor",
                name=d.name,
                catalog=d.catalog,
                file=d.file,
            )
            for d in found
        ),
    )


def _card_for(model: ModelSpec, name: str | None) -> ModelCard | None:
    """The entry that was named, or the one that the file's own name means."""
    from nemofit.catalog.models import find_model
    from nemofit.formats.entry import plain_id

    if name is not None:
        return find_model(name)
    try:
        return find_model(plain_id(model))
    except UnknownNameError:
        return None


_ACTIONS = {"show": _show, "add": _add, "check": _check}
