"""Where programs keep models on a machine, as its environment says.

    Places.here().hub_caches()

Sources: huggingface_hub (``constants.py``), llama.cpp (``common/hf-cache.cpp``,
``common/common.cpp``), Ollama (``envconfig/config.go``, ``scripts/install.sh``), LM Studio
(lmstudio-ai/lmstudio.js, ``findLMStudioHome``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TRUE = ("1", "ON", "YES", "TRUE")
_OLLAMA_SERVICE = (
    "usr/share/ollama/.ollama/models",  # the user that Ollama's install script makes
    "var/lib/ollama/.ollama/models",
    "var/lib/ollama/models",
    "var/lib/ollama",
)
_UNITS = ("etc/systemd/system/ollama.service", "etc/systemd/system/ollama.service.d")
_SERVICE_MODELS = re.compile(r"^\s*Environment=.*?OLLAMA_MODELS=([^\"'\n]+)", re.MULTILINE)
_LINE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """One machine's directories.

    Attributes:
        environ: The environment's variables.
        home: The person's home directory.
        system: As ``sys.platform`` says it.
        root: Folder that stands for ``/``.
        current: The directory that relative names are meant from.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    home: Path
    system: str = "linux"
    root: Path = Path("/")
    current: Path = Path(".")

    @staticmethod
    def here() -> Places:
        """This process's own."""
        import os
        import sys

        try:
            home = Path.home()
        except RuntimeError:
            home = Path(os.devnull)
        return Places(environ=os.environ, home=home, system=sys.platform)

    def hub_caches(self) -> tuple[Path, ...]:
        """Caches in the hub's layout: huggingface_hub's, then llama.cpp's where it is another."""
        base = self._named("XDG_CACHE_HOME") or self.home / ".cache"
        hub = self._named("HF_HOME") or base / "huggingface"
        own = self._named("HF_HUB_CACHE") or self._named("HUGGINGFACE_HUB_CACHE") or hub / "hub"
        llama = self._named("LLAMA_CACHE")
        return (own,) if llama is None or llama == own else (own, llama)

    def llama_cache(self) -> Path:
        """Where llama.cpp kept what it downloaded before it used the hub's layout."""
        if named := self._named("LLAMA_CACHE"):
            return named
        if self.system == "win32":
            return (self._named("LOCALAPPDATA") or self.home / "AppData/Local") / "llama.cpp"
        if self.system == "darwin":
            return self.home / "Library/Caches/llama.cpp"
        return (self._named("XDG_CACHE_HOME") or self.home / ".cache") / "llama.cpp"

    def lm_studio(self) -> tuple[Path, ...]:
        """LM Studio's directories of models: the one that it was pointed to, today's, the old."""
        homes = [self.home / ".lmstudio", self.home / ".cache/lm-studio"]
        try:
            with open(self.home / ".lmstudio-home-pointer", encoding="utf-8") as file:
                named = file.read(_LINE).strip()
        except (OSError, ValueError):
            named = ""
        if named:
            homes.insert(0, Path(named))
        return tuple(dict.fromkeys(home / "models" for home in homes))

    def ollama(self) -> tuple[Path, ...]:
        """Ollama's stores: ``OLLAMA_MODELS``, the person's own, the service user's."""
        named = [self._named("OLLAMA_MODELS"), self.home / ".ollama/models"]
        if self.system == "linux":
            named += [*self._service_models(), *(self.root / path for path in _OLLAMA_SERVICE)]
        return tuple(dict.fromkeys(path for path in named if path is not None))

    @property
    def is_offline(self) -> bool:
        """Whether the person forbids the hub's network."""
        said = self.environ.get("HF_HUB_OFFLINE") or self.environ.get("TRANSFORMERS_OFFLINE") or ""
        return said.upper() in _TRUE

    @property
    def hub_endpoint(self) -> str:
        """Address of the hub or of its mirror."""
        return self.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"

    def _named(self, variable: str) -> Path | None:
        value = self.environ.get(variable, "").strip().strip("\"'")
        if not value:
            return None
        return self.home / value[2:] if value.startswith("~/") else Path(value)

    def _service_models(self) -> list[Path]:
        """``OLLAMA_MODELS`` as the system's service sets it."""
        unit, extra = (self.root / path for path in _UNITS)
        found = []
        try:
            files = [unit, *sorted(extra.glob("*.conf"))]
        except OSError:
            files = [unit]
        for path in files:
            try:
                text = path.read_text(encoding="utf-8", errors="replace")[: 1 << 16]
            except OSError:
                continue
            found += [self.root / m.strip().lstrip("/") for m in _SERVICE_MODELS.findall(text)]
        return found
