"""Memory and arithmetic of a host of which only the processor is known."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache

_PLATFORMS: tuple[tuple[str, float, float, str], ...] = (
    (r"epyc 9\d\d5", 576.0, 3.5, "12 channels DDR5-6000; AMD EPYC 9005 data sheet"),
    (r"epyc 9\w\w4|epyc 9\d\d4", 460.8, 3.2, "12 channels DDR5-4800; AMD EPYC 9004 data sheet"),
    (r"epyc 8\d\d4", 230.4, 2.8, "6 channels DDR5-4800; AMD EPYC 8004 data sheet"),
    (r"epyc 7\w\w[123]", 204.8, 2.2, "8 channels DDR4-3200; AMD EPYC 7003 data sheet"),
    (r"threadripper pro [79]\d", 332.8, 4.2, "8 channels DDR5-5200; AMD product page"),
    (r"threadripper pro", 204.8, 2.8, "8 channels DDR4-3200; AMD product page"),
    (r"threadripper [79]\d", 166.4, 4.2, "4 channels DDR5-5200; AMD product page"),
    (r"threadripper", 93.9, 2.8, "4 channels DDR4-2933; AMD product page"),
    (r"ryzen ai max", 256.0, 4.0, "256 bit LPDDR5X-8000; AMD product page"),
    (r"ryzen ai", 89.6, 3.0, "2 channels DDR5-5600; AMD product page"),
    (r"ryzen \d 9\d{3}", 89.6, 4.8, "2 channels DDR5-5600; AMD product page"),
    (r"ryzen \d [78]\d{3}", 83.2, 4.5, "2 channels DDR5-5200; AMD product page"),
    (r"ryzen \d [1-5]\d{3}", 51.2, 3.0, "2 channels DDR4-3200; AMD product page"),
    (r"xeon 69\d\d", 614.4, 2.8, "12 channels DDR5-6400; Intel ARK"),
    (r"xeon 6[57]\d\d", 409.6, 2.8, "8 channels DDR5-6400; Intel ARK"),
    (r"xeon.*(gold|platinum|silver) \d5\d\d", 358.4, 2.6, "8 channels DDR5-5600; Intel ARK"),
    (r"xeon.*(gold|platinum|silver) \d4\d\d", 307.2, 2.6, "8 channels DDR5-4800; Intel ARK"),
    (r"xeon.*(gold|platinum|silver) \d3\d\d", 204.8, 2.4, "8 channels DDR4-3200; Intel ARK"),
    (r"xeon.*(gold|platinum|silver) \d2\d\d", 140.8, 2.2, "6 channels DDR4-2933; Intel ARK"),
    (r"xeon.*(gold|platinum|silver) \d1\d\d", 128.0, 1.6, "6 channels DDR4-2666; Intel ARK"),
    (r"xeon.*e5.*v4", 76.8, 1.5, "4 channels DDR4-2400; Intel ARK"),
    (r"xeon.*e5", 59.7, 1.4, "4 channels DDR3-1866; Intel ARK"),
    (r"core.*ultra \d \d", 102.4, 3.5, "2 channels DDR5-6400; Intel ARK"),
    (r"i\d-1[234]\d{3}", 89.6, 3.0, "2 channels DDR5-5600; Intel ARK"),
    (r"i\d-1\d{4}x\b", 93.9, 3.0, "4 channels DDR4-2933; Intel ARK"),
    (r"i\d-[1][01]\d{3}", 46.9, 3.0, "2 channels DDR4-2933; Intel ARK"),
    (r"i\d-[6-9]\d{3}", 38.4, 2.5, "2 channels DDR4-2400; Intel ARK"),
    (r"i\d-[2-5]\d{3}", 25.6, 2.0, "2 channels DDR3-1600; Intel ARK"),
    (r"\bn\d{2,3}\b", 38.4, 1.5, "1 channel DDR5-4800; Intel ARK"),
    (r"core ?(\(tm\))? ?2", 10.7, 0.3, "2 channels DDR2-667; Intel ARK"),
    (r"ampereone", 332.8, 1.5, "8 channels DDR5-5200; Ampere product brief"),
    (r"altra", 204.8, 1.5, "8 channels DDR4-3200; Ampere product brief"),
    (r"raspberry pi 5", 17.1, 1.2, "32 bit LPDDR4X-4267; Raspberry Pi documentation"),
    (r"raspberry pi 4", 12.8, 0.5, "32 bit LPDDR4-3200; Raspberry Pi documentation"),
    (r"cix", 88.0, 1.3, "128 bit LPDDR5-5500; CIX product brief"),
    (r"apple m\d ultra", 800.0, 3.5, "Apple press release"),
    (r"apple m\d max", 400.0, 3.5, "Apple press release, the least of the generations"),
    (r"apple m\d pro", 150.0, 3.5, "Apple press release, the least of the generations"),
    (r"apple m\d", 68.0, 3.2, "Apple press release, the least of the generations"),
)  # fmt: skip
"""Processor (regular expression, lower case), peak GB/s of one socket, effective GHz per core, what
the memory is and where that is said.

The effective clock is what a core sustains in 8-bit dot products with all cores busy, relative to
one with 512 bits per clock: below the data sheet's clock where vectors are narrower.
"""

_DRAWN: tuple[tuple[str, float, str], ...] = (
    (r"ryzen \d [79]\d{3}", 72.0, "the fabric carries 32 bytes per clock and die"),
    (r"ryzen ai \d", 68.0, "few cores"),
    (r"i\d-1[234]\d{3}", 67.0, "also sold with DDR4"),
    (r"i\d-1\d{4}x\b", 70.0, "mesh"),
    (r"\bn\d{2,3}\b", 25.0, "four small cores"),
    (r"ampereone", 255.0, "mesh"),
    (r"raspberry pi 5", 13.3, "four small cores"),
    (r"cix", 38.0, "small cores"),
    (r"apple m\d ultra", 340.0, "the GPU alone reaches the peak"),
    (r"apple m\d max", 170.0, "the GPU alone reaches the peak"),
)
"""Processor, most GB/s that its cores draw however fast the memory, and why: from the rows of these
processors in data/measurements.yaml, over the fraction of the peak that the others reach."""

SECOND_SOCKET = 0.7
"""Of one socket's peak with two: a core reads pages that lie on either (2x Xeon Gold 6138 in
data/measurements.yaml)."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What a processor's name tells.

    Attributes:
        peak_gb_s: Peak of the memory of one socket.
        drawn_gb_s: Most that the cores draw.
        core_ghz: Effective clock of a core.
        sockets: Two where the name begins with "2x".
    """

    peak_gb_s: float
    drawn_gb_s: float
    core_ghz: float
    sockets: int


@cache
def platform(cpu: str | None, cores: int) -> Platform:
    """A processor's platform, from its name, else from its cores.

    The peak is one socket's with all channels filled at the rated speed. Without a name: two
    channels of DDR4-3200 up to 16 cores, four up to 32, eight above (25.6 GB/s each, JEDEC
    JESD79-4).
    """
    name = (cpu or "").lower()
    sockets = 2 if name.startswith("2x ") else 1
    drawn = next((most for pattern, most, _ in _DRAWN if re.search(pattern, name)), math.inf)
    for pattern, peak, clock, _ in _PLATFORMS:
        if re.search(pattern, name):
            return Platform(peak, drawn, clock, sockets)
    if cores <= 4:
        return Platform(34.1, drawn, 2.5, sockets)
    return Platform(25.6 * (2 if cores <= 16 else 4 if cores <= 32 else 8), drawn, 2.8, sockets)
