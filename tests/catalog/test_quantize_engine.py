"""The real llama-quantize, asked now: a sample of what the fixtures hold, and random models."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine, programs
from benchmarks.accuracy.weights import FIXTURES, ask, differences, random_model, read_fixture

from nemofit.catalog.filetypes import file_types, source_types
from nemofit.formats.gguf.writer import write_sparse


def test_it_offers_the_file_types_of_the_catalog(engine: Engine) -> None:
    """Names, other names and numbers of its help text; COPY is no file type."""
    help_text = subprocess.run(
        [programs() / "llama-quantize"], capture_output=True, text=True
    ).stdout
    offered = re.findall(r"^ +(\d+) +or +(\w+) *:", help_text, re.MULTILINE)
    known = [(str(t.id), name) for t in file_types().values() for name in (t.name, *t.aliases)]
    assert sorted(offered) == sorted(known)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "mixtral-8x7b", "nemotron-nano-9b-v2"])
def test_it_still_answers_as_recorded(engine: Engine, name: str, tmp_path: Path) -> None:
    shape, answers = read_fixture(FIXTURES / f"{name}.json")
    file = tmp_path / "model.gguf"
    write_sparse(file, shape.model, shape.source)
    for key in (("Q4_K_M", False), ("IQ3_XXS", True), ("IQ1_S", False), ("Q4_0", True)):
        answer = ask(file, *key)
        assert answers[key].types == answer.types
        assert answers[key].mib == answer.mib


@pytest.mark.parametrize("seed", range(8))
def test_models_that_exist_nowhere(engine: Engine, seed: int, tmp_path: Path) -> None:
    """Any layer count, heads, experts, row lengths and order of tensors."""
    rng = random.Random(seed)
    model = random_model(rng)
    file = tmp_path / "model.gguf"
    write_sparse(file, model, source_types(model))
    for name in rng.sample(list(file_types()), 6):
        imatrix = rng.random() < 0.5
        assert differences(model, name, imatrix, ask(file, name, imatrix)) == [], name
