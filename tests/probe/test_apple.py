"""Apple silicon: sysctl and ioreg outputs, Metal's answer; no Mac was at hand.

Metal's working sets are those people printed: 37.44 GiB of 48 on an M5 Pro and 107.52 of 128
(AlexsJones/llmfit issue 754), 10922.67 of 16384 MiB (abetlen/llama-cpp-python issue 687). The other
values follow Apple's names in sysctl(3) and IOKit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from nemofit.machine.records import Host
from nemofit.probe import probe
from nemofit.probe.apple import read_apple
from nemofit.probe.site import Site

MIB, GIB = 1 << 20, 1 << 30
HOST = Host(os="macos", ram_available_bytes=40 * GIB, physical_cores=1)

M5_PRO = f"""\
hw.memsize: {48 * GIB}
machdep.cpu.brand_string: Apple M5 Pro
hw.optional.arm64: 1
kern.osproductversion: 26.1
hw.perflevel0.physicalcpu: 6
hw.physicalcpu: 18
iogpu.wired_limit_mb: 0
hw.optional.neon: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 1
hw.optional.arm.FEAT_SME2: 1
"""
INTEL = f"""\
hw.memsize: {16 * GIB}
machdep.cpu.brand_string: Intel(R) Core(TM) i7-8850H CPU @ 2.60GHz
kern.osproductversion: 13.7
hw.physicalcpu: 6
hw.optional.avx2_0: 1
hw.optional.fma: 1
"""
IOREG = """\
+-o AGXAcceleratorG17X  <class AGXAcceleratorG17X, id 0x1000003fd, registered>
    {
      "gpu-core-count" = 20
      "model" = "Apple M5 Pro"
    }
"""


def mac(sysctl: str, ioreg: str = IOREG) -> Site:
    """A Mac whose commands print these texts."""

    def run(command: Sequence[str]) -> str | None:
        return {"sysctl": sysctl, "ioreg": ioreg}.get(command[0].rpartition("/")[2])

    return Site(root="/nowhere", system="darwin", run=run)


def answers(size: int | None) -> Callable[[], int | None]:
    return lambda: size


def test_metal_decides() -> None:
    """The working set is the budget, the whole memory is the host's."""
    limit = int(37.44 * GIB)
    host, (gpu,) = read_apple(mac(M5_PRO), HOST, answers(limit))
    assert (gpu.name, gpu.cores, gpu.backend) == ("Apple M5 Pro", 20, "metal")
    assert (gpu.total_bytes, gpu.free_bytes, gpu.shared) == (limit, limit, True)
    assert (host.ram_total_bytes, host.physical_cores) == (48 * GIB, 18)
    assert host.os_version == "macOS 26.1"
    assert host.cpu_features == ("NEON", "DOTPROD", "FP16_VA", "MATMUL_INT8", "SME", "SME2")


def test_what_others_use_is_not_free() -> None:
    """The host's available memory bounds what a GPU can have now."""
    _, (gpu,) = read_apple(mac(M5_PRO), Host(ram_available_bytes=9 * GIB), answers(36 * GIB))
    assert gpu.free_bytes == 9 * GIB


def test_the_command_that_raises_the_limit() -> None:
    """It leaves 8 GiB to the system; where nothing is to gain it is not offered."""
    _, (gpu,) = read_apple(mac(M5_PRO), HOST, answers(int(37.44 * GIB)))
    assert gpu.notes == (
        "a GPU may use 37.44 GiB of 48.00 GiB; "
        "more until the next restart: sudo sysctl iogpu.wired_limit_mb=40960",
    )
    _, (gpu,) = read_apple(mac(M5_PRO), HOST, answers(42 * GIB))
    assert gpu.notes == ()


def _fails() -> int | None:
    raise OSError("no Metal")


@pytest.mark.parametrize(
    ("sysctl", "metal", "total", "said"),
    [
        (M5_PRO, answers(None), 32 * GIB, "assumed to be two thirds"),
        (M5_PRO, _fails, 32 * GIB, "no Metal"),
        (M5_PRO.replace("mb: 0", "mb: 45056"), _fails, 44 * GIB, "iogpu.wired_limit_mb"),
    ],
)
def test_without_metal(sysctl: str, metal: Callable[[], int | None], total: int, said: str) -> None:
    """A raised limit is known by sysctl; else the least share that anyone has seen, said so."""
    _, (gpu,) = read_apple(mac(sysctl), HOST, metal)
    assert gpu.total_bytes == total
    assert said in gpu.notes[0]


def test_an_intel_mac() -> None:
    """No Apple silicon, no card; the processor's sets are known."""
    host, gpus = read_apple(mac(INTEL), HOST, answers(8 * GIB))
    assert gpus == ()
    assert host.cpu_features == ("AVX2", "FMA")


def test_commands_that_print_nothing() -> None:
    """Nothing is known, nothing breaks."""
    host, gpus = read_apple(mac("", ""), HOST, answers(None))
    assert (gpus, host) == ((), HOST)


def test_the_whole_machine() -> None:
    """The chip's bandwidth comes from the table."""
    pytest.importorskip("psutil")
    machine = probe(mac(M5_PRO.replace("M5 Pro", "M3 Max")))
    (gpu,) = machine.gpus
    assert gpu.card_id == "apple-m3-max"
    assert gpu.bandwidth_gb_s == 400
    assert machine.host.os == "macos"
    assert (machine.host.ram_bandwidth_gb_s, machine.host.ram_bandwidth_basis) == (400, "published")
