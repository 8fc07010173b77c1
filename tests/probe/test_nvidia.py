"""What NVIDIA cards are: through the real pynvml and a library that answers from a script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from standin import (
    GIB,
    MIB,
    Driver,
    a100,
    gb10,
    mig_host,
    mixed,
    names,
    only,
    orin,
    rtx_4090,
    script,
)

from conftest import plant
from nemofit.catalog.schema_gpus import validate
from nemofit.catalog.yaml_load import parse
from nemofit.machine.file import machine_from_json, machine_to_json
from nemofit.probe.nvidia import bus_id

RAM_TOTAL = 65543212 * 1024
RAM_AVAILABLE = 50331648 * 1024


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


def test_the_answer_is_a_machine_file(driver: Driver, root: Path) -> None:
    """What the probe gives can be saved and read again, sick and hidden cards included."""
    text = script(rtx_4090(0, compute=f"9:{GIB}"), rtx_4090(1, total=4), gb10(), rtx_4090(3))
    plain = driver.probe(text, root, {"CUDA_VISIBLE_DEVICES": "0,1,2"})
    assert plain["hidden_gpus"]
    assert json.loads(json.dumps(machine_to_json(machine_from_json(plain)))) == plain


@pytest.mark.parametrize("more", [{}, {"total": 0, "free": 0}])
def test_unified_memory(driver: Driver, root: Path, more: dict[str, object]) -> None:
    """NOT_SUPPORTED, or a total of 0, with no memory window: the host's memory, never 0."""
    gpu = only(driver.probe(script(gb10(**more)), root))
    assert gpu["shared"] is True
    assert (gpu["total_bytes"], gpu["free_bytes"]) == (RAM_TOTAL, RAM_AVAILABLE)
    assert gpu["pci_bus_id"] == "000f:01:00.0"
    assert gpu["pcie_gen"] is None
    assert gpu["error"] is None


def test_a_jetson(driver: Driver, root: Path) -> None:
    """Memory of its own is NOT_SUPPORTED, and so is nearly all else: one pool, the host's."""
    gpu = only(driver.probe(script(orin()), root))
    assert (gpu["shared"], gpu["total_bytes"]) == (True, RAM_TOTAL)
    assert gpu["free_bytes"] == RAM_AVAILABLE
    assert gpu["uuid"] is gpu["pci_bus_id"] is gpu["power_w"] is gpu["pcie_gen"] is None
    assert any(n.startswith("UUID, PCI address") for n in gpu["notes"])


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


def test_a_list_of_processes_that_cannot_be(driver: Driver, root: Path) -> None:
    """Bindings of driver branch 535 read other drivers' lists shifted: no such id exists."""
    garbled = f"99:{GIB} 4294967295:{GIB}"
    card = rtx_4090(compute=garbled, graphics=garbled, mps=garbled)
    gpu = only(driver.probe(script(card), root))
    assert gpu["holders"] == []
    assert any(n.startswith("processes: driver and binding disagree") for n in gpu["notes"])


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


def test_two_boards_of_one_name_and_id(driver: Driver, root: Path) -> None:
    """The RTX 5060 Ti of 8 and of 16 GB have one name and one PCI id; memory settles it."""
    text = script(
        *(
            rtx_4090(n, name="NVIDIA GeForce RTX 5060 Ti", pci_id=0x2D0410DE, capability="12.0",
                     total=mib * MIB, free=(mib - 900) * MIB, bus_bits=128, memory_mhz=14001)
            for n, mib in enumerate((8151, 16311))
        )
    )  # fmt: skip
    machine = driver.probe(text, root)
    assert [g["card_id"] for g in machine["gpus"]] == [
        "nvidia-geforce-rtx-5060-ti-8gb",
        "nvidia-geforce-rtx-5060-ti-16gb",
    ]


def test_a_laptop_has_its_own_entry(driver: Driver, root: Path) -> None:
    """The laptop's RTX 4090 is another chip with 16 GB and little more than half the bandwidth."""
    lines = rtx_4090(
        name="NVIDIA GeForce RTX 4090 Laptop GPU", pci_id=0x271710DE, total=16376 * MIB,
        free=15000 * MIB, bus_bits=256, memory_mhz=9001,
    )  # fmt: skip
    gpu = only(driver.probe(script(lines), root))
    assert gpu["bandwidth_gb_s"] == pytest.approx(576, rel=0.01)
    assert gpu["card_id"] == "nvidia-geforce-rtx-4090-laptop-gpu"


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("1", [1]),
        ("2,0", [2, 0]),
        ("GPU-00000002", [2]),
        ("GPU-00000001-8d3c-7a1e-2f6b-5c9d0e1f2a3b,GPU-00000000", [1, 0]),
        ("0,7,1", [0]),
        ("1,1", []),
        ("-1", []),
        ("", []),
        ("GPU-0000000", []),
        ("NoDevFiles", []),
    ],
)
def test_visible_devices(driver: Driver, root: Path, value: str, seen: list[int]) -> None:
    """What a run would see, by index, UUID and its beginning; the others are hidden, not lost."""
    text = script(rtx_4090(0), rtx_4090(1), rtx_4090(2))
    machine = driver.probe(text, root, {"CUDA_VISIBLE_DEVICES": value})
    assert [g["index"] for g in machine["gpus"]] == seen
    assert len(machine["hidden_gpus"]) == 3 - len(seen)
    assert any("CUDA_VISIBLE_DEVICES" in n for n in machine["notes"])


def test_a_link_that_sleeps(driver: Driver, root: Path) -> None:
    """The best generation is planned with, the present one is there and pointed out."""
    gpu = only(driver.probe(script(rtx_4090(pcie_gen_now=1)), root))
    assert (gpu["pcie_gen"], gpu["pcie_gen_now"], gpu["pcie_lanes_now"]) == (4, 1, 16)
    assert any("generation 1 of 4" in n for n in gpu["notes"])


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
