"""A plan: one configuration of one engine with everything that is known about it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from typing import Protocol

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.launch import Weights, server_command
from nemofit.errors import UsageError
from nemofit.machine.budgets import Budgets, Reserve, budgets, reserves_of
from nemofit.machine.records import Machine
from nemofit.speed import Range, Speed
from nemofit.units import gib

from .quality import Quality

ENGINES = ("llama.cpp", "ollama", "vllm", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The devices that a plan may use, and how much of each.

    Attributes:
        machine: With only those GPUs whose memory could be read.
        budgets: In the order of the machine's GPUs.
    """

    machine: Machine
    budgets: Budgets

    def named(self, memory: Memory) -> Memory:
        """A placement with the devices' names in it."""
        devices = zip(memory.gpus, self.machine.gpus, strict=True)
        return replace(
            memory,
            gpus=tuple(replace(device, name=gpu.name) for device, gpu in devices),
            host=replace(memory.host, name="RAM"),
        )

    @property
    def total(self) -> int:
        """All memory that may be used; a host whose memory is not known counts as nothing."""
        own = sum(
            offer
            for offer, shared in zip(self.budgets.gpus, self.budgets.shared, strict=True)
            if not shared or self.budgets.host is None
        )
        return own + (self.budgets.host or 0)

    @property
    def text(self) -> str:
        """Where it lies, for people."""
        parts = [
            f"{gib(offer)} {'of RAM for the GPU' if shared else 'GPU'}"
            for offer, shared in zip(self.budgets.gpus, self.budgets.shared, strict=True)
        ]
        host = self.budgets.host
        return " + ".join([*parts, "RAM not known" if host is None else f"{gib(host)} RAM"])

    def without_gpus(self) -> Room:
        """The same with the host alone."""
        return Room(
            machine=replace(self.machine, gpus=()),
            budgets=replace(self.budgets, gpus=(), shared=(), reserves=()),
        )


def room_of(machine: Machine, reserve_bytes: Reserve, assume_idle: bool) -> Room:
    """Find what a machine offers; a card whose memory could not be read is left out.

    Raises:
        UsageError: The reserve makes no sense.
    """
    each = reserves_of(machine.gpus, reserve_bytes)
    known = [
        i
        for i, gpu in enumerate(machine.gpus)
        if gpu.free_bytes is not None or gpu.total_bytes is not None
    ]
    readable = replace(machine, gpus=tuple(machine.gpus[i] for i in known))
    return Room(machine=readable, budgets=budgets(readable, [each[i] for i in known], assume_idle))


class Limits(Protocol):
    """What a goal says of the machine."""

    @property
    def reserve_bytes(self) -> Reserve: ...
    @property
    def assume_idle(self) -> bool: ...
    @property
    def max_vram_bytes(self) -> int | None: ...


def room_for(machine: Machine, goal: Limits) -> Room:
    """What a machine offers under a goal's reserve and limit.

    Raises:
        UsageError: The reserve makes no sense.
    """
    room = room_of(machine, goal.reserve_bytes, goal.assume_idle)
    most = goal.max_vram_bytes
    if most is None:
        return room
    capped = tuple(min(offer, most) for offer in room.budgets.gpus)
    return replace(room, budgets=replace(room.budgets, gpus=capped))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A projector, a LoRA adapter or a draft model, as it lies beside a model.

    Attributes:
        kind: ``projector``, ``adapter`` or ``draft``.
        name: File name, or model and file type.
        bytes: Of its file, None: not known.
        memory: On the plan's GPUs and the host; also part of the plan's own memory.
        arguments: What ``llama-server`` is told.
        basis: computed, or assumed where its kind is not known.
        note: What to know about its figures.
    """

    kind: str
    name: str
    bytes: int | None
    memory: Memory
    arguments: tuple[str, ...]
    basis: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """What is known about one configuration of one engine; each engine adds its own knobs.

    Attributes:
        model: What is run.
        quant: File type or checkpoint format; None: as in the file.
        memory: Bytes per device and kind.
        room: What the machine offers.
        weights_bytes: Bytes of all weight tensors; the file is larger by its metadata.
        quality: Expected loss of file type and cache type.
        speed: None where it cannot be estimated; ``speed_note`` says why.
        speed_full: Tokens per second with the context full, None where there is no estimate.
        score: Between 0 and 1, under the goal's preference.
        notes: What a person should know before running it.
        engine: Whose configuration it is.
    """

    model: ModelSpec
    quant: str | None
    memory: Memory
    room: Room
    weights_bytes: int
    quality: Quality
    speed: Speed | None = None
    speed_note: str | None = None
    speed_full: Range | None = None
    score: float = 0.0
    notes: tuple[str, ...] = ()
    engine: str = ENGINES[0]

    @property
    def context(self) -> int:
        """Tokens of context over all sequences."""
        raise NotImplementedError

    @property
    def words(self) -> str:
        """The verdict for people."""
        raise NotImplementedError

    @property
    def repository(self) -> str | None:
        """Where the weights are fetched from; None: they are a file of this machine."""
        raise NotImplementedError

    def command(self, engine: str | None = None) -> str:
        """The line to type, for a POSIX shell.

        Args:
            engine: Another engine that runs the same configuration; None: the plan's own.

        Raises:
            UsageError: No such engine, or it cannot run this.
        """
        raise NotImplementedError

    @property
    def loss(self) -> float | None:
        """Expected KL divergence in nats; None: not known."""
        return self.quality.loss

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, the likely estimate; 0 where there is none."""
        return self.speed.decode.likely if self.speed else 0.0

    @property
    def title(self) -> str:
        """Model, file type and context in a few words."""
        quant = self.quant or self.model.file_type
        return " ".join(filter(None, (self.model.id, quant, f"at {self.context} tokens")))

    @property
    def bits_per_weight(self) -> float:
        """Bits of all weight tensors over the number of parameters."""
        return 8 * self.weights_bytes / self.model.parameters

    @property
    def fits(self) -> bool:
        """Whether every device has room for its part."""
        return not self.shortfalls

    @property
    def verdict(self) -> str:
        """``fits`` or ``does-not-fit``."""
        return "fits" if self.fits else "does-not-fit"

    @property
    def shortfalls(self) -> tuple[tuple[DeviceMemory, int], ...]:
        """Devices whose part is larger than their budget, with that budget."""
        offers = self.room.budgets
        over, host_over = offers.short(
            [device.total_bytes for device in self.memory.gpus], self.memory.host.total_bytes
        )
        short = [
            (device, offer)
            for device, offer, missing in zip(self.memory.gpus, offers.gpus, over, strict=True)
            if missing
        ]
        if host_over:
            short.append((self.memory.host, self.memory.host.total_bytes - host_over))
        return tuple(short)

    @property
    def spare_host_bytes(self) -> int | None:
        """What the host has left beside this plan; None: its memory is not known."""
        offers = self.room.budgets
        if offers.host is None:
            return None
        gpus = [device.total_bytes for device in self.memory.gpus]
        shared = sum(n for n, own in zip(gpus, offers.shared, strict=False) if own)
        return max(0, offers.host - shared - self.memory.host.total_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(EnginePlan):
    """A configuration of llama.cpp, its placement, its speed, its quality loss and its verdict.

    Attributes:
        imatrix: The file is one made with an importance matrix.
        config: Every knob, with the offload as numbers.
        weights: Where llama.cpp takes the weights from.
        ollama_tag: The library tag of the same file type, None where none is known.
        beside: What runs beside the model; counted in ``memory``.
    """

    imatrix: bool
    config: RunConfig
    weights: Weights = field(default_factory=Weights)
    ollama_tag: str | None = None
    beside: tuple[Beside, ...] = ()

    @property
    def context(self) -> int:
        """Tokens of context over all sequences."""
        return self.config.context

    @property
    def words(self) -> str:
        """The verdict for people."""
        if not self.fits:
            return "does not fit"
        if not self.memory.gpus:
            return "fits, on the CPU"
        layers, blocks = self.config.gpu_layers, self.model.integer("block_count")
        if layers == 0:
            return "fits, on the CPU"
        if layers is not None and layers <= blocks:
            return "fits, partly on the CPU"
        if self.config.cpu_moe_layers:
            return "fits, experts partly on the CPU"
        return "fits" if self.config.kv_offload else "fits, KV cache in RAM"

    @property
    def repository(self) -> str | None:
        """Hub repository of the file; None: a local file, or none is known."""
        return self.weights.repository

    def command(self, engine: str | None = None) -> str:
        """The line to type, for a POSIX shell.

        Args:
            engine: ``llama.cpp`` or ``ollama``; None: the plan's own.

        Raises:
            UsageError: No such engine, or the engine has no such file.
        """
        engine = engine or self.engine
        if engine == "llama.cpp":
            line = server_command(
                self.config, self.weights, len(self.memory.gpus), self.spare_host_bytes
            )
            more = [word for one in self.beside for word in one.arguments]
            return f"{line} {shlex.join(more)}" if more else line
        if self.beside and engine == "ollama":
            raise UsageError(
                "what runs beside the model cannot be told to Ollama in one line",
                "use --engine llama.cpp, or --mmproj none without --lora and --draft",
            )
        if engine == "ollama" and self.engine == "ollama":
            from .ollama import command

            return command(self)
        if engine == "ollama":
            from nemofit.engines.ollama.launch import run_command

            if self.ollama_tag is None:
                raise UsageError(
                    f"no Ollama tag of {self.model.id} as {self.quant or self.model.file_type} "
                    "is known",
                    "use --engine llama.cpp, or another --quant",
                )
            origin = self.model.origin
            return run_command(
                self.ollama_tag, is_here=origin is not None and origin.ollama is not None
            )
        raise UsageError(f"engine {engine!r} is not known", "one of: " + ", ".join(ENGINES))
