"""The real command line in this process, with a home of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_lines import Said, Say

from nemofit.__main__ import main
from nemofit.catalog import store


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that the data files are read once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Any:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("NEMOFIT_CATALOG", "NEMOFIT_DEBUG", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("COLUMNS", "100")
    yield
    store.use_personal_catalog(None)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run one command line: ``say("plan", "nemotron")``."""

    def run(*args: str) -> Said:
        capsys.readouterr()
        code = main(args)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run
