"""Read broken GGUF headers by the million; each must end in a model or in one of our errors.

    python -m benchmarks.fuzz.gguf --count 1000000

A mutant that is still a model is also sized, as a plan does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .harness import Target, main, without_figures
from .mutate import mutant, parts
from .seeds import seeds

SPARSE = 1 << 40
"""Every fourth mutant gets a hole of this size behind it, so that its tensors are all there."""


def answer(path: Path) -> str:
    """Read one file and size it; the kind of answer without its figures."""
    from nemofit import NemofitError
    from nemofit.catalog.filetypes import weights_bytes
    from nemofit.engines.llama_cpp import estimate_memory
    from nemofit.engines.llama_cpp.config import RunConfig
    from nemofit.formats.gguf.reader import read_gguf

    try:
        model = read_gguf(path)
        weights_bytes(model, None)
        estimate_memory(model, config=RunConfig(context=512, ubatch=64), n_gpus=1)
    except NemofitError as error:
        return without_figures(f"{error.message} {error.hint}")
    shown = f"{model.id}{model.architecture}{''.join(model.notes)}"
    assert shown.isprintable(), "the model has names that a terminal would obey"
    return f"a model, {model.architecture}, {len(model.notes)} notes"


def place(data: bytes, directory: Path, number: int) -> Path:
    """Write one header, every fourth with room for its tensors."""
    path = directory / "mutant.gguf"
    with path.open("wb") as file:
        file.write(data)
        if number % 4 == 0:
            file.truncate(max(len(data), SPARSE))
    return path


TARGET = Target(seeds=seeds, parts=parts, mutant=mutant, place=place, answer=answer)

if __name__ == "__main__":
    sys.exit(main(TARGET, __doc__.splitlines()[0]))
