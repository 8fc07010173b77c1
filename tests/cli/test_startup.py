"""What is loaded to answer: start-up is a feature."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"pydantic", "rich", "yaml", "hypothesis"}


def loaded(*args: str) -> set[str]:
    """Top-level packages that a command line has imported when it ends."""
    code = (
        "import sys\n"
        "from nemofit.__main__ import main\n"
        f"main({list(args)!r})\n"
        "sys.stderr.write(' '.join({m.split('.')[0] for m in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return set(done.stderr.splitlines()[-1].split())


def test_the_version_needs_nothing() -> None:
    """Not even the command line's own machinery."""
    assert not loaded("--version") & (HEAVY | {"typer", "click", "psutil", "pynvml", "dataclasses"})


@pytest.mark.parametrize(
    "args",
    [
        ("probe", "--json"),
        ("list", "engines", "--json"),
        ("plan", "llama-3.2-1b", "--json", "--machine", "16 GiB RAM"),
    ],
    ids=" ".join,
)
def test_json_needs_no_heavy_package(args: tuple[str, ...]) -> None:
    """No table is drawn, no schema checked, once the data files are compiled."""
    loaded(*args)
    assert not loaded(*args) & HEAVY


def test_a_command_loads_only_its_own_module() -> None:
    """The others stay placeholders."""
    code = (
        "import sys\n"
        "from nemofit.__main__ import main\n"
        "main(['list', 'engines', '--json'])\n"
        "sys.stderr.write(' '.join(m for m in sys.modules if 'cli.commands.' in m))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.split() == ["nemofit.cli.commands.list"]
