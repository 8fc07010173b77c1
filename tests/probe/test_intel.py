"""Intel cards: sysfs under a fake root, the kernel's queries through a preloaded ioctl()."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from standin import compiler

from conftest import Files
from nemofit.machine.records import Host
from nemofit.probe import intel, probe
from nemofit.probe.intel import Region, read_intel
from nemofit.probe.site import Site

MIB, GIB = 1 << 20, 1 << 30
HOST = Host(ram_total_bytes=62 * GIB, ram_available_bytes=48 * GIB)
MakeSite = Callable[..., Site]
SOURCE = Path(__file__).parent / "fake_drm" / "ioctl.c"
A770 = 16256 * MIB  # what the kernel shows of 16 GiB

# What the kernel is made to answer, and what must be read: (driver, answer, regions or errno).
CASES: list[tuple[str, str, object]] = [
    ("xe", f"0:{62 * GIB}:{4 * GIB} 1:{A770}:{900 * MIB}", [
        [False, 62 * GIB, 58 * GIB], [True, A770, A770 - 900 * MIB]]),
    ("xe", f"0:{62 * GIB}:0 1:{A770}:0", [[False, 62 * GIB, None], [True, A770, None]]),
    ("xe", f"0:{62 * GIB}:{GIB}", [[False, 62 * GIB, 61 * GIB]]),
    ("xe", f"0:{GIB}:1 1:{A770}:1 1:{A770}:1", [
        [False, GIB, GIB - 1], [True, A770, A770 - 1], [True, A770, A770 - 1]]),
    ("i915", f"0:{62 * GIB}:{58 * GIB} 1:{A770}:{15000 * MIB}", [
        [False, 62 * GIB, 58 * GIB], [True, A770, 15000 * MIB]]),
    ("i915", f"0:{62 * GIB}:{62 * GIB} 1:{A770}:{A770}", [
        [False, 62 * GIB, None], [True, A770, None]]),
    ("xe", "errno 13", 13),
    ("i915", "errno 13", 13),
    ("i915", "errno 19", 19),
]  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Every case, asked in one process that has the answering ioctl() preloaded."""
    if compiler() is None:
        pytest.skip("no C compiler on Linux: the kernel's answers cannot be imitated")
    folder = tmp_path_factory.mktemp("drm")
    library, render = folder / "ioctl.so", folder / "renderD128"
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE]
    subprocess.run(command, check=True)
    render.touch()
    code = (
        "import json, os, sys\n"
        "from nemofit.probe.intel import query\n"
        "for driver, answer in json.load(sys.stdin):\n"
        "    os.environ['NEMOFIT_FAKE_DRM'] = answer\n"
        f"    try: r = [[x.on_card, x.total, x.free] for x in query({str(render)!r}, driver)]\n"
        "    except OSError as e: r = e.errno\n"
        "    print(json.dumps(r))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([c[:2] for c in CASES]),
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_kernels_answers(answers: list[object], case: int) -> None:
    """Numbers and layouts as a C compiler sees the kernel's headers; hidden use is unknown."""
    assert answers[case] == CASES[case][2]


def card(driver: str = "xe", device: str = "0x56a0", number: int = 0, bus: str = "03") -> Files:
    base = f"/sys/class/drm/card{number}/device"
    return {
        f"{base}/vendor": "0x8086\n",
        f"{base}/device": device + "\n",
        f"{base}/uevent": f"DRIVER={driver}\nPCI_SLOT_NAME=0000:{bus}:00.0\n",
        f"{base}/drm/renderD{128 + number}/dev": "226:128\n",
        f"{base}/max_link_speed": "16.0 GT/s PCIe\n",
        f"{base}/max_link_width": "16\n",
        "/usr/share/misc/pci.ids": "8086  Intel Corporation\n\t56a0  DG2 [Arc A770]\n"
        "\t9a49  TigerLake-LP GT2 [Iris Xe Graphics]\n",
    }


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Decide what the queries answer, by render node."""

    def answer(**by_node: list[Region] | OSError) -> None:
        def query(path: str, driver: str) -> list[Region]:
            found = by_node[os.path.basename(path)]
            if isinstance(found, OSError):
                raise found
            return found

        monkeypatch.setattr(intel, "query", query)

    return answer


def test_an_arc_card(site: MakeSite, kernel: Callable[..., None]) -> None:
    """Its own memory, its name from the system's list, its figures from the table."""
    kernel(renderD128=[Region(False, 62 * GIB, None), Region(True, A770, A770 - GIB)])
    (gpu,) = probe(site(card())).gpus
    assert gpu.name == "Intel Arc A770"
    assert (gpu.total_bytes, gpu.shared, gpu.backend) == (15473 * MIB, False, "sycl")
    assert (gpu.pci_bus_id, gpu.pcie_gen, gpu.pcie_lanes) == ("0000:03:00.0", 4, 16)
    assert gpu.bandwidth_gb_s == 560


def test_use_is_hidden(site: MakeSite, kernel: Callable[..., None]) -> None:
    """Without the permission free memory is unknown, with the reason."""
    kernel(renderD128=[Region(True, A770, None)])
    (gpu,) = read_intel(site(card()), HOST).visible
    assert (gpu.total_bytes, gpu.free_bytes) == (A770, None)
    assert "CAP_PERFMON" in gpu.notes[0]


def test_the_node_may_not_be_opened(site: MakeSite, kernel: Callable[..., None]) -> None:
    """The group to join; the table knows how much memory such a card has."""
    kernel(renderD128=PermissionError(13, "Permission denied"))
    (gpu,) = probe(site(card())).gpus
    assert "join the group render" in gpu.notes[0]
    assert (gpu.total_bytes, gpu.free_bytes) == (15473 * MIB, None)


def test_integrated_graphics_of_which_nothing_is_known(
    site: MakeSite, kernel: Callable[..., None]
) -> None:
    """Only system memory: the host's, once; without figures the processor is planned for."""
    kernel(renderD128=[Region(False, 15 * GIB, None)])
    files = card("i915", "0x9a49", bus="00")
    (gpu,) = read_intel(site(files), HOST).visible
    assert (gpu.shared, gpu.total_bytes, gpu.free_bytes) == (True, 62 * GIB, 48 * GIB)
    machine = probe(site(files))
    assert machine.gpus == ()
    assert "no figures known" in machine.hidden_gpus[0].notes[-1]


def test_selection(site: MakeSite, kernel: Callable[..., None]) -> None:
    """ZE_AFFINITY_MASK counts cards with memory of their own first."""
    kernel(renderD128=[Region(False, GIB, None)], renderD129=[Region(True, A770, None)])
    files = {**card("i915", "0x9a49", 0, "00"), **card("xe", "0x56a0", 1, "03")}
    view = read_intel(site(files, ZE_AFFINITY_MASK="0"), HOST)
    assert [g.pci_id for g in view.visible] == ["8086:56a0"]


def test_another_driver(site: MakeSite) -> None:
    """A card that is passed through to a guest has no driver to ask."""
    (gpu,) = read_intel(site(card("vfio-pci")), HOST).visible
    assert "vfio-pci" in (gpu.error or "")
