"""Write what the examples of the documentation print now into its pages.

python -m benchmarks.docs.refresh [PAGE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .page import PAGES, ROOT, fresh
from .shell import Shell


def main(pages: Sequence[Path]) -> None:
    """Rewrite the pages whose outputs have changed."""
    with TemporaryDirectory(prefix="nemofit-docs-") as scratch:
        for number, page in enumerate(pages):
            place = Path(scratch) / str(number)
            before = page.read_text(encoding="utf-8")
            after = fresh(before, Shell(place, Path(scratch) / "cache"))
            if after != before:
                page.write_text(after, encoding="utf-8")
                print(f"{page.relative_to(ROOT)} has changed: look at the difference")


if __name__ == "__main__":
    main([Path(name).resolve() for name in sys.argv[1:]] or PAGES)
