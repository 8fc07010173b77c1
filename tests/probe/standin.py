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
