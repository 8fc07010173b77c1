"""Cards in a description: by name, by memory alone, as a MIG slice, as a part of the chip."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from ..catalog.cards import Card, find_card, total_of_nominal, unified_bytes
from ..errors import UnknownNameError, UsageError
from ..units import GIB, MIB, gib
from .grammar import (
    CARD_SIZE,
    EXAMPLE,
    Additions,
    Draft,
    bytes_of,
    count_of,
    rate_of,
)
from .records import Gpu

BACKENDS: Final = {"nvidia": "cuda", "amd": "rocm", "apple": "metal", "intel": "sycl"}
"""llama.cpp's backend for a vendor's cards."""
PROCESSOR: Final = re.compile(
    r"ryzen|epyc|threadripper|xeon|\bcore\b|\bi[3579]-\d{3,5}|pentium|celeron|\batom\b"
    r"|\bn\d{2,3}\b|opteron|athlon|altra|ampereone|graviton|raspberry pi|\bpi [345]\b|snapdragon"
    r"|\bcix\b|cortex|neoverse|rockchip|\brk3\d{3}|\bpower\d|loongson|\bcpu\b|processor",
    re.IGNORECASE,
)
MIG_SHARE: Final = 0.90
"""Of a slice's eighths of the card's nominal memory, what the slice offers at least: 9.50 of
10 GiB on an A100 80GB, 4.75 of 5 on an A100 40GB, 16.00 of 17.6 on an H200 (tables of the
"Supported MIG profiles" chapter of NVIDIA's MIG user guide)."""
_QUARTERS: Final = re.compile(r"\bA30\b|\bRTX PRO\b")
_NAME_AND_SIZE: Final = re.compile(
    rf"(?P<name>.+?)[\s(]*{CARD_SIZE}[\s)]*(?:vram|memory|unified)?", re.IGNORECASE
)
_CARD_WORDS: Final = re.compile(
    r"nvidia|geforce|[rg]tx|quadro|tesla|radeon|\brx\b|instinct|\barc\b|apple|gpu|\bxtx?\b"
    r"|\b[mahblp]\d{1,3}\b",
    re.IGNORECASE,
)


def bare_gpu(draft: Draft, match: re.Match[str], piece: str, more: Additions) -> None:
    """A card of which only the memory is known, and what else was said."""
    size, rate = bytes_of(match, piece), rate_of(match, piece)
    vendor = (match["vendor"] or "unknown").lower()
    notes = (
        []
        if more.tflops
        else ["its computing rate is not known; say for example '48 GB GPU 80 TFLOPS'"]
    )
    if match["unit"] and not match["binary"]:
        total = total_of_nominal("nvidia" if vendor == "unknown" else vendor, size) // MIB * MIB
        notes.append(f"{gib(total)} of {gib(size)} on the box, less what a driver keeps")
        size = total
    if rate is None:
        notes.append("its bandwidth was not given; say for example '48 GB GPU @ 768 GB/s'")
    gpu = Gpu(
        name=" ".join(match["what"].split()),
        vendor=vendor,
        backend=BACKENDS.get(vendor, "cuda"),
        total_bytes=size,
        bandwidth_gb_s=rate,
        notes=tuple(notes),
    )
    draft.gpus += [added(gpu, more, piece)] * count_of(match, piece)


def named_gpu(draft: Draft, match: re.Match[str], piece: str, more: Additions) -> None:
    """A card by its name; a processor's name is no card."""
    name, rate = match["name"], rate_of(match, piece)
    try:
        card, size = _card(name, piece)
    except (UnknownNameError, UsageError) as e:
        if PROCESSOR.search(name) and not more.names() and not _exact_card_word(name):
            sized = _NAME_AND_SIZE.fullmatch(piece)
            draft.say("processor", sized["name"] if sized else piece, piece)
            if sized:
                draft.say("RAM", bytes_of(sized, piece), piece)
            return
        raise e from None
    count = count_of(match, piece)
    if card.shared:
        if count > 1 or any(c[0].shared for c in draft.cards):
            raise UsageError(
                f"{piece!r}: a machine has one {card.name}", "describe each machine apart"
            )
        draft.cards.append((card, size, rate, more))
        draft.gpus.append(Gpu(name=card.name, shared=True))
    else:
        gpu = added(gpu_of(card, card.total_bytes, rate), more, piece)
        draft.gpus += [gpu] * count


def mig_slice(draft: Draft, match: re.Match[str], piece: str, more: Additions) -> None:
    """``MIG 3g.40gb of H100``: a slice with its share of memory, bandwidth and compute."""
    if count_of(match, piece) > 1 or any(g.mig_profile for g in draft.gpus):
        raise UsageError(
            f"{piece!r}: CUDA gives a process one MIG slice", "describe one slice, without a count"
        )
    card, _ = _card(match["name"], piece)
    compute, gigabytes = int(match["g"]), int(match["gb"])
    nominal = (card.memory_bytes or 0) / GIB
    eighths = round(8 * gigabytes / nominal) if nominal else 0
    if card.vendor != "nvidia" or not 1 <= eighths <= 8 or not 1 <= compute <= 7:
        raise UsageError(
            f"{piece!r}: {card.name} has no such profile", "nvidia-smi mig -lgip lists them"
        )
    memory = eighths / 8
    rate = min(1.0, compute / (4 if _QUARTERS.search(card.name) else 8))
    whole = gpu_of(card, None, None)
    gpu = replace(
        whole,
        name=f"{card.name} MIG {match['g']}g.{match['gb']}gb",
        mig_profile=f"{compute}g.{gigabytes}gb",
        total_bytes=int(MIG_SHARE * memory * (card.memory_bytes or 0)),
        bandwidth_gb_s=_share(card.bandwidth_gb_s, memory),
        fp16_tflops=_share(card.fp16_tflops, rate),
        fp32_tflops=_share(card.fp32_tflops, rate),
        notes=("a MIG slice: its share of the card, the least that the published tables give",),
    )
    draft.gpus.append(replace(added(gpu, more, piece), display=bool(more.display)))


def _share(figure: float | None, part: float) -> float | None:
    return None if figure is None else round(figure * part, 1)


def _card(name: str, piece: str) -> tuple[Card, int | None]:
    """The card, and the memory that was named with it."""
    try:
        return find_card(name), None
    except UnknownNameError as unknown:
        sized = _NAME_AND_SIZE.fullmatch(name)
        if sized is None:
            raise _understood(piece, unknown) from None
        size = bytes_of(sized, piece)
        try:
            return find_card(sized["name"], memory_bytes=size), size
        except UnknownNameError as e:
            raise _understood(piece, e) from None


def _exact_card_word(name: str) -> bool:
    return re.search(r"\b[rg]tx\b|geforce|radeon|quadro", name, re.IGNORECASE) is not None


def _understood(piece: str, unknown: UnknownNameError) -> UnknownNameError | UsageError:
    """A card that may well exist is not known; anything else is not understood."""
    if unknown.near or _CARD_WORDS.search(piece):
        return unknown
    return UsageError(f"{piece[:80]!r} makes no sense in a machine's description", EXAMPLE)


def gpu_of(card: Card, total: int | None, rate: float | None) -> Gpu:
    """A card of the catalog as a machine has it."""
    notes = [card.note] if card.note else []
    if card.total_basis == "computed":
        notes.append("its total is computed from the nominal size; docs/probing.md")
    return Gpu(
        name=card.name,
        vendor=card.vendor,
        backend=BACKENDS[card.vendor],
        total_bytes=total,
        shared=card.shared,
        bandwidth_gb_s=rate or card.bandwidth_gb_s,
        fp16_tflops=card.fp16_tflops,
        fp32_tflops=card.fp32_tflops,
        compute_capability=card.compute_capability,
        architecture=card.architecture,
        card_id=card.id,
        pcie_gen=card.pcie_gen,
        pcie_lanes=card.pcie_lanes,
        power_w=card.power_w,
        gfx_target=card.gfx,
        notes=tuple(notes),
    )


def added(gpu: Gpu, more: Additions, piece: str) -> Gpu:
    """The card with what was said behind it.

    Raises:
        UsageError: More is free than there is.
    """
    total = more.total or gpu.total_bytes
    if more.free is not None and total is not None and more.free > total:
        raise UsageError(
            f"{piece!r}: {gib(more.free)} free of {gib(total)}",
            "an engine can have no more of that card; say less, or its total",
        )
    return replace(
        gpu,
        total_bytes=total,
        free_bytes=more.free,
        pcie_gen=more.pcie[0] if more.pcie else gpu.pcie_gen,
        pcie_lanes=more.pcie[1] if more.pcie else gpu.pcie_lanes,
        display=more.display,
        fp32_tflops=more.tflops or gpu.fp32_tflops,
        architecture=more.architecture or gpu.architecture,
        compute_capability=more.capability or gpu.compute_capability,
    )


def unified(card: Card, ram: object, rate: float | None, more: Additions) -> Gpu:
    """A part whose memory is the machine's ``ram``."""
    gpu = gpu_of(card, None, rate)
    if not isinstance(ram, int):
        note = f"its memory is the machine's, which was not given ({card.label} 64GB)"
        return replace(added(gpu, more, card.name), notes=(*gpu.notes, note))
    total = min(more.total or unified_bytes(card, ram), ram)
    gpu = added(replace(gpu, total_bytes=total), replace(more, total=None), card.name)
    note = f"{gib(total)} of the machine's {gib(ram)}, not beside it"
    return replace(gpu, notes=(*gpu.notes, note))
