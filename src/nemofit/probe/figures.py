"""Bandwidth and compute of a card: from the card table, or as computed and marked so."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import UnknownNameError
from ..machine.records import Gpu
from ..units import GIB
from .visible import with_note

if TYPE_CHECKING:
    from ..catalog.cards import Card

# CUDA C++ programming guide, "Arithmetic instructions": FP32 units of a multiprocessor.
_CORES_PER_SM = {"7": 64, "8.0": 64}
_CORES_PER_LATER_SM = 128


def cores_per_sm(compute_capability: str) -> int:
    """CUDA cores of one multiprocessor."""
    major = compute_capability.partition(".")[0]
    known = _CORES_PER_SM.get(compute_capability, _CORES_PER_SM.get(major))
    return known or _CORES_PER_LATER_SM


def with_figures(gpu: Gpu) -> Gpu:
    """Fill in what the card table knows; an unknown card gets a note with the line to add.

    Raises:
        DataError: A personal card table is broken.
    """
    from ..catalog.cards import find_card

    if gpu.error is not None:
        return gpu
    name = re.sub(r"\s*\bMIG\b.*$", "", gpu.name) if gpu.mig_profile else gpu.name
    whole = not (gpu.shared or gpu.mig_profile or gpu.virtual)
    try:
        bandwidth = None if gpu.mig_profile else gpu.bandwidth_gb_s
        card = find_card(name, physical(gpu) if whole else None, gpu.pci_id, bandwidth)
    except UnknownNameError:
        return _unknown(gpu)
    known = replace(
        gpu,
        name=card.name if _vague(gpu) else gpu.name,
        architecture=card.architecture or gpu.architecture,
        card_id=card.id,
    )
    if gpu.mig_profile:
        return _slice_of(known, card)
    known = replace(
        known,
        bandwidth_gb_s=card.bandwidth_gb_s or gpu.bandwidth_gb_s,
        fp16_tflops=card.fp16_tflops or gpu.fp16_tflops,
        fp32_tflops=card.fp32_tflops or gpu.fp32_tflops,
    )
    return _bounded(known, card) if whole and not card.shared else known


def _vague(gpu: Gpu) -> bool:
    """Whether the name is only a PCI id, or a list of cards that share one."""
    return "/" in gpu.name or (gpu.pci_id is not None and gpu.pci_id in gpu.name)


def physical(gpu: Gpu) -> int | None:
    """All of the memory, with what the driver holds back."""
    return gpu.total_bytes + (gpu.reserved_bytes or 0) if gpu.total_bytes is not None else None


def share(figure: float | None, part: int | None, whole: int | None) -> float | None:
    """A slice's part of a card's figure: MIG divides memory paths and processors, not time."""
    return round(figure * min(1.0, part / whole), 1) if figure and part and whole else None


def _slice_of(gpu: Gpu, card: Card) -> Gpu:
    cores = card.sm_count * cores_per_sm(gpu.compute_capability or "") if card.sm_count else None
    bandwidth = share(card.bandwidth_gb_s, physical(gpu), card.memory_bytes)
    return replace(
        gpu,
        bandwidth_gb_s=bandwidth or gpu.bandwidth_gb_s,
        fp16_tflops=share(card.fp16_tflops, gpu.cores, cores) or gpu.fp16_tflops,
        fp32_tflops=share(card.fp32_tflops, gpu.cores, cores) or gpu.fp32_tflops,
    )


def _bounded(gpu: Gpu, card: Card) -> Gpu:
    """Take the total that engines printed on such a card where the driver promises more."""
    if gpu.total_bytes is None:
        if card.total_bytes is None:
            return gpu
        known = replace(gpu, total_bytes=card.total_bytes)
        return with_note(known, "memory in total: from the card table, the driver does not tell it")
    if card.total_basis != "measured" or card.total_bytes is None:
        return gpu
    total = min(gpu.total_bytes, card.total_bytes)
    free = min(gpu.free_bytes, total) if gpu.free_bytes is not None else None
    return replace(gpu, total_bytes=total, free_bytes=free)


def _unknown(gpu: Gpu) -> Gpu:
    facts = {
        "name": f'"{gpu.name}"',
        "vendor": gpu.vendor,
        "kind": "unified" if gpu.shared else "discrete",
        "memory_gb": round((physical(gpu) or 0) / GIB) or None,
        "bandwidth_gb_s": gpu.bandwidth_gb_s,
        "fp16_tflops": gpu.fp16_tflops,
        "fp32_tflops": gpu.fp32_tflops,
        "source": '["read from the driver"]',
    }
    line = ", ".join(f"{key}: {value}" for key, value in facts.items() if value is not None)
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    computed = "are computed from clocks" if gpu.bandwidth_gb_s else "are not known"
    return with_note(
        gpu,
        f"unknown card: bandwidth and compute {computed}; "
        f"to correct them, under gpus: in your gpus.yaml: {slug}: {{{line}}}",
    )
