"""A plan: one configuration of one engine with everything that is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.launch import Weights, server_command
from nemofit.errors import UsageError
from nemofit.speed import Speed

from .quality import Quality

ENGINES = ("llama.cpp", "ollama")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a machine offers, in bytes; None: unknown, so nothing can be promised.

    Attributes:
        gpus: Budget of each GPU that can be used, in the engine's order.
        names: Their names.
        host: Budget of the host's memory.
        pooled: The GPUs take their memory from the host's: together they share ``host``.
    """

    gpus: tuple[int | None, ...] = ()
    names: tuple[str, ...] = ()
    host: int | None = None
    pooled: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A configuration, its placement, its speed, its quality loss and its verdict.

    Attributes:
        model: What is run.
        quant: llama.cpp file type; None: as in the file.
        imatrix: The file is one made with an importance matrix.
        config: Every knob, with the offload as numbers.
        memory: Bytes per device and kind.
        room: What the machine offers.
        weights_bytes: Bytes of all weight tensors; the file is larger by its metadata.
        speed: None where it cannot be estimated; ``speed_note`` says why.
        quality: Expected loss of file type and cache type.
        weights: Where llama.cpp takes the weights from.
        ollama_tag: The library tag of the same file type, None where none is known.
        score: Between 0 and 1, under the goal's preference.
        notes: What a person should know before running it.
    """

    model: ModelSpec
    quant: str | None
    imatrix: bool
    config: RunConfig
    memory: Memory
    room: Room
    weights_bytes: int
    speed: Speed | None
    speed_note: str | None = None
    quality: Quality
    weights: Weights = field(default_factory=Weights)
    ollama_tag: str | None = None
    score: float = 0.0
    notes: tuple[str, ...] = ()
    engine: str = "llama.cpp"

    @property
    def loss(self) -> float | None:
        """Expected KL divergence in nats; None: not known."""
        return self.quality.loss

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, the likely estimate; 0 where there is none."""
        return self.speed.decode.likely if self.speed else 0.0

    @property
    def context(self) -> int:
        """Tokens of context over all sequences."""
        return self.config.context

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
    def words(self) -> str:
        """The verdict for people."""
        if not self.fits:
            return "does not fit"
        if not self.room.gpus:
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
    def shortfalls(self) -> tuple[tuple[DeviceMemory, int | None], ...]:
        """Devices whose part is larger than their budget, with that budget."""
        return shortfalls(self.memory, self.room)

    def command(self, engine: str | None = None) -> str:
        """The line to type, for a POSIX shell.

        Args:
            engine: ``llama.cpp`` or ``ollama``; None: the plan's own.

        Raises:
            UsageError: No such engine, or the engine has no such file.
        """
        engine = engine or self.engine
        if engine == "llama.cpp":
            return server_command(self.config, self.weights, len(self.room.gpus))
        if engine == "ollama":
            from nemofit.engines.ollama.launch import run_command

            if self.ollama_tag is None:
                raise UsageError(
                    f"no Ollama tag of {self.model.id} as {self.quant or self.model.file_type} "
                    "is known",
                    "use --engine llama.cpp, or another --quant",
                )
            return run_command(self.ollama_tag)
        raise UsageError(f"engine {engine!r} is not known", "one of: " + ", ".join(ENGINES))


def shortfalls(memory: Memory, room: Room) -> tuple[tuple[DeviceMemory, int | None], ...]:
    """Devices whose part is larger than their budget; an unknown budget holds nothing.

    Where GPUs and host share one memory, their parts together must also fit the host's budget.
    """
    short: list[tuple[DeviceMemory, int | None]] = [
        (device, budget)
        for device, budget in zip(memory.gpus, room.gpus, strict=True)
        if device.total_bytes > (budget or 0)
    ]
    host = pooled(memory) if room.pooled else memory.host
    if host.total_bytes > (room.host or 0):
        short.append((host, room.host))
    return tuple(short)


def pooled(memory: Memory) -> DeviceMemory:
    """Everything that lies in one shared memory."""
    parts = (*memory.gpus, memory.host)
    return DeviceMemory(
        name="memory",
        weights_bytes=sum(d.weights_bytes for d in parts),
        kv_bytes=sum(d.kv_bytes for d in parts),
        compute_bytes=sum(d.compute_bytes for d in parts),
        overhead_bytes=sum(d.overhead_bytes for d in parts),
    )
