"""Configurations with anything in any place: a model or one line, and soon."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from nemofit.errors import NemofitError
from nemofit.formats.safetensors.reader import read_checkpoint

from .build import checkpoint
from .test_families import ROWS

VALUES: list[Any] = [
    None, True, 0, -1, 1, 3, 1.5, 1e308, float("inf"), float("nan"), 10**18, 2**31, "", "x",
    "full_attention", "\x1b[31m", "L" * 5000, [], [1], [[]] * 3, [[]] * 4, [{}] * 5, {}, {"a": 1},
    [None] * 4, [512] * 600, {"rope_type": [1]}, {"full_attention": {"rope_theta": "x"}},
    {"quant_method": {}, "config_groups": [1]}, {"quant_method": "awq", "bits": 0},
    {"config_groups": {"g": {"weights": [1]}}}, {"mrope_section": [None, 2**70]}, "MEM*E",
]  # fmt: skip
KEYS = (
    "quantization_config", "text_config", "vision_config", "thinker_config", "rope_scaling",
    "head_dim", "layer_types", "sliding_window_pattern", "num_local_experts", "scoring_func",
    "is_causal", "sliding_window", "hybrid_override_pattern", "layers_block_type",
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["name"])
def test_any_value_under_any_key(row: dict[str, Any], tmp_path: Path) -> None:
    """Thirty of each family, the same ones every time."""
    shapes = {name: (dtype, shape) for name, (dtype, shape) in row["tensors"].items()}
    path = checkpoint(tmp_path / "x", row["config"], shapes)
    chosen = random.Random(row["name"])
    for _ in range(30):
        config = dict(row["config"])
        for _ in range(chosen.randint(1, 3)):
            config[chosen.choice([*config, *KEYS])] = chosen.choice(VALUES)
        (path / "config.json").write_text(json.dumps(config))
        try:
            model = read_checkpoint(path)
        except NemofitError as error:
            assert "\n" not in error.message and "\x1b" not in error.message
            assert len(error.message) < 700
        else:
            assert len(model.tensors) < 1000
