"""What every model of the catalog takes when one device holds all of it, worked out once.

Listing a model's tensors and replaying its graph takes longer than a person waits for a hundred
models, and none of it depends on the machine. So for a set of knobs the figures are worked out by
the same estimator as everywhere else and kept in the cache directory, beside a digest of the data
and the code that they were made from: a digest that differs means that they are made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from nemofit.catalog import store
from nemofit.catalog.model import ModelSpec, Tensor
from nemofit.catalog.models import ModelCard, active_parameters, all_models
from nemofit.catalog.shapes import tensors_of
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import NemofitError
from nemofit.speed.work import HOST, Weights, Work, work_of

from .sources import source_of

LADDER = (
    "F16",
    "Q8_0",
    "Q6_K",
    "Q5_K_M",
    "Q4_K_M",
    "IQ4_XS",
    "Q3_K_M",
    "Q2_K",
    "IQ2_XXS",
)
"""File types that the whole catalog is ranked with: one for each step of size."""
_PACKAGES = ("catalog", "engines/llama_cpp", "speed", "planner")

Build = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class File:
    """One file type of a model.

    Attributes:
        weights_bytes: All tensors.
        imatrix: Whether the known files are made with an importance matrix.
        device_bytes, host_bytes: Weights on the device that holds everything, and beside it.
        dense, experts: Bytes and elements that a token reads, by tensor type.
    """

    weights_bytes: int
    imatrix: bool
    device_bytes: int
    host_bytes: int
    dense: Mapping[str, Sequence[int]]
    experts: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Footprint:
    """One model with everything on one device.

    Attributes:
        context: Tokens that it was worked out for.
        parameters, active: All weights, and those that work on one token.
        kv_bytes, compute_bytes: On the device.
        host_compute_bytes: On the host beside a GPU; 0 where the host is the device.
        basis, notes: As of the memory estimate.
        work: The other figures of :class:`nemofit.speed.work.Work`.
        files: By file type, the best quality first.
    """

    context: int
    parameters: int
    active: int
    kv_bytes: int
    compute_bytes: int
    host_compute_bytes: int
    basis: str
    notes: Sequence[str]
    work: Mapping[str, Any]
    files: Mapping[str, File] = field(default_factory=dict)

    def read_bytes(self, quant: str, share: float) -> float:
        """Bytes of weights that a token reads when ``share`` of the experts work on it."""
        file = self.files[quant]
        dense = sum(pair[0] for pair in file.dense.values())
        return dense + share * sum(pair[0] for pair in file.experts.values())

    def works(self, quant: str, device: int) -> Work:
        """What the device does for one token."""
        file = self.files[quant]
        work = Work(device)
        for name, value in self.work.items():
            if isinstance(value, dict):
                getattr(work, name).update({int(k): v for k, v in value.items()})
            else:
                setattr(work, name, value)
        for group, sizes in ((work.dense, file.dense), (work.experts, file.experts)):
            group.update({kind: Weights(*pair) for kind, pair in sizes.items()})
        return work


class Listed(Sequence[Tensor]):
    """A catalog model's tensors, listed when somebody looks at them."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card

    def _tensors(self) -> tuple[Tensor, ...]:
        return self._card.spec().tensors

    def __len__(self) -> int:
        return len(self._tensors())

    def __getitem__(self, index: Any) -> Any:
        return self._tensors()[index]


def outline(card: ModelCard, footprint: Footprint | None = None) -> ModelSpec:
    """The card's model with its tensors not listed yet, its parameters known from a footprint."""
    spec = ModelSpec(
        id=card.id,
        architecture=card.architecture,
        metadata=card.metadata,
        tensors=cast("tuple[Tensor, ...]", Listed(card)),
    )
    if footprint is not None:
        spec.__dict__["parameters"] = footprint.parameters
        spec.__dict__["memo"] = {"active_parameters": footprint.active}
    return spec


_directory: Path | None = None
_personal: Path | None = None


def use_directories(cache: Path | None, personal: Path | None) -> None:
    """Keep footprints in ``cache``, None keeps none; ``personal`` is the person's own catalog."""
    global _directory, _personal
    _directory, _personal = cache, personal


def footprints(
    config: RunConfig, quants: Sequence[str], imatrix: bool | None, *, prepare: Build | None = None
) -> dict[str, Footprint]:
    """Every model of the catalog that generates text, by id.

    Args:
        config: Knobs; of the offload only the backend counts ("cpu": the host holds everything),
            and the context is shortened to a model's trained length.
        quants: File types.
        imatrix: As of :class:`.goal.Goal`.
        prepare: Told before anything is worked out that is not at hand.
    """
    key = repr((config, tuple(quants), imatrix))
    digest = _digest(key)
    path = _directory / f"footprints-{_hash(key)}.json" if _directory else None
    kept = _read(path, digest) if path else None
    if kept is None:
        if prepare is not None:
            prepare("working out the catalog for these settings, once")
        made = {card.id: _work_out(card, config, quants, imatrix) for card in all_models()}
        known = {id: found for id, found in made.items() if found is not None}
        text = json.dumps({"digest": digest, "models": known})
        if path is not None:
            _write(path, text)
        kept = json.loads(text)["models"]
    return {id: _from_json(entry) for id, entry in kept.items()}


def generates(card: ModelCard) -> bool:
    """Whether a model writes text: embedding models pool instead."""
    return "pooling_type" not in card.metadata


def _work_out(
    card: ModelCard, config: RunConfig, quants: Sequence[str], imatrix: bool | None
) -> dict[str, Any] | None:
    """A footprint as plain data; None for a model that has none."""
    from nemofit.catalog.filetypes import needs_imatrix

    if not generates(card):
        return None
    on_host = config.backend == "cpu"
    try:
        model = _listed_anew(card)
        context = min(config.context, model.integer("context_length") or config.context)
        whole = config.replace(
            context=context,
            gpu_layers=0 if on_host else model.integer("block_count") + 1,
            op_offload=config.op_offload and not on_host,
        )
        found: dict[str, Any] = {}
        native = [card.native] if card.native and len(quants) > 1 else []
        for quant in dict.fromkeys((*quants, *native)):
            made = source_of(model, quant, imatrix).imatrix
            if not made and needs_imatrix(model, quant):
                continue
            _add_file(found, model, whole, quant, made, on_host)
    except NemofitError:
        return None
    return {"context": context, **found} if found else None


def _listed_anew(card: ModelCard) -> ModelSpec:
    """The card's model for a moment: kept, the tensors of the whole catalog would take 50 MiB."""
    spec = outline(card)
    return replace(spec, tensors=tensors_of(card.architecture, card.metadata))


def _add_file(
    found: dict[str, Any],
    model: ModelSpec,
    config: RunConfig,
    quant: str,
    imatrix: bool,
    on_host: bool,
) -> None:
    from nemofit.catalog.filetypes import weights_bytes
    from nemofit.engines.llama_cpp import Estimator

    estimator = Estimator(model, quant, imatrix)
    memory = estimator.memory(config, 0 if on_host else 1)
    device = memory.host if on_host else memory.gpus[0]
    at = HOST if on_host else 0
    blocks = model.integer("block_count")
    units = (at,) * (blocks + 1)
    devices = [at] * len(model.tensors)
    [work] = work_of(model, estimator.types, devices, units, config)
    if not found:
        found |= {
            "parameters": model.parameters,
            "active": active_parameters(model),
            "kv_bytes": device.kv_bytes,
            "compute_bytes": device.compute_bytes,
            "host_compute_bytes": 0 if on_host else memory.host.compute_bytes,
            "basis": memory.basis,
            "notes": memory.notes,
            "work": {
                name: getattr(work, name)
                for name in Work.__dataclass_fields__
                if name not in ("device", "dense", "experts")
            },
            "files": {},
        }
    found["files"][quant] = (
        weights_bytes(model, quant, imatrix),
        imatrix,
        device.weights_bytes,
        0 if on_host else memory.host.weights_bytes,
        {kind: (w.bytes, w.elements) for kind, w in work.dense.items()},
        {kind: (w.bytes, w.elements) for kind, w in work.experts.items()},
    )


def _from_json(entry: Mapping[str, Any]) -> Footprint:
    files = {quant: File(*values) for quant, values in entry["files"].items()}
    return Footprint(**{**entry, "files": files})


def _read(path: Path, digest: str) -> dict[str, Any] | None:
    try:
        whole = json.loads(path.read_bytes())
        if whole["digest"] == digest:
            return dict(whole["models"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole; a cache that cannot be written is done without."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)


def _digest(key: str) -> str:
    """What the figures depend on: the knobs, and the state of the data and of the code."""
    package = Path(__file__).parent.parent
    parts = [key]
    for folder in (store.data_directory(), _personal):
        parts += sorted(_states(folder, ".yaml")) if folder else []
    for name in _PACKAGES:
        parts += sorted(_states(package / name, ".py"))
    return _hash("\n".join(parts))


def _states(folder: str | Path, suffix: str) -> Iterator[str]:
    """Path, size and time of every file; code lies in packages, data in one folder."""
    with suppress(OSError), os.scandir(folder) as found:
        for one in found:
            if one.name.endswith(suffix):
                seen = one.stat()
                yield f"{one.path} {seen.st_size} {seen.st_mtime_ns}"
            elif suffix == ".py" and one.is_dir() and one.name != "__pycache__":
                yield from _states(one.path, suffix)


def _hash(text: str) -> str:
    return store.fingerprint(text.encode(errors="surrogateescape"))
