"""Who holds memory of AMD and Intel cards: files as owners of such machines published them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from conftest import Files
from nemofit.machine.records import Gpu
from nemofit.probe.clients import with_holders
from nemofit.probe.site import Site
from nemofit.units import KIB, MIB

CARD = Gpu(name="a", vendor="amd", pci_bus_id="0000:08:00.0")
# Umio-Yasuno/amdgpu_top issue 87, /proc/2217/fdinfo/99.
DESKTOP = """\
pos:    0
flags:  02104002
mnt_id: 24
ino:    614
pasid:  32784
drm-driver:     amdgpu
drm-pdev:       0000:08:00.0
drm-client-id:  217
drm-memory-vram:        2068 KiB
drm-memory-gtt:         8192 KiB
drm-memory-cpu:         0 KiB
drm-engine-gfx: 107322799 ns
"""
# Syllo/nvtop pull request 492: a model of 24 GB that ollama's llama-server holds on an APU.
MODEL = """\
drm-driver:\tamdgpu
drm-pdev:\t0000:08:00.0
drm-client-id:\t31
drm-memory-cpu:         0 KiB
drm-memory-gtt:  25258000 KiB
drm-memory-vram:     5348 KiB
"""


def process(pid: int, name: str, **fdinfo: str) -> Files:
    """A process with a socket, and with render nodes opened as the given numbers."""
    files: Files = {
        f"/proc/{pid}/comm": f"{name}\n",
        f"/proc/{pid}/fd/3": "->socket:[4711]",
        f"/proc/{pid}/fdinfo/3": DESKTOP.replace("2068", "999999"),
    }
    for number, text in fdinfo.items():
        files[f"/proc/{pid}/fd/{number[1:]}"] = "->/dev/dri/renderD128"
        files[f"/proc/{pid}/fdinfo/{number[1:]}"] = text
    return files


def found(site: Site, gpu: Gpu = CARD) -> list[tuple[int, str | None, int | None]]:
    (card,) = with_holders(site, [gpu])
    return [(h.pid, h.name, h.bytes) for h in card.holders]


def test_a_card_of_its_own_counts_vram(site: Callable[..., Site]) -> None:
    """Host memory that a card maps is not the card's; a socket's file is not asked."""
    machine = site(
        {
            **process(2217, "firefox", n99=DESKTOP, n100=DESKTOP),
            **process(2218, "firefox", n7=DESKTOP),
            **process(31, "llama-server", n7=MODEL),
        }
    )
    assert found(machine) == [
        (31, "llama-server", 5348 * KIB),
        (2217, "firefox", 2068 * KIB),  # one client, in two files and two processes
    ]


def test_a_shared_pool_counts_both(site: Callable[..., Site]) -> None:
    machine = site(process(31, "llama-server", n7=MODEL))
    assert found(machine, replace(CARD, shared=True)) == [
        (31, "llama-server", (25258000 + 5348) * KIB)
    ]


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ("drm-total-vram0: 900 MiB\ndrm-resident-vram0: 300 MiB\n", 300 * MIB),
        ("drm-total-local0:\t4096\n", 4096),
        ("drm-resident-system0: 5 MiB\n", None),
        ("drm-resident-vram0: -5 MiB\ndrm-resident-vram0: 3 parsecs\n", None),
    ],
)
def test_keys_of_xe_and_i915(site: Callable[..., Site], lines: str, size: int | None) -> None:
    """Keys, units and their absence as drm-usage-stats.rst defines them."""
    text = f"drm-driver: xe\ndrm-pdev: 0000:08:00.0\ndrm-client-id: 1\n{lines}"
    held = found(site(process(9, "game", n4=text)), replace(CARD, vendor="intel"))
    assert held == ([] if size is None else [(9, "game", size)])


def test_other_cards_and_files_that_make_no_sense(site: Callable[..., Site]) -> None:
    junk = process(5, "x", n4="\0\xff" * 100, n5=MODEL.replace("0000:08", "0000:09"), n6="")
    assert found(site(junk)) == []
    nvidia = Gpu(name="n", vendor="nvidia", pci_bus_id="0000:08:00.0")
    assert found(site(process(1, "x", n4=MODEL)), nvidia) == []
