"""The public front holds exactly what the documentation promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nemofit

PROMISED = {
    "Goal",
    "Machine",
    "Memory",
    "ModelSpec",
    "NemofitError",
    "Plan",
    "RunConfig",
    "Speed",
    "__version__",
    "best_offload",
    "estimate_memory",
    "estimate_speed",
    "load_model",
    "parse_machine",
    "probe_machine",
    "recommend",
    "weights_bytes",
}


def test_exported_names_are_the_promised_ones() -> None:
    """Nothing is missing from ``__all__`` and nothing extra is in it."""
    assert set(nemofit.__all__) == PROMISED == set(dir(nemofit))


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_every_name_loads(name: str) -> None:
    """Each promised name is importable from the package itself."""
    assert getattr(nemofit, name) is not None


def test_type_checkers_see_the_same_names() -> None:
    """The lazy names and those under TYPE_CHECKING come from the same modules."""
    tree = ast.parse(Path(nemofit.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == nemofit._HOMES


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="frobnicate"):
        nemofit.frobnicate  # noqa: B018


def test_import_loads_nothing_else() -> None:
    """``import nemofit`` pulls in no other module of the package, nor any dependency."""
    code = (
        "import sys, nemofit; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in "
        "{'nemofit', 'typer', 'click', 'rich', 'pydantic', 'yaml', 'psutil', 'pynvml'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['nemofit', 'nemofit._version']"
