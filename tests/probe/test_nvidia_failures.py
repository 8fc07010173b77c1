"""What goes wrong with NVIDIA's driver: every failure gives an answer, the healthy cards intact."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from standin import GIB, MIB, Driver, only, rtx_4090, script

from conftest import plant
from nemofit.machine.records import Host
from nemofit.probe.nvidia import read_nvidia
from nemofit.probe.site import Site


def test_no_library(start: Callable[..., Driver], root: Path) -> None:
    """A machine without the driver is a machine without cards, said in a note."""
    machine = start("none").probe("", root)
    assert machine["gpus"] == []
    assert "no driver library" in machine["notes"][0]


def test_no_library_but_a_card(start: Callable[..., Driver], root: Path) -> None:
    """A card on the bus that no driver serves is named."""
    base = "/sys/bus/pci/devices/0000:01:00.0"
    plant(
        root,
        {
            f"{base}/vendor": "0x10de\n",
            f"{base}/device": "0x2684\n",
            f"{base}/class": "0x030000\n",
            "/usr/share/misc/pci.ids": "# list\n1002  AMD\n\t2684  Wrong\n10de  NVIDIA\n"
            "\t2684  AD102 [GeForce RTX 4090]\n\t\t10de 16f4  sub\n10df  Emulex\n",
        },
    )
    machine = start("none").probe("", root)
    (hidden,) = machine["hidden_gpus"]
    assert hidden["name"] == "NVIDIA GeForce RTX 4090"
    assert "no driver" in hidden["notes"][-1]


def test_a_library_that_is_none(start: Callable[..., Driver], root: Path) -> None:
    """A file that cannot be loaded is told apart from no file."""
    machine = start("broken").probe("", root)
    assert machine["gpus"] == []
    assert "cannot be loaded" in machine["notes"][0]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (9, "not loaded"),
        (4, "no permission"),
        (17, "blocks"),
        (18, "needs a restart"),
        (12, "no driver library"),
        (13, "too old"),
        (999, "unknown error"),
        (4711, "code 4711"),
    ],
)
def test_initialization_fails(driver: Driver, root: Path, code: int, said: str) -> None:
    """Each way to fail has its own words."""
    machine = driver.probe(script(rtx_4090(), **{"fail.nvmlInitWithFlags": code}), root)
    assert machine["gpus"] == []
    assert said in machine["notes"][0]


def test_mismatch_names_the_module(driver: Driver, root: Path) -> None:
    """After an upgrade the loaded kernel module is the other half of the story."""
    plant(
        root,
        {
            "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64"
            "  570.133.20  Release Build  (dvs-builder@U22)  Wed Mar 19\nGCC version:  gcc 12\n"
        },
    )
    machine = driver.probe(script(**{"fail.nvmlInitWithFlags": 18}), root)
    assert "570.133.20" in machine["notes"][0]


def test_initialization_hangs(start: Callable[..., Driver], root: Path) -> None:
    """A driver that never answers is given up after the time limit."""
    machine = start("new").probe(script(**{"hang.nvmlInitWithFlags": 1}), root, deadline_s=0.2)
    assert machine["gpus"] == []
    assert "did not answer within 0.2 s" in machine["notes"][0]


def warm(start: Callable[..., Driver], root: Path) -> Driver:
    """A process that has loaded everything, so that only the hanging call takes time."""
    driver = start("new")
    driver.probe(script(rtx_4090()), root)
    return driver


def test_one_card_hangs(start: Callable[..., Driver], root: Path) -> None:
    """The healthy cards are all there, the hung one says so."""
    sick = rtx_4090(1, **{"hang.nvmlDeviceGetMemoryInfo_v2": 1})
    text = script(rtx_4090(0), sick, rtx_4090(2), rtx_4090(3))
    machine = warm(start, root).probe(text, root, deadline_s=2)
    assert [g["total_bytes"] is not None for g in machine["gpus"]] == [True, False, True, True]
    assert "did not answer" in machine["gpus"][1]["error"]


def test_shutdown_hangs(start: Callable[..., Driver], root: Path) -> None:
    """What was read is not lost to a driver that does not let go."""
    text = script(rtx_4090(), **{"hang.nvmlShutdown": 1})
    assert only(warm(start, root).probe(text, root, deadline_s=1.5))["total_bytes"]


def test_no_cards(driver: Driver, root: Path) -> None:
    """A container without its cards gets the hint."""
    machine = driver.probe(script(), root)
    assert machine["gpus"] == []
    assert "--gpus all" in machine["notes"][0]


def test_the_count_is_denied(driver: Driver, root: Path) -> None:
    """The reason is kept, and the driver's version."""
    machine = driver.probe(script(rtx_4090(), **{"fail.nvmlDeviceGetCount_v2": 4}), root)
    assert machine["gpus"] == []
    assert machine["driver"] == "580.95.05"
    assert "number of cards: no permission" in machine["notes"][0]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"fail.nvmlDeviceGetHandleByIndex_v2": 15}, "lost"),
        ({"fail.nvmlDeviceGetHandleByIndex_v2": 4}, "no permission"),
        ({"fail.nvmlDeviceGetHandleByIndex_v2": 6}, "not found"),
        ({"lost_after": "nvmlDeviceGetUUID"}, "lost"),
        ({"lost_after": "nvmlDeviceGetMemoryInfo_v2"}, "lost"),
        ({"fail.nvmlDeviceGetDisplayActive": 16}, "reset"),
        ({"fail.nvmlDeviceGetMemoryInfo": 999, "fail.nvmlDeviceGetMemoryInfo_v2": 999}, "unknown"),
        ({"fail.nvmlDeviceGetMemoryInfo": 4, "fail.nvmlDeviceGetMemoryInfo_v2": 4}, "permission"),
        ({"free": 30000 * MIB}, "nonsensical"),
    ],
)
def test_one_of_four_is_sick(
    driver: Driver, root: Path, trouble: dict[str, object], said: str
) -> None:
    """Three healthy cards are complete, the sick one has no memory and says why."""
    text = script(rtx_4090(0), rtx_4090(1), rtx_4090(2, **trouble), rtx_4090(3))
    machine = driver.probe(text, root)
    healthy = [g for g in machine["gpus"] if g["error"] is None]
    (sick,) = [g for g in machine["gpus"] if g["error"] is not None]
    assert [g["index"] for g in healthy] == [0, 1, 3]
    assert all(g["free_bytes"] == 23028 * MIB for g in healthy)
    assert said in sick["error"]
    assert (sick["index"], sick["total_bytes"], sick["free_bytes"]) == (2, None, None)


def test_a_lost_card_keeps_its_name(driver: Driver, root: Path) -> None:
    """What was read before it was lost says which card it is."""
    gpu = only(driver.probe(script(rtx_4090(lost_after="nvmlDeviceGetPciInfo_v3")), root))
    assert gpu["name"] == "NVIDIA GeForce RTX 4090"
    assert gpu["pci_bus_id"] == "0000:41:00.0"


def test_a_card_vanishes_between_two_calls(driver: Driver, root: Path) -> None:
    """The driver counts two, and the second is gone when it is asked for."""
    machine = driver.probe(script(rtx_4090(), count=2), root)
    assert machine["gpus"][0]["error"] is None
    assert machine["gpus"][1]["error"] is not None


def test_a_name_that_is_not_text(driver: Driver, root: Path) -> None:
    """Bytes that are not UTF-8 cost the name, not the card."""
    gpu = only(driver.probe(script(rtx_4090(name="NVIDIA \xff\xfe")), root))
    assert gpu["name"] == "NVIDIA GPU 0"
    assert gpu["free_bytes"] == 23028 * MIB
    assert gpu["card_id"] == "nvidia-geforce-rtx-4090"  # by its PCI id


def test_an_old_driver(start: Callable[..., Driver], root: Path) -> None:
    """Symbols that are missing leave their fields unknown; memory comes from the first version."""
    card = rtx_4090(compute="77:1073741824")
    gpu = only(start("old").probe(script(card), root))
    assert 23000 * MIB < gpu["total_bytes"] <= 24080 * MIB
    assert gpu["free_bytes"] == 23028 * MIB
    assert gpu["reserved_bytes"] is None
    assert gpu["cores"] is None
    assert gpu["holders"] == [{"pid": 77, "name": None, "bytes": GIB}]
    assert any("reserved memory" in n for n in gpu["notes"])


@pytest.mark.parametrize("code", [2, 3, 13, 25])
def test_the_second_memory_structure_is_refused(driver: Driver, root: Path, code: int) -> None:
    """A driver that knows only the first version still tells total and free."""
    card = rtx_4090(**{"fail.nvmlDeviceGetMemoryInfo_v2": code})
    gpu = only(driver.probe(script(card), root))
    assert (gpu["free_bytes"], gpu["reserved_bytes"]) == (23028 * MIB, None)


def test_the_binding_is_missing(start: Callable[..., Driver], root: Path, tmp_path: Path) -> None:
    """Without pynvml the note says what to install."""
    packages = tmp_path / "packages"
    plant(packages, {"pynvml.py": "raise ImportError('not here')\n"})
    machine = start("new", packages).probe(script(rtx_4090()), root)
    assert machine["gpus"] == []
    assert "pip install nvidia-ml-py" in machine["notes"][0]


class _Refused(Exception):
    value = 3


def _old_binding() -> ModuleType:
    """A binding of before 2021: bytes instead of str, no versions of structures."""
    nvml = ModuleType("pynvml")
    pci = type("Pci", (), {"busId": b"00000000:1A:00.0", "pciDeviceId": 0x1B8110DE})
    memory = type("Memory", (), {"total": 8 * GIB, "free": 7 * GIB})

    def refuse(*_: object) -> None:
        raise _Refused

    answers: dict[str, object] = {
        "nvmlSystemGetDriverVersion": lambda: b"418.87",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 10010,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda n: n,
        "nvmlDeviceGetName": lambda h: b"GeForce GTX 1070",
        "nvmlDeviceGetUUID": lambda h: b"GPU-6f0c",
        "nvmlDeviceGetPciInfo": lambda h: pci,
        "nvmlDeviceGetCudaComputeCapability": lambda h: (6, 1),
        "nvmlDeviceGetMemoryInfo": lambda h: memory,
        "nvmlDeviceGetPowerManagementLimit": refuse,
        "nvmlShutdown": lambda: None,
        "NVMLError": _Refused,
    }
    for name, answer in answers.items():
        setattr(nvml, name, answer)
    return nvml


def test_an_old_binding() -> None:
    """Bytes become text; functions that are missing leave their fields unknown."""
    found = read_nvidia(Site(root=os.devnull), Host(), _old_binding)
    (gpu,) = found.gpus
    assert (gpu.name, gpu.uuid) == ("GeForce GTX 1070", "GPU-6f0c")
    assert (gpu.pci_bus_id, gpu.pci_id) == ("0000:1a:00.0", "10de:1b81")
    assert gpu.free_bytes == 7 * GIB
    assert (found.driver, found.cuda_version) == ("418.87", "10.1")


def test_a_binding_that_breaks() -> None:
    """Whatever a binding raises stays inside."""

    def explode() -> ModuleType:
        raise RuntimeError("surprise")

    found = read_nvidia(Site(root=os.devnull), Host(), explode)
    assert found.gpus == ()
    assert "surprise" in found.notes[0]


def test_the_table_of_cases_in_the_documentation() -> None:
    """Every case names a test that there is, and there are at least thirty."""
    here = Path(__file__).parent
    written = "".join(p.read_text() for p in here.glob("test_nvidia*.py"))
    page = (here.parents[1] / "docs" / "probing.md").read_text(encoding="utf-8")
    cases = re.findall(r"^\| (\d+) \|.*\| `(test_\w+)` \|$", page, re.MULTILINE)
    assert [int(n) for n, _ in cases] == list(range(1, len(cases) + 1))
    assert len(cases) >= 30
    assert not [name for _, name in cases if f"def {name}(" not in written]
