"""Where the weights of a plan come from."""

from __future__ import annotations

from dataclasses import dataclass

from nemofit.catalog.model import ModelSpec, Origin
from nemofit.catalog.models import GgufRepo, ModelCard, all_models, find_model
from nemofit.engines.llama_cpp.launch import Weights
from nemofit.units import article

_USUAL = "Q4_K_M"


@dataclass(frozen=True, slots=True)
class Source:
    """The file of a plan.

    Attributes:
        weights: For llama.cpp's command line.
        imatrix: Whether that file was made with an importance matrix.
        ollama_tag: What Ollama calls the same file, None: nothing known.
        note: What to know about it, None: nothing.
    """

    weights: Weights
    imatrix: bool
    ollama_tag: str | None = None
    note: str | None = None


def card_of(model: ModelSpec) -> ModelCard | None:
    """The catalog's card of a model that came from there; None for a file."""
    return find_model(model.id) if model.source == "catalog" else None


def native_type(model: ModelSpec) -> str | None:
    """The file type that loses nothing because the weights were trained in it; None: 16 bits.

    A file's is that of the catalog's models of its architecture.
    """
    if "native" not in model.memo:
        card = card_of(model)
        same = [card] if card else [c for c in all_models() if c.architecture == model.architecture]
        model.memo["native"] = next((c.native for c in same if c.native), None)
    found = model.memo["native"]
    return found if isinstance(found, str) else None


def usual_type(model: ModelSpec) -> str | None:
    """The file type that comes where nobody names one: that of the model's default Ollama tag, or
    Q4_K_M, which llama.cpp's ``-hf`` takes too, unless there are only files of another type; None:
    the model is a file, and has its own."""
    card = card_of(model)
    if card is None:
        return None
    tagged = [t.file_type for t in card.ollama if t.file_type]
    listed = [quant for repo in card.gguf for quant in repo.sizes]
    fallback = _USUAL if _USUAL in listed or len(set(listed)) != 1 else listed[0]
    return tagged[0] if tagged else fallback


def source_of(model: ModelSpec, quant: str | None, imatrix: bool | None) -> Source:
    """Find the file of a file type.

    Args:
        model: From the catalog or a file.
        quant: The file type; None: the file itself.
        imatrix: True or False: only such files; None: whatever the best known repository has.
    """
    card = card_of(model)
    if card is None:
        return _own_file(model, quant, imatrix)
    quant = quant or ""
    repo = _repository(card, quant, imatrix)
    tag = card.ollama_tag(quant)
    if repo is None:
        note = f"no repository with a GGUF file of {model.id} is known"
        return Source(Weights(missing=card.hf_repo or ""), bool(imatrix), tag, note)
    made = bool(repo.imatrix) if imatrix is None else imatrix
    unseen = None
    if quant not in repo.sizes:
        file = f"{article(quant)} {quant} file in {repo.repo}"
        unseen = f"{file} has not been seen listed: check before you rely on it"
    weights = Weights(repository=repo.repo, quant=quant, has_projector=card.projector)
    return Source(weights, made, tag, unseen)


def _own_file(model: ModelSpec, quant: str | None, imatrix: bool | None) -> Source:
    if model.checkpoint is not None:
        notes = list(model.notes)
        if model.checkpoint.quantization is not None:
            notes.append("the loss of the file type comes on top of what that has lost")
        note = "; ".join(notes) or None
        return Source(Weights(missing=model.source), bool(imatrix), None, note)
    if quant is None or quant == model.file_type:
        return Source(_weights(model), bool(imatrix), _ollama_name(model))
    from nemofit.formats.hub_files import is_model, tag_of

    origin = model.origin
    others = [c.name for c in origin.beside if is_model(c.name)] if origin else []
    beside = [name for name in others if tag_of(name) == quant]
    if origin is not None and origin.repository is not None and beside:
        weights = Weights(
            repository=origin.repository, quant=quant, has_projector=_has_projector(origin)
        )
        return Source(weights, bool(imatrix))
    path = f"{model.id}-{quant}.gguf"
    note = f"{path} does not exist yet: quantize {model.source} first"
    return Source(Weights(path=path), bool(imatrix), None, note)


def _weights(model: ModelSpec) -> Weights:
    """The file as llama.cpp finds it again."""
    origin = model.origin
    if origin is None:
        return Weights(path=model.source)
    if origin.repository is not None:
        file = None if origin.quant else origin.file
        return Weights(
            repository=origin.repository,
            quant=origin.quant,
            file=file,
            has_projector=_has_projector(origin),
        )
    return Weights(url=origin.url) if origin.url else Weights(path=origin.path or model.source)


def _has_projector(origin: Origin) -> bool:
    """Whether ``-hf`` would load a projector from the same repository."""
    return any(companion.kind == "projector" for companion in origin.beside)


def _ollama_name(model: ModelSpec) -> str | None:
    """What ``ollama run`` takes: an entry of its store, or a file on the hub that is not split.

    Source: https://huggingface.co/docs/hub/ollama.
    """
    origin = model.origin
    if origin is None or origin.ollama is not None:
        return origin.ollama if origin else None
    from nemofit.formats.gguf.reader import shard_names

    if not origin.repository or not origin.quant or len(shard_names(origin.file or "")) > 1:
        return None
    return f"hf.co/{origin.repository}:{origin.quant}"


def _repository(card: ModelCard, quant: str, imatrix: bool | None) -> GgufRepo | None:
    """A repository that lists the file comes first, then the first one that could have it."""
    fitting = [r for r in card.gguf if imatrix is None or bool(r.imatrix) == imatrix]
    return next((r for r in fitting if quant in r.sizes), fitting[0] if fitting else None)


def file_bytes(model: ModelSpec, quant: str | None, weights_bytes: int) -> int:
    """Size of a plan's file: the file's own, the published one, or that of its tensors alone."""
    if model.file_bytes is not None and quant in (None, model.file_type):
        return model.file_bytes
    card = card_of(model)
    sizes = (
        [repo.sizes[quant] for repo in card.gguf if quant in repo.sizes] if card and quant else []
    )
    return next((size.bytes for size in sizes if not size.within), weights_bytes)
