"""A scatter plot of estimated over measured speeds as SVG, written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .rows import Row

SIZE, MARGIN = 420, 52
LOW, HIGH = 1.0, 40_000.0
COLOURS = {
    "gpu": "#3b6fb6", "multi": "#5aa469", "partial": "#d1812f", "cpu": "#b03a48",
    "apple": "#7d5ba6", "streams": "#8a8d91",
}  # fmt: skip
NAMES = {
    "gpu": "one GPU", "multi": "several GPUs", "partial": "GPU and host", "cpu": "processor only",
    "apple": "Apple", "streams": "several streams",
}  # fmt: skip


def _at(value: float) -> float:
    inside = min(max(value, LOW), HIGH)
    return SIZE * math.log(inside / LOW) / math.log(HIGH / LOW)


def scatter(path: Path, data: Sequence[Row], errors: Sequence[float]) -> None:
    """Write the plot: generation on the left, prompts on the right."""
    width, height = 2 * SIZE + 3 * MARGIN, SIZE + 2 * MARGIN + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for panel, phase in enumerate(("decode", "prefill")):
        x0, y0 = MARGIN + panel * (SIZE + MARGIN), MARGIN + SIZE
        out += _axes(x0, y0, phase)
        for row, e in zip(data, errors, strict=True):
            if row.phase == phase:
                x, y = x0 + _at(row.speed), y0 - _at(row.speed * math.exp(e))
                out.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{COLOURS[row.kind()]}" '
                    'fill-opacity="0.55"/>'
                )
    x = float(MARGIN)
    for kind, colour in COLOURS.items():
        out.append(f'<circle cx="{x}" cy="{height - 14}" r="4" fill="{colour}"/>')
        out.append(f'<text x="{x + 9}" y="{height - 10}">{NAMES[kind]}</text>')
        x += 130
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*out, "</svg>"]) + "\n", encoding="utf-8")


def _axes(x0: float, y0: float, phase: str) -> list[str]:
    title = "generation" if phase == "decode" else "prompts"
    out = [
        f'<path d="M{x0} {y0}v-{SIZE}h{SIZE}v{SIZE}z" fill="none" stroke="#999"/>',
        f'<text x="{x0}" y="{y0 - SIZE - 10}" font-size="13">{title}, tokens per second: '
        "estimated over measured</text>",
    ]
    for k in range(5):
        v = 10.0**k
        a = _at(v)
        out.append(f'<text x="{x0 + a}" y="{y0 + 14}" text-anchor="middle">{v:g}</text>')
        out.append(f'<text x="{x0 - 4}" y="{y0 - a + 4}" text-anchor="end">{v:g}</text>')
    for factor, dash in ((1.0, ""), (1.3, "3 3"), (1 / 1.3, "3 3")):
        shift = SIZE * math.log(factor) / math.log(HIGH / LOW)
        x1, y1 = x0 + max(-shift, 0), y0 - max(shift, 0)
        x2, y2 = x0 + SIZE - max(shift, 0), y0 - SIZE + max(-shift, 0)
        out.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#555" '
            f'stroke-dasharray="{dash}"/>'
        )
    return out
