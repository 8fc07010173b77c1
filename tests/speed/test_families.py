"""Which family a card belongs to, and what is assumed where a figure is missing."""

from __future__ import annotations

import pytest

from conftest import gpu
from nemofit.catalog import store
from nemofit.catalog.cards import find_card
from nemofit.machine.records import Gpu, Host
from nemofit.speed.constants import CONSTANTS
from nemofit.speed.families import backend_of, family_of, gpu_figures, host_figures
from nemofit.speed.hosts import platform


@pytest.mark.parametrize(
    ("card", "family"),
    [
        ("RTX 3090", "ampere"),
        ("A100 80GB PCIe", "ampere-hbm"),
        ("GTX 1650", "turing-gtx"),
        ("RTX 2080", "turing"),
        ("RTX 4090", "ada"),
        ("nvidia-h200", "hopper"),
        ("nvidia-b200", "blackwell-hbm"),
        ("RTX 5090", "blackwell"),
        ("nvidia-gb10", "blackwell-unified"),
        ("Tesla P40", "pascal"),
        ("tesla-p100-pcie-16gb", "pascal-hbm"),
        ("amd-radeon-8060s", "rdna3.5"),
        ("RX 7900 XTX", "rdna3"),
        ("RX 9070 XT", "rdna4"),
        ("amd-instinct-mi300x", "cdna"),
        ("amd-instinct-mi50", "gcn"),
        ("intel-arc-a770", "xe"),
        ("intel-arc-b580", "xe2"),
        ("apple-m2-ultra", "apple"),
        ("apple-m4-pro", "apple-m3"),
        ("apple-m5-max", "apple-m5"),
    ],
)
def test_family(card: str, family: str) -> None:
    assert family == family_of(gpu(card))


def test_every_card_has_a_family_with_constants() -> None:
    for card in store.gpus():
        family = family_of(gpu(card))
        assert family in CONSTANTS.families, find_card(card).name
        assert family != "unknown", find_card(card).name


def test_unknown_cards_are_assumed_and_said() -> None:
    figures = gpu_figures(Gpu(name="Some GPU"))
    assert len(figures.assumed) == 2
    assert figures.bandwidth > 0
    assert figures.clocks > 0


def test_architecture_by_name_without_capability() -> None:
    card = Gpu(name="Some card", vendor="nvidia", architecture="Ada Lovelace")
    assert family_of(card) == "ada"


@pytest.mark.parametrize("text", ["", "8", "x.y", "8.6.1", "９.0x"])
def test_odd_capabilities(text: str) -> None:
    card = Gpu(name="Some card", vendor="nvidia", compute_capability=text)
    assert family_of(card) == "unknown"


def test_backend_that_cannot_run_a_card_is_not_taken() -> None:
    assert backend_of(gpu("RX 7900 XTX"), "cuda") == "rocm"
    assert backend_of(gpu("RX 7900 XTX"), "vulkan") == "vulkan"
    assert backend_of(gpu("apple-m4-pro"), "cuda") == "metal"


@pytest.mark.parametrize(
    ("cpu", "bandwidth"),
    [
        ("AMD Ryzen 9 7950X 16-Core Processor", 83.2),  # amd.com: 2 channels, DDR5-5200
        ("AMD EPYC 9554 64-Core Processor", 460.8),  # amd.com: 12 channels, DDR5-4800
        ("AMD EPYC 7763 64-Core Processor", 204.8),  # amd.com: 204.8 GB/s per socket
        ("13th Gen Intel(R) Core(TM) i9-13900K", 89.6),  # ark.intel.com: 89.6 GB/s
        ("Intel(R) Xeon(R) CPU E5-2683 v4 @ 2.10GHz", 76.8),  # ark.intel.com: 76.8 GB/s
        ("Intel(R) Xeon(R) Gold 6138 CPU @ 2.00GHz", 128.0),  # ark: 6 channels, DDR4-2666
        ("AMD Ryzen AI MAX+ 395 w/ Radeon 8060S", 256.0),  # amd.com: 256 bit LPDDR5X-8000
        ("Intel(R) N150", 38.4),  # ark.intel.com: 1 channel, DDR5-4800
    ],
)
def test_memory_of_known_processors(cpu: str, bandwidth: float) -> None:
    assert bandwidth == pytest.approx(platform(cpu, 8).peak_gb_s, rel=0.01)


def test_small_cores_do_not_draw_the_peak() -> None:
    """Intel N150: 9.06 tokens per second of a 2.02 GB file (llama3.2:3b) are 18 GB/s of 38.4.

    github.com/geerlingguy/ai-benchmarks, README
    """
    figures = host_figures(Host(cpu="Intel(R) N150", physical_cores=4))
    assert 18e9 < figures.bandwidth < 25e9


def test_a_second_socket_is_not_counted() -> None:
    """Two sockets' bandwidth stated together is no more than one's, known by name."""
    one = host_figures(Host(cpu="Intel Xeon Gold 6138", physical_cores=20))
    two = host_figures(
        Host(cpu="2x Intel Xeon Gold 6138", physical_cores=40, ram_bandwidth_gb_s=256.0)
    )
    assert two.bandwidth < one.bandwidth


def test_graphs_need_ampere() -> None:
    assert gpu_figures(gpu("Tesla P40")).graphless == 1
    assert gpu_figures(gpu("RTX 3090")).graphless > 1


def test_host_without_figures_is_assumed() -> None:
    figures = host_figures(Host())
    assert len(figures.assumed) == 2
    assert host_figures(Host(physical_cores=8, ram_bandwidth_gb_s=80.0)).assumed == ()


def test_measured_memory_stands_for_more_of_the_peak() -> None:
    """A copy on an EPYC 9004 with 460.8 GB/s reaches 378 (Micron): the same machine either way."""
    peak = Host(physical_cores=64, ram_bandwidth_gb_s=460.8, ram_bandwidth_basis="theoretical")
    copy = Host(physical_cores=64, ram_bandwidth_gb_s=378.0, ram_bandwidth_basis="measured")
    assert host_figures(copy).bandwidth == pytest.approx(host_figures(peak).bandwidth, rel=0.01)
