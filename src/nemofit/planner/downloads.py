"""What a plan has to fetch first: how much, from where, to where, and on which conditions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nemofit.engines.llama_cpp.launch import file_tag

from .records import EnginePlan, Plan
from .sources import card_of, file_bytes

GATED_OWNERS = ("meta-llama", "google", "CohereLabs", "stabilityai")
"""Owners whose repositories give files only to who has accepted the licence on their page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """The files of a plan.

    Attributes:
        what: Repository or tag.
        bytes: Of all files.
        directory: Where they go on this machine; None: another machine.
        free_bytes: Free there; None: not known.
        present_bytes: There already and whole.
        partial_bytes: Begun; the engine goes on from there.
        licence, conditions: Of the model; None: not known.
        gated: Its files are given only to who has accepted the licence.
    """

    what: str
    bytes: int
    directory: Path | None = None
    free_bytes: int | None = None
    present_bytes: int = 0
    partial_bytes: int = 0
    licence: str | None = None
    conditions: str | None = None
    gated: bool = False

    @property
    def missing_bytes(self) -> int:
        """Still to be fetched."""
        return max(0, self.bytes - self.present_bytes - self.partial_bytes)

    @property
    def short_bytes(self) -> int:
        """By how much the disk is too small; 0: it is not, or its free space is not known."""
        return 0 if self.free_bytes is None else max(0, self.missing_bytes - self.free_bytes)


def download_of(plan: EnginePlan, directory: Path | None) -> Download | None:
    """What a plan fetches; None where its file lies on this machine already.

    Args:
        plan: Of any engine.
        directory: Where the engine keeps what it fetches; None: not on this machine.
    """
    what = _fetched(plan)
    if what is None:
        return None
    card = card_of(plan.model)
    licence = card.licence if card else None
    there, begun = 0, 0
    free = None
    if directory is not None:
        from nemofit.formats.hub_cache import present
        from nemofit.formats.ollama import is_in_store
        from nemofit.probe import disk_free

        free = disk_free(directory)
        if plan.engine == "ollama":
            there = size_of(plan) if is_in_store(directory, what) else 0
        else:
            there, begun = present(directory, what, _wanted(plan))
    return Download(
        what=what,
        bytes=size_of(plan),
        directory=directory,
        free_bytes=free,
        present_bytes=there,
        partial_bytes=begun,
        licence=licence.name if licence else None,
        conditions=licence.conditions if licence else None,
        gated=what.partition("/")[0] in GATED_OWNERS,
    )


def _fetched(plan: EnginePlan) -> str | None:
    """What the engine is told to fetch: a repository, of Ollama its own name for it."""
    if plan.engine != "ollama":
        return plan.repository
    from .ollama import is_local, source_name

    assert isinstance(plan, Plan)
    if plan.weights.missing is not None and plan.ollama_tag is None:
        return None
    return None if is_local(plan) else source_name(plan)


def size_of(plan: EnginePlan) -> int:
    """Bytes of the files that a plan loads."""
    if isinstance(plan, Plan):
        return file_bytes(plan.model, plan.quant, plan.weights_bytes)
    from .checkpoints import CheckpointPlan

    return plan.file_bytes if isinstance(plan, CheckpointPlan) else plan.weights_bytes


def _wanted(plan: EnginePlan) -> Callable[[str], bool]:
    """Which files of the repository the plan loads: one file type, or all of a checkpoint."""
    if not isinstance(plan, Plan):
        return lambda name: name.endswith(".safetensors")
    tag = re.escape(file_tag(plan.quant or ""))
    named = re.compile(rf"(?<![A-Z0-9]){tag}(?![A-Z0-9_])", re.IGNORECASE)
    return lambda name: (
        name.endswith(".gguf") and "mmproj" not in name.lower() and bool(named.search(name))
    )
