"""Put the facts in ``data/`` into the wheel, as they are and compiled.

The wheel carries ``nemofit/_data/*.yaml`` and, beside them, ``*.json``: an installed nemofit
imports neither a YAML parser nor pydantic to start. A broken data file fails the build and is
named. An editable install reads ``data/`` where it lies.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileFacts(BuildHookInterface):  # type: ignore[type-arg]
    """Adds every data file and its compiled form to the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        build_data["force_include"][str(root / "data")] = "nemofit/_data"
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
