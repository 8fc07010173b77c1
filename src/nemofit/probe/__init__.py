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
    from .site import Site

__all__ = ["disk_free", "probe", "probe_machine"]


def probe_machine() -> Machine:
    """Read this machine as a run started from this process would see it.

    The environment counts (CUDA_VISIBLE_DEVICES and the like), so do control groups and affinity.
    """
    import os
    import sys

    from .site import Site

    return probe(Site(environ=os.environ, system=sys.platform, libraries=True))


def probe(site: Site) -> Machine:
    """Read the machine that ``site`` describes."""
    from .assemble import assemble

    return assemble(site)
