"""NVIDIA through the real pynvml and a real shared library that answers from a script."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from standin import GIB, MIB, Driver, rtx_4090, script

from conftest import plant
from nemofit.catalog.schema_gpus import validate
from nemofit.catalog.yaml_load import parse
from nemofit.machine.file import machine_from_json, machine_to_json
from nemofit.machine.records import Host
from nemofit.probe.nvidia import bus_id, read_nvidia
from nemofit.probe.site import Site

RAM_TOTAL = 65543212 * 1024
RAM_AVAILABLE = 50331648 * 1024


def a100(n: int = 0, **more: object) -> dict[str, object]:
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


def test_a_healthy_card(driver: Driver, root: Path) -> None:
    """Every field that the driver tells arrives in its unit."""
    machine = driver.probe(script(rtx_4090()), root)
    gpu = only(machine)
    assert machine["driver"] == "580.95.05"
    assert machine["cuda_version"] == "13.0"
    assert machine["notes"] == []
    assert gpu["name"] == "NVIDIA GeForce RTX 4090"
    assert gpu["uuid"] == "GPU-00000000-8d3c-7a1e-2f6b-5c9d0e1f2a3b"
    assert gpu["pci_bus_id"] == "0000:41:00.0"
    assert gpu["pci_id"] == "10de:2684"
    assert gpu["total_bytes"] == 24080 * MIB  # as CUDA prints it, less than the driver's 24203
    assert gpu["reserved_bytes"] == 361 * MIB
    assert gpu["free_bytes"] == 23028 * MIB
    assert gpu["compute_capability"] == "8.9"
    assert (gpu["pcie_gen"], gpu["pcie_lanes"]) == (4, 16)
    assert gpu["power_w"] == 450.0
    assert gpu["display"] is False
    assert gpu["bar1_bytes"] == 32 * GIB
    assert gpu["nvlink_links"] == 0
    assert (gpu["shared"], gpu["virtual"], gpu["error"]) == (False, False, None)


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


def test_one_card_hangs(start: Callable[..., Driver], root: Path) -> None:
    """The healthy cards are all there, the hung one says so."""
    sick = rtx_4090(1, **{"hang.nvmlDeviceGetMemoryInfo_v2": 1})
    text = script(rtx_4090(0), sick, rtx_4090(2), rtx_4090(3))
    machine = start("new").probe(text, root, deadline_s=0.5)
    assert [g["total_bytes"] is not None for g in machine["gpus"]] == [True, False, True, True]
    assert "did not answer" in machine["gpus"][1]["error"]


def test_shutdown_hangs(start: Callable[..., Driver], root: Path) -> None:
    """What was read is not lost to a driver that does not let go."""
    text = script(rtx_4090(), **{"hang.nvmlShutdown": 1})
    assert only(start("new").probe(text, root, deadline_s=0.3))["total_bytes"]


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


def test_the_answer_is_a_machine_file(driver: Driver, root: Path) -> None:
    """What the probe gives can be saved and read again, sick and hidden cards included."""
    text = script(rtx_4090(0, compute=f"9:{GIB}"), rtx_4090(1, total=4), gb10(), rtx_4090(3))
    plain = driver.probe(text, root, {"CUDA_VISIBLE_DEVICES": "0,1,2"})
    assert plain["hidden_gpus"]
    assert json.loads(json.dumps(machine_to_json(machine_from_json(plain)))) == plain


def test_a_card_vanishes_between_two_calls(driver: Driver, root: Path) -> None:
    """The driver counts two, and the second is gone when it is asked for."""
    machine = driver.probe(script(rtx_4090(), count=2), root)
    assert machine["gpus"][0]["error"] is None
    assert machine["gpus"][1]["error"] is not None


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


@pytest.mark.parametrize("more", [{}, {"total": 0, "free": 0}])
def test_unified_memory(driver: Driver, root: Path, more: dict[str, object]) -> None:
    """NOT_SUPPORTED, or a total of 0, with no memory window: the host's memory, never 0."""
    gpu = only(driver.probe(script(gb10(**more)), root))
    assert gpu["shared"] is True
    assert (gpu["total_bytes"], gpu["free_bytes"]) == (RAM_TOTAL, RAM_AVAILABLE)
    assert gpu["pci_bus_id"] == "000f:01:00.0"
    assert gpu["pcie_gen"] is None
    assert gpu["error"] is None


def test_memory_not_supported_on_a_card_of_its_own(driver: Driver, root: Path) -> None:
    """A card that has a memory window is not taken for unified memory."""
    card = rtx_4090(name="NVIDIA Something New", pci_id=0)
    for key in ("total", "free", "reserved"):
        del card[key]
    gpu = only(driver.probe(script(card), root))
    assert gpu["shared"] is False
    assert gpu["total_bytes"] is None
    assert "memory: the driver does not report it" in "; ".join(gpu["notes"])


def test_memory_not_supported_on_a_known_card(driver: Driver, root: Path) -> None:
    """The table knows what such a card offers; what is free stays unknown."""
    card = rtx_4090()
    for key in ("total", "free", "reserved"):
        del card[key]
    gpu = only(driver.probe(script(card), root))
    assert (gpu["total_bytes"], gpu["free_bytes"]) == (24080 * MIB, None)
    assert "from the card table" in "; ".join(gpu["notes"])


def test_coherent_memory_is_counted_once(driver: Driver, root: Path) -> None:
    """On a GH200 the kernel counts the card's memory as RAM of a node without processors."""
    node = "/sys/devices/system/node/node1"
    plant(
        root,
        {
            f"{node}/meminfo": "Node 1 MemTotal:       33554432 kB\nNode 1 MemFree:  16777216 kB\n",
            f"{node}/cpulist": "\n",
            "/sys/devices/system/node/node0/cpulist": "0-71\n",
        },
    )
    machine = driver.probe(script(rtx_4090(numa=1)), root)
    assert only(machine)["numa_node"] == 1
    assert machine["host"]["ram_total_bytes"] == RAM_TOTAL - 32 * GIB
    assert machine["host"]["ram_available_bytes"] == RAM_AVAILABLE - 16 * GIB
    assert machine["host"]["numa_nodes"] == 1


def test_a_card_in_the_processors_own_node(driver: Driver, root: Path) -> None:
    """A node with processors is the host's memory, whatever card lies near it."""
    node = "/sys/devices/system/node/node0"
    plant(root, {f"{node}/meminfo": "Node 0 MemTotal: 33554432 kB\n", f"{node}/cpulist": "0-7\n"})
    machine = driver.probe(script(rtx_4090(numa=0)), root)
    assert machine["host"]["ram_total_bytes"] == RAM_TOTAL


def test_mig_shows_one_slice(driver: Driver, root: Path) -> None:
    """CUDA gives a process one slice and no other device; the rest is there, hidden."""
    machine = driver.probe(mig_host(), root)
    gpu = only(machine)
    assert gpu["name"] == "NVIDIA A100-SXM4-80GB MIG 3g.40gb"
    assert gpu["mig_profile"] == "3g.40gb"
    assert gpu["total_bytes"] == 40192 * MIB
    assert gpu["parent_uuid"] == "GPU-00000000-8d3c-7a1e-2f6b-5c9d0e1f2a3b"
    assert gpu["compute_capability"] == "8.0"
    assert gpu["cores"] == 42 * 64
    hidden = {g["name"]: g["notes"][-1] for g in machine["hidden_gpus"]}
    assert set(hidden) == {"NVIDIA A100-SXM4-80GB MIG 1g.10gb", "NVIDIA A100-SXM4-80GB"}
    assert all("one MIG slice" in why for why in hidden.values())


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("MIG-00000001-5b9e-5f10-9f5e-b7a4c0d1e2f3", ["NVIDIA A100-SXM4-80GB MIG 1g.10gb"]),
        ("MIG-00000001", ["NVIDIA A100-SXM4-80GB MIG 1g.10gb"]),
        ("MIG-GPU-00000000-8d3c-7a1e-2f6b-5c9d0e1f2a3b/8/0", ["NVIDIA A100-SXM4-80GB MIG 1g.10gb"]),
        ("MIG-GPU-00000000-8d3c-7a1e-2f6b-5c9d0e1f2a3b/9/0", []),
        ("1", ["NVIDIA A100-SXM4-80GB"]),
        ("0", ["NVIDIA A100-SXM4-80GB MIG 3g.40gb"]),
        ("GPU-00000001", ["NVIDIA A100-SXM4-80GB"]),
        ("", []),
    ],
)
def test_mig_and_visible_devices(driver: Driver, root: Path, value: str, seen: list[str]) -> None:
    """Slices by UUID, by its beginning, by the old form; cards by index and UUID."""
    machine = driver.probe(mig_host(), root, {"CUDA_VISIBLE_DEVICES": value})
    assert names(machine) == seen
    assert len(machine["gpus"]) + len(machine["hidden_gpus"]) == 3


def test_mig_without_privileges(driver: Driver, root: Path) -> None:
    """The card itself is denied; its slices answer for themselves."""
    denied = {
        f"fail.nvmlDevice{name}": 4
        for name in ("GetMemoryInfo", "GetMemoryInfo_v2", "GetPowerManagementLimit")
    }
    gpu = only(driver.probe(mig_host(**denied), root))
    assert gpu["free_bytes"] == 40180 * MIB
    assert gpu["error"] is None


def test_mig_whose_slices_are_denied(driver: Driver, root: Path) -> None:
    """A slice whose memory is denied says so instead of borrowing the host's."""
    text = mig_host().replace("total = 42144366592", "fail.nvmlDeviceGetMemoryInfo = 4")
    machine = driver.probe(text, root, {"CUDA_VISIBLE_DEVICES": "0"})
    gpu = only(machine)
    assert gpu["total_bytes"] is None
    assert gpu["shared"] is False
    assert "memory cannot be read" in gpu["error"]


def test_mig_without_slices(driver: Driver, root: Path) -> None:
    """MIG on and nothing made: the command that makes a slice."""
    gpu = only(driver.probe(script(a100(mig=1, mig_max=7)), root))
    assert "nvidia-smi mig -cgi" in gpu["error"]


def test_vgpu(driver: Driver, root: Path) -> None:
    """A virtual card is known as one; what it does not tell stays unknown."""
    card = rtx_4090(name="NVIDIA A40-24Q", virtualization=2)
    for key in ("milliwatts", "pcie_gen", "pcie_lanes", "pcie_lanes_now", "compute", "graphics"):
        del card[key]
    del card["mps"]
    gpu = only(driver.probe(script(card), root))
    assert gpu["virtual"] is True
    assert (gpu["power_w"], gpu["pcie_gen"], gpu["holders"]) == (None, None, [])
    notes = "; ".join(gpu["notes"])
    assert "power limit" in notes
    assert "processes" in notes


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


def test_holders(driver: Driver, root: Path) -> None:
    """Named, largest first, once each; sizes that cannot be are unknown."""
    plant(root, {"/proc/4321/comm": "firefox\n", "/proc/99/comm": "llama-server\n"})
    card = rtx_4090(
        compute=f"99:{6 * GIB} 5:{(1 << 64) - 1} 6:{900 * GIB}",
        graphics=f"4321:{1331 * MIB} 99:{6 * GIB}",
    )
    gpu = only(driver.probe(script(card), root))
    assert gpu["holders"][:2] == [
        {"pid": 99, "name": "llama-server", "bytes": 6 * GIB},
        {"pid": 4321, "name": "firefox", "bytes": 1331 * MIB},
    ]
    assert [(h["pid"], h["bytes"]) for h in gpu["holders"][2:]] == [(5, None), (6, None)]


def test_holders_in_a_container(driver: Driver, root: Path) -> None:
    """Process ids are the host's there: a name from the container would be someone else's."""
    plant(root, {"/proc/99/comm": "innocent\n"})
    (root / "proc/self/ns/pid").unlink()
    (root / "proc/self/ns/pid").symlink_to("pid:[4026532281]")
    gpu = only(driver.probe(script(rtx_4090(compute=f"99:{GIB}")), root))
    assert gpu["holders"] == [{"pid": 99, "name": None, "bytes": GIB}]


def test_processes_unsupported(driver: Driver, root: Path) -> None:
    """No list is unknown, not empty."""
    card = rtx_4090()
    for key in ("compute", "graphics", "mps"):
        del card[key]
    gpu = only(driver.probe(script(card), root))
    assert gpu["holders"] == []
    assert "processes: the driver does not report it" in gpu["notes"]


def test_same_name_different_memory(driver: Driver, root: Path) -> None:
    """Each card has its own memory, whatever the names."""
    text = script(
        rtx_4090(0, name="NVIDIA A100-PCIE", total=40 * GIB, reserved=0, free=39 * GIB),
        rtx_4090(1, name="NVIDIA A100-PCIE", total=80 * GIB, reserved=0, free=79 * GIB),
    )
    machine = driver.probe(text, root)
    assert [g["total_bytes"] for g in machine["gpus"]] == [40 * GIB, 80 * GIB]


def test_a_narrow_slot(driver: Driver, root: Path) -> None:
    """The best link is planned with, the present one is pointed out."""
    gpu = only(driver.probe(script(rtx_4090(pcie_lanes_now=4)), root))
    assert gpu["pcie_lanes"] == 16
    assert any("4 of 16 lanes" in n for n in gpu["notes"])


@pytest.mark.parametrize(("active", "links"), [(12, 12), (0, 0), (None, 0)])
def test_nvlink(driver: Driver, root: Path, active: int | None, links: int) -> None:
    """Active links are counted; NOT_SUPPORTED is none."""
    card = rtx_4090(**({} if active is None else {"nvlinks": active}))
    assert only(driver.probe(script(card), root))["nvlink_links"] == links


def test_display(driver: Driver, root: Path) -> None:
    """The card that drives a screen is known."""
    assert only(driver.probe(script(rtx_4090(display=1)), root))["display"] is True


def mixed() -> str:
    """A slow card on the first slot, a fast one on the second."""
    slow = rtx_4090(0, name="NVIDIA GeForce GTX 1070", cores=1920, sm_mhz=1911, capability="6.1")
    return script(slow, rtx_4090(1))


def test_mixed_cards_in_cudas_order(driver: Driver, root: Path) -> None:
    """CUDA counts the fastest first, NVML by slot; the difference is pointed out."""
    machine = driver.probe(mixed(), root, {"CUDA_VISIBLE_DEVICES": "0"})
    assert names(machine) == ["NVIDIA GeForce RTX 4090"]
    assert any("CUDA_DEVICE_ORDER=PCI_BUS_ID" in n for n in machine["notes"])


def test_mixed_cards_in_bus_order(driver: Driver, root: Path) -> None:
    """With PCI_BUS_ID indices are nvidia-smi's."""
    environ = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    machine = driver.probe(mixed(), root, environ)
    assert names(machine) == ["NVIDIA GeForce GTX 1070"]
    assert machine["notes"] == [
        "CUDA_VISIBLE_DEVICES='0' shows a run 1 of 2 NVIDIA devices",
    ]
    assert machine["hidden_gpus"][0]["notes"][-1] == "hidden by CUDA_VISIBLE_DEVICES='0'"


@pytest.mark.parametrize(
    ("card", "published"),
    [
        # Bus width and memory clock as nvidia-smi -q shows them; bandwidth from the data sheets.
        ((384, 10501), 1008),  # GeForce RTX 4090
        ((384, 9751), 936),  # GeForce RTX 3090
        ((512, 14001), 1792),  # GeForce RTX 5090
        ((256, 4004), 256),  # GeForce GTX 1070
        ((5120, 1215), 1555),  # A100 40GB
        ((5120, 2619), 3352),  # H100 SXM5
        ((4096, 715), 732),  # Tesla P100
    ],
)
def test_bandwidth_of_an_unknown_card(
    driver: Driver, root: Path, card: tuple[int, int], published: float
) -> None:
    """Bus width times clock gives what the data sheet says."""
    lines = rtx_4090(name="NVIDIA Unheard Of", pci_id=0, bus_bits=card[0], memory_mhz=card[1])
    gpu = only(driver.probe(script(lines), root))
    assert gpu["card_id"] is None
    assert gpu["bandwidth_gb_s"] == pytest.approx(published, rel=0.002)


def test_a_known_card_has_its_published_figures(driver: Driver, root: Path) -> None:
    """Name, PCI id and memory lead to the card's entry."""
    gpu = only(driver.probe(script(rtx_4090()), root))
    assert gpu["card_id"] == "nvidia-geforce-rtx-4090"
    assert gpu["bandwidth_gb_s"] == 1008
    assert gpu["fp32_tflops"] == pytest.approx(82.58)
    assert gpu["notes"] == []


def test_a_rebuilt_card_is_unknown(driver: Driver, root: Path) -> None:
    """Twice the memory under the same name is not the card of the table."""
    gpu = only(driver.probe(script(rtx_4090(total=49140 * MIB, free=48000 * MIB)), root))
    assert gpu["card_id"] is None
    assert gpu["total_bytes"] == (49140 - 361) * MIB
    assert gpu["bandwidth_gb_s"] == pytest.approx(1008, rel=0.002)


def test_the_line_for_an_unknown_card(driver: Driver, root: Path) -> None:
    """What the note says to add is a card that the table takes, and then finds."""
    lines = rtx_4090(name="NVIDIA Unheard Of", pci_id=0)
    gpu = only(driver.probe(script(lines), root))
    entry = gpu["notes"][-1].partition("your gpus.yaml: ")[2]
    checked = validate(parse(f"gpus:\n  {entry}\n".encode(), "gpus.yaml"), "gpus.yaml")
    card = checked["nvidia-unheard-of"]
    assert isinstance(card, dict)
    assert (card["name"], card["memory_gb"]) == ("NVIDIA Unheard Of", 24)
    assert card["bandwidth_gb_s"] == pytest.approx(1008, rel=0.002)


def test_a_slice_has_its_share_of_the_cards_figures(driver: Driver, root: Path) -> None:
    """1g.10gb: one eighth of the memory and its paths, 14 of 108 multiprocessors."""
    environ = {"CUDA_VISIBLE_DEVICES": "MIG-00000001"}
    gpu = only(driver.probe(mig_host(), root, environ))
    assert gpu["card_id"] == "nvidia-a100-sxm4-80gb"
    assert gpu["bandwidth_gb_s"] == pytest.approx(2039 * 9728 / 81920, rel=0.001)
    assert gpu["fp16_tflops"] == pytest.approx(312 * 14 / 108, rel=0.002)


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


def test_bus_ids_match_sysfs() -> None:
    """NVML writes eight digits of domain in capitals, sysfs four in small letters."""
    assert bus_id("00000000:1A:00.0") == "0000:1a:00.0"
    assert bus_id("00010000:3B:00.0") == "00010000:3b:00.0"


@pytest.mark.skipif(sys.platform != "linux", reason="reads this machine's own /proc")
def test_this_machine() -> None:
    """The real edge answers here, whatever is here."""
    import nemofit

    machine = nemofit.probe_machine()
    assert machine.source == "probe"
    assert machine.host.ram_total_bytes is not None
    assert all(g.error or g.total_bytes for g in machine.gpus)
