"""Kinds of device, and what one device can do in plain figures.

A family is an architecture generation. A card that was never measured is computed from its own
bandwidth and arithmetic with the constants of its family.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from nemofit.machine.records import Gpu, Host

from .constants import CONSTANTS, NO_BACKEND, Constants
from .hosts import SECOND_SOCKET, platform

_NVIDIA = (
    ((12, 1), "blackwell-unified"),
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
"""Least compute capability of each generation."""

_AMD = ("rdna4", "rdna3.5", "rdna3", "rdna2", "rdna", "cdna", "gcn")

_LANES = {
    "turing": 64, "turing-gtx": 64, "volta": 64, "pascal-hbm": 64, "ampere-hbm": 64,
    "gcn": 64, "rdna2": 64, "rdna": 64,
}  # fmt: skip
"""Single-precision lanes of one multiprocessor, as the card's fp32 figure counts them, where not
128 (the vendors' architecture papers)."""

_NO_GRAPHS = ("turing", "turing-gtx", "volta", "pascal", "pascal-hbm", "maxwell")
"""CUDA graphs need compute capability 8.0 (ggml-cuda.cu, ``GGML_CUDA_CC_AMPERE``)."""

_BACKENDS = {
    "nvidia": ("cuda", "vulkan"),
    "amd": ("rocm", "vulkan"),
    "apple": ("metal", "vulkan"),
    "intel": ("sycl", "vulkan"),
}

PCIE_BYTES_PER_LANE = 0.985e9
"""Bytes per second of one PCIe 3.0 lane; each generation doubles it (PCI-SIG)."""

UNKNOWN_BANDWIDTH_GB_S = 200.0
"""A cautious memory bandwidth for a card of which nothing is known."""

UNKNOWN_CORES = 6

BELIEVABLE = (0.01, 1e5)
"""Least and most GB/s, TFLOPS, lanes or cores; any other figure is taken for unknown."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a device can do.

    Attributes:
        family: Key of ``Constants.families``.
        bandwidth: Bytes per second that reading weights reaches.
        clocks: Multiprocessors (cores) times clock, per second.
        link: Bytes per second between the host's memory and this device, at its peak.
        kernel: Seconds per operation.
        graphless, tile, cache, gather, unpack: As in :mod:`.constants`.
        matrix, matrix_16, attend: FLOP per second.
        assumed: Figures that are not known, with what was assumed.
    """

    family: str
    bandwidth: float
    clocks: float
    link: float
    kernel: float
    graphless: float
    tile: float
    cache: float
    gather: float
    unpack: float
    matrix: float
    matrix_16: float
    attend: float
    assumed: tuple[str, ...] = ()


def family_of(gpu: Gpu) -> str:
    """The family of a GPU, from its architecture; "unknown" where that is not known."""
    architecture = (gpu.architecture or "").lower().replace(" ", "")
    name = gpu.name.lower().replace("-", " ")
    if gpu.vendor == "nvidia" or gpu.compute_capability:
        return _nvidia(gpu.compute_capability, architecture, name)
    if gpu.vendor == "apple":
        m = re.search(r"\bm(\d+)\b", name)
        generation = int(m[1]) if m else 1
        return "apple" if generation < 3 else "apple-m3" if generation < 5 else "apple-m5"
    if gpu.vendor == "intel":
        return "xe2" if "xe2" in architecture or re.search(r"\bb\d\d", name) else "xe"
    return next((f for f in _AMD if f in architecture), "unknown")


def _nvidia(capability: str | None, architecture: str, name: str) -> str:
    m = re.fullmatch(r"(\d+)\.(\d+)", capability or "")
    if m:
        cc = (int(m[1]), int(m[2]))
        family = next(f for least, f in _NVIDIA if cc >= least)
    else:
        known = sorted({f.partition("-")[0] for _, f in _NVIDIA})
        family = next((f for f in known if f in architecture), "unknown")
    return "turing-gtx" if family == "turing" and "gtx" in name else family


def backend_of(gpu: Gpu, asked: str = "cuda") -> str:
    """The backend that runs a GPU: the configuration's where it can, otherwise the card's own."""
    possible = _BACKENDS.get(gpu.vendor, (gpu.backend,))
    return asked if asked in possible else gpu.backend


def gpu_figures(gpu: Gpu, backend: str = "cuda", constants: Constants = CONSTANTS) -> Figures:
    """The figures of a GPU; what is unknown is assumed from its family.

    Args:
        gpu: The card.
        backend: The configuration's backend.
        constants: Another set, for calibrating.
    """
    family = family_of(gpu)
    own = constants.families.get(family) or constants.families["unknown"]
    b = constants.backends.get(backend_of(gpu, backend), NO_BACKEND)
    assumed = []
    peak = (_believed(gpu.bandwidth_gb_s) or UNKNOWN_BANDWIDTH_GB_S) * 1e9
    if not _believed(gpu.bandwidth_gb_s):
        assumed.append(f"memory bandwidth of {gpu.name}: {UNKNOWN_BANDWIDTH_GB_S:g} GB/s")
    tflops = _believed(gpu.fp32_tflops)
    if tflops:
        clocks = tflops * 1e12 / (2 * _LANES.get(family, 128))
    else:
        clocks = peak / own.bytes_per_clock
        assumed.append(f"arithmetic of {gpu.name}: in its family's usual proportion to bandwidth")
    if gpu.shared:
        link = peak
    else:
        generation = min(_believed(gpu.pcie_gen) or 4, 8)
        link = PCIE_BYTES_PER_LANE * 2.0 ** (generation - 3) * (_believed(gpu.pcie_lanes) or 16)
    return Figures(
        family=family,
        bandwidth=peak * own.read * b.read,
        clocks=clocks,
        link=link * constants.link,
        kernel=own.kernel_us * 1e-6 * b.kernel,
        graphless=1.0 if family in _NO_GRAPHS else b.graphless,
        tile=b.tile,
        cache=b.cache,
        gather=own.gather,
        unpack=own.unpack,
        matrix=own.matrix * b.matrix * clocks,
        matrix_16=own.matrix_16 * b.matrix * clocks,
        attend=own.attend * b.attend * clocks,
        assumed=tuple(assumed),
    )


def _believed(figure: float | None) -> float | None:
    least, most = BELIEVABLE
    return float(figure) if figure is not None and least <= figure <= most else None


MEASURED_SHARE = 0.82
"""Of the theoretical peak, what a copy in several threads reaches, because the constants are
relative to the peak: STREAM gives 378 of 460.8 GB/s on an EPYC 9004 (Micron, press release of
November 2022), 2.45 of 3.2 on a TI AM62 (TI, SPRAD45A). A share too high is on the safe side."""


def host_figures(host: Host, constants: Constants = CONSTANTS) -> Figures:
    """The figures of the host's processor and memory; what is unknown is assumed, cautiously."""
    own = constants.families["cpu"]
    assumed = []
    cores = math.ceil(_believed(host.physical_cores) or UNKNOWN_CORES)
    if not _believed(host.physical_cores):
        assumed.append(f"cores of the processor: {cores}")
    known = platform(host.cpu, cores)
    peak = _believed(host.ram_bandwidth_gb_s)
    if not peak:
        peak = known.peak_gb_s
        assumed.append(f"memory bandwidth of the host: {peak:g} GB/s")
    else:
        if host.ram_bandwidth_basis == "measured":
            peak /= MEASURED_SHARE
        peak /= known.sockets
    peak = min(peak, known.drawn_gb_s) * (SECOND_SOCKET if known.sockets > 1 else 1.0)
    clocks = cores * known.core_ghz * 1e9 * constants.core_clock
    return Figures(
        family="cpu",
        bandwidth=peak * 1e9 * own.read,
        clocks=clocks,
        link=1.0,
        kernel=(own.kernel_us + cores * constants.barrier_us) * 1e-6,
        graphless=1.0,
        tile=1.0,
        cache=constants.backends["cpu"].cache,
        gather=own.gather,
        unpack=own.unpack,
        matrix=own.matrix * clocks,
        matrix_16=own.matrix_16 * clocks,
        attend=own.attend * clocks,
        assumed=tuple(assumed),
    )
