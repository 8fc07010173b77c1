"""A machine described in words: "2x RTX 3090, 64 GiB RAM".

Pieces are separated by commas, semicolons, lines or a plus sign; each is tried against the table
``_RULES`` from the top, and what no rule knows is a card. To let people say more, add a rule.

    2x RTX 3090                 cards, by any name of data/gpus.yaml
    RTX 3060 12GB               a card with its memory, which settles equal names
    M3 Max 64GB                 a chip whose memory is the machine's
    48 GB GPU @ 768 GB/s        a card that nobody knows
    64 GiB RAM @ 51 GB/s        memory and its bandwidth (also "RAM 51 GB/s")
    128 GiB DDR5-5600 x2        memory, its speed and its channels
    8 cores                     physical cores
    linux, windows, macos

Memory of cards and modules is sold in units of 2^30 bytes, whatever the box says: GB and GiB are
the same here. A bare ``48 GB GPU`` is the size on the box, of which the driver keeps some;
``48 GiB GPU`` and ``49140 MiB GPU`` are what an engine sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..catalog.cards import Card, find_card, total_of_nominal, unified_bytes
from ..errors import UnknownNameError, UsageError
from ..units import GIB, KIB, MIB, TIB, gib
from .records import Gpu, Host, Machine

EXAMPLE: Final = "write for example '2x RTX 3090, 64 GiB RAM, 16 cores'"
LONGEST: Final = 2000
"""Characters of a description."""
MOST_GPUS: Final = 256
BYTES_PER_TRANSFER: Final = 8
"""A memory channel is 64 bits wide (JEDEC DDR3 to DDR5; a DDR5 module counts as one channel)."""

BACKENDS: Final = {"nvidia": "cuda", "amd": "rocm", "apple": "metal", "intel": "sycl"}
"""llama.cpp's backend for a vendor's cards."""

_UNITS: Final = {"k": KIB, "m": MIB, "g": GIB, "t": TIB}
_NUMBER = r"\d{1,9}(?:\.\d{1,6})?"
_SIZE = rf"(?P<size>{_NUMBER})\s*(?P<unit>[kmgt])(?P<binary>i?)b?"
_CARD_SIZE = rf"(?P<size>{_NUMBER})\s*(?P<unit>[mg])(?P<binary>i?)b"
_TIMES = r"(?:(?P<count>\d{1,9})\s*[x×*]\s*)"
_COUNT = _TIMES + "?"
_RATE = rf"(?P<rate>{_NUMBER})\s*gi?b\s*(?:/\s*s|ps)"
_AT = rf"(?:\s*@\s*{_RATE})?"
_DDR = r"(?P<ddr>(?:lp)?ddr\d\w?)(?:[- ](?P<speed>\d{3,5}))?(?:\s*(?:mt/s|mhz))?"
_CHANNELS = r"(?:\s*(?:[x×]\s*(?P<channels>\d{1,2})|(?P<channels2>\d{1,2})[- ]channels?))?"


@dataclass(slots=True)
class _Draft:
    """What the pieces have said so far."""

    cards: list[tuple[Card, int | None, float | None]] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)
    said: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    basis: str = "given"

    def say(self, what: str, value: object, piece: str) -> None:
        if self.said.setdefault(what, value) != value:
            raise UsageError(f"{piece!r} gives the {what} a second time", "say it once")


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
    draft = _Draft()
    for piece in pieces:
        for pattern, rule in _RULES:
            if match := pattern.fullmatch(piece):
                rule(draft, match, piece)
                break
    return _machine(draft, " ".join(text.split()))


def assembled(card: Card, count: int, ram_bytes: int) -> Machine:
    """A machine with so many of one card and this much memory, as its description would give.

    ``source`` of the result is that description; a unified part has ``ram_bytes`` of its own.
    """
    draft = _Draft()
    size = gib(ram_bytes).replace(".00", "")
    if card.shared:
        draft.cards.append((card, ram_bytes, None))
        draft.gpus.append(Gpu(name=card.name, shared=True))
        return _machine(draft, f"{card.label}, {size} RAM")
    draft.gpus += [_gpu(card, card.total_bytes, None)] * count
    draft.say("RAM", ram_bytes, card.name)
    return _machine(draft, f"{count}x {card.label}, {size} RAM")


def _bytes(match: re.Match[str], piece: str) -> int:
    size = int(float(match["size"]) * _UNITS[match["unit"].lower()])
    if not 0 < size <= 1024 * TIB:
        raise UsageError(f"{piece!r} is no size that memory has", EXAMPLE)
    return size


def _rate(match: re.Match[str], piece: str) -> float | None:
    if match["rate"] is None:
        return None
    rate = float(match["rate"])
    if not 0 < rate <= 1e6:
        raise UsageError(f"{piece!r} is no bandwidth that memory has", EXAMPLE)
    return rate


def _count(match: re.Match[str], piece: str) -> int:
    count = int(match.groupdict().get("count") or 1)
    if not 0 < count <= MOST_GPUS:
        raise UsageError(f"{piece!r}: a machine has 1 to {MOST_GPUS} of them", EXAMPLE)
    return count


def _system(draft: _Draft, match: re.Match[str], piece: str) -> None:
    word = match[0].lower()
    draft.say("operating system", {"mac": "macos", "darwin": "macos"}.get(word, word), piece)


def _cores(draft: _Draft, match: re.Match[str], piece: str) -> None:
    cores = int(match["cores"])
    if not 0 < cores <= 4096:
        raise UsageError(f"{piece!r} is no number of cores", EXAMPLE)
    draft.say("cores", cores, piece)


def _no_gpu(_draft: _Draft, _match: re.Match[str], _piece: str) -> None:
    """Said for the reader: a machine without a card in its description has none."""


def _ram_rate(draft: _Draft, match: re.Match[str], piece: str) -> None:
    draft.say("RAM bandwidth", _rate(match, piece), piece)


def _ram(draft: _Draft, match: re.Match[str], piece: str) -> None:
    draft.say("RAM", _bytes(match, piece) * _count(match, piece), piece)
    found = match.groupdict()
    if found.get("rate"):
        draft.say("RAM bandwidth", _rate(match, piece), piece)
    channels = found.get("channels") or found.get("channels2")
    if found.get("speed") and channels:
        rate = int(found["speed"]) * BYTES_PER_TRANSFER * int(channels) / 1000
        if rate <= 0:
            raise UsageError(f"{piece!r} is no bandwidth that memory has", EXAMPLE)
        draft.say("RAM bandwidth", rate, piece)
        draft.basis = "theoretical"
    elif found.get("ddr") and not found.get("rate"):
        draft.notes.append(
            f"RAM bandwidth: {piece!r} does not say speed and channels (DDR5-5600 x2)"
        )


def _bare_size(_draft: _Draft, _match: re.Match[str], piece: str) -> None:
    raise UsageError(
        f"{piece!r} does not say whose memory it is", f"write '{piece} RAM' or '{piece} GPU'"
    )


def _bare_gpu(draft: _Draft, match: re.Match[str], piece: str) -> None:
    size, rate = _bytes(match, piece), _rate(match, piece)
    gib_said = bool(match["binary"])
    notes = ["a card that is described by its memory alone: its computing rate is not known"]
    if not gib_said:
        total = total_of_nominal("nvidia", size)
        notes.append(f"{gib(total)} of {gib(size)} on the box, less what a CUDA driver keeps")
        size = total
    if rate is None:
        notes.append("bandwidth was not given (48 GB GPU @ 768 GB/s)")
    gpu = Gpu(name=piece, total_bytes=size, bandwidth_gb_s=rate, notes=tuple(notes))
    draft.gpus += [gpu] * _count(match, piece)


def _named_gpu(draft: _Draft, match: re.Match[str], piece: str) -> None:
    name = match["name"]
    size = None
    try:
        card = find_card(name)
    except UnknownNameError as unknown:
        sized = _NAME_AND_SIZE.fullmatch(name)
        if sized is None:
            raise _understood(piece, unknown) from None
        size = _bytes(sized, piece)
        try:
            card = find_card(sized["name"], memory_bytes=size)
        except UnknownNameError as e:
            raise _understood(piece, e) from None
    count, rate = _count(match, piece), _rate(match, piece)
    if card.shared:
        if count > 1 or any(c.shared for c, _, _ in draft.cards):
            raise UsageError(
                f"{piece!r}: a machine has one {card.name}", "describe each machine apart"
            )
        draft.cards.append((card, size, rate))
        draft.gpus.append(Gpu(name=card.name, shared=True))
    else:
        draft.gpus += [_gpu(card, card.total_bytes, rate)] * count


def _understood(piece: str, unknown: UnknownNameError) -> UnknownNameError | UsageError:
    """A card that may well exist is not known; anything else is not understood."""
    if unknown.near or _CARD_WORDS.search(piece):
        return unknown
    return UsageError(f"{piece[:80]!r} makes no sense in a machine's description", EXAMPLE)


def _gpu(card: Card, total: int | None, rate: float | None) -> Gpu:
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


def _machine(draft: _Draft, text: str) -> Machine:
    gpus = list(draft.gpus)
    for card, size, rate in draft.cards:
        if size is None and "RAM" not in draft.said and card.memory_bytes is not None:
            size = card.memory_bytes
            draft.notes.append(f"RAM: {gib(size)}, the size that {card.name} is sold with")
        if size is not None:
            draft.say("RAM", size, card.name)
        at = next(i for i, g in enumerate(gpus) if g.shared and g.card_id is None)
        gpus[at] = _unified(card, draft.said.get("RAM"), rate)
        if "RAM bandwidth" not in draft.said and gpus[at].bandwidth_gb_s:
            draft.said["RAM bandwidth"] = gpus[at].bandwidth_gb_s
            draft.basis = "given" if rate else "theoretical"
        if card.vendor == "apple":
            draft.said.setdefault("operating system", "macos")
    return Machine(host=_host(draft), gpus=tuple(gpus), source=text)


def _unified(card: Card, ram: object, rate: float | None) -> Gpu:
    if not isinstance(ram, int):
        gpu = _gpu(card, None, rate)
        return _noted(gpu, f"its memory is the machine's, which was not given ({card.label} 64GB)")
    total = unified_bytes(card, ram)
    return _noted(
        _gpu(card, total, rate), f"{gib(total)} of the machine's {gib(ram)}, not beside it"
    )


def _noted(gpu: Gpu, note: str) -> Gpu:
    from dataclasses import replace

    return replace(gpu, notes=(*gpu.notes, note))


def _host(draft: _Draft) -> Host:
    ram, rate = draft.said.get("RAM"), draft.said.get("RAM bandwidth")
    cores, system = draft.said.get("cores"), draft.said.get("operating system", "unknown")
    if ram is None:
        draft.notes.append("RAM was not given (64 GiB RAM)")
    if rate is None:
        draft.notes.append("RAM bandwidth was not given (64 GiB RAM @ 51 GB/s)")
    if cores is None:
        draft.notes.append("cores were not given (16 cores)")
    return Host(
        os=str(system),
        physical_cores=cores if isinstance(cores, int) else None,
        ram_total_bytes=ram if isinstance(ram, int) else None,
        ram_bandwidth_gb_s=rate if isinstance(rate, float) else None,
        ram_bandwidth_basis=draft.basis if rate is not None else None,
        notes=tuple(draft.notes),
    )


_SEPARATOR: Final = re.compile(r"[,;\n]|\s\+\s*|\+(?=\S)")
_NAME_AND_SIZE: Final = re.compile(
    rf"(?P<name>.+?)[\s(]*{_CARD_SIZE}[\s)]*(?:vram|memory|unified)?", re.IGNORECASE
)
_CARD_WORDS: Final = re.compile(
    r"nvidia|geforce|[rg]tx|quadro|tesla|radeon|\brx\b|instinct|\barc\b|apple|gpu|\bxtx?\b"
    r"|\b[mahblp]\d{1,3}\b",
    re.IGNORECASE,
)

_Rule = Callable[[_Draft, "re.Match[str]", str], None]


def _rule(pattern: str, handler: _Rule) -> tuple[re.Pattern[str], _Rule]:
    return re.compile(pattern, re.IGNORECASE), handler


_RULES: Final = (
    _rule(r"linux|windows|macos|mac|darwin", _system),
    _rule(r"(?P<cores>\d{1,9})\s*[- ]?(?:physical |cpu )?cores?", _cores),
    _rule(r"no gpus?|without gpus?|cpu(?: only)?", _no_gpu),
    _rule(rf"ram\s*(?:bandwidth)?\s*@?\s*{_RATE}", _ram_rate),
    _rule(rf"{_RATE}\s*ram", _ram_rate),
    _rule(rf"{_COUNT}{_SIZE}\s*(?:of )?(?:ram|memory|system memory){_AT}", _ram),
    _rule(rf"ram:?\s*{_COUNT}{_SIZE}{_AT}", _ram),
    _rule(rf"{_COUNT}{_SIZE}\s*(?:ram\s*)?{_DDR}(?:\s*ram)?{_CHANNELS}(?:\s*ram)?{_AT}", _ram),
    _rule(rf"{_COUNT}{_SIZE}\s*(?:gpus?|vram|card){_AT}", _bare_gpu),
    _rule(rf"{_COUNT}(?:gpus?|vram)\s*{_SIZE}{_AT}", _bare_gpu),
    _rule(_SIZE, _bare_size),
    _rule(rf"{_TIMES}(?P<name>.+?){_AT}", _named_gpu),
    _rule(rf"(?P<name>.+?)(?:\s+x|\s*[×*])\s*(?P<count>\d{{1,9}}){_AT}", _named_gpu),
    _rule(rf"(?P<name>.+?){_AT}", _named_gpu),
)
"""From the top: the first pattern that fits the whole piece decides; the last fits every piece."""
