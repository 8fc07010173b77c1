"""Variables that show an engine some cards of a machine and hide the others."""

from __future__ import annotations

from collections.abc import Sequence

from nemofit.machine.records import Gpu

_BY_INDEX = {"rocm": "HIP_VISIBLE_DEVICES", "vulkan": "GGML_VK_VISIBLE_DEVICES"}


def visibility(cards: Sequence[Gpu], used: Sequence[Gpu]) -> dict[str, str]:
    """What to set so that only ``used`` are seen, in that order; empty where all equal cards are.

    Different NVIDIA cards are numbered as they are plugged, not the fastest first. They are
    named by UUID where all are known (CUDA C++ Programming Guide, "CUDA Environment
    Variables"), else by index in PCI order.

    Args:
        cards: Every card that the engine would see.
        used: Those that the plan places something on; with none, nothing is hidden here.
    """
    if not used:
        return {}
    backend = used[0].backend
    if list(used) == list(cards):
        mixed = backend == "cuda" and len({gpu.name for gpu in cards}) > 1
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if mixed else {}
    if backend == "cuda":
        names = [gpu.uuid or "" for gpu in used]
        shown = names if all(names) else _indices(cards, used)
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(shown)}
    if backend == "sycl":
        return {"ONEAPI_DEVICE_SELECTOR": "level_zero:" + ",".join(_indices(cards, used))}
    name = _BY_INDEX.get(backend)
    return {name: ",".join(_indices(cards, used))} if name else {}


def _indices(cards: Sequence[Gpu], used: Sequence[Gpu]) -> list[str]:
    """The cards' numbers; equal cards of a description may be one record, met again further on."""
    found, at = [], 0
    for gpu in used:
        at = next((i for i in range(at, len(cards)) if cards[i] is gpu), at)
        found.append(str(at if gpu.index is None else gpu.index))
        at += 1
    return found
