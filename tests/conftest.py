"""What several rooms' tests need: the real llama.cpp, where there is a build of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is not installed

from benchmarks.accuracy.engine import Engine, is_built
from benchmarks.accuracy.sparse import ModelFiles


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The real llama.cpp; its RPC devices end with the session."""
    if not is_built():
        message = "no llama.cpp here: python -m benchmarks.accuracy.engine build"
        if os.environ.get("NEMOFIT_REQUIRE_ENGINE"):
            pytest.fail(message)
        pytest.skip(message)
    with Engine() as real:
        yield real


@pytest.fixture(scope="session")
def model_files(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """Sparse files of models, typed by the real llama-quantize."""
    return ModelFiles(engine, tmp_path_factory.mktemp("models"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks the real engine."""
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.engine)
