"""Compile the facts in ``data/`` while the wheel is built.

The wheel carries ``nemofit/_data/*.json`` beside the YAML, so that an installed nemofit imports
neither a YAML parser nor pydantic to start. A broken data file fails the build with its place.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileFacts(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled form of every data file to the wheel; an editable install needs none."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        self.compiled = TemporaryDirectory(prefix="nemofit-facts-")
        sys.path.insert(0, str(root / "src"))
        try:
            from nemofit.catalog.store import KINDS, compiled
        finally:
            sys.path.remove(str(root / "src"))
        for kind in KINDS:
            raw = (root / "data" / f"{kind}.yaml").read_bytes()
            out = Path(self.compiled.name) / f"{kind}.json"
            out.write_bytes(compiled(kind, raw, f"data/{kind}.yaml"))
            build_data["force_include"][str(out)] = f"nemofit/_data/{kind}.json"

    def finalize(self, version: str, *_: Any) -> None:
        if version != "editable":
            self.compiled.cleanup()
