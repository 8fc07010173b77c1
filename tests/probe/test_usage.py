"""Memory over time: real processes, scripted cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from standin import GIB, MIB, rtx_4090, script

from nemofit.probe.processes import family_of, log_of, memory_of, running
from nemofit.probe.site import Site
from nemofit.probe.usage import Sampler

HOLD = """\
import mmap, sys, time
held = bytearray(b"x" * (64 << 20))
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(mapped[i] for i in range(0, len(mapped), 4096))
print("ready", flush=True)
time.sleep(60)
"""
ASK = """\
import json, sys
from nemofit.probe.usage import Sampler
sampler = Sampler(int(sys.argv[1]))
found = sampler.sample()
sampler.close()
print(json.dumps({"gpus": [[g.name, g.used_bytes, g.whose] for g in found.gpus],
                  "notes": sampler.notes}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells kinds of memory")
def test_allocated_memory_and_mapped_pages_are_told_apart(tmp_path: Path) -> None:
    """A process with 64 MiB of its own and 32 MiB of a file, as a mapped model has them."""
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(1 << 20) * 32)
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        before = memory_of(os.getpid())
        found = memory_of(process.pid)
        assert found is not None and found.allocated is not None and found.mapped is not None
        assert 64 * MIB <= found.allocated < 96 * MIB
        assert 32 * MIB <= found.mapped < 64 * MIB
        assert found.resident >= found.allocated + 30 * MIB
        assert before is not None and before.resident >= found.resident  # it is this one's child
        assert process.pid in family_of(os.getpid())
        assert log_of(process.pid) == str(tmp_path / "log")
        name = Path(sys.executable).resolve().name
        mine = [p for p in running((name, "python", "python3")) if p.pid == process.pid]
        assert [p.command[-1] for p in mine] == [str(path)]
    finally:
        process.kill()
        process.communicate()
    assert memory_of(process.pid) is None


def ask(library: Path, tmp_path: Path, text: str, pid: int) -> dict[str, list[object]]:
    """Sample once in a process that finds the stand-in for the driver."""
    where = tmp_path / "script"
    where.write_bytes(text.encode("latin-1"))
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(pid)],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), "NEMOFIT_FAKE_NVML": str(where)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, list[object]] = json.loads(done.stdout)
    return answer


def test_what_the_process_holds_on_each_card(_built: dict[str, Path], tmp_path: Path) -> None:
    """The first card holds it beside another program, the second only another one."""
    pid = os.getpid()
    text = script(
        rtx_4090(0, compute=f"{pid}:{5 * GIB},999999:{GIB}"), rtx_4090(1, compute=f"999999:{GIB}")
    )
    name = "NVIDIA GeForce RTX 4090"
    found = ask(_built["new"], tmp_path, text, pid)
    assert found["gpus"] == [[name, 5 * GIB, "process"], [name, 0, "process"]]


def test_where_the_driver_names_no_process_the_whole_card_counts(
    _built: dict[str, Path], tmp_path: Path
) -> None:
    """In a container the list is empty, though the card is in use."""
    found = ask(_built["new"], tmp_path, script(rtx_4090(0, free=20 * GIB)), os.getpid())
    assert found["gpus"] == [["NVIDIA GeForce RTX 4090", 24564 * MIB - 20 * GIB, "card"]]


@pytest.mark.parametrize("kind", ["none", "broken"])
def test_no_driver_is_no_card(kind: str, _built: dict[str, Path], tmp_path: Path) -> None:
    assert ask(_built[kind], tmp_path, script(), os.getpid())["gpus"] == []


def test_cards_of_amd(site: Callable[..., Site]) -> None:
    """The driver's own counter; an Intel card beside it has none."""
    there = site(
        {
            "/sys/class/drm/card0/device/vendor": "0x1002\n",
            "/sys/class/drm/card0/device/mem_info_vram_used": "3221225472\n",
            "/sys/class/drm/card1/device/vendor": "0x8086\n",
            "/sys/class/drm/card0-DP-1/status": "connected\n",
        }
    )
    sampler = Sampler(os.getpid(), there)
    amd = [gpu for gpu in sampler.sample().gpus if gpu.name.startswith("AMD")]
    sampler.close()
    assert [(g.name, g.used_bytes, g.whose) for g in amd] == [("AMD GPU 0", 3 * GIB, "card")]
