"""What runs beside a model from files of its own: projectors for images and sound, adapters.

Their kind is said by the header: ``general.architecture`` clip or ``general.type`` mmproj for a
projector, ``general.type`` adapter with ``adapter.type`` lora for an adapter (llama.cpp,
``tools/mtmd/clip.cpp`` and ``src/llama-adapter.cpp``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nemofit.catalog.ggml import ggml_types
from nemofit.catalog.model import Companion, ModelSpec, Tensor, Value
from nemofit.errors import DataError, NemofitError

from .load import headers_at
from .near import companions_near
from .places import Places

_BITS = re.compile(r"(?:bf|f|[iu]?q)(\d+)", re.IGNORECASE)
_MOST_OPENED = 8
"""Files beside a model whose headers are read to find its projector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A projector or an adapter as its header tells it.

    Attributes:
        kind: ``projector`` or ``adapter``.
        name: File name.
        ref: What llama.cpp is told: a path, or ``hf:owner/repo:file``.
        values: The header's numbers and short texts.
        tensors: With their types; "type 99" where not known.
        file_bytes: Of all its files.
    """

    kind: str
    name: str
    ref: str
    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    file_bytes: int

    def integer(self, key: str, default: int = 0) -> int:
        """A value of the header as a whole number."""
        value = self.values.get(key, default)
        return value if isinstance(value, int) else default


def read_attachment(ref: str, places: Places) -> Attachment:
    """Read the header of a projector or an adapter.

    Args:
        ref: A path, an address or ``hf:owner/repo:file.gguf``.
        places: The machine that is asked.

    Raises:
        NemofitError: It cannot be read, or it is something else.
    """
    headers = headers_at(ref, places)
    first = headers[0]
    name = ref.replace("\\", "/").rpartition("/")[2].rpartition(":")[2]
    names = {t.id: name for name, t in ggml_types().items()}
    return Attachment(
        kind=_kind(first.values, name),
        name=name if name.isprintable() else ascii(name),
        ref=ref,
        values=first.values,
        tensors=tuple(
            Tensor(t.name, t.shape, names.get(t.type, f"type {t.type}"))
            for header in headers
            for t in header.tensors
        ),
        file_bytes=sum(header.file_bytes for header in headers),
    )


def _kind(values: Mapping[str, Value], name: str) -> str:
    kind = values.get("general.type", "model")
    if values.get("general.architecture") == "clip" or kind == "mmproj":
        return "projector"
    if kind == "adapter" and values.get("adapter.type") == "lora":
        return "adapter"
    what = "a model" if kind == "model" else f"of the kind {kind!r:.40}"
    raise DataError(
        f"{name!r:.100} is {what}, neither a projector nor a LoRA adapter",
        "--mmproj takes a projector, --lora an adapter, --draft a model",
    )


def belongs(projector: Attachment, model: ModelSpec) -> bool:
    """Whether a projector's results are as wide as the model's embedding."""
    width = model.integer("embedding_length")
    said = {projector.integer(f"clip.{of}projection_dim") for of in ("", "vision.", "audio.")} - {0}
    return width in said


def projector_of(model: ModelSpec, places: Places) -> Attachment | None:
    """The projector that lies beside a model, None where none does.

    Of several, the one whose file type is nearest the model's, as llama.cpp chooses
    (``common/download.cpp``, find_best_sibling). In a directory of the person's own it must also
    fit the model, since models of all kinds may lie there.
    """
    near = [c for c in companions_near(model) if c.kind == "projector"]
    origin = model.origin
    wanted = bits_of(origin.file or origin.path or "" if origin else "")
    near.sort(key=lambda c: (abs(bits_of(c.name) - wanted), c.name))
    for companion in near[:_MOST_OPENED]:
        found = _opened(companion, places)
        if found is not None and (belongs(found, model) or (origin and origin.repository)):
            return found
    return None


def _opened(companion: Companion, places: Places) -> Attachment | None:
    """A companion's header; None for a file that only has the name of one, or out of reach."""
    try:
        found = read_attachment(companion.ref, places)
    except NemofitError:
        return None
    return found if found.kind == "projector" else None


def bits_of(name: str) -> int:
    """The first number of a file type in a file's name: 4 of ``x-Q4_K_M.gguf``; 0 without one."""
    found = _BITS.findall(name.rpartition("/")[2])
    return int(found[-1]) if found else 0
