"""The command ``nemofit``, also as ``python -m nemofit``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    ``--version`` is answered before anything else is imported: scripts ask it often.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if args == ["--version"]:
        from ._version import __version__

        sys.stdout.write(f"nemofit {__version__}\n")
        return 0
    if argv is None:
        _collect_seldom()
    from .cli.app import run

    return run(args)


def _collect_seldom() -> None:
    """A process this short frees its memory soon enough; looking for it costs 7 % of the time."""
    import gc

    gc.set_threshold(20_000, 20, 20)


if __name__ == "__main__":
    sys.exit(main())
