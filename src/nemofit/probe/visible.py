"""Which cards a run started from here would see, and in which order.

NVML and sysfs show every card; CUDA, ROCm and oneAPI filter by environment. Rules: CUDA programming
guide, "CUDA environment variables"; MIG user guide, "CUDA device enumeration"; ROCm, "GPU isolation
techniques"; for repeated and trailing entries PyTorch's reading of the same variables
(pytorch/pytorch, torch/cuda/__init__.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..machine.records import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A device with what only the order needs.

    Attributes:
        card: Which physical card it is or lies on.
        speed: Any figure that grows with the card's speed, 0: unknown.
        instance: GPU and compute instance of a MIG slice.
    """

    gpu: Gpu
    card: int
    speed: float = 0.0
    instance: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What is visible, in the engine's order, and what is not."""

    visible: tuple[Gpu, ...]
    hidden: tuple[Gpu, ...]
    notes: tuple[str, ...] = ()


def chosen(value: str, ids: Sequence[str | None], prefix: str = "GPU-") -> list[int]:
    """Ordinals that a list such as ``"2,0"`` or ``"GPU-8932f937"`` chooses.

    The first entry that names nothing hides itself and all that follow; a repeated one hides all.

    Args:
        value: The variable's text.
        ids: Identifiers by ordinal, None where unknown.
        prefix: How identifiers begin.
    """
    by_id = value.strip().startswith(prefix)
    found: list[int] = []
    for entry in (e.strip() for e in value.split(",")):
        if by_id:
            hits = [i for i, known in enumerate(ids) if known and known.startswith(entry)]
            n = hits[0] if entry.startswith(prefix) and len(hits) == 1 else -1
        else:
            m = re.match(r"\+?(\d{1,9})", entry)
            n = int(m[1]) if m else -1
        if not 0 <= n < len(ids):
            break
        if n in found:
            return []
        found.append(n)
    return found


def cuda_view(candidates: Sequence[Candidate], environ: Mapping[str, str]) -> View:
    """Apply CUDA_DEVICE_ORDER and CUDA_VISIBLE_DEVICES, and CUDA's one MIG slice per process."""
    ordered, notes = _cuda_order(candidates, environ)
    value = environ.get("CUDA_VISIBLE_DEVICES")
    picked = ordered if value is None else _cuda_pick(ordered, value)
    slices = [c for c in picked if c.instance is not None]
    seen = slices[:1] or picked
    hidden = []
    for c in ordered:
        if c in seen:
            continue
        if value is not None and c not in picked:
            why = f"hidden by CUDA_VISIBLE_DEVICES={shown(value)}"
        else:
            why = (
                "CUDA gives a process one MIG slice and no other device; "
                f"choose with CUDA_VISIBLE_DEVICES={c.gpu.uuid}"
            )
        hidden.append(with_note(c.gpu, why))
    if value is not None and candidates:
        notes.append(
            f"CUDA_VISIBLE_DEVICES={shown(value)} shows a run "
            f"{len(seen)} of {len(candidates)} NVIDIA devices"
        )
    return View(tuple(c.gpu for c in seen), tuple(hidden), tuple(notes))


def rocm_view(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> View:
    """Apply ROCR_VISIBLE_DEVICES, and to what it leaves HIP_ or CUDA_VISIBLE_DEVICES."""
    hip = "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in environ else "CUDA_VISIBLE_DEVICES"
    return _filtered(gpus, environ, ("ROCR_VISIBLE_DEVICES", hip), "AMD")


def oneapi_view(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> View:
    """Apply ZE_AFFINITY_MASK; ONEAPI_DEVICE_SELECTOR is only pointed out."""
    view = _filtered(gpus, environ, ("ZE_AFFINITY_MASK",), "Intel")
    selector = environ.get("ONEAPI_DEVICE_SELECTOR")
    if selector is None or not gpus:
        return view
    note = f"ONEAPI_DEVICE_SELECTOR={shown(selector)} is set and not taken into account"
    return View(view.visible, view.hidden, (*view.notes, note))


def with_note(gpu: Gpu, note: str) -> Gpu:
    """The same card with one more note."""
    return replace(gpu, notes=(*gpu.notes, note))


def shown(value: str) -> str:
    """A variable's text, safe and short enough for a message."""
    return repr(value if len(value) <= 80 else value[:77] + "...")


def _filtered(
    gpus: Sequence[Gpu], environ: Mapping[str, str], variables: Sequence[str], vendor: str
) -> View:
    visible, hidden, notes = list(gpus), [], []
    for name in variables:
        value = environ.get(name)
        if value is None or not gpus:
            continue
        left = [visible[n] for n in chosen(value, [g.uuid for g in visible])]
        why = f"hidden by {name}={shown(value)}"
        hidden += [with_note(g, why) for g in visible if g not in left]
        visible = left
        notes.append(f"{name}={shown(value)} shows a run {len(left)} of {len(gpus)} {vendor} cards")
    return View(tuple(visible), tuple(hidden), tuple(notes))


def _cuda_order(
    candidates: Sequence[Candidate], environ: Mapping[str, str]
) -> tuple[list[Candidate], list[str]]:
    by_bus = sorted(candidates, key=lambda c: c.card)
    if environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return by_bus, []
    names = {c.gpu.name for c in by_bus if c.instance is None and c.gpu.error is None}
    if len(names) < 2:
        return by_bus, []
    return sorted(by_bus, key=lambda c: -c.speed), [
        "the cards differ and CUDA counts the fastest first, by a rule of its own: "
        "set CUDA_DEVICE_ORDER=PCI_BUS_ID to count them as nvidia-smi does"
    ]


def _cuda_pick(ordered: Sequence[Candidate], value: str) -> list[Candidate]:
    text = value.strip()
    if text.startswith("MIG-GPU-"):
        return _old_mig(ordered, text)
    if text.startswith("MIG-"):
        slices = [c for c in ordered if c.instance is not None]
        return [slices[n] for n in chosen(text, [c.gpu.uuid for c in slices], "MIG-")]
    cards = list(dict.fromkeys(c.card for c in ordered))
    ids = [_card_uuid(ordered, card) for card in cards]
    return [c for n in chosen(text, ids) for c in ordered if c.card == cards[n]]


def _card_uuid(ordered: Sequence[Candidate], card: int) -> str | None:
    first = next(c for c in ordered if c.card == card)
    return first.gpu.uuid if first.instance is None else first.gpu.parent_uuid


def _old_mig(ordered: Sequence[Candidate], text: str) -> list[Candidate]:
    """``MIG-GPU-<uuid>/<GPU instance>/<compute instance>``, as drivers before R470 name slices."""
    found: list[Candidate] = []
    for entry in (e.strip() for e in text.split(",")):
        card, _, rest = entry.removeprefix("MIG-").partition("/")
        hits = [
            c
            for c in ordered
            if c.instance is not None
            and c.gpu.parent_uuid == card
            and rest == f"{c.instance[0]}/{c.instance[1]}"
        ]
        if len(hits) != 1:
            break
        found += hits
    return found
