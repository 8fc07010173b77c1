"""A machine as the planner sees it. Sizes are bytes; unknown is None with a reason in ``notes``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device that an engine can place weights on.

    Attributes:
        name: As the driver says it.
        vendor: nvidia, amd, apple, intel or unknown.
        backend: llama.cpp's backend for it: cuda, rocm, metal, sycl or vulkan.
        total_bytes: Memory an engine can have on an idle card; None: unknown.
        free_bytes: Memory free now; None: unknown.
        shared: True where the memory is the host's (Apple, APUs, GB10): then ``total_bytes`` and
            ``free_bytes`` are shares of the host's memory, never in addition to it.
        bandwidth_gb_s: Peak memory bandwidth, 10^9 bytes per second.
        fp16_tflops: Dense matrix throughput at half precision, None: unknown.
        fp32_tflops: Vector throughput at single precision, None: unknown.
        compute_capability: NVIDIA only, "8.6".
        architecture: Generation: Ampere, Ada Lovelace, RDNA3, ...
        card_id: Id in data/gpus.yaml that the figures come from, None for an unknown card.
        index, uuid, pci_bus_id, pcie_gen, pcie_lanes, power_w, display, error, notes: As read.
    """

    name: str
    vendor: str = "unknown"
    backend: str = "cuda"
    total_bytes: int | None = None
    free_bytes: int | None = None
    shared: bool = False
    bandwidth_gb_s: float | None = None
    fp16_tflops: float | None = None
    fp32_tflops: float | None = None
    compute_capability: str | None = None
    architecture: str | None = None
    card_id: str | None = None
    index: int | None = None
    uuid: str | None = None
    pci_bus_id: str | None = None
    pcie_gen: int | None = None
    pcie_lanes: int | None = None
    power_w: float | None = None
    display: bool | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Everything beside the GPUs.

    Attributes:
        ram_total_bytes: Installed memory or the container's limit, whichever is less.
        ram_available_bytes: What a new process could have now without swapping.
        ram_bandwidth_gb_s: Theoretical or measured, None: unknown; see ``ram_bandwidth_basis``.
        physical_cores: Cores this process may use.
    """

    os: str = "unknown"
    os_version: str | None = None
    cpu: str | None = None
    physical_cores: int | None = None
    logical_cores: int | None = None
    ram_total_bytes: int | None = None
    ram_available_bytes: int | None = None
    ram_bandwidth_gb_s: float | None = None
    ram_bandwidth_basis: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A host with its GPUs. ``source`` is "probe" or the text or file it was described by."""

    host: Host = field(default_factory=Host)
    gpus: tuple[Gpu, ...] = ()
    source: str = "probe"
    driver: str | None = None
    cuda_version: str | None = None
    notes: tuple[str, ...] = ()
