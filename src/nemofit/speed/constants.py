"""The constants of the speed model: what each means, in which unit, and over what it holds.

The values are in :mod:`.fitted`, which ``python -m benchmarks.speed.calibrate`` writes from the
published measurements in ``data/measurements.yaml``; docs/speed.md tells how and how well.

A "clock" is one cycle of one multiprocessor (NVIDIA: SM, AMD: compute unit, Apple: GPU core,
Intel: Xe core) or of one processor core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fitted import VALUES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Family:
    """Constants of one architecture generation.

    Attributes:
        read: Fraction of the peak memory bandwidth that reading weights reaches.
        gather: The same for routed experts, as a fraction of ``read``.
        unpack: Speed of the arithmetic of matrix-vector kernels, relative to
            ``Constants.clocks_per_byte`` and ``clocks_per_weight``.
        kernel_us: Microseconds that one operation takes beside its reading and arithmetic.
        matrix: FLOP per clock of matrix products with quantized weights.
        matrix_16: The same with 16-bit weights.
        attend: The same of flash attention over a prompt.
        bytes_per_clock: Usual peak bandwidth per clock, for a card whose arithmetic is unknown.
    """

    read: float
    gather: float
    unpack: float
    kernel_us: float
    matrix: float
    matrix_16: float
    attend: float
    bytes_per_clock: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Backend:
    """What a backend makes of a family: factors on its constants, and figures of its own.

    Attributes:
        read, kernel, matrix, attend: Factors on the family's constants of these names.
        graphless: Factor on ``kernel`` where no captured graph is replayed: several GPUs, several
            streams, prompts.
        tile: Tokens per expert at which products with routed experts reach half their rate.
        cache: Fraction of ``read`` at which attention reads the KV cache of one token.
    """

    read: float
    kernel: float
    matrix: float
    attend: float
    graphless: float
    tile: float
    cache: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Constants:
    """All constants.

    Attributes:
        families: By family, see :mod:`.families`.
        backends: By llama.cpp backend.
        clocks_per_byte: Clocks per byte of weights in matrix-vector kernels on a GPU.
        clocks_per_weight: Clocks per weight on top of that, by tensor type.
        cpu_clocks: Clocks of a processor core per weight and token, by tensor type.
        overlap: Exponent p of (reading^p + arithmetic^p)^(1/p): 1 is one after the other, large
            values mean that the longer one decides.
        prefill_overlap: The same in prompt work.
        token_us: Microseconds of every step: sampling, building and submitting the graph.
        hop_us: Microseconds of handing over to the next device.
        core_clock: Factor on the effective clock of processor cores.
        barrier_us: Microseconds per core and operation that a processor's threads wait.
        link: Fraction of the PCIe rate that copies reach.
        state: Fraction of ``read`` at which the recurrent state of a stream is read and written.
        state_more: The same for each further stream.
        scan: The same in prompt work, where it passes once per token.
        vector: Fraction of ``attend`` that attention of one token reaches.
        plain_bytes: Bytes of scores written and read per FLOP of attention over a prompt without
            flash attention, whose products run at ``matrix_16``.
        half_ubatch: Tokens at which matrix products reach half their rate.
        batch_read: Fraction of ``read`` of the kernels for more than a few streams.
        column: Arithmetic of each further stream in matrix-vector kernels, relative to the first.
        experts_16: Fraction of ``matrix_16`` that routed experts reach.
        pipeline: Fraction of the ideal gain when several GPUs work on one prompt.
    """

    families: Mapping[str, Family]
    backends: Mapping[str, Backend]
    clocks_per_weight: Mapping[str, float]
    cpu_clocks: Mapping[str, float]
    clocks_per_byte: float
    overlap: float
    prefill_overlap: float
    token_us: float
    hop_us: float
    core_clock: float
    barrier_us: float
    link: float
    state: float
    state_more: float
    scan: float
    vector: float
    plain_bytes: float
    half_ubatch: float
    batch_read: float
    column: float
    experts_16: float
    pipeline: float


def constants_of(values: Mapping[str, Any]) -> Constants:
    """The records for plain values, nested as in :data:`.fitted.VALUES`."""
    families = {name: Family(**v) for name, v in values["families"].items()}
    backends = {name: Backend(**v) for name, v in values["backends"].items()}
    rest = {k: v for k, v in values.items() if k not in ("families", "backends")}
    return Constants(families=families, backends=backends, **rest)


CONSTANTS = constants_of(VALUES)
NO_BACKEND = Backend(
    read=1.0, kernel=1.0, matrix=1.0, attend=1.0, graphless=1.0, tile=40.0, cache=0.7
)
