"""Constants of the speed model; how they are found is in docs/speed.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Constants of one device family.

    Attributes:
        read: Fraction of the peak memory bandwidth that large reads reach.
        unpack: Multiprocessor clocks per weight byte-equivalent when decoding (see ``Constants``).
        kernel_us: Microseconds per operation launched.
        gather: Fraction of ``read`` that routed experts reach.
        matrix: FLOP per multiprocessor clock in prompt work with quantized weights.
        matrix_16: The same with 16-bit weights.
        attend: The same for attention.
        assumed_bandwidth_gb_s: Bandwidth of a card of which only the family is known.
        bytes_per_clock: Usual peak bandwidth per multiprocessor clock, in bytes.
    """

    read: float = 0.85
    unpack: float = 1.0
    kernel_us: float = 3.0
    gather: float = 0.6
    matrix: float = 500.0
    matrix_16: float = 500.0
    attend: float = 200.0
    assumed_bandwidth_gb_s: float = 200.0
    bytes_per_clock: float = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """All constants.

    Attributes:
        families: By family, and by family and backend where that differs.
        clocks_per_byte: Multiprocessor clocks per weight byte when decoding.
        clocks_per_weight: The same per weight, by tensor type, for unpacking.
        overlap: Exponent with which reading and arithmetic overlap (1: not at all).
        token_us: Microseconds per step that depend on nothing.
        hop_us: Microseconds per change of device.
        core_clock: Clocks per second of a processor core, all cores busy.
        link: Fraction of the PCIe rate that weight copies reach.
        spread: Factor from the likely value to either end of the range.
    """

    families: dict[str, Family]
    clocks_per_byte: float = 0.15
    clocks_per_weight: dict[str, float]
    overlap: float = 2.5
    token_us: float = 100.0
    hop_us: float = 50.0
    core_clock: float = 3.5e9
    link: float = 0.7
    spread: float = 1.35


CONSTANTS = Constants(
    families={
        "unknown": Family(read=0.7, matrix=60.0, matrix_16=60.0, attend=30.0),
        "maxwell": Family(matrix=60.0, matrix_16=60.0, attend=40.0),
        "pascal": Family(matrix=150.0, matrix_16=60.0, attend=40.0),
        "pascal-hbm": Family(matrix=60.0, matrix_16=60.0, attend=40.0),
        "volta": Family(matrix=350.0, matrix_16=400.0),
        "turing": Family(matrix=500.0, matrix_16=500.0),
        "turing-gtx": Family(matrix=200.0, matrix_16=150.0, attend=60.0),
        "ampere-hbm": Family(matrix=700.0, matrix_16=1000.0),
        "ampere": Family(matrix=500.0, matrix_16=500.0),
        "ada": Family(matrix=500.0, matrix_16=500.0),
        "hopper": Family(matrix=800.0, matrix_16=1200.0),
        "blackwell-hbm": Family(matrix=800.0, matrix_16=1200.0),
        "blackwell": Family(matrix=600.0, matrix_16=600.0),
        "gcn": Family(read=0.7, matrix=120.0, matrix_16=100.0, attend=40.0, kernel_us=6.0),
        "cdna": Family(read=0.6, matrix=400.0, matrix_16=500.0, kernel_us=6.0),
        "rdna2": Family(read=0.75, matrix=120.0, matrix_16=100.0, attend=40.0, kernel_us=5.0),
        "rdna3": Family(read=0.75, matrix=200.0, matrix_16=200.0, attend=60.0, kernel_us=5.0),
        "rdna3.5": Family(read=0.8, matrix=200.0, matrix_16=200.0, attend=60.0, kernel_us=5.0),
        "rdna4": Family(read=0.75, matrix=250.0, matrix_16=300.0, attend=80.0, kernel_us=5.0),
        "xe": Family(read=0.55, matrix=150.0, matrix_16=150.0, attend=40.0, kernel_us=8.0),
        "apple": Family(read=0.8, matrix=180.0, matrix_16=190.0, attend=80.0, kernel_us=4.0),
        "apple-m5": Family(read=0.8, matrix=500.0, matrix_16=500.0, attend=150.0, kernel_us=4.0),
        "cpu": Family(
            read=0.75, matrix=30.0, matrix_16=16.0, attend=12.0, kernel_us=3.0, gather=0.8,
            unpack=0.3,
        ),
    },
    clocks_per_weight={"Q4_K": 0.01, "Q5_K": 0.02, "Q6_K": 0.02},
)  # fmt: skip
