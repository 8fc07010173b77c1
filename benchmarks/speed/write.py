"""Write the fitted constants as a module: plain numbers, three significant digits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAD = '''"""Values of the constants in :mod:`.constants`. Written, not edited.

Source: {rows} measurements in data/measurements.yaml, by
``python -m benchmarks.speed.calibrate --write``.
Valid for llama.cpp builds of 2025 and 2026 with flash attention; docs/speed.md tells how well.
"""

from __future__ import annotations

from typing import Any

'''


def write_fitted(
    path: Path,
    values: Mapping[str, Any],
    rows: Mapping[str, int],
    cards: Mapping[str, int],
    spreads: Mapping[str, tuple[float, float]],
    n: int,
) -> None:
    """Write ``fitted.py``.

    Args:
        path: The module.
        values: The constants, nested.
        rows: Measurements by family.
        cards: Decode measurements by card, of runs on one card alone.
        spreads: Factors to the ends of the range by kind of run.
        n: Measurements in all.
    """
    text = HEAD.format(rows=n)
    text += f"VALUES: dict[str, Any] = {_dict(values)}\n\n"
    text += f"ROWS: dict[str, int] = {_dict(dict(sorted(rows.items())))}\n"
    text += '"""Measurements by family; a family that is not here has none."""\n\n'
    text += f"CARDS: dict[str, int] = {_dict(dict(sorted(cards.items())))}\n"
    text += '"""Decode measurements by card, on one card alone."""\n\n'
    text += f"SPREADS: dict[str, tuple[float, float]] = {_dict(spreads)}\n"
    text += '"""Factors from the likely speed to the low and the high one, see :mod:`.spread`."""\n'
    path.write_text(text, encoding="utf-8")


def _dict(values: Mapping[str, Any], indent: int = 1) -> str:
    pad = "    " * indent
    if all(not isinstance(v, dict) for v in values.values()) and len(values) < 10:
        flat = "{" + ", ".join(f'"{k}": {_value(v)}' for k, v in values.items()) + "}"
        if len(flat) + len(pad) + 24 < 100:
            return flat
    lines = [
        f'{pad}"{k}": {_dict(v, indent + 1) if isinstance(v, dict) else _value(v)},\n'
        for k, v in values.items()
    ]
    return "{\n" + "".join(lines) + "    " * (indent - 1) + "}"


def _value(v: Any) -> str:
    if isinstance(v, tuple):
        return "(" + ", ".join(_value(x) for x in v) + ")"
    if isinstance(v, int):
        return str(v)
    text = f"{v:.3g}"
    return repr(float(text))
