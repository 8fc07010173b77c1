"""Fake roots, and the stand-in for the NVIDIA driver, compiled once for the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standin import Driver, build, compiler

from nemofit.probe.site import Site

Files = dict[str, "str | bytes"]

MEMINFO = """\
MemTotal:       65543212 kB
MemFree:         1834200 kB
MemAvailable:   50331648 kB
Buffers:          402340 kB
Cached:         46902112 kB
SwapTotal:       8388604 kB
SwapFree:        8388604 kB
Shmem:            612304 kB
"""


def plant(root: Path, files: Files) -> Path:
    """Write files below a root; a text that starts with ``->`` becomes a symbolic link."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("->"):
            path.symlink_to(content[2:])
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
    return root


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Site]:
    """A Linux machine of 62.5 GiB made of the given files, and of nothing else."""

    def make(files: Files | None = None, **environ: str) -> Site:
        everything: Files = {"/proc/meminfo": MEMINFO, **(files or {})}
        return Site(root=str(plant(tmp_path / "root", everything)), environ=environ)

    return make


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if compiler() is None:
        pytest.skip("no C compiler on Linux: the stand-in for the NVIDIA driver cannot be built")
    base = tmp_path_factory.mktemp("nvml")
    broken = base / "broken"
    broken.mkdir()
    (broken / "libnvidia-ml.so.1").write_text("this is no library\n")
    (base / "none").mkdir()
    return {
        "new": build(base / "new"),
        "old": build(base / "old", "-DOLD_DRIVER"),
        "broken": broken,
        "none": base / "none",
    }


@pytest.fixture(scope="session")
def start(
    _built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Driver]]:
    """Start a probing process with one build of the driver: new, old, broken or none."""
    running: list[Driver] = []
    work = tmp_path_factory.mktemp("scripts")

    def make(kind: str, packages: Path | None = None) -> Driver:
        running.append(Driver(_built[kind], work, packages))
        return running[-1]

    yield make
    for driver in running:
        driver.close()


@pytest.fixture(scope="session")
def driver(start: Callable[..., Driver]) -> Driver:
    """The driver of today."""
    return start("new")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with memory and the host's process ids, otherwise empty."""
    return plant(
        tmp_path / "root",
        {"/proc/meminfo": MEMINFO, "/proc/self/ns/pid": "->pid:[4026531836]"},
    )
