"""Headers broken as benchmarks/fuzz breaks them, and what a million of them brought to light."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.accuracy.sparse import cut
from benchmarks.fuzz.gguf import SPARSE, answer
from benchmarks.fuzz.mutate import mutant, parts
from benchmarks.fuzz.seeds import seeds
from benchmarks.fuzz.spots import Layout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp import estimate_memory
from nemofit.errors import DataError
from nemofit.formats.gguf.reader import read_gguf

from . import build
from .build import ARRAY, DATA, SMALL, STRING, TENSORS, U32, U64


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Layout]:
    return [parts(data) for data in seeds(tmp_path_factory.mktemp("seeds"))]


def test_the_headers_that_are_broken_were_whole(whole: list[Layout], tmp_path: Path) -> None:
    """Every part of a seed is known, and every seed is a model."""
    path = tmp_path / "x.gguf"
    for at in whole:
        assert at.pairs
        assert at.tensors
        path.write_bytes(at.data)
        with path.open("r+b") as file:
            file.truncate(SPARSE)
        assert answer(path).startswith("a model"), at.data[:200]


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False), st.booleans())
def test_a_broken_header_gives_a_model_or_an_error(
    whole: list[Layout], tmp_path: Path, rng: random.Random, is_complete: bool
) -> None:
    """``answer`` lets only our own errors pass; none has a second line or moves a cursor."""
    path = tmp_path / "x.gguf"
    path.write_bytes(mutant(rng.choice(whole), rng))
    if is_complete:
        with path.open("r+b") as file:
            file.truncate(SPARSE)
    answer(path)


def write(path: Path, pairs: list[build.Pair], infos: list[build.Info] = TENSORS) -> Path:
    path.write_bytes(build.gguf(pairs, infos, DATA))
    return path


@pytest.mark.parametrize("name", ["\0", "\n", "qwen3\x18Loe", "\x1b[2J", "x" * 65])
def test_an_architecture_that_a_terminal_would_obey_is_refused(tmp_path: Path, name: str) -> None:
    """Found by fuzzing: the name stands in messages and in every answer about the model."""
    pairs = [("general.architecture", STRING, name), *SMALL[1:]]
    with pytest.raises(DataError, match="architecture") as caught:
        read_gguf(write(tmp_path / "x.gguf", pairs))
    assert caught.value.message.isprintable()


def test_keys_and_tensors_that_a_terminal_would_obey_are_refused(tmp_path: Path) -> None:
    key = write(tmp_path / "key.gguf", [*SMALL, ("llama.\x1b[31m", U32, 1)])
    with pytest.raises(DataError, match="a key with unprintable"):
        read_gguf(key)
    infos = [*TENSORS, ("blk.0.\x07", (1,), 0, 448)]
    with pytest.raises(DataError, match="a tensor name with unprintable"):
        read_gguf(write(tmp_path / "tensor.gguf", SMALL, infos))


@pytest.mark.parametrize("depth", [1, 2, 1000])
def test_arrays_of_arrays_are_refused(tmp_path: Path, depth: int) -> None:
    """llama.cpp refuses them too (ggml/src/gguf.cpp knows no reader for an array's element)."""
    deep = build.value(U32, ARRAY) + build.value(U64, 1)
    last = build.value(U32, U32) + build.value(U64, 1) + build.value(U32, 7)
    pair = build.text("deep") + build.value(U32, ARRAY) + deep * depth + last
    data = build.start(0, len(SMALL) + 1) + b"".join(build.pair(*p) for p in SMALL) + pair
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(DataError, match="a value of type 9 in 'deep'"):
        read_gguf(path)


@pytest.mark.parametrize("name", ["glm-5", "deepseek-v4-flash"])
def test_an_indexer_without_a_width_is_refused(name: str) -> None:
    """Found by fuzzing: a rotation was looked for in a key of no elements, without an end."""
    model = cut(find_model(name).spec(), 4)
    metadata = {k: v for k, v in model.metadata.items() if k != "attention.indexer.key_length"}
    with pytest.raises(DataError, match="do not make a"):
        estimate_memory(replace(model, metadata=metadata), quant="Q8_0", n_gpus=1)
