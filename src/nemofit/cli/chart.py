"""Memory over time as an SVG picture: one line per device, the plan's part dashed beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nemofit.units import GIB

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 24, 44
_LEGEND = 20
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")


@dataclass(frozen=True, slots=True)
class Series:
    """One device: (seconds, bytes) in order of time, and the plan's bytes; None: no plan."""

    name: str
    points: Sequence[tuple[float, int]]
    planned: int | None = None


def draw(series: Sequence[Series], title: str) -> str:
    """The whole picture, as text."""
    shown = [one for one in series if one.points]
    seconds = max((one.points[-1][0] for one in shown), default=0.0) or 1.0
    top = max(
        [n for one in shown for _, n in one.points] + [one.planned or 0 for one in shown] + [1]
    )
    step = _step(top / GIB)
    most = math.ceil(top / GIB / step) * step
    height = _HEIGHT + _LEGEND * len(shown)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(title)}</text>',
    ]

    def x(at: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * at / seconds, 1)

    def y(gib: float) -> float:
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * gib / most, 1)

    for i in range(round(most / step) + 1):
        level = i * step
        out.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(level)}" y2="{y(level)}" '
            'stroke="#ddd"/>'
        )
        out.append(f'<text x="{_LEFT - 6}" y="{y(level) + 4}" text-anchor="end">{level:g}</text>')
    time_step = _step(seconds)
    for i in range(int(seconds / time_step) + 1):
        at = i * time_step
        out.append(
            f'<text x="{x(at)}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{at:g}</text>'
        )
    out.append(
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 10}" text-anchor="end">seconds; GiB</text>'
    )
    for number, one in enumerate(shown):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x(at)},{y(n / GIB)}" for at, n in one.points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if one.planned is not None:
            level = y(one.planned / GIB)
            out.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level}" y2="{level}" '
                f'stroke="{colour}" stroke-dasharray="6 4"/>'
            )
        line = _HEIGHT + _LEGEND * number
        out.append(f'<rect x="{_LEFT}" y="{line}" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{_LEFT + 18}" y="{line + 11}">{escape(_legend(one))}</text>')
    return "\n".join([*out, "</svg>", ""])


def _legend(one: Series) -> str:
    peak = max(n for _, n in one.points)
    planned = "" if one.planned is None else f", planned {one.planned / GIB:.2f} GiB (dashed)"
    return f"{one.name}: peak {peak / GIB:.2f} GiB{planned}"


def _step(most: float) -> float:
    """A round distance such that four to ten of them make the whole."""
    rough = most / 8 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
