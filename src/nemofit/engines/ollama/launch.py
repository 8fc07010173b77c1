"""The commands that fetch and run a model with Ollama."""

from __future__ import annotations

import shlex


def run_command(tag: str) -> str:
    """Fetch a model by its library tag, then talk to it: one line for a POSIX shell."""
    quoted = shlex.quote(tag)
    return f"ollama pull {quoted} && ollama run {quoted}"
