"""The commands that fetch and run a model with Ollama."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path


def run_command(tag: str, is_here: bool = False) -> str:
    """Fetch a model by its name, where it is not here yet, and talk to it: for a POSIX shell."""
    quoted = shlex.quote(tag)
    if is_here:
        return f"ollama run {quoted}"
    return f"ollama pull {quoted} && ollama run {quoted}"


def download_directory(environ: Mapping[str, str], home: Path) -> Path:
    """Where Ollama keeps models: of a server that the person started, not of a system service."""
    if environ.get("OLLAMA_MODELS"):
        return Path(environ["OLLAMA_MODELS"])
    return home / ".ollama" / "models"
