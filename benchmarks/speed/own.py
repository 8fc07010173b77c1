"""How far measurements on a machine carry: the ranges behind ``nemofit calibrate``.

    python -m benchmarks.speed.own

On every published machine with several models, each model is estimated after correction by the
others, as ``nemofit calibrate`` does with one's own. What is left is the range that an estimate
keeps on a machine where something else was measured. Sources that gather the submissions of many
people are left out: a card's name there stands for many machines.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from .rows import Row, rows

GATHERED = ("llmfit", "web")
OUTSIDE = 0.04
"""Share of the measurements below a range, and above it, as for the constants' own ranges."""


def remaining(data: Sequence[Row]) -> dict[str, list[float]]:
    """Measured over estimated speed after correction, by phase and whether the model was measured.

    "decode/same" is the same model in another file type or at another depth.
    """
    machines: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in data:
        run = row.run
        if row.streams == 1 and row.test != "whole" and not any(g in run.source for g in GATHERED):
            where = run.device, run.config.backend, str(run.host.cpu), run.source
            machines[(*where, row.phase, row.kind())].append(row)
    out: dict[str, list[float]] = defaultdict(list)
    for (*_, phase, _), same in machines.items():
        for row in same:
            for kind, others in (
                ("other", [r for r in same if r.run.model.id != row.run.model.id]),
                ("same", [r for r in same if r.run.model.id == row.run.model.id and r is not row]),
            ):
                if others:
                    middle = sum(r.error() for r in others) / len(others)
                    out[f"{phase}/{kind}"].append(math.exp(middle - row.error()))
    return out


def main() -> int:
    """Print the percentiles that ``src/nemofit/speed/measured.py`` keeps."""
    for name, factors in sorted(remaining(rows()).items()):
        factors.sort()
        last = len(factors) - 1
        low, high = (factors[round(q * last)] for q in (OUTSIDE, 1 - OUTSIDE))
        middle = sorted(abs(math.log(f)) for f in factors)[last // 2]
        print(f"{name:16} {len(factors):4} rows  {low:.3f} to {high:.3f}  median {middle:.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
