"""What the installed llama.cpp itself says of a plan: how to ask it, and how to read its answer.

``llama-fit-params -fitp on`` (tools/fit-params, ``common_fit_print`` in common/fit.cpp) builds the
graph of a configuration with the devices at hand, allocates nothing and prints, for each device
and last for the host, whole MiB of weights, context and compute. Its accounting differs on purpose
from a real load (docs/accuracy.md), so the prediction it is compared with follows the same one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nemofit.engines.base import Memory
from nemofit.errors import HardwareError
from nemofit.units import MIB

from .config import RunConfig
from .launch import Weights, server_arguments

PROGRAM = "llama-fit-params"
KINDS = ("weights", "KV cache", "compute")
TOLERANCE = 0.01
"""Share of a device's total by which one of its figures may differ."""

_ROW = re.compile(r"^(\S{1,80}) (\d{1,12}) (\d{1,12}) (\d{1,12}) *$", re.MULTILINE)
_DEVICE = re.compile(
    r"^ {1,4}(\S{1,80}): (.{0,200}) \((\d{1,9}) MiB, (\d{1,9}) MiB free\) *$", re.MULTILINE
)
_VERSION = re.compile(r"^version: (.{1,120}?) *$", re.MULTILINE)
_UNKNOWN_FLAG = re.compile(r"error: (?:invalid|unknown) argument: (\S{1,60})")
_REFUSED = re.compile(
    r"(?:error loading model(?: \w+)?|llama_init_from_model|llama_new_context_with_model"
    r"|llama_context|failed to (?:create|initialize) (?:the )?(?:llama_)?context): (.{1,300})"
)
_BACKENDS = {
    "cuda": "cuda", "rocm": "rocm", "mtl": "metal", "metal": "metal", "vulkan": "vulkan",
    "sycl": "sycl", "rpc": "rpc",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What the engine counts on one device, in bytes: of whole MiB, rounded down."""

    device: str
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes


@dataclass(frozen=True, slots=True)
class EngineDevice:
    """A device as ``--list-devices`` shows it."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one device, predicted and by the engine.

    Attributes:
        device: As the engine names it, the host as "Host".
        kind: One of :data:`KINDS`.
        predicted: Bytes.
        engine: Bytes, as coarse as it prints them; None: it printed nothing of the kind.
        agrees: They differ by no more than the tolerance; None: not known.
    """

    device: str
    kind: str
    predicted: int
    engine: int | None
    agrees: bool | None


def projected(config: RunConfig, backend: str) -> RunConfig:
    """The same knobs under the accounting of llama-fit-params.

    Repacked weights are outside its print, and so is what the server keeps beside a plan.
    """
    return config.replace(
        program=PROGRAM, backend=backend, repack=False, cache_ram=0, checkpoints=0
    )


def arguments(
    config: RunConfig, path: str, gpus: int, found: Sequence[EngineDevice] = ()
) -> list[str]:
    """The arguments that ask llama-fit-params about a plan.

    Args:
        config: With every choice written out.
        path: The model's file.
        gpus: Devices of the plan; 0 tells the engine to use none.
        found: What the engine lists: a plan that leaves cards out names the others by it.
    """
    typed = server_arguments(projected(config, config.backend), Weights(path=path), gpus)[1:]
    if config.devices is not None and gpus and max(config.devices) < len(found):
        typed[typed.index("-dev") + 1] = ",".join(found[d].name for d in config.devices)
    place = typed.index("-fit")
    return [*typed[:place], *typed[place + 2 :], "--offline", "-fitp", "on"]


def parse_projection(out: str) -> tuple[Row, ...]:
    """Read the print of llama-fit-params: one row per device, the host last.

    Raises:
        HardwareError: It is no such print.
    """
    rows = [
        Row(name, int(weights) * MIB, int(context) * MIB, int(compute) * MIB)
        for name, weights, context, compute in _ROW.findall(out)
    ]
    if not rows or rows[-1].device != "Host":
        first = next((line for line in out.splitlines() if line.strip()), "nothing")
        raise HardwareError(
            f"{PROGRAM} printed no memory figures but {first!r:.120}",
            "update llama.cpp: builds since the end of 2025 print them",
        )
    return tuple(rows)


def parse_devices(out: str) -> tuple[EngineDevice, ...]:
    """Read the print of ``--list-devices``; empty where the build sees no GPU."""
    return tuple(
        EngineDevice(name, description.strip(), int(total) * MIB, int(free) * MIB)
        for name, description, total, free in _DEVICE.findall(out)
    )


def parse_version(text: str) -> str | None:
    """The version that ``--version`` prints, None where it prints none."""
    found = _VERSION.search(text)
    return found[1] if found else None


def unknown_flag(log: str) -> str | None:
    """The flag that a build does not know, None where it took them all."""
    found = _UNKNOWN_FLAG.search(log)
    return found[1] if found else None


def refusal(log: str) -> str | None:
    """Why the engine does not take the model or the configuration; None: it does not say."""
    found = _REFUSED.findall(log)
    return str(found[-1]).strip() if found else None


def refuses(log: str) -> bool:
    """Whether it ended by its own exception: it may do so before the reason is written."""
    return "failed to load model" in log or "failed to create" in log


def last_words(log: str) -> str:
    """The line that tells most about an end without a reason."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r" E |what\(\)|ASSERT|rror", line)]
    return (telling or lines or ["nothing"])[-1][:200]


def backend_of(device: str) -> str | None:
    """The backend behind a device's name: "CUDA0" is cuda; None: not one that is modelled."""
    return _BACKENDS.get(device.rstrip("0123456789").lower())


def compare(memory: Memory, rows: Sequence[Row]) -> tuple[Difference, ...]:
    """Predicted against the engine's, for every device and kind that either has.

    Two figures agree where the engine's, which is rounded down to MiB, is less than 1 MiB below
    or above the predicted one, or within :data:`TOLERANCE` of the device's total.

    Raises:
        HardwareError: The engine used another number of devices than the plan.
    """
    if len(rows) != len(memory.gpus) + 1:
        used = ", ".join(row.device for row in rows[:-1]) or "none"
        planned = len(memory.gpus)
        raise HardwareError(
            f"this llama.cpp uses {len(rows) - 1} GPUs ({used}), the plan has {planned}",
            "see what it finds with llama-server --list-devices: a build without the card's "
            "backend finds none; --gpu-layers 0 asks about the CPU alone",
        )
    out = []
    for device, row in zip((*memory.gpus, memory.host), rows, strict=True):
        most = max(TOLERANCE * row.total_bytes, MIB)
        for kind, predicted, engine in (
            ("weights", device.weights_bytes, row.weights_bytes),
            ("KV cache", device.kv_bytes, row.kv_bytes),
            ("compute", device.compute_bytes, row.compute_bytes),
        ):
            if predicted or engine:
                off = abs(predicted - engine)
                out.append(Difference(row.device, kind, predicted, engine, off <= most))
    return tuple(out)
