"""Checkpoints in repositories on the hub: headers alone come over the network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.formats import test_hub
from tests.formats.hubs import publish, store
from tests.formats.serving import Site

from nemofit.errors import DataError, HardwareError
from nemofit.formats.load import load
from nemofit.formats.places import Places

from .build import LLAMA, checkpoint, llama

REPO = "maker/Tiny"

hub, places = test_hub.hub, test_hub.places  # the fixtures


def files(path: Path) -> dict[str, bytes]:
    tensors = list(llama().items())
    made = checkpoint(path / "made", LLAMA, dict(tensors[:9]), dict(tensors[9:]))
    return {file.name: file.read_bytes() for file in made.iterdir()} | {"README.md": b"# Tiny"}


def test_a_repository_without_gguf_is_a_checkpoint(
    hub: Site,
    places: Places,
    tmp_path: Path,
) -> None:
    published = files(tmp_path)
    publish(hub, REPO, published)
    model = load(f"hf:{REPO}", places)
    assert (model.id, model.source, model.architecture) == ("Tiny", f"hf:{REPO}", "llama")
    assert model.checkpoint is not None
    assert model.checkpoint.total_bytes == 2 * model.parameters
    assert model.origin is not None and model.origin.repository == REPO
    with pytest.raises(DataError, match="has no GGUF file"):
        load(f"hf:{REPO}:Q4_K_M", places)


def test_headers_alone_are_fetched(hub: Site, places: Places, tmp_path: Path) -> None:
    """Two megabytes of weights behind a header of some KB."""
    config = LLAMA | {"vocab_size": 8192}
    wide = ("BF16", (8192, 64))
    shapes = llama() | {"model.embed_tokens.weight": wide, "lm_head.weight": wide}
    made = checkpoint(tmp_path / "made", config, shapes)
    published = {file.name: file.read_bytes() for file in made.iterdir()}
    publish(hub, REPO, published)
    assert load(f"hf:{REPO}", places).checkpoint is not None
    assert hub.sent < 64_000 < len(published["model.safetensors"])


def test_the_cache_is_read_without_network(
    hub: Site,
    places: Places,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test_hub.without_network(monkeypatch)
    cache = tmp_path / "cache"
    offline = replace(places, environ={"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"})
    published = files(tmp_path)
    snapshot = store(cache, REPO, published)
    model = load(f"hf:{REPO}", offline)
    assert model.checkpoint is not None and len(model.checkpoint.files) == 2
    assert load(snapshot, offline).id == load(snapshot.parents[1], offline).id == "Tiny"
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(HardwareError, match="HF_HUB_OFFLINE"):
        load(f"hf:{REPO}", offline)


def test_a_damaged_file_is_named(hub: Site, places: Places, tmp_path: Path) -> None:
    published = files(tmp_path)
    name = "model-00002-of-00002.safetensors"
    publish(hub, REPO, published | {name: published[name][:-100]})
    with pytest.raises(DataError, match=f"{name} is incomplete"):
        load(f"hf:{REPO}", places)
    index = json.dumps({"weight_map": {"a": "../../other/model.safetensors"}}).encode()
    publish(hub, REPO, published | {"model.safetensors.index.json": index})
    with pytest.raises(DataError, match="outside of the directory"):
        load(f"hf:{REPO}", places)
