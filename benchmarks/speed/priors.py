"""Where the calibration starts, and how far it may go: values before any measurement.

Each constant is held to its prior like a measurement would hold it: ``SPREAD`` is the standard
deviation of its logarithm. So a family with few rows stays near what is physically plausible, and
one with none keeps the prior.

Reasons: DRAM reaches 80 to 90 % of its peak, stacked memory less per clock of the GPU; a kernel
costs 2 to 8 microseconds to launch and drain; matrix rates are what the units of that generation do
per clock and multiprocessor (NVIDIA's and AMD's architecture papers: 1024 multiply-adds of 8 bit
and 256 of half precision on Ampere, Ada and the RTX 50 series, twice that on A100, four times on
H100, none before Volta) less what is usually lost, which is more where weights are unpacked first;
a processor core does one 512-bit or two 256-bit dot products per clock.
"""

from __future__ import annotations

from typing import Any


def family(
    read: float = 0.9,
    kernel_us: float = 3.0,
    matrix: float = 560.0,
    matrix_16: float | None = None,
    attend: float = 250.0,
    *,
    gather: float = 0.85,
    unpack: float = 1.0,
    bytes_per_clock: float = 6.0,
) -> dict[str, float]:
    return {
        "read": read,
        "gather": gather,
        "unpack": unpack,
        "kernel_us": kernel_us,
        "matrix": matrix,
        "matrix_16": matrix if matrix_16 is None else matrix_16,
        "attend": attend,
        "bytes_per_clock": bytes_per_clock,
    }


FAMILIES = {
    "unknown": family(0.7, 6.0, 100.0, 80.0, 40.0),
    "maxwell": family(0.85, 6.0, 60.0, 50.0, 40.0),
    "pascal": family(0.9, 6.0, 300.0, 60.0, 45.0, unpack=0.7),
    "pascal-hbm": family(0.8, 6.0, 60.0, 60.0, 40.0, unpack=0.5),
    "volta": family(0.85, 3.0, 300.0, 400.0, 150.0),
    "turing": family(0.88, 3.0, 450.0),
    "turing-gtx": family(0.88, 4.0, 200.0, 150.0, 60.0),
    "ampere-hbm": family(0.87, 3.5, 650.0, 1100.0, bytes_per_clock=12.0),
    "ampere": family(matrix_16=500.0),
    "ada": family(matrix_16=450.0, bytes_per_clock=3.5),
    "hopper": family(0.85, 4.0, 750.0, 1100.0, bytes_per_clock=15.0),
    "blackwell-hbm": family(0.85, 4.0, 800.0, 1200.0, bytes_per_clock=25.0),
    "blackwell-unified": family(matrix=450.0, bytes_per_clock=2.5),
    "blackwell": family(),
    "gcn": family(0.7, 10.0, 90.0, 90.0, 40.0, bytes_per_clock=10.0),
    "cdna": family(0.6, 8.0, 150.0, 300.0, 200.0, bytes_per_clock=8.0),
    "rdna": family(0.75, 6.0, 100.0, 80.0, 40.0),
    "rdna2": family(0.8, 6.0, 120.0, 100.0, 40.0, bytes_per_clock=3.5),
    "rdna3": family(0.8, 6.0, 200.0, 200.0, 60.0, bytes_per_clock=4.0),
    "rdna3.5": family(0.85, 5.0, 280.0, 300.0, 100.0, unpack=0.7, bytes_per_clock=3.0),
    "rdna4": family(0.8, 6.0, 200.0, 250.0, 80.0, bytes_per_clock=3.5),
    "xe": family(0.7, 5.0, 150.0, 150.0, 40.0, bytes_per_clock=8.0),
    "xe2": family(0.7, 5.0, 200.0, 200.0, 60.0, bytes_per_clock=5.0),
    "apple": family(0.92, 5.0, 190.0, 220.0, 110.0, bytes_per_clock=8.5),
    "apple-m3": family(0.93, 4.5, 210.0, 230.0, 110.0, unpack=2.0, bytes_per_clock=8.5),
    "apple-m5": family(0.85, 4.0, 500.0, 500.0, 150.0, unpack=2.0, bytes_per_clock=8.5),
    "cpu": family(0.78, 3.0, 20.0, 10.0, 8.0, gather=0.95),
}


def backend(
    read: float = 1.0,
    kernel: float = 1.0,
    matrix: float = 1.0,
    attend: float = 1.0,
    graphless: float = 1.0,
    tile: float = 40.0,
    cache: float = 0.7,
) -> dict[str, float]:
    return {
        "read": read,
        "kernel": kernel,
        "matrix": matrix,
        "attend": attend,
        "graphless": graphless,
        "tile": tile,
        "cache": cache,
    }


BACKENDS = {
    "cuda": backend(graphless=1.6, tile=60.0, cache=0.85),
    "rocm": backend(),
    "metal": backend(tile=12.0),
    "vulkan": backend(kernel=0.8, matrix=0.7, attend=0.6, tile=30.0),
    "sycl": backend(),
    "cpu": backend(),
}

PRIOR: dict[str, Any] = {
    "families": FAMILIES,
    "backends": BACKENDS,
    "clocks_per_weight": {
        "F32": 0.02, "F16": 0.02, "BF16": 0.02, "Q8_0": 0.015, "Q4_0": 0.01, "Q4_1": 0.015,
        "Q5_0": 0.03, "Q5_1": 0.03, "Q2_K": 0.05, "Q3_K": 0.04, "Q4_K": 0.02, "Q5_K": 0.025,
        "Q6_K": 0.025, "IQ4_NL": 0.02, "IQ4_XS": 0.02, "IQ3_S": 0.04, "IQ3_XXS": 0.06,
        "IQ2_S": 0.07, "IQ2_XS": 0.05, "IQ2_XXS": 0.07, "IQ1_S": 0.06, "IQ1_M": 0.08,
        "MXFP4": 0.02, "NVFP4": 0.02, "TQ1_0": 0.03, "TQ2_0": 0.02, "Q1_0": 0.02, "Q2_0": 0.02,
    },
    "cpu_clocks": {
        "F32": 0.2, "F16": 0.14, "BF16": 0.14, "Q8_0": 0.07, "Q4_0": 0.07, "Q4_1": 0.09,
        "Q5_0": 0.1, "Q5_1": 0.1, "Q2_K": 0.09, "Q3_K": 0.15, "Q4_K": 0.09, "Q5_K": 0.13,
        "Q6_K": 0.13, "IQ4_NL": 0.09, "IQ4_XS": 0.1, "IQ3_S": 0.35, "IQ3_XXS": 0.3, "IQ2_S": 0.3,
        "IQ2_XS": 0.22, "IQ2_XXS": 0.2, "IQ1_S": 0.2, "IQ1_M": 0.3, "MXFP4": 0.12, "NVFP4": 0.12,
        "TQ1_0": 0.12, "TQ2_0": 0.08, "Q1_0": 0.08, "Q2_0": 0.08,
    },
    "clocks_per_byte": 0.08,
    "overlap": 5.0,
    "prefill_overlap": 1.2,
    "token_us": 80.0,
    "hop_us": 40.0,
    "core_clock": 1.0,
    "barrier_us": 0.2,
    "link": 0.7,
    "state": 0.4,
    "state_more": 0.1,
    "scan": 2.0,
    "vector": 0.4,
    "plain_bytes": 0.03,
    "half_ubatch": 25.0,
    "batch_read": 0.75,
    "column": 0.6,
    "experts_16": 0.5,
    "pipeline": 0.7,
}  # fmt: skip

SPREAD = {
    "read": 0.1, "gather": 0.25, "unpack": 0.4, "kernel_us": 0.5, "matrix": 0.6, "matrix_16": 0.6,
    "attend": 0.25, "kernel": 0.4, "graphless": 0.3, "tile": 0.6, "clocks_per_weight": 0.7,
    "cpu_clocks": 0.3, "clocks_per_byte": 0.5, "overlap": 0.4, "prefill_overlap": 0.3,
    "token_us": 0.6, "hop_us": 0.5, "core_clock": 0.15, "barrier_us": 0.5, "link": 0.2,
    "state": 0.5, "state_more": 0.7, "scan": 0.8, "cache": 0.3, "vector": 0.5,
    "plain_bytes": 0.5, "half_ubatch": 0.6, "batch_read": 0.3, "column": 0.5,
    "experts_16": 0.4, "pipeline": 0.2,
}  # fmt: skip
"""By the last word of a constant's name; a constant without an entry is not fitted."""

CPU_SPREAD = {"read": 0.05, "gather": 0.1}
"""Of the processor, whose platform is known better (``hosts.py``)."""
