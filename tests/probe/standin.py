"""The stand-in for NVIDIA's driver: builds it, scripts it, and asks the real probe about it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "fake_nvml"
MIB = 1 << 20
GIB = 1 << 30
Lines = dict[str, object]


def compiler() -> str | None:
    """A C compiler, None where there is none or no ELF shared libraries are made."""
    if not sys.platform.startswith("linux"):
        return None
    return next((c for name in ("cc", "gcc", "clang") if (c := shutil.which(name))), None)


def build(folder: Path, *flags: str) -> Path:
    """Compile the stand-in into a folder of its own."""
    folder.mkdir(parents=True)
    library = folder / "libnvidia-ml.so.1"
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([*command, *flags, "-o", library, SOURCE / "nvml.c"], check=True)
    return folder


def rtx_4090(n: int = 0, **more: object) -> Lines:
    """A card as nvidia-smi -q of an RTX 4090 shows it (24564 MiB, 384 bit, PCIe 4 x16)."""
    return {
        "name": "NVIDIA GeForce RTX 4090",
        "uuid": f"GPU-{n:08x}-8d3c-7a1e-2f6b-5c9d0e1f2a3b",
        "bus": f"00000000:{0x41 + n:02X}:00.0",
        "pci_id": 0x268410DE,
        "capability": "8.9",
        "total": 24564 * MIB,
        "reserved": 361 * MIB,
        "free": 23028 * MIB,
        "bar1": 32768 * MIB,
        "virtualization": 0,
        "milliwatts": 450000,
        "display": 0,
        "pcie_gen": 4,
        "pcie_lanes": 16,
        "pcie_gen_now": 4,
        "pcie_lanes_now": 16,
        "cores": 16384,
        "sm_mhz": 3105,
        "memory_mhz": 10501,
        "bus_bits": 384,
        "compute": "",
        "graphics": "",
        "mps": "",
        **more,
    }


def script(*devices: Mapping[str, object], **system: object) -> str:
    """A script for the stand-in; every device counts as a card unless ``count`` says otherwise."""
    facts = {"driver": "580.95.05", "cuda": 13000, "count": len(devices), **system}
    parts = [facts, *devices]
    return "\ndevice\n".join("\n".join(f"{k} = {v}" for k, v in p.items()) for p in parts) + "\n"


def a100(n: int = 0, **more: object) -> Lines:
    """An A100 80GB as a MIG host shows it (81920 MiB, 5120 bit HBM2e at 1593 MHz)."""
    return rtx_4090(
        n,
        name="NVIDIA A100-SXM4-80GB",
        pci_id=0x20B210DE,
        capability="8.0",
        total=81920 * MIB,
        reserved=733 * MIB,
        free=81050 * MIB,
        cores=6912,
        sm_mhz=1410,
        memory_mhz=1593,
        bus_bits=5120,
        **more,
    )


def mig_slice(n: int, profile: str, mib: int, sms: int, slices: int) -> dict[str, object]:
    """A MIG slice; memory as the MIG user guide's tables print it."""
    return {
        "name": f"NVIDIA A100-SXM4-80GB MIG {profile}",
        "uuid": f"MIG-{n:08x}-5b9e-5f10-9f5e-b7a4c0d1e2f3",
        "total": mib * MIB,
        "reserved": 0,
        "free": (mib - 12) * MIB,
        "sms": sms,
        "slices": slices,
        "mib": mib,
        "gpu_instance": n + 7,
        "compute_instance": 0,
    }


def mig_host(**more: object) -> str:
    """One card in MIG mode with two slices and gaps between their slots, and one plain card."""
    card = a100(0, mig=1, mig_max=7, **{"mig.0": 2, "mig.4": 3}, **more)
    return script(
        card,
        a100(1, mig=0),
        mig_slice(0, "3g.40gb", 40192, 42, 3),
        mig_slice(1, "1g.10gb", 9728, 14, 1),
        count=2,
    )


def names(machine: dict[str, Any]) -> list[str]:
    return [g["name"] for g in machine["gpus"]]


def only(machine: dict[str, Any]) -> dict[str, Any]:
    (gpu,) = machine["gpus"]
    return dict(gpu)


def gb10(**more: object) -> dict[str, object]:
    """A DGX Spark: driver 580 answers NOT_SUPPORTED to both memory questions."""
    return {
        "name": "NVIDIA GB10",
        "uuid": "GPU-1f0c9a3e-2b77-4a51-9f0e-6d5c4b3a2910",
        "bus": "0000000F:01:00.0",
        "pci_id": 0x2E1210DE,
        "capability": "12.1",
        "cores": 6144,
        "sm_mhz": 3003,
        "compute": "1234:1073741824",
        "display": 1,
        **more,
    }


def orin(**more: object) -> dict[str, object]:
    """A Jetson AGX Orin: its driver answers to name and capability and to hardly anything else."""
    return {"name": "Orin (nvgpu)", "capability": "8.7", **more}


def mixed() -> str:
    """A slow card on the first slot, a fast one on the second."""
    slow = rtx_4090(0, name="NVIDIA GeForce GTX 1070", cores=1920, sm_mhz=1911, capability="6.1")
    return script(slow, rtx_4090(1))


class Driver:
    """A process that probes with one build of the stand-in on its library path."""

    def __init__(self, library: Path, work: Path, packages: Path | None = None) -> None:
        self._script = work / f"script-{library.name}-{id(self)}"
        env = {**os.environ, "LD_LIBRARY_PATH": str(library)}
        if packages is not None:
            env["PYTHONPATH"] = str(packages)
        self._process = subprocess.Popen(
            [sys.executable, str(SOURCE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
        )

    def probe(
        self,
        text: str,
        root: Path,
        environ: Mapping[str, str] | None = None,
        deadline_s: float = 15.0,
    ) -> dict[str, object]:
        """The machine as plain data."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._script.write_bytes(text.encode("latin-1"))
        case = {
            "script": str(self._script),
            "root": str(root),
            "environ": dict(environ or {}),
            "deadline_s": deadline_s,
        }
        self._process.stdin.write(json.dumps(case).encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], 30)
        assert ready, "the probe hangs"
        line = self._process.stdout.readline()
        assert line, "the probe ended without an answer"
        answer: dict[str, object] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
