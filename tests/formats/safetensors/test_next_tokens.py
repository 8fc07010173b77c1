"""Next-token layers, under each of the names that repositories give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nemofit.catalog.checkpoint import NEXT_TOKENS
from nemofit.formats.safetensors.reader import read_checkpoint

from .build import checkpoint
from .test_families import ROWS

Shapes = dict[str, tuple[str, list[int]]]


def recorded(name: str) -> tuple[dict[str, Any], Shapes]:
    row = next(r for r in ROWS if r["name"] == name)
    config = json.loads(json.dumps(row["config"]))
    return config, {n: (d, s) for n, (d, s) in row["tensors"].items()}


def layer(shapes: Shapes, prefix: str, to: str) -> Shapes:
    """A layer's tensors once more, under another name."""
    return {to + n.removeprefix(prefix): v for n, v in shapes.items() if n.startswith(prefix)}


def test_qwens_become_a_block(tmp_path: Path) -> None:
    """Qwen/Qwen3-Next-80B-A3B-Instruct: mtp.layers.0, mtp.fc, mtp.norm, mtp.pre_fc_norm_*."""
    config, shapes = recorded("qwen3-next")
    shapes |= layer(shapes, "model.layers.3.", "mtp.layers.0.") | {
        "mtp.fc.weight": ("BF16", [64, 128]),
        "mtp.norm.weight": ("BF16", [64]),
        "mtp.pre_fc_norm_embedding.weight": ("BF16", [64]),
        "mtp.pre_fc_norm_hidden.weight": ("BF16", [64]),
    }
    model = read_checkpoint(checkpoint(tmp_path / "x", config, shapes))
    assert model.integer("block_count") == 5
    assert model.integer("nextn_predict_layers") == 1
    assert model.metadata["attention.recurrent_layers"] == (True, True, True, False, False)
    assert 2 * model.parameters == model.checkpoint.total_bytes  # type: ignore[union-attr]
    assert not model.checkpoint.other_bytes  # type: ignore[union-attr]


@pytest.mark.parametrize("copies", [True, False])
def test_glms_become_a_block(tmp_path: Path, copies: bool) -> None:
    """zai-org/GLM-4.5-Air: a layer behind the last, with or without embedding and head."""
    config, shapes = recorded("glm4-moe")
    shapes |= layer(shapes, "model.layers.3.", "model.layers.4.") | {
        "model.layers.4.eh_proj.weight": ("BF16", [64, 128]),
        "model.layers.4.enorm.weight": ("BF16", [64]),
        "model.layers.4.hnorm.weight": ("BF16", [64]),
        "model.layers.4.shared_head.norm.weight": ("BF16", [64]),
    }
    if copies:
        shapes |= {
            "model.layers.4.embed_tokens.weight": ("BF16", [128, 64]),
            "model.layers.4.shared_head.head.weight": ("BF16", [128, 64]),
        }
    model = read_checkpoint(checkpoint(tmp_path / "x", config, shapes))
    assert model.integer("block_count") == 5
    names = {t.name for t in model.tensors}
    assert ("blk.4.nextn.shared_head_head.weight" in names) is copies
    assert not model.checkpoint.other_bytes  # type: ignore[union-attr]


def test_deepseeks_are_counted_apart(tmp_path: Path) -> None:
    """deepseek-ai/DeepSeek-V3: the converter leaves its 62nd layer out."""
    config, shapes = recorded("deepseek-v3")
    appended = layer(shapes, "model.layers.3.", "model.layers.4.")
    model = read_checkpoint(checkpoint(tmp_path / "x", config, shapes | appended))
    assert model.integer("block_count") == 4
    assert list(model.checkpoint.other_bytes) == [NEXT_TOKENS]  # type: ignore[union-attr]
    assert model.checkpoint.tower_bytes == 0  # type: ignore[union-attr]


def test_nemotrons_two_layers_become_one_block(tmp_path: Path) -> None:
    """nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16: attention, then experts."""
    config, shapes = recorded("nemotron-h-moe")
    prefix = (
        "backbone.layers." if any(n.startswith("backbone") for n in shapes) else "model.layers."
    )
    shapes |= layer(shapes, f"{prefix}3.", "mtp.layers.0.")
    shapes |= layer(shapes, f"{prefix}4.", "mtp.layers.1.") | {
        "mtp.layers.0.eh_proj.weight": ("BF16", [64, 128]),
        "mtp.layers.0.enorm.weight": ("BF16", [64]),
        "mtp.layers.0.hnorm.weight": ("BF16", [64]),
        "mtp.layers.1.final_layernorm.weight": ("BF16", [64]),
    }
    model = read_checkpoint(checkpoint(tmp_path / "x", config, shapes))
    assert model.integer("block_count") == 6
    assert model.per_layer("attention.head_count_kv") == (0, 0, 0, 2, 0, 2)
    assert model.per_layer("feed_forward_length")[5] == 24
    names = {t.name for t in model.tensors}
    assert {"blk.5.post_attention_norm.weight", "blk.5.nextn.shared_head_norm.weight",
            "blk.5.attn_q.weight", "blk.5.ffn_up_exps.weight"} <= names  # fmt: skip
    assert not model.checkpoint.other_bytes  # type: ignore[union-attr]
