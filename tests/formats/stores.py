"""Ollama stores as Ollama lays them out (ollama/ollama, ``manifest/paths.go``, ``manifest.go``)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.ollama.manifest.list.v2+json"
IMAGE = "application/vnd.ollama.image."


def blob(store: Path, data: bytes) -> str:
    """Write a blob; gives its digest."""
    digest = hashlib.sha256(data).hexdigest()
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(data)
    return f"sha256:{digest}"


def layer(store: Path, kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": IMAGE + kind, "digest": blob(store, data), "size": len(data)}


def manifest(store: Path, layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    config = {"mediaType": "application/vnd.docker.container.image.v1+json",
              "digest": blob(store, b"{}"), "size": 2}  # fmt: skip
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": list(layers)}


def name(store: Path, place: str, content: object) -> Path:
    """The older layout: the manifest itself lies under its name."""
    path = store / "manifests" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def name_v2(store: Path, place: str, content: object) -> Path:
    """Today's layout: the manifest is a blob, and its name a link to it."""
    digest = blob(store, json.dumps(content).encode()).replace(":", "-")
    path = store / "manifests-v2" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(store / "blobs" / digest, path.parent))
    return path
