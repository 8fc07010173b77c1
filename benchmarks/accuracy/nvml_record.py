"""Write down what a real NVIDIA driver answers, as a script for the tests' stand-in library.

    pip install nvidia-ml-py
    python -m benchmarks.accuracy.nvml_record > tests/fixtures/nvml/NAME.txt

Serial numbers in UUIDs are replaced by counts. Process lists keep sizes and lose names and numbers.
What a function refuses is written as ``fail.FUNCTION = CODE``, so that a replay refuses it too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

SYSTEM = (
    ("driver", "nvmlSystemGetDriverVersion", "nvmlSystemGetDriverVersion"),
    ("cuda", "nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion_v2"),
)
CARD = (
    ("name", "nvmlDeviceGetName", "nvmlDeviceGetName"),
    ("milliwatts", "nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetPowerManagementLimit"),
    ("display", "nvmlDeviceGetDisplayActive", "nvmlDeviceGetDisplayActive"),
    ("pcie_gen", "nvmlDeviceGetMaxPcieLinkGeneration", "nvmlDeviceGetMaxPcieLinkGeneration"),
    ("pcie_lanes", "nvmlDeviceGetMaxPcieLinkWidth", "nvmlDeviceGetMaxPcieLinkWidth"),
    ("pcie_gen_now", "nvmlDeviceGetCurrPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkGeneration"),
    ("pcie_lanes_now", "nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetCurrPcieLinkWidth"),
    ("virtualization", "nvmlDeviceGetVirtualizationMode", "nvmlDeviceGetVirtualizationMode"),
    ("cores", "nvmlDeviceGetNumGpuCores", "nvmlDeviceGetNumGpuCores"),
    ("bus_bits", "nvmlDeviceGetMemoryBusWidth", "nvmlDeviceGetMemoryBusWidth"),
    ("numa", "nvmlDeviceGetNumaNodeId", "nvmlDeviceGetNumaNodeId"),
    ("gpu_instance", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetGpuInstanceId"),
    ("compute_instance", "nvmlDeviceGetComputeInstanceId", "nvmlDeviceGetComputeInstanceId"),
)
"""Key of the script, function of the binding, function of the library."""
LISTS = (("compute", "Compute"), ("graphics", "Graphics"), ("mps", "MPSCompute"))
NOT_SUPPORTED = 3
LINKS = 18


class Recorder:
    """Asks and writes; one for the whole machine.

    Args:
        nvml: The initialized binding.
    """

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml
        self._slices: list[list[str]] = []
        self._cards = 0

    def script(self) -> str:
        """The whole script."""
        self._cards = int(self._nvml.nvmlDeviceGetCount())
        system = [f"count = {self._cards}"]
        for key, function, symbol in SYSTEM:
            system += self._line(key, symbol, getattr(self._nvml, function))
        cards = [self._card(n) for n in range(self._cards)]
        parts = ["\n".join(lines) for lines in (system, *cards, *self._slices)]
        return "\ndevice\n".join(parts) + "\n"

    def _card(self, index: int) -> list[str]:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        lines = self._device(handle, f"GPU-{index:08x}-0000-0000-0000-000000000000")
        mode = self._ask(self._nvml.nvmlDeviceGetMigMode, handle)
        if isinstance(mode, list):
            lines.append(f"mig = {mode[0]}")
        if isinstance(mode, list) and mode[0]:
            lines += list(self._mig(handle))
        return lines

    def _mig(self, handle: object) -> Iterator[str]:
        most = self._ask(self._nvml.nvmlDeviceGetMaxMigDeviceCount, handle)
        yield f"mig_max = {most if isinstance(most, int) else 0}"
        for slot in range(most if isinstance(most, int) else 0):
            child = self._ask(self._nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot)
            if isinstance(child, _Refused):
                continue
            number = len(self._slices)
            lines = self._device(child, f"MIG-{number:08x}-0000-0000-0000-000000000000")
            found = self._ask(self._nvml.nvmlDeviceGetAttributes, child)
            if not isinstance(found, _Refused):
                lines.append(f"sms = {found.multiprocessorCount}")
                lines.append(f"slices = {found.gpuInstanceSliceCount}")
                lines.append(f"mib = {found.memorySizeMB}")
            self._slices.append(lines)
            yield f"mig.{slot} = {self._cards + number}"

    def _device(self, handle: object, uuid: str) -> list[str]:
        nvml, lines = self._nvml, [f"uuid = {uuid}"]
        for key, function, symbol in CARD:
            lines += self._line(key, symbol, getattr(nvml, function), handle)
        pci = self._ask(nvml.nvmlDeviceGetPciInfo, handle)
        if not isinstance(pci, _Refused):
            lines += [f"bus = {_text(pci.busId)}", f"pci_id = {pci.pciDeviceId:#x}"]
        found = self._ask(nvml.nvmlDeviceGetCudaComputeCapability, handle)
        if not isinstance(found, _Refused):
            lines.append(f"capability = {found[0]}.{found[1]}")
        for kind, key in ((1, "sm_mhz"), (2, "memory_mhz")):
            mhz = self._ask(nvml.nvmlDeviceGetMaxClockInfo, handle, kind)
            if not isinstance(mhz, _Refused):
                lines.append(f"{key} = {mhz}")
        bar1 = self._ask(nvml.nvmlDeviceGetBAR1MemoryInfo, handle)
        if not isinstance(bar1, _Refused):
            lines.append(f"bar1 = {bar1.bar1Total}")
        return [*lines, *self._memory(handle), *self._links(handle), *self._lists(handle)]

    def _memory(self, handle: object) -> Iterator[str]:
        nvml = self._nvml
        first = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        second = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle, version=nvml.nvmlMemory_v2)
        for name, found in (("", first), ("_v2", second)):
            if isinstance(found, _Refused) and found.code != NOT_SUPPORTED:
                yield f"fail.nvmlDeviceGetMemoryInfo{name} = {found.code}"
        found = first if isinstance(second, _Refused) else second
        if not isinstance(found, _Refused):
            yield f"total = {found.total}"
            yield f"free = {found.free}"
            yield f"reserved = {getattr(found, 'reserved', 0)}"

    def _links(self, handle: object) -> Iterator[str]:
        states = [self._ask(self._nvml.nvmlDeviceGetNvLinkState, handle, n) for n in range(LINKS)]
        if not isinstance(states[0], _Refused):
            yield f"nvlinks = {sum(s == 1 for s in states)}"

    def _lists(self, handle: object) -> Iterator[str]:
        for key, kind in LISTS:
            listed = self._ask(getattr(self._nvml, f"nvmlDeviceGet{kind}RunningProcesses"), handle)
            if not isinstance(listed, _Refused):
                sizes = (p.usedGpuMemory for p in listed)
                known = (f"{n}:{(1 << 64) - 1 if s is None else s}" for n, s in enumerate(sizes, 1))
                yield f"{key} = {' '.join(known)}"

    def _line(
        self, key: str, symbol: str, function: Callable[..., Any], *args: object
    ) -> list[str]:
        value = self._ask(function, *args)
        if not isinstance(value, _Refused):
            return [f"{key} = {_text(value)}"]
        return [] if value.code == NOT_SUPPORTED else [f"fail.{symbol} = {value.code}"]

    def _ask(self, function: Callable[..., Any], *args: object, **more: object) -> Any:
        try:
            return function(*args, **more)
        except self._nvml.NVMLError as e:
            return _Refused(int(e.value))


class _Refused:
    """An answer that is a code."""

    def __init__(self, code: int) -> None:
        self.code = code


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def main() -> int:
    """Record this machine to stdout."""
    import pynvml

    pynvml.nvmlInit()
    sys.stdout.write(Recorder(pynvml).script())
    pynvml.nvmlShutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
