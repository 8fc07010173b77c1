"""What is on a disk: every store once, copies as one, sets as one, broken ones with their error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemofit.formats.local import LocalModel, local_models
from nemofit.formats.places import Places
from nemofit.formats.walk import files_below

from .gguf import build
from .gguf.build import DATA, SMALL, STRING, TENSORS, U16, U32
from .hubs import store
from .stores import layer, manifest, name

WHOLE = build.gguf(SMALL, TENSORS, DATA)
OTHER = build.gguf([*SMALL[:1], ("general.file_type", U32, 7), *SMALL[2:]], TENSORS, DATA)
PROJECTOR = build.gguf([("general.architecture", STRING, "clip")], [("v", (32,), 0, 0)], 128)
ADAPTER = build.gguf(
    [("general.architecture", STRING, "llama"), ("general.type", STRING, "adapter")]
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for folder in ("home", "root", "here"):
        (tmp_path / folder).mkdir()
    return Places(home=tmp_path / "home", root=tmp_path / "root", current=tmp_path / "here")


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def listed(places: Places) -> dict[str, LocalModel]:
    models, notes = local_models(places)
    assert notes == []
    return {model.id: model for model in models}


def test_an_empty_machine_has_nothing(places: Places) -> None:
    assert local_models(places) == ([], [])


def test_every_store_is_listed(places: Places) -> None:
    home = places.home
    ollama = home / ".ollama/models"
    layers = [layer(ollama, "model", WHOLE), layer(ollama, "projector", PROJECTOR)]
    name(ollama, "registry.ollama.ai/library/tiny/8b", manifest(ollama, layers))
    store(home / ".cache/huggingface/hub", "maker/Hub-GGUF", {"Hub-Q8_0.gguf": OTHER})
    put(home / ".lmstudio/models/maker/Studio-GGUF/Studio.gguf", WHOLE + b"1")
    put(home / ".cache/llama.cpp/maker_Llama.gguf", WHOLE + b"2")
    put(places.current / "mine.gguf", ADAPTER)
    put(places.current / "deeper/not-this.gguf", WHOLE)
    models, _ = local_models(places)
    assert [(m.id, m.kind, m.file_type, m.bytes, m.places[0].store) for m in models] == [
        ("Hub-Q8_0", "model", "Q8_0", len(OTHER), "hub"),
        ("maker_Llama", "model", "Q4_K_M", len(WHOLE) + 1, "llama.cpp"),
        ("Studio", "model", "Q4_K_M", len(WHOLE) + 1, "lm-studio"),
        ("tiny:8b", "model", "Q4_K_M", len(WHOLE), "ollama"),
        ("mine", "adapter", None, len(ADAPTER), "directory"),
        ("tiny:8b", "projector", None, len(PROJECTOR), "ollama"),
    ]
    assert [m.places[0].ref for m in models][:1] == ["hf:maker/Hub-GGUF:Q8_0"]
    assert models[3].places[0].ref == "ollama:tiny:8b"
    assert models[3].parameters == 256 * 3 + 256
    assert not any(m.error for m in models)


def test_the_same_file_in_two_stores_is_one_model(places: Places) -> None:
    """A link or a hard link costs nothing; a copy with the same digest costs its bytes again."""
    ollama = places.home / ".ollama/models"
    made = layer(ollama, "model", WHOLE)
    name(ollama, "registry.ollama.ai/library/tiny/8b", manifest(ollama, [made]))
    name(ollama, "registry.ollama.ai/me/copy/latest", manifest(ollama, [made]))
    blob = ollama / "blobs" / made["digest"].replace(":", "-")
    linked = places.home / ".lmstudio/models/a/b/linked.gguf"
    linked.parent.mkdir(parents=True)
    linked.symlink_to(blob)
    os.link(blob, places.current / "hard.gguf")
    store(places.home / ".cache/huggingface/hub", "maker/Tiny-GGUF", {"T-Q4_K_M.gguf": WHOLE})
    (model,) = listed(places).values()
    assert [place.store for place in model.places] == [
        "ollama", "ollama", "hub", "lm-studio", "directory",
    ]  # fmt: skip
    assert (model.bytes, model.copies) == (len(WHOLE), 2)


def test_a_set_is_one_model_and_a_hole_in_it_is_told(places: Places) -> None:
    for n in range(3):
        pairs: list[build.Pair] = [("split.no", U16, n), ("split.count", U16, 3)]
        infos: list[build.Info] = [(f"{'blk.0.' * n}token_embd.weight", (32, 1), 1, 0)]
        data = build.gguf([*SMALL, *pairs] if n == 0 else pairs, infos, 64)
        put(places.current / f"big-{n + 1:05d}-of-00003.gguf", data)
    sizes = sum(path.stat().st_size for path in places.current.iterdir())
    (model,) = listed(places).values()
    assert (model.id, model.files, model.bytes, model.error) == ("big", 3, sizes, None)
    (places.current / "big-00001-of-00003.gguf").unlink()
    (model,) = listed(places).values()
    assert (model.id, model.files) == ("big", 2)
    assert model.error == "1 of 3 files are missing: big-00001-of-00003.gguf"


def test_broken_ones_are_listed_with_their_error(places: Places) -> None:
    put(places.current / "cut.gguf", WHOLE[: len(WHOLE) // 3])
    put(places.current / "empty.gguf", b"")
    put(places.current / "page.gguf", b"<!DOCTYPE html>")
    put(places.current / "x-00001-of-99999.gguf", WHOLE)
    name(places.home / ".ollama/models", "registry.ollama.ai/library/bad/latest", {"layers": [{
        "mediaType": "application/vnd.ollama.image.model", "digest": "../../x"}]})  # fmt: skip
    found = listed(places)
    assert len(found) == 5
    assert "web page" in (found["page"].error or "")
    assert "cut off" in (found["empty"].error or "")
    assert "which is none" in (found["bad:latest"].error or "")
    assert all(model.error or model.id == "x" for model in found.values())


def test_a_store_that_cannot_be_read_is_a_note(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir

    def guarded(path: object) -> list[str]:
        if "/usr/share/ollama" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)  # type: ignore[arg-type]

    monkeypatch.setattr("nemofit.formats.ollama.os.listdir", guarded)
    models, notes = local_models(places)
    assert models == []
    assert len(notes) == 2
    assert all("Permission denied" in note for note in notes)


def test_links_in_circles_end(tmp_path: Path) -> None:
    """Each directory once, whatever leads to it; as deep as told, and no deeper."""
    put(tmp_path / "a/b/x.gguf", b"")
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "a/b/self").symlink_to(tmp_path / "a/b/self")
    (tmp_path / "again").symlink_to(tmp_path / "a")
    assert [path.name for path in files_below(tmp_path, ".gguf")] == ["x.gguf"]
    assert list(files_below(tmp_path, ".gguf", 1)) == []
    assert list(files_below(tmp_path / "none")) == []


def test_a_directory_with_very_many_entries_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemofit.formats.walk.MOST", 10)
    for i in range(30):
        put(tmp_path / f"{i:02}.gguf", b"")
    assert len(list(files_below(tmp_path, ".gguf"))) == 10


def test_lm_studio_is_found_where_it_was_moved_to(places: Places) -> None:
    put(places.home / "elsewhere/models/a/b/Moved.gguf", WHOLE)
    (places.home / ".lmstudio-home-pointer").write_text(str(places.home / "elsewhere"))
    assert list(listed(places)) == ["Moved"]
