"""Extract the flags of ``vllm serve`` from vLLM's wheel into ``tests/fixtures/vllm/flags.json``.

    python -m benchmarks.engines.vllm_flags 0.33.0 [WHEEL]

Without a path the wheel (about 340 MB) is downloaded with pip into a temporary directory. Nothing
of it is imported: the argument definitions are read as a syntax tree.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_OUT = Path(__file__).parents[2] / "tests" / "fixtures" / "vllm" / "flags.json"
_DEFINITIONS = (
    "vllm/engine/arg_utils.py",
    "vllm/entrypoints/common/cli_args.py",
    "vllm/entrypoints/openai/cli_args.py",
    "vllm/entrypoints/cli/serve.py",
)
_CACHE = "vllm/config/cache.py"


def flags_of(source: str) -> set[str]:
    """The ``--names`` that a module defines: by ``add_argument``, or by fields of its classes."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            names = (a.value for a in node.args if isinstance(a, ast.Constant))
            found |= {n for n in names if isinstance(n, str) and n.startswith("-")}
        if isinstance(node, ast.ClassDef) and node.name.endswith("FrontendArgs"):
            fields = (f.target for f in node.body if isinstance(f, ast.AnnAssign))
            found |= {f"--{f.id.replace('_', '-')}" for f in fields if isinstance(f, ast.Name)}
    return found


def choices_of(source: str, name: str) -> list[str]:
    """The values of a ``Literal`` that a module assigns to ``name``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            constants = (n for n in ast.walk(node.value) if isinstance(n, ast.Constant))
            return [n.value for n in constants if isinstance(n.value, str)]
    raise SystemExit(f"{name} is not assigned in the module")


def default_of(source: str, name: str) -> object:
    """The ``Field(default=...)`` of a class attribute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name:
            for call in ast.walk(node):
                if isinstance(call, ast.keyword) and call.arg == "default":
                    return ast.literal_eval(call.value)
    raise SystemExit(f"{name} has no default in the module")


def extract(wheel: Path, version: str) -> dict[str, object]:
    """Read the definitions out of a wheel."""
    with zipfile.ZipFile(wheel) as z:
        text = {n: z.read(n).decode() for n in (*_DEFINITIONS, _CACHE) if n in z.namelist()}
    flags: set[str] = set()
    for name in _DEFINITIONS:
        flags |= flags_of(text.get(name, ""))
    return {
        "vllm": version,
        "flags": sorted(flags),
        "kv_cache_dtypes": choices_of(text[_CACHE], "CacheDType"),
        "gpu_memory_utilization": default_of(text[_CACHE], "gpu_memory_utilization"),
    }


def main() -> None:
    version = sys.argv[1]
    with tempfile.TemporaryDirectory() as directory:
        if len(sys.argv) > 2:
            wheel = Path(sys.argv[2])
        else:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*pip, "-d", directory, f"vllm=={version}"], check=True)
            wheel = next(Path(directory).glob("vllm-*.whl"))
        facts = extract(wheel, version)
    _OUT.parent.mkdir(parents=True, exist_ok=True)
    _OUT.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{len(facts['flags'])} flags of vllm {version} in {_OUT}")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
