"""A recording answers as what it was recorded from: held against the scripts it should give."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "probe"))

from standin import Driver, build, compiler, gb10, mig_host, rtx_4090, script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no C compiler on Linux: the stand-in for the NVIDIA driver cannot be built")
    return build(tmp_path_factory.mktemp("nvml") / "lib")


def without_numbers(value: object) -> object:
    """A machine without what a recording replaces: UUIDs, and the numbers of processes."""
    if isinstance(value, dict):
        return {k: without_numbers(v) for k, v in value.items() if k not in _REPLACED}
    if isinstance(value, list):
        return [without_numbers(v) for v in value]
    return value


_REPLACED = {"uuid", "parent_uuid", "pid", "notes"}


@pytest.mark.parametrize(
    "text",
    [
        lambda: script(
            rtx_4090(0, compute="77:1073741824 78:5"), rtx_4090(1, display=1, nvlinks=4)
        ),
        mig_host,
        lambda: script(gb10()),
        lambda: script(rtx_4090(**{"fail.nvmlDeviceGetPowerManagementLimit": 4})),
    ],
    ids=["two cards", "MIG", "unified memory", "a refusal"],
)
def test_a_recording_replays(library: Path, tmp_path: Path, text: Callable[[], str]) -> None:
    """The same machine from the driver and from what was recorded of it."""
    pytest.importorskip("pynvml")
    before = tmp_path / "before"
    before.write_text(text())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy.nvml_record"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(library), "NEMOFIT_FAKE_NVML": str(before),
             "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
    )  # fmt: skip
    (tmp_path / "root" / "proc").mkdir(parents=True)
    (tmp_path / "root" / "proc" / "meminfo").write_text("MemTotal: 65543212 kB\n")
    driver = Driver(library, tmp_path)
    try:
        real = driver.probe(before.read_text(), tmp_path / "root")
        replayed = driver.probe(done.stdout, tmp_path / "root")
    finally:
        driver.close()
    assert without_numbers(replayed) == without_numbers(real)
