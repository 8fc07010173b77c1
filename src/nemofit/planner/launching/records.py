"""What is asked of a launch, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemofit.machine.records import Gpu, Machine

from ..records import EnginePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Everything that an artifact is made from.

    Attributes:
        plan: What shall run.
        machine: All of the machine; the plan may use less.
        format: One of :data:`nemofit.engines.artifacts.FORMATS`.
        program: The engine's program; None: its server.
        port: Where a server listens; None: where the engine listens by itself.
        known: Flags of the installed program, from its help; empty: today's are assumed.
        path: Where the installed program lies; None: it is called by its name.
        folder: The folder that relative paths are seen from, for what is run elsewhere.
        directory: Where the weights shall go; None: the engine's own place.
        comments: Lines that belong into a file for people: licence, sizes.
    """

    plan: EnginePlan
    machine: Machine
    format: str
    program: str | None = None
    port: int | None = None
    known: Mapping[str, str] = field(default_factory=dict)
    path: str | None = None
    folder: Path = Path()
    directory: Path | None = None
    comments: tuple[str, ...] = ()

    @property
    def cards(self) -> tuple[Gpu, ...]:
        """Every card that an engine could see, in the machine's order."""
        return (*self.machine.gpus, *self.machine.hidden_gpus)

    @property
    def used(self) -> tuple[Gpu, ...]:
        """The cards on which the plan places something."""
        devices = zip(self.plan.room.machine.gpus, self.plan.memory.gpus, strict=False)
        return tuple(gpu for gpu, memory in devices if memory.weights_bytes or memory.kv_bytes)

    @property
    def stays_here(self) -> bool:
        """Whether the artifact is a line to type here, so that relative paths hold."""
        return self.format in ("shell", "powershell")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Something that can be run or installed.

    Attributes:
        text: The artifact itself, and nothing else.
        program: What it starts.
        arguments: Of that program, without it.
        variables: Environment that is set for it.
        notes: What differs on the installed build, or has to be known.
    """

    text: str
    program: str
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
