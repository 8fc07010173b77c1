"""Fit the constants of the speed model to the published measurements, and say how well they do.

    python -m benchmarks.speed.calibrate              fit, cross-validate, print the errors
    python -m benchmarks.speed.calibrate --write      and write src/nemofit/speed/fitted.py,
                                                      docs/img/speed.svg

Needs numpy; nothing else of nemofit does. About ten minutes on one core.

The logarithm of estimated over measured speed is made small by damped Gauss-Newton steps with a
weight that lets single odd rows go (Cauchy), while each constant is held to its prior
(``priors.py``). Errors are published for rows that the constants had not seen: whole devices left
out, and whole families of models.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemofit.speed.constants import constants_of
from nemofit.speed.spread import names_of

from .plot import scatter
from .priors import CPU_SPREAD, PRIOR, SPREAD
from .rows import Row, rows
from .write import write_fitted

ROOT = Path(__file__).parents[2]
TYPICAL = 0.12
"""Error of a usual row: above it a row counts less and less."""
STEP = 1e-3
FOLDS = 10
OUTSIDE = 0.04
"""Share of the measurements below a range, and above it: less than a twentieth, since the machines
to come are not in the data."""
LEAST_ROWS = 60
"""Fewer of a kind of run say too little about its range: it gets that of the wider kind."""

Path_ = tuple[str, ...]


class Fit:
    """Constants as a vector of logarithms."""

    def __init__(self, data: Sequence[Row]) -> None:
        self.paths = [p for p in _paths(PRIOR) if _counts(p, data)]
        self.prior = np.array([math.log(_get(PRIOR, p)) for p in self.paths])
        self.held = np.array([_spread(p) for p in self.paths])

    def values(self, x: np.ndarray) -> dict[str, Any]:
        """Plain values, nested as in the prior."""
        out = copy.deepcopy(PRIOR)
        for path, v in zip(self.paths, x, strict=True):
            _put(out, path, math.exp(v))
        return out

    def errors(self, x: np.ndarray, data: Sequence[Row]) -> np.ndarray:
        constants = constants_of(self.values(x))
        return np.array([row.error(constants) for row in data])

    def solve(
        self, data: Sequence[Row], start: np.ndarray | None = None, most: int = 25
    ) -> np.ndarray:
        weight = _weights(data)
        touched = [[i for i, r in enumerate(data) if _concerns(p, r)] for p in self.paths]
        x = self.prior.copy() if start is None else start.copy()
        error = self.errors(x, data)
        cost = self._cost(x, error, weight)
        damping = 1e-2
        for _ in range(most):
            jacobian = np.zeros((len(data), len(x)))
            for k, indices in enumerate(touched):
                moved = x.copy()
                moved[k] += STEP
                some = [data[i] for i in indices]
                jacobian[indices, k] = (self.errors(moved, some) - error[indices]) / STEP
            pull = weight / (1 + (error / TYPICAL) ** 2 / 2) / TYPICAL**2
            normal = jacobian.T @ (jacobian * pull[:, None]) + np.diag(1 / self.held**2)
            slope = jacobian.T @ (pull * error) + (x - self.prior) / self.held**2
            for _ in range(8):
                damped = normal + damping * np.diag(np.diag(normal))
                trial = x - np.clip(np.linalg.solve(damped, slope), -0.7, 0.7)
                trial_error = self.errors(trial, data)
                trial_cost = self._cost(trial, trial_error, weight)
                if trial_cost < cost:
                    break
                damping *= 4
            else:
                return x
            gain, x, error, cost = cost - trial_cost, trial, trial_error, trial_cost
            damping = max(damping / 5, 1e-6)
            if gain < 0.5:
                break
        return x

    def _cost(self, x: np.ndarray, error: np.ndarray, weight: np.ndarray) -> float:
        rows_part = 2 * (weight * np.log1p((error / TYPICAL) ** 2 / 2)).sum()
        return float(rows_part + (((x - self.prior) / self.held) ** 2).sum())


def _paths(values: dict[str, Any], at: Path_ = ()) -> list[Path_]:
    out: list[Path_] = []
    for name, value in values.items():
        out += _paths(value, (*at, name)) if isinstance(value, dict) else [(*at, name)]
    return out


def _get(values: Any, path: Path_) -> float:
    for name in path:
        values = values[name]
    return float(values)


def _put(values: Any, path: Path_, value: float) -> None:
    for name in path[:-1]:
        values = values[name]
    values[path[-1]] = value


def _spread(path: Path_) -> float:
    if path[:2] == ("families", "cpu") and path[2] in CPU_SPREAD:
        return CPU_SPREAD[path[2]]
    return SPREAD[path[0] if path[0] in ("clocks_per_weight", "cpu_clocks") else path[-1]]


def _concerns(path: Path_, row: Row) -> bool:
    """Whether a row's estimate can depend on a constant."""
    if path[0] == "families":
        return path[1] in row.families()
    if path[0] == "backends":
        return path[1] == row.run.config.backend
    if path[0] in ("clocks_per_weight", "cpu_clocks"):
        return any(
            path[1] in kinds
            for w in row.run.works
            if (w.device < 0) == (path[0] == "cpu_clocks")
            for kinds in (w.dense, w.experts)
        )
    return True


def _counts(path: Path_, data: Sequence[Row]) -> bool:
    known = path[0] in ("clocks_per_weight", "cpu_clocks") or path[-1] in SPREAD
    own = path[0] == "backends" and path[1] != "vulkan"
    if own and path[-1] not in ("graphless", "tile", "cache"):
        return False
    if path[-1] == "graphless" and path[1] != "cuda":
        return False
    return known and any(_concerns(path, r) for r in data)


def _weights(data: Sequence[Row]) -> np.ndarray:
    """Rows of one run and kind together count like the root of their number."""
    n = Counter((r.run.source, r.run.device, r.run.model.id, r.phase) for r in data)
    return np.array(
        [
            r.run.weight / math.sqrt(n[r.run.source, r.run.device, r.run.model.id, r.phase])
            for r in data
        ]
    )


def unseen(
    fit: Fit,
    data: Sequence[Row],
    start: np.ndarray,
    group: Callable[[Row], str],
    folds: int = FOLDS,
) -> list[float]:
    """Errors of every row by constants found without its whole group."""
    load = [0] * folds
    fold: dict[str, int] = {}
    for name, n in Counter(group(r) for r in data).most_common():
        fold[name] = load.index(min(load))
        load[fold[name]] += n
    out = [0.0] * len(data)
    for k in range(folds):
        x = fit.solve([r for r in data if fold[group(r)] != k], start, most=12)
        constants = constants_of(fit.values(x))
        for i, row in enumerate(data):
            if fold[group(row)] == k:
                out[i] = row.error(constants)
        print(f"fold {k + 1} of {folds}", file=sys.stderr)
    return out


def family(row: Row) -> str:
    """The family of a model, by the first words of its name: qwen3.5, llama, gemma-4, ..."""
    name = row.run.model.id
    return next(
        (
            name[:i]
            for i, c in enumerate(name)
            if c == "-" and any(d.isdigit() for d in name[i + 1 : i + 4])
        ),
        name,
    )


def table(data: Sequence[Row], errors: Sequence[float], key: Callable[[Row], str]) -> list[str]:
    """One line per key: rows, median error, 90th percentile, share within 30 %."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row, e in zip(data, errors, strict=True):
        groups[key(row)].append(e)
    lines = []
    for name in sorted(groups):
        found = groups[name]
        absolute = sorted(abs(math.exp(e) - 1) for e in found)
        lines.append(
            f"{name:24s} {len(found):5d} {100 * statistics.median(absolute):6.1f} % "
            f"{100 * absolute[int(0.9 * (len(found) - 1))]:6.1f} % "
            f"{100 * sum(a <= 0.3 for a in absolute) / len(found):5.0f} % "
            f"{100 * (math.exp(statistics.median(found)) - 1):+5.0f} %"
        )
    return lines


def spreads(data: Sequence[Row], *tries: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Factors from the likely speed to the ends of the range, by phase, kind and sparsity.

    The 4th and the 96th percentile, with the weights of the fit, so that a source with many rows
    of one kind does not decide. Several GPUs, of which few sources tell, get no narrower range
    than one.
    """
    weight = _weights(data)
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for errors in tries:
        for row, e, w in zip(data, errors, weight, strict=True):
            for name in names_of(row.phase, row.kind(), row.sparse):
                groups[name].append((-e, float(w)))
    out = {}
    for name, found in sorted(groups.items()):
        if len(found) < LEAST_ROWS * len(tries):
            continue
        low, high = _quantile(found, OUTSIDE), _quantile(found, 1 - OUTSIDE)
        out[name] = (min(math.exp(low), 0.95), max(math.exp(high), 1.05))
    for name, (low, high) in out.items():
        one = out.get(name.replace("/multi/", "/gpu/"), (1.0, 1.0))
        out[name] = (min(low, one[0]), max(high, one[1]))
    return out


def _quantile(weighted: Sequence[tuple[float, float]], share: float) -> float:
    ordered = sorted(weighted)
    at = share * sum(w for _, w in ordered)
    for value, w in ordered:
        at -= w
        if at <= 0:
            return value
    return ordered[-1][0]


def covered(
    data: Sequence[Row], errors: Sequence[float], found: dict[str, tuple[float, float]]
) -> str:
    inside, widths = 0, []
    for row, e in zip(data, errors, strict=True):
        names = names_of(row.phase, row.kind(), row.sparse)
        low, high = next(found[name] for name in names if name in found)
        inside += low <= math.exp(-e) <= high
        widths.append(high / low)
    return (
        f"{100 * inside / len(data):.0f} % of the rows inside the range, "
        f"median width a factor {statistics.median(widths):.2f}"
    )


def measured_cards(data: Sequence[Row]) -> Counter[str]:
    """Decode measurements of today's builds by card, where one card did all the work."""
    return Counter(
        str(row.run.gpus[0].card_id)
        for row in data
        if row.test == "decode" and row.kind() in ("gpu", "apple") and not row.run.old
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--write", action="store_true", help="write the constants and the plot")
    options = asked.parse_args()
    data = rows()
    fit = Fit(data)
    best = fit.solve(data)
    constants = constants_of(fit.values(best))
    seen = [row.error(constants) for row in data]
    by_device = unseen(fit, data, best, lambda r: r.run.device)
    by_family = unseen(fit, data, best, family)

    def kinds(r: Row) -> str:
        return f"{r.phase}, {r.kind()}"

    head = f"{'':24s}  rows   median    90 %   in 30 %  bias"
    for title, errors in (
        ("whole devices left out", by_device),
        ("whole model families left out", by_family),
        ("seen", seen),
    ):
        print(f"\n{title}\n{head}")
        print("\n".join(table(data, errors, kinds)))
        new = [(r, e) for r, e in zip(data, errors, strict=True) if not r.run.old]
        print(f"of these, measured from 2025 on\n{head}")
        print("\n".join(table([r for r, _ in new], [e for _, e in new], kinds)))
    ranges = spreads(data, by_device, by_family)
    for title, errors in (("devices", by_device), ("families", by_family)):
        print(f"{title} left out: {covered(data, errors, ranges)}")
    if options.write:
        counts = Counter(f for r in data for f in r.families())
        write_fitted(
            ROOT / "src/nemofit/speed/fitted.py",
            fit.values(best),
            counts,
            measured_cards(data),
            ranges,
            len(data),
        )
        scatter(ROOT / "docs/img/speed.svg", data, by_device)


if __name__ == "__main__":
    main()
