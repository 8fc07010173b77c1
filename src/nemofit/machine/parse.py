"""A machine described in words: "2x RTX 3090, 64 GiB RAM".

Pieces are separated by commas, semicolons, lines or a plus sign; each is tried against the table
``_RULES`` from the top, and what no rule knows is a card or a processor. To let people say more,
add a rule.

    2x RTX 3090                    cards, by any name of data/gpus.yaml
    RTX 3060 12GB                  a card with its memory, which settles equal names
    RTX 4090 20 GiB free           what is free now; also "23 GiB total"
    RTX 4090 PCIe 3 x8 with display   its slot; that it drives a screen
    MIG 3g.40gb of H100            a slice
    M3 Max 64GB                    a chip whose memory is the machine's
    48 GB GPU @ 768 GB/s           a card that nobody knows; also "48 GB AMD GPU 120 TFLOPS"
    64 GiB RAM @ 51 GB/s           memory and its bandwidth (also "RAM 51 GB/s")
    128 GiB DDR5-5600 x2           memory, its speed and its channels
    64 GiB RAM 40 GiB free         what is available now (also "RAM 40 GiB free")
    limit 16 GiB                   of a container or control group
    8 cores                        physical cores
    Ryzen 9 7950X                  the processor (also "CPU: any name")
    linux, windows, macos

Memory of cards and modules is sold in units of 2^30 bytes, whatever the box says: GB and GiB are
the same here. A bare ``48 GB GPU`` is the size on the box, of which the driver keeps some;
``48 GiB GPU`` and ``49140 MiB GPU`` are what an engine sees. :mod:`.describe` writes such texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..catalog.cards import Card
from ..errors import UsageError
from ..units import gib
from . import parse_gpus as cards
from .grammar import (
    AT,
    CHANNELS,
    COUNT,
    DDR,
    EXAMPLE,
    MOST_GPUS,
    RATE,
    SIZE,
    TIMES,
    Additions,
    Draft,
    additions,
    bytes_of,
    count_of,
    rate_of,
)
from .records import Gpu, Host, Machine

__all__ = ["EXAMPLE", "MOST_GPUS", "assembled", "parse_machine"]

LONGEST: Final = 2000
"""Characters of a description."""
BYTES_PER_TRANSFER: Final = 8
"""A memory channel is 64 bits wide (JEDEC DDR3 to DDR5; a DDR5 module counts as one channel)."""


def parse_machine(text: str) -> Machine:
    """Read a description of a machine; what it does not say is None, with a note.

    Raises:
        UnknownNameError: A card that is not known, or whose name several cards have.
        UsageError: A piece that makes no sense; the message names it.
    """
    if len(text) > LONGEST:
        raise UsageError(
            f"a machine in {len(text)} characters; at most {LONGEST} are read", EXAMPLE
        )
    pieces = [p for p in (" ".join(p.split()) for p in _SEPARATOR.split(text)) if p]
    if not pieces:
        raise UsageError("the description of the machine is empty", EXAMPLE)
    draft = Draft()
    for piece in pieces:
        _read(draft, piece)
    return _machine(draft, " ".join(text.split()))


def assembled(card: Card, count: int, ram_bytes: int) -> Machine:
    """A machine with so many of one card and this much memory, as its description would give.

    ``source`` of the result is that description; a unified part has ``ram_bytes`` of its own.
    """
    draft = Draft()
    size = gib(ram_bytes).replace(".00", "")
    if card.shared:
        draft.cards.append((card, ram_bytes, None, Additions()))
        draft.gpus.append(Gpu(name=card.name, shared=True))
        return _machine(draft, f"{card.label}, {size} RAM")
    draft.gpus += [cards.gpu_of(card, card.total_bytes, None)] * count
    draft.say("RAM", ram_bytes, card.name)
    return _machine(draft, f"{count}x {card.label}, {size} RAM")


def _read(draft: Draft, piece: str) -> None:
    base, more = additions(piece)
    if not base:
        raise UsageError(
            f"{piece[:80]!r} does not say what it belongs to",
            "write for example 'RTX 4090 20 GiB free' or 'RAM 40 GiB free'",
        )
    for pattern, rule, takes in _RULES:
        if match := pattern.fullmatch(base):
            if more.names() - takes:
                raise UsageError(
                    f"{piece[:80]!r}: {_WORDS[min(more.names() - takes)]} is said of a card",
                    "write for example 'RTX 4090 20 GiB free PCIe 4 x8'",
                )
            rule(draft, match, base, more)
            return


def _system(draft: Draft, match: re.Match[str], piece: str, _more: Additions) -> None:
    word = match[0].lower()
    draft.say("operating system", {"mac": "macos", "darwin": "macos"}.get(word, word), piece)


def _cores(draft: Draft, match: re.Match[str], piece: str, _more: Additions) -> None:
    cores = int(match["cores"])
    if not 0 < cores <= 4096:
        raise UsageError(f"{piece!r} is no number of cores", EXAMPLE)
    draft.say("cores", cores, piece)


def _processor(draft: Draft, match: re.Match[str], piece: str, _more: Additions) -> None:
    draft.say("processor", match["name"], piece)


def _no_gpu(_draft: Draft, _match: re.Match[str], _piece: str, _more: Additions) -> None:
    """Said for the reader: a machine without a card in its description has none."""


def _limit(draft: Draft, match: re.Match[str], piece: str, _more: Additions) -> None:
    draft.say("memory limit", bytes_of(match, piece), piece)


def _ram_rate(draft: Draft, match: re.Match[str], piece: str, _more: Additions) -> None:
    draft.say("RAM bandwidth", rate_of(match, piece), piece)
    draft.basis = match["basis"] or draft.basis


def _ram_free(draft: Draft, _match: re.Match[str], piece: str, more: Additions) -> None:
    draft.say("available RAM", more.free, piece)


def _ram(draft: Draft, match: re.Match[str], piece: str, more: Additions) -> None:
    draft.say("RAM", bytes_of(match, piece) * count_of(match, piece), piece)
    if more.free is not None:
        draft.say("available RAM", more.free, piece)
    found = match.groupdict()
    if found.get("rate"):
        draft.say("RAM bandwidth", rate_of(match, piece), piece)
    channels = found.get("channels") or found.get("channels2")
    if found.get("speed") and channels:
        rate = int(found["speed"]) * BYTES_PER_TRANSFER * int(channels) / 1000
        if rate <= 0:
            raise UsageError(f"{piece!r} is no bandwidth that memory has", EXAMPLE)
        draft.say("RAM bandwidth", rate, piece)
        draft.basis = "theoretical"
    elif found.get("ddr") and not found.get("rate"):
        draft.notes.append(
            f"RAM bandwidth: {piece!r} does not say speed and channels; "
            "say for example '128 GiB DDR5-5600 x2'"
        )


def _bare_size(_draft: Draft, _match: re.Match[str], piece: str, _more: Additions) -> None:
    raise UsageError(
        f"{piece!r} does not say whose memory it is", f"write '{piece} RAM' or '{piece} GPU'"
    )


def _machine(draft: Draft, text: str) -> Machine:
    gpus = list(draft.gpus)
    limit = draft.said.get("memory limit")
    for card, size, rate, more in draft.cards:
        if size is None and "RAM" not in draft.said and card.memory_bytes is not None:
            size = card.memory_bytes
            draft.notes.append(f"RAM: {gib(size)}, the size that {card.name} is sold with")
        if size is not None:
            draft.say("RAM", size, card.name)
        at = next(i for i, g in enumerate(gpus) if g.shared and g.card_id is None)
        gpus[at] = cards.unified(card, draft.said.get("RAM"), rate, more)
        if "RAM bandwidth" not in draft.said and gpus[at].bandwidth_gb_s:
            draft.said["RAM bandwidth"] = gpus[at].bandwidth_gb_s
            draft.basis = "given" if rate else "theoretical"
        if card.vendor == "apple":
            draft.said.setdefault("operating system", "macos")
    host = _host(draft)
    if isinstance(limit, int) and limit <= (host.ram_total_bytes or limit):
        host = replace(host, ram_total_bytes=limit, memory_limit_bytes=limit)
        gpus = [_within(g, limit) if g.shared else g for g in gpus]
    available, total = draft.said.get("available RAM"), host.ram_total_bytes
    if isinstance(available, int):
        if total is not None and available > total:
            raise UsageError(
                f"{gib(available)} of RAM are free, and there are {gib(total)}", EXAMPLE
            )
        host = replace(host, ram_available_bytes=available)
    return Machine(host=host, gpus=tuple(gpus), source=text)


def _within(gpu: Gpu, limit: int) -> Gpu:
    """A part whose memory is the machine's has no more of it than a limit leaves."""
    total, free = gpu.total_bytes, gpu.free_bytes
    return replace(
        gpu,
        total_bytes=None if total is None else min(total, limit),
        free_bytes=None if free is None else min(free, limit),
    )


def _host(draft: Draft) -> Host:
    said = draft.said
    ram, rate, cpu = said.get("RAM"), said.get("RAM bandwidth"), said.get("processor")
    cores, system = said.get("cores"), said.get("operating system", "unknown")
    if ram is None and "memory limit" not in said:
        draft.notes.append("RAM was not given; say for example '64 GiB RAM'")
    if rate is None:
        draft.notes.append("RAM bandwidth was not given; say for example '64 GiB RAM @ 51 GB/s'")
    if cores is None:
        draft.notes.append("cores were not given; say for example '16 cores'")
    return Host(
        os=str(system),
        cpu=cpu if isinstance(cpu, str) else None,
        physical_cores=cores if isinstance(cores, int) else None,
        ram_total_bytes=ram if isinstance(ram, int) else None,
        ram_bandwidth_gb_s=rate if isinstance(rate, float) else None,
        ram_bandwidth_basis=draft.basis if rate is not None else None,
        notes=tuple(draft.notes),
    )


_SEPARATOR: Final = re.compile(r"[,;\n]|\s\+\s*|\+(?=\S)")

_Rule = Callable[[Draft, "re.Match[str]", str, Additions], None]
_OF_A_CARD: Final = frozenset(
    {"free", "total", "pcie", "display", "tflops", "architecture", "capability"}
)
_FREE: Final = frozenset({"free"})
_WORDS: Final = {
    "free": "free memory",
    "total": "a total",
    "pcie": "a PCIe link",
    "display": "a display",
    "tflops": "a computing rate",
    "architecture": "an architecture",
    "capability": "a compute capability",
}


def _rule(
    pattern: str, handler: _Rule, takes: frozenset[str] = frozenset()
) -> tuple[re.Pattern[str], _Rule, frozenset[str]]:
    return re.compile(pattern, re.IGNORECASE), handler, takes


_VENDOR = r"(?:(?P<vendor>nvidia|amd|intel)\s+)?"
_BASIS = r"(?:\s+(?P<basis>given|theoretical|measured|published))?"
_PROFILE = r"(?P<g>\d)g\.(?P<gb>\d{1,3})gb(?:\+\w+)?"

_RULES: Final = (
    _rule(r"linux|windows|macos|mac|darwin", _system),
    _rule(r"(?P<cores>\d{1,9})\s*[- ]?(?:physical |cpu )?cores?", _cores),
    _rule(r"no gpus?|without gpus?|cpu(?: only)?", _no_gpu),
    _rule(r"(?:cpu|processor):\s*(?P<name>.+)", _processor),
    _rule(rf"(?:memory |cgroup |container )?limit:?\s*{SIZE}", _limit),
    _rule(rf"{SIZE}\s*(?:memory |cgroup |container )?limit", _limit),
    _rule(rf"ram\s*(?:bandwidth)?\s*@?\s*{RATE}{_BASIS}", _ram_rate),
    _rule(rf"{RATE}\s*ram{_BASIS}", _ram_rate),
    _rule(r"ram", _ram_free, _FREE),
    _rule(rf"{COUNT}{SIZE}\s*(?:of )?(?:ram|memory|system memory){AT}", _ram, _FREE),
    _rule(rf"ram:?\s*{COUNT}{SIZE}{AT}", _ram, _FREE),
    _rule(rf"{COUNT}{SIZE}\s*(?:ram\s*)?{DDR}(?:\s*ram)?{CHANNELS}(?:\s*ram)?{AT}", _ram, _FREE),
    _rule(
        rf"{COUNT}(?P<what>{SIZE}\s*{_VENDOR}(?:gpus?|vram|card){AT})", cards.bare_gpu, _OF_A_CARD
    ),
    _rule(rf"{COUNT}(?P<what>{_VENDOR}(?:gpus?|vram)\s*{SIZE}{AT})", cards.bare_gpu, _OF_A_CARD),
    _rule(SIZE, _bare_size),
    _rule(rf"{COUNT}MIG {_PROFILE} (?:of |on )?(?P<name>.+)", cards.mig_slice, _OF_A_CARD),
    _rule(rf"{COUNT}(?P<name>.+?) MIG {_PROFILE}", cards.mig_slice, _OF_A_CARD),
    _rule(rf"{TIMES}(?P<name>.+?){AT}", cards.named_gpu, _OF_A_CARD),
    _rule(
        rf"(?P<name>.+?)(?:\s+x|\s*[×*])\s*(?P<count>\d{{1,9}}){AT}", cards.named_gpu, _OF_A_CARD
    ),
    _rule(rf"(?P<name>.+?){AT}", cards.named_gpu, _OF_A_CARD),
)
"""From the top: the first pattern that fits the whole piece decides; the last fits every piece."""
