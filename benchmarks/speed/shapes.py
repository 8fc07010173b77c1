"""The models of data/measurements.yaml: the catalog's, or from shapes.yaml where it lacks one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nemofit.catalog.model import ModelSpec, Value
from nemofit.catalog.models import find_model
from nemofit.catalog.shapes import tensors_of

FILE = Path(__file__).with_name("shapes.yaml")
KEYS = (
    "block_count",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "feed_forward_length",
    "vocab_size",
)


@cache
def extra() -> dict[str, dict[str, Any]]:
    """The shapes that the catalog lacks."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


@cache
def shape(name: str) -> ModelSpec:
    """The model of that name in shapes.yaml, else in the catalog."""
    row = extra().get(name)
    if row is None:
        return find_model(name).spec()
    meta: dict[str, Value] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in zip(KEYS, row["size"], strict=True)
    }
    meta["attention.value_length"] = meta["attention.key_length"]
    meta["tied_embeddings"] = row.get("tied", False)
    meta |= {k: v for k, v in row.items() if k not in ("hf", "arch", "size", "tied")}
    return ModelSpec(
        id=name,
        architecture=row["arch"],
        metadata=meta,
        tensors=tensors_of(row["arch"], meta),
    )
