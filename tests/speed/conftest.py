"""Models and machines in a line."""

from __future__ import annotations

import pytest

from nemofit.catalog.cards import find_card
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import find_model
from nemofit.machine.records import Gpu, Host, Machine


def gpu(name: str, **changes: object) -> Gpu:
    """A card of the table, idle."""
    card = find_card(name)
    figures: dict[str, object] = {
        "name": card.name,
        "vendor": card.vendor,
        "backend": {"nvidia": "cuda", "amd": "rocm", "apple": "metal"}.get(card.vendor, "sycl"),
        "total_bytes": card.total_bytes or 64 << 30,
        "shared": card.kind == "unified",
        "bandwidth_gb_s": card.bandwidth_gb_s,
        "fp32_tflops": card.fp32_tflops,
        "compute_capability": card.compute_capability,
        "architecture": card.architecture,
        "card_id": card.id,
        "pcie_gen": card.pcie_gen,
        "pcie_lanes": card.pcie_lanes,
    }
    return Gpu(**{**figures, **changes})  # type: ignore[arg-type]


def machine(*cards: str, ram_gb_s: float | None = 80.0, cores: int | None = 16) -> Machine:
    """A host with these cards."""
    host = Host(physical_cores=cores, ram_bandwidth_gb_s=ram_gb_s)
    return Machine(host=host, gpus=tuple(gpu(c) for c in cards))


@pytest.fixture(scope="session")
def llama_8b() -> ModelSpec:
    return find_model("llama-3.1-8b").spec()


@pytest.fixture(scope="session")
def llama_70b() -> ModelSpec:
    return find_model("llama-3.1-70b").spec()


@pytest.fixture(scope="session")
def qwen3_moe() -> ModelSpec:
    return find_model("qwen3-30b-a3b").spec()
