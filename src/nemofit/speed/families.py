"""Kinds of device, and what one device can do in plain figures.

A family is an architecture generation under one backend; its constants are in :mod:`.constants`.
A card that was never measured is computed from its own bandwidth and arithmetic with the
constants of its family.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemofit.machine.records import Gpu, Host

from .constants import CONSTANTS, Constants, Family

_NVIDIA = (
    ((12, 0), "blackwell"),
    ((10, 0), "blackwell-hbm"),
    ((9, 0), "hopper"),
    ((8, 9), "ada"),
    ((8, 6), "ampere"),
    ((8, 0), "ampere-hbm"),
    ((7, 5), "turing"),
    ((7, 0), "volta"),
    ((6, 1), "pascal"),
    ((6, 0), "pascal-hbm"),
    ((0, 0), "maxwell"),
)

_LANES = {
    "turing": 64, "volta": 64, "pascal-hbm": 64, "ampere-hbm": 64, "gcn": 64, "rdna2": 64,
    "cdna": 64,
}  # fmt: skip
"""Single-precision lanes of one multiprocessor where it is not 128, as its fp32 figure counts."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a device can do.

    Attributes:
        family: Key of :data:`.constants.CONSTANTS` ``.families``.
        constants: That family's constants.
        bandwidth: Peak memory bandwidth in bytes per second.
        clocks: Multiprocessors times clock, per second.
        link: Bytes per second between the host's memory and this device.
        assumed: Names of figures that are not known and were assumed.
    """

    family: str
    constants: Family
    bandwidth: float
    clocks: float
    link: float
    assumed: tuple[str, ...] = ()


def family_of(gpu: Gpu, backend: str | None = None) -> str:
    """The family of a GPU under a backend, from its architecture."""
    generation = _generation(gpu)
    backend = backend or gpu.backend
    key = f"{generation}/{backend}"
    return key if key in CONSTANTS.families else generation


def _generation(gpu: Gpu) -> str:
    architecture = (gpu.architecture or "").lower().replace(" ", "")
    if gpu.vendor == "nvidia" or gpu.compute_capability:
        cc = _capability(gpu.compute_capability)
        if cc == (7, 5) and "gtx" in gpu.name.lower():
            return "turing-gtx"
        if cc:
            return next(name for least, name in _NVIDIA if cc >= least)
        for name in ("blackwell", "hopper", "ada", "ampere", "turing", "volta", "pascal"):
            if name in architecture:
                return name
        return "ampere"
    if gpu.vendor == "apple":
        return "apple-m5" if "m5" in gpu.name.lower() else "apple"
    if gpu.vendor == "intel":
        return "xe"
    for name in ("rdna4", "rdna3.5", "rdna3", "rdna2", "cdna", "gcn"):
        if name in architecture:
            return name
    return "unknown"


def _capability(text: str | None) -> tuple[int, int] | None:
    major, _, minor = (text or "").partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def gpu_figures(gpu: Gpu, backend: str | None = None, constants: Constants = CONSTANTS) -> Figures:
    """The figures of a GPU; what is unknown is assumed from its family."""
    family = family_of(gpu, backend)
    own = constants.families[family]
    assumed = []
    bandwidth = gpu.bandwidth_gb_s
    if not bandwidth:
        bandwidth = own.assumed_bandwidth_gb_s
        assumed.append(f"memory bandwidth of {gpu.name}: {bandwidth:g} GB/s")
    if gpu.fp32_tflops:
        lanes = _LANES.get(family.partition("/")[0], 128)
        clocks = gpu.fp32_tflops * 1e12 / (2 * lanes)
    else:
        clocks = bandwidth * 1e9 / own.bytes_per_clock
        assumed.append(f"arithmetic of {gpu.name}: in its family's usual proportion to bandwidth")
    if gpu.shared:
        link = bandwidth * 1e9
    else:
        lanes = gpu.pcie_lanes or 16
        gen = gpu.pcie_gen or 4
        link = 0.985e9 * 2 ** (gen - 3) * lanes
    return Figures(family, own, bandwidth * 1e9, clocks, link, tuple(assumed))


def host_figures(host: Host, constants: Constants = CONSTANTS) -> Figures:
    """The figures of the host's processor and memory."""
    own = constants.families["cpu"]
    assumed = []
    cores = host.physical_cores
    if not cores:
        cores = 4
        assumed.append("cores of the processor: 4")
    bandwidth = host.ram_bandwidth_gb_s
    if not bandwidth:
        bandwidth = assumed_ram_bandwidth_gb_s(cores)
        assumed.append(f"memory bandwidth of the host: {bandwidth:g} GB/s")
    return Figures("cpu", own, bandwidth * 1e9, cores * constants.core_clock, 0.0, tuple(assumed))


def assumed_ram_bandwidth_gb_s(cores: int) -> float:
    """A cautious RAM bandwidth for a processor of which only the cores are known.

    Two channels of DDR4-3200 (51 GB/s) for desktop processors, four for workstations above 16
    cores, eight for servers above 32: the JEDEC rate of 25.6 GB/s per channel (JESD79-4).
    """
    if cores <= 4:
        return 34.0
    channels = 2 if cores <= 16 else 4 if cores <= 32 else 8
    return 25.6 * channels
