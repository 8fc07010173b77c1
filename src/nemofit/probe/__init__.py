"""This machine as a :class:`~nemofit.machine.records.Machine`: every card, every limit.

    machine = nemofit.probe_machine()
    machine.host.ram_available_bytes, [g.free_bytes for g in machine.gpus]

A driver that is missing, broken or hung gives a machine without its cards and a note, never an
exception; a card that cannot be read is there with its ``error``. Unknown is None, with the reason
in the notes. What is read from where: docs/probing.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .host import disk_free

if TYPE_CHECKING:
    from ..machine.records import Machine
    from .engines import find_engines, find_program
    from .site import Site

__all__ = ["disk_free", "find_engines", "find_program", "probe", "probe_machine"]


def __getattr__(name: str) -> object:
    if name not in ("find_engines", "find_program"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import engines

    value: object = getattr(engines, name)
    return value


def probe_machine() -> Machine:
    """Read this machine as a run started from this process would see it.

    The environment counts (CUDA_VISIBLE_DEVICES and the like), so do control groups and affinity.
    """
    from .site import this_site

    return probe(this_site())


def probe(site: Site) -> Machine:
    """Read the machine that ``site`` describes."""
    from .assemble import assemble

    return assemble(site)
