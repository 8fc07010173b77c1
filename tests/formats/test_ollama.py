"""Ollama's store: names, both layouts, layers, and whatever leads out of it."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from nemofit.errors import DataError, HardwareError, NemofitError, UnknownNameError, UsageError
from nemofit.formats.load import headers_at, load
from nemofit.formats.near import companions_near
from nemofit.formats.ollama import is_in_store, parse_name
from nemofit.formats.places import Places
from nemofit.planner.sources import source_of

from .gguf import build
from .gguf.build import DATA, SMALL, STRING, TENSORS
from .stores import IMAGE, LIST, blob, layer, manifest, name, name_v2

WHOLE = build.gguf(SMALL, TENSORS, DATA)
PROJECTOR = build.gguf([("general.architecture", STRING, "clip")], [("v", (32,), 0, 0)], 128)
LIBRARY = "registry.ollama.ai/library"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "home/.ollama/models"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(home=tmp_path / "home", root=tmp_path / "root")


def usual(store: Path) -> dict[str, object]:
    """A manifest as the library's are."""
    return manifest(
        store,
        [
            layer(store, "model", WHOLE),
            layer(store, "projector", PROJECTOR),
            layer(store, "template", b"{{ .Prompt }}"),
            layer(store, "license", b"MIT"),
            layer(store, "params", b'{"num_ctx": 4096, "stop": ["a", "b"], "x": {"y": 1}}'),
        ],
    )


@pytest.mark.parametrize("write", [name, name_v2])
def test_a_tag_is_its_model_layer(write: object, store: Path, places: Places) -> None:
    host = LIBRARY if write is name else "ollama.com/library"
    write(store, f"{host}/tiny/8b", usual(store))  # type: ignore[operator]
    model = load("ollama:tiny:8b", places)
    assert (model.id, model.architecture, model.file_type) == ("tiny-8b", "llama", "Q4_K_M")
    assert model.file_bytes == len(WHOLE)
    assert model.source == "ollama:tiny:8b"
    assert model.origin is not None
    assert model.origin.parameters == {"num_ctx": 4096, "stop": ("a", "b")}
    source = source_of(model, None, None)
    assert source.ollama_tag == "tiny:8b"
    assert source.weights.option() == ("-m", model.origin.path)
    assert model.origin.path == str(store / "blobs" / blob(store, WHOLE).replace(":", "-"))


def test_the_projector_of_the_manifest_is_a_companion(store: Path, places: Places) -> None:
    name(store, f"{LIBRARY}/tiny/latest", usual(store))
    (projector,) = companions_near(load("ollama:tiny", places))
    assert (projector.kind, projector.bytes) == ("projector", len(PROJECTOR))
    (header,) = headers_at(projector.ref, places)
    assert header.values["general.architecture"] == "clip"


@pytest.mark.parametrize(
    ("asked", "place", "shown"),
    [
        ("tiny", f"{LIBRARY}/tiny/latest", "tiny:latest"),
        ("TINY:8B", f"{LIBRARY}/tiny/8b", "tiny:8b"),
        ("me/tiny:1b", "registry.ollama.ai/me/tiny/1b", "me/tiny:1b"),
        ("registry.ollama.ai/library/tiny:8b", f"{LIBRARY}/tiny/8b", "tiny:8b"),
        ("hf.co/maker/Tiny-GGUF:Q8_0", "hf.co/maker/Tiny-GGUF/Q8_0", "hf.co/maker/Tiny-GGUF:Q8_0"),
        ("10.0.0.1:5000/ns/tiny", "10.0.0.1:5000/ns/tiny/latest", "10.0.0.1:5000/ns/tiny:latest"),
        ("10.0.0.1:5000/ns/tiny", "10.0.0.1%3A5000/ns/tiny/latest", "10.0.0.1:5000/ns/tiny:latest"),
    ],
)
def test_names_with_and_without_registry(
    asked: str, place: str, shown: str, store: Path, places: Places
) -> None:
    name(store, place, usual(store))
    assert load(f"ollama:{asked}", places).origin.ollama == shown  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text", ["", "a/b/c/d", "../x", "a:b:c/d:", "x:", "a b", "a..b", "/a", "é"]
)
def test_what_is_no_name(text: str, places: Places) -> None:
    with pytest.raises(UsageError, match="not an Ollama name"):
        load(f"ollama:{text}", places)
    assert str(parse_name("x")) == "x:latest"


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        ({"OLLAMA_MODELS": "~/elsewhere"}, "home/elsewhere"),
        ({}, "root/usr/share/ollama/.ollama/models"),
        ({}, "root/var/lib/ollama"),
        ({}, "root/data/models"),
    ],
)
def test_every_store_is_searched(
    environ: dict[str, str], where: str, tmp_path: Path, places: Places
) -> None:
    """The service's own directory, too, as its unit says it."""
    unit = tmp_path / "root/etc/systemd/system/ollama.service.d"
    unit.mkdir(parents=True)
    (unit / "o.conf").write_text('[Service]\nEnvironment="OLLAMA_MODELS=/data/models"\n')
    name(tmp_path / where, f"{LIBRARY}/tiny/8b", usual(tmp_path / where))
    assert load("ollama:tiny:8b", replace(places, environ=environ)).id == "tiny-8b"


def test_a_name_that_no_store_has(store: Path, places: Places) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load("ollama:tiny", places)
    assert caught.value.hint == "no model is in Ollama's store: ollama pull it"
    name(store, f"{LIBRARY}/tinyllama/1b", usual(store))
    with pytest.raises(UnknownNameError) as caught:
        load("ollama:tinylama:1b", places)
    assert caught.value.near == ("ollama:tinyllama:1b",)


def test_a_directory_that_cannot_be_read_is_named(
    store: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A no would not be definite: exit code 5, not 4."""
    listed = os.listdir
    closed = places.root / "usr/share/ollama/.ollama/models"

    def guarded(path: object) -> list[str]:
        if str(path).startswith(str(closed)):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)  # type: ignore[arg-type]

    monkeypatch.setattr("nemofit.formats.ollama.os.listdir", guarded)
    with pytest.raises(HardwareError, match=r"/usr/share/ollama/.*Permission denied") as caught:
        load("ollama:tiny", places)
    assert caught.value.exit_code == 5
    name(store, f"{LIBRARY}/tiny/latest", usual(store))
    assert load("ollama:tiny", places).id == "tiny"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to be root")
def test_a_directory_that_another_user_owns() -> None:
    """The same with real permissions, as a user who has none."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        closed = Path(folder, "usr/share/ollama/.ollama")
        name(closed / "models", f"{LIBRARY}/tiny/latest", usual(closed / "models"))
        closed.chmod(0o700)
        os.seteuid(65534)
        try:
            with pytest.raises(HardwareError, match="Permission denied"):
                load("ollama:tiny", Places(home=Path(folder), root=Path(folder)))
        finally:
            os.seteuid(0)


def test_a_list_of_manifests_gives_the_one_for_gguf(store: Path, places: Places) -> None:
    good = {**usual(store), "runner": "ollama", "format": "gguf"}
    other = {**manifest(store, [layer(store, "tensor", b"x")]), "runner": "mlx"}
    inline = {"schemaVersion": 2, "mediaType": LIST, "manifests": [other, good]}
    name_v2(store, "ollama.com/library/a/latest", inline)
    reference = {"mediaType": "m", "digest": blob(store, json.dumps(good).encode()),
                 "runner": "llamacpp"}  # fmt: skip
    name_v2(store, "ollama.com/library/b/latest", {**inline, "manifests": [other, reference]})
    assert load("ollama:a", places).file_bytes == load("ollama:b", places).file_bytes == len(WHOLE)
    name_v2(store, "ollama.com/library/c/latest", {**inline, "manifests": [other]})
    with pytest.raises(DataError, match="only weights for mlx"):
        load("ollama:c", places)


OUT = {"mediaType": f"{IMAGE}model", "size": 5}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"layers": [{**OUT, "digest": "sha256:../../../../etc/passwd"}]}, "which is none"),
        ({"layers": [{**OUT, "digest": "sha256-" + "../" * 22}]}, "which is none"),
        ({"layers": [{**OUT, "digest": "/etc/passwd"}]}, "which is none"),
        ({"layers": [{**OUT, "digest": 7}]}, "which is none"),
        ({"layers": [OUT]}, "which is none"),
        ({"layers": [{**OUT, "digest": "sha256:" + "0" * 64}]}, "lacks sha256-"),
        ({"layers": []}, "runs on Ollama's servers"),
        ({"layers": "none"}, "runs on Ollama's servers"),
        ({"layers": [1, None, {"mediaType": 3}]}, "runs on Ollama's servers"),
        ([], "not JSON of a manifest"),
        ({"mediaType": LIST, "manifests": 3}, "only weights for nothing"),
        ({"mediaType": LIST, "manifests": [{"runner": "ollama", "digest": "x"}]}, "which is none"),
    ],
)
def test_a_broken_manifest_is_one_line(
    content: object, says: str, store: Path, places: Places
) -> None:
    name(store, f"{LIBRARY}/tiny/latest", content)
    with pytest.raises(DataError, match=says) as caught:
        load("ollama:tiny", places)
    assert "\n" not in caught.value.message


def test_what_is_no_json_or_too_large(store: Path, places: Places) -> None:
    path = name(store, f"{LIBRARY}/tiny/latest", {})
    for text in ("{", "[" * 100_000, '"' + "x" * (5 << 20) + '"', "\0"):
        path.write_text(text)
        with pytest.raises(DataError, match="not JSON of a manifest"):
            load("ollama:tiny", places)


def test_links_that_lead_out_of_the_store_are_refused(store: Path, places: Places) -> None:
    outside = places.home / "outside"
    outside.mkdir(parents=True)
    (outside / "x.gguf").write_bytes(WHOLE)
    (outside / "m").write_text(json.dumps(usual(store)))
    entry = store / f"manifests/{LIBRARY}/evil/latest"
    entry.parent.mkdir(parents=True)
    entry.symlink_to(outside / "m")
    with pytest.raises(DataError, match="leads out of"):
        load("ollama:evil", places)
    entry.unlink()
    entry.symlink_to(entry)
    with pytest.raises(DataError, match="cannot be read"):
        load("ollama:evil", places)
    entry.unlink()
    digest = "sha256-" + "ab" * 32
    (store / "blobs" / digest).symlink_to(outside / "x.gguf")
    entry.write_text(json.dumps({"layers": [{**OUT, "digest": digest}]}))
    with pytest.raises(DataError, match="leads out of"):
        load("ollama:evil", places)


def test_a_blob_that_is_no_model(store: Path, places: Places) -> None:
    name(store, f"{LIBRARY}/t/latest", manifest(store, [layer(store, "model", b"not GGUF")]))
    with pytest.raises(NemofitError, match="no GGUF file"):
        load("ollama:t", places)


def test_ollamas_store_is_looked_into(tmp_path: Path) -> None:
    there = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "nemotron" / "70b"
    there.parent.mkdir(parents=True)
    assert not is_in_store(tmp_path, "nemotron:70b")
    assert not is_in_store(tmp_path, "no name: at all")
    there.write_text("{}")
    assert is_in_store(tmp_path, "nemotron:70b")
    hub = tmp_path / "manifests-v2" / "hf.co" / "a" / "b" / "Q4_K_M"
    hub.parent.mkdir(parents=True)
    hub.write_text("{}")
    assert is_in_store(tmp_path, "hf.co/a/b:Q4_K_M")
