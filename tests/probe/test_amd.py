"""AMD cards out of sysfs files with the values of real machines; each says where they are from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conftest import MEMINFO, Files
from nemofit.machine.records import Gpu, Host
from nemofit.probe import probe
from nemofit.probe.amd import read_amd
from nemofit.probe.site import Site

MIB, GIB = 1 << 20, 1 << 30
HOST = Host(ram_total_bytes=122 * GIB, ram_available_bytes=118 * GIB)
MakeSite = Callable[..., Site]
CARD, APU = b"\x80\x00\x01\x03", b"\x08\x01\x03\x00"  # heads of gpu_metrics v1.3 and v3.0
# As libdrm's data/amdgpu.ids writes them.
IDS = "1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n744C,\tCC,\tAMD Radeon RX 7900 XT\n"


def card(address: str = "0000:03:00.0", number: int = 0, **content: str | bytes) -> Files:
    """One card's folder under /sys/class/drm."""
    base = f"/sys/class/drm/card{number}/device"
    files: Files = {
        "vendor": "0x1002\n",
        "uevent": f"DRIVER=amdgpu\nPCI_ID=1002:0000\nPCI_SLOT_NAME={address}\n",
        **content,
    }
    return {f"{base}/{name}": text for name, text in files.items()}


def node(order: int, location: int, gfx: int, bank: int, simds: int = 192) -> Files:
    """A GPU in the KFD topology, and its memory as ROCm sees it."""
    base = f"/sys/class/kfd/kfd/topology/nodes/{order}"
    return {
        f"{base}/properties": f"cpu_cores_count 0\nsimd_count {simds}\nmem_banks_count 1\n"
        f"simd_per_cu 2\ngfx_target_version {gfx}\nvendor_id 4098\nlocation_id {location}\n"
        "domain 0\ndrm_render_minor 128\nlocal_mem_size 0\n",
        f"{base}/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {bank}\nflags 0\n",
        "/sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 32\nsimd_count 0\n",
    }


def rx_7900_xtx(number: int = 0, bus: int = 3, **more: str | bytes) -> Files:
    """ilya-zlobintsev/LACT pull request 533: 1002:744C rev C8, 24560 MiB, 16 GT/s x16."""
    content: dict[str, str | bytes] = {
        "device": "0x744c\n",
        "revision": "0xc8\n",
        "mem_info_vram_total": f"{24560 * MIB}\n",
        "mem_info_vram_used": f"{1200 * MIB}\n",
        "mem_info_gtt_total": f"{31 * GIB}\n",
        "mem_info_gtt_used": "0\n",
        "max_link_speed": "16.0 GT/s PCIe\n",
        "max_link_width": "16\n",
        "unique_id": f"{0x7A60B1D2F3000000 + number:x}\n",
        "hwmon/hwmon3/power1_cap": "339000000\n",
        "gpu_metrics": CARD,
        **more,
    }
    return {
        **card(f"0000:{bus:02x}:00.0", number, **content),
        **node(number + 1, bus << 8, 110000, 24560 * MIB),
    }


def only(site: Site, host: Host = HOST) -> Gpu:
    (gpu,) = read_amd(site, host).visible
    return gpu


def test_a_card(site: MakeSite) -> None:
    """Everything that sysfs and the KFD topology tell about a card."""
    files: Files = {
        **rx_7900_xtx(),
        "/usr/share/libdrm/amdgpu.ids": IDS,
        "/sys/class/drm/card0-DP-1/enabled": "enabled\n",
        "/sys/class/drm/card0-HDMI-A-1/enabled": "disabled\n",
    }
    gpu = only(site(files))
    assert gpu.name == "AMD Radeon RX 7900 XTX"
    assert (gpu.total_bytes, gpu.free_bytes) == (24560 * MIB, 23360 * MIB)
    assert (gpu.gfx_target, gpu.architecture, gpu.cores) == ("gfx1100", "RDNA 3.0", 6144)
    assert (gpu.pci_id, gpu.pci_bus_id) == ("1002:744c", "0000:03:00.0")
    assert (gpu.pcie_gen, gpu.pcie_lanes, gpu.power_w) == (4, 16, 339.0)
    assert (gpu.uuid, gpu.display, gpu.shared) == ("GPU-7a60b1d2f3000000", True, False)
    assert gpu.backend == "rocm"


def test_a_card_among_several_of_one_id(site: MakeSite) -> None:
    """The lists name four cards for 744c; the memory settles which one it is."""
    ids = "1002  AMD\n\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]\n"
    machine = probe(site({**rx_7900_xtx(), "/usr/share/hwdata/pci.ids": ids}))
    (gpu,) = machine.gpus
    assert gpu.card_id == "amd-radeon-rx-7900-xtx"
    assert gpu.name == "AMD Radeon RX 7900 XTX"
    assert gpu.bandwidth_gb_s == 960


def test_order_and_selection(site: MakeSite) -> None:
    """Cards in ROCm's order, filtered by its variables."""
    files = {**rx_7900_xtx(1, bus=0x83), **rx_7900_xtx(0, bus=3)}
    view = read_amd(site(files, ROCR_VISIBLE_DEVICES="GPU-7a60b1d2f3000001"), HOST)
    assert [g.pci_bus_id for g in view.visible] == ["0000:83:00.0"]
    assert [g.pci_bus_id for g in view.hidden] == ["0000:03:00.0"]
    assert "shows a run 1 of 2 AMD cards" in view.notes[0]


def test_kfd_access(site: MakeSite) -> None:
    """A readable sysfs does not mean that ROCm may run."""
    assert "no /dev/kfd" in read_amd(site(rx_7900_xtx()), HOST).notes[0]
    assert read_amd(site({**rx_7900_xtx(), "/dev/kfd": ""}), HOST).notes == ()


# Strix Halo, 128 GiB, kernel 6.18.1, ROCm 7.1.1: apellegr/Strix-Halo-Models,
# ROCM-MEMORY-LIMIT-INVESTIGATION.md at 34abc47. HIP's totals there are what must come out.
GTT_115 = 123480309760


def strix(carve_out: int, bank: int, gtt_used: int = 18653184, number: int = 0) -> Files:
    return {
        **card(
            "0000:c4:00.0",
            number,
            device="0x1586\n",
            revision="0xc1\n",
            mem_info_vram_total=f"{carve_out}\n",
            mem_info_vram_used=f"{160 * MIB}\n",
            mem_info_gtt_total=f"{GTT_115}\n",
            mem_info_gtt_used=f"{gtt_used}\n",
            gpu_metrics=APU,
        ),
        **node(number + 1, 0xC400, 110501, bank, simds=80),
        "/proc/sys/kernel/osrelease": "6.18.1-061801-generic\n",
    }


@pytest.mark.parametrize(
    ("carve_out", "bank", "ram", "hip_total"),
    [
        (512 * MIB, 24576000 * 4096, 122 * GIB, 24576000 * 4096),  # ttm.pages_limit raised
        (96 * GIB, 16364285952, 30 * GIB, 16364285952),  # a carve-out that ROCm does not use
        (64 * GIB, 24576000 * 4096, 61 * GIB, 61 * GIB),  # promised more than the memory there is
    ],
)
def test_an_apu_of_today(
    site: MakeSite, carve_out: int, bank: int, ram: int, hip_total: int
) -> None:
    """One pool of the host's memory, as large as ROCm says, never larger than the memory."""
    host = Host(ram_total_bytes=ram, ram_available_bytes=ram - 4 * GIB)
    gpu = only(site(strix(carve_out, bank)), host)
    assert gpu.shared is True
    assert gpu.total_bytes == hip_total
    assert gpu.free_bytes is not None
    assert gpu.free_bytes <= ram - 4 * GIB
    assert gpu.gfx_target == "gfx1151"


def test_what_the_gpu_holds_of_the_pool_is_not_free(site: MakeSite) -> None:
    """GTT in use counts against the pool, and the host's available memory bounds it."""
    bank = 24576000 * 4096
    gpu = only(site(strix(512 * MIB, bank, gtt_used=60 * GIB)))
    assert gpu.free_bytes == bank - 60 * GIB


def test_an_apu_named_by_its_processor(site: MakeSite) -> None:
    """The processor's name tells the card; its figures follow."""
    cpuinfo = "model name\t: AMD RYZEN AI MAX+ 395 w/ Radeon 8060S\n"
    files: Files = {
        **strix(512 * MIB, 24576000 * 4096),
        "/proc/cpuinfo": cpuinfo,
        "/proc/meminfo": MEMINFO.replace("65543212", "128000000"),
    }
    (gpu,) = probe(site(files)).gpus
    assert gpu.card_id == "amd-radeon-8060s"
    assert gpu.bandwidth_gb_s == 256


def test_an_apu_on_an_old_kernel(site: MakeSite) -> None:
    """Before Linux 6.10 ROCm has only the firmware's share.

    Ryzen 9 5900HS: Ricks-Lab/gpu-utils issue 152 (rev c4, 512 MiB of VRAM), clbr/radeontop
    issue 163 (7695 MiB of GTT).
    """
    files: Files = {
        **card(
            "0000:08:00.0",
            device="0x1638\n",
            revision="0xc4\n",
            mem_info_vram_total="536870912\n",
            mem_info_vram_used="490000000\n",
            mem_info_gtt_total=f"{7695 * MIB}\n",
            mem_info_gtt_used="1051754496\n",
        ),
        **node(1, 0x800, 90012, 536870912, simds=32),
        "/proc/sys/kernel/osrelease": "6.2.0-39-generic\n",
    }
    gpu = only(site(files))
    assert gpu.gfx_target == "gfx90c"
    assert (gpu.shared, gpu.total_bytes) == (False, 536870912)
    assert gpu.free_bytes == 536870912 - 490000000
    machine = probe(site(files))
    assert machine.gpus == ()
    assert "the processor is planned for" in machine.hidden_gpus[0].notes[-1]


def test_an_integrated_card_beside_a_card(site: MakeSite) -> None:
    """As llama.cpp does: the integrated one is there, and not used."""
    files = {**rx_7900_xtx(), **strix(512 * MIB, 20 * GIB, number=1)}
    machine = probe(site(files))
    assert [g.card_id for g in machine.gpus] == ["amd-radeon-rx-7900-xtx"]
    assert "not used beside a card" in machine.hidden_gpus[0].notes[-1]


def test_the_radeon_driver(site: MakeSite) -> None:
    """FirePro W7000: clbr/radeontop issue 127. The old driver has no memory files."""
    files = card(device="0x6808\n", uevent="DRIVER=radeon\nPCI_SLOT_NAME=0000:01:00.0\n")
    gpu = only(site(files))
    assert (gpu.total_bytes, gpu.free_bytes) == (None, None)
    assert "driver is radeon" in (gpu.error or "")


def test_used_memory_hidden(site: MakeSite) -> None:
    """What is free is unknown where what is used is."""
    files = rx_7900_xtx()
    del files["/sys/class/drm/card0/device/mem_info_vram_used"]
    gpu = only(site(files))
    assert gpu.free_bytes is None
    assert any("free memory" in n for n in gpu.notes)


def test_without_kfd(site: MakeSite) -> None:
    """No compute driver: the memory is known, the target is not."""
    files = {k: v for k, v in rx_7900_xtx().items() if "kfd" not in k}
    gpu = only(site(files))
    assert (gpu.total_bytes, gpu.gfx_target) == (24560 * MIB, None)
    assert any("KFD" in n for n in gpu.notes)


def test_connectors_and_other_vendors_are_no_cards(site: MakeSite) -> None:
    """``card0-DP-1`` is a connector; a card of another vendor is someone else's."""
    files = {**card(), "/sys/class/drm/card0/device/vendor": "0x1a03\n"}
    files |= {k.replace("card0", "card0-DP-1"): v for k, v in rx_7900_xtx().items()}
    assert read_amd(site(files), HOST).visible == ()
