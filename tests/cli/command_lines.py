"""What a command line ends with, and machines to ask about."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.formats.gguf.writer import write_sparse


@dataclass(frozen=True)
class Said:
    """What a command line ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Say = Callable[..., Said]

TWO_CARDS = "2x RTX 3090, 64 GiB RAM"
NO_CARD = "16 GiB RAM, 8 cores"

SMALL_FILE = "Small-135M-Q4_0.gguf"
"""SmolLM2 135M under another name; written where a test needs it."""


def small_file(directory: Path) -> Path:
    """Write that file, its data a hole."""
    model = replace(find_model("smollm2-135m").spec(), file_type="Q4_0")
    path = directory / SMALL_FILE
    write_sparse(path, model, tensor_types(model, "Q4_0", imatrix=False))
    return path
