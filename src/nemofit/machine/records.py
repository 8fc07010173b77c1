"""A machine as the planner sees it. Sizes are bytes; unknown is None with a reason in ``notes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds memory of a card: ``bytes`` and ``name`` are None where hidden."""

    pid: int
    name: str | None = None
    bytes: int | None = None


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
        index, uuid, pci_bus_id, pcie_gen, pcie_lanes, power_w, display, error, notes: As read;
            the PCIe link is the best that card and slot can do, not the idle state.
        pcie_gen_now, pcie_lanes_now: The link as it runs now; idle cards slow down.
        integrated: Built into the processor: engines use it only where there is no other card.
        reserved_bytes: Held back by driver and firmware; physical memory is total + reserved.
        pci_id: PCI vendor and device, "10de:2684".
        cores: Shader, stream or GPU cores as the vendor counts them.
        gfx_target: AMD only, "gfx1100".
        mig_profile: "1g.10gb" for a MIG slice; ``parent_uuid`` is then its card.
        virtual: True for a vGPU, whose memory is its profile's.
        nvlink_links: Active NVLink links; 0: none.
        bar1_bytes: Memory the host can map at once; as large as the card with resizable BAR.
        numa_node: Node that holds the card's memory (GH200 and the like), None for all others.
        holders: Processes that hold its memory, largest first.
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
    integrated: bool = False
    reserved_bytes: int | None = None
    pci_id: str | None = None
    cores: int | None = None
    gfx_target: str | None = None
    mig_profile: str | None = None
    parent_uuid: str | None = None
    virtual: bool | None = None
    nvlink_links: int | None = None
    bar1_bytes: int | None = None
    numa_node: int | None = None
    holders: tuple[Holder, ...] = ()
    pcie_gen_now: int | None = None
    pcie_lanes_now: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Everything beside the GPUs.

    Attributes:
        ram_total_bytes: Installed memory or the container's limit, whichever is less.
        ram_available_bytes: What a new process could have now without swapping.
        ram_bandwidth_gb_s: Theoretical or measured, None: unknown; see ``ram_bandwidth_basis``.
        physical_cores: Cores this process may use, by affinity and quota.
        memory_limit_bytes: The tightest cgroup limit, None: no limit.
        swap_total_bytes, swap_free_bytes: Never part of what is available.
        cpu_features: Instruction sets by llama.cpp's names ("AVX2", "AVX512_VNNI", "NEON").
        cpu_quota: Cores' worth of time the cgroup allows, None: no quota.
        architecture: "x86_64", "aarch64", ...
        ram_type, ram_speed_mt_s, ram_channels: "DDR5", 5600, 2: as the firmware's tables tell.
        container: "docker", "podman", "kubernetes", "lxc" or "container"; None: none seen.
        wsl: 1 or 2 under the Windows Subsystem for Linux.
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
    memory_limit_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    architecture: str | None = None
    cpu_features: tuple[str, ...] = ()
    cpu_quota: float | None = None
    numa_nodes: int | None = None
    container: str | None = None
    wsl: int | None = None
    ram_type: str | None = None
    ram_speed_mt_s: int | None = None
    ram_channels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A host with its GPUs.

    Attributes:
        gpus: What a run started from here would use, in the engine's order; a card that could not
            be read is among them, with its ``error`` and no memory.
        hidden_gpus: Cards that are there and would not be used; the last note of each says why.
        source: "probe" or the text or file it was described by.
        driver: NVIDIA driver version.
        cuda_version: Newest CUDA that this driver runs, "13.0".
    """

    host: Host = field(default_factory=Host)
    gpus: tuple[Gpu, ...] = ()
    source: str = "probe"
    driver: str | None = None
    cuda_version: str | None = None
    notes: tuple[str, ...] = ()
    hidden_gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEngine:
    """An engine that is installed on a machine or runs there.

    Attributes:
        id: llama.cpp, ollama, vllm or transformers.
        source: What led to it: a variable, "PATH", a folder, or the address of a server.
        path: The program that starts it, or the folder of its Python package.
        version: As the engine counts it ("b7000", "0.12.3"); None: ``version_note`` says why.
        build, commit: llama.cpp only.
        programs: Name without ending -> path.
        packages: Python packages beside it -> version ("torch": "2.8.0").
        server: Address of a server of it that answers on this machine, None: none, or not asked.
        server_version: What that server says it is.
    """

    id: str
    source: str
    path: str | None = None
    version: str | None = None
    version_note: str | None = None
    build: int | None = None
    commit: str | None = None
    programs: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    server: str | None = None
    server_version: str | None = None
    notes: tuple[str, ...] = ()
