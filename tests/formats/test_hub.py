"""Repositories on the hub: the real huggingface_hub against a hub of our own, and the cache."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nemofit.catalog.model import ModelSpec
from nemofit.errors import DataError, HardwareError, NemofitError, UnknownNameError, UsageError
from nemofit.formats.hub import Repository
from nemofit.formats.hub_files import choose, is_model, launch_tag, parse_reference, tag_of
from nemofit.formats.load import headers_at, load
from nemofit.formats.near import companions_near
from nemofit.formats.places import Places
from nemofit.planner.sources import source_of

from .gguf import build
from .gguf.build import DATA, SMALL, STRING, TENSORS, U16, U32
from .hubs import COMMIT, publish, refuse, store
from .serving import Site, serve, stall

WHOLE = build.gguf(SMALL, TENSORS, DATA)
OTHER = build.gguf([*SMALL[:1], ("general.file_type", U32, 7), *SMALL[2:]], TENSORS, DATA)
PROJECTOR = build.gguf([("general.architecture", STRING, "clip")], [("v", (32,), 0, 0)], 128)
REPO = "maker/Tiny-GGUF"


def shard(n: int, count: int) -> bytes:
    pairs: list[build.Pair] = [("split.no", U16, n), ("split.count", U16, count)]
    infos: list[build.Info] = [(f"{'blk.0.' * n}token_embd.weight", (32, 1), 1, 0)]
    return build.gguf([*SMALL, *pairs] if n == 0 else pairs, infos, 64)


FILES = {
    "README.md": b"# Tiny",
    "Tiny-Q4_K_M.gguf": WHOLE,
    "Tiny-Q8_0.gguf": OTHER,
    "big/Tiny-BF16-00001-of-00002.gguf": shard(0, 2),
    "big/Tiny-BF16-00002-of-00002.gguf": shard(1, 2),
    "mmproj-Tiny-F16.gguf": PROJECTOR,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    reason = "the extra [hub] is not installed"
    constants = pytest.importorskip("huggingface_hub.constants", reason=reason)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    with serve() as running:
        yield running


@pytest.fixture
def places(hub: Site, tmp_path: Path) -> Places:
    return Places(home=tmp_path, environ={"HF_ENDPOINT": hub.url + "/"})


def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "create_connection", refused)


def test_a_file_type_names_the_file(hub: Site, places: Places) -> None:
    publish(hub, REPO, FILES)
    model = load(f"hf:{REPO}:q4_k_m", places)
    assert (model.id, model.file_type, model.file_bytes) == ("Tiny-Q4_K_M", "Q4_K_M", len(WHOLE))
    assert model.source == f"hf:{REPO}:Tiny-Q4_K_M.gguf"
    assert source_of(model, None, None).weights.option() == ("-hf", f"{REPO}:Q4_K_M")
    assert source_of(model, None, None).ollama_tag == f"hf.co/{REPO}:Q4_K_M"
    assert [path.partition("?")[0] for _, path, _ in hub.log] == [
        f"/api/models/{REPO}",
        f"/{REPO}/resolve/{COMMIT}/Tiny-Q4_K_M.gguf",
        next(path for path in hub.files if hub.files[path] == WHOLE),
    ]


def test_a_file_is_named_by_path_or_name_and_any_shard_is_the_set(
    hub: Site, places: Places
) -> None:
    publish(hub, REPO, FILES)
    assert load(f"hf:{REPO}:Tiny-Q8_0.gguf", places).file_type == "Q8_0"
    models = [
        load(f"hf:{REPO}:{choice}", places)
        for choice in (
            "BF16",
            "Tiny-BF16-00002-of-00002.gguf",
            "big/Tiny-BF16-00001-of-00002.gguf",
        )
    ]
    assert models[0] == models[1] == models[2]
    assert models[0].id == "Tiny-BF16"
    assert models[0].file_bytes == len(shard(0, 2)) + len(shard(1, 2))
    assert source_of(models[0], None, None).ollama_tag is None


def test_companions_are_the_other_gguf_files(hub: Site, places: Places) -> None:
    publish(hub, REPO, FILES)
    near = companions_near(load(f"hf:{REPO}:Q4_K_M", places))
    assert [(c.name, c.kind) for c in near] == [
        ("Tiny-Q8_0.gguf", None),
        ("big/Tiny-BF16-00001-of-00002.gguf", None),
        ("mmproj-Tiny-F16.gguf", "projector"),
    ]
    assert near[2].bytes == len(PROJECTOR)
    (header,) = headers_at(near[2].ref, places)
    assert header.values["general.architecture"] == "clip"


def test_another_file_type_of_the_repository_is_its_own_file(hub: Site, places: Places) -> None:
    publish(hub, REPO, FILES)
    model = load(f"hf:{REPO}:Q4_K_M", places)
    assert source_of(model, "Q8_0", None).weights.option() == ("-hf", f"{REPO}:Q8_0")


def test_without_a_choice_one_file_is_taken_and_several_are_named(
    hub: Site, places: Places
) -> None:
    publish(hub, REPO, FILES)
    with pytest.raises(UnknownNameError, match="ambiguous") as caught:
        load(f"hf:{REPO}", places)
    assert caught.value.near == tuple(f"hf:{REPO}:{t}" for t in ("Q4_K_M", "Q8_0", "BF16"))
    few = {"Tiny-Q8_0.gguf": OTHER, "mmproj-Tiny-F16.gguf": PROJECTOR}
    publish(hub, "maker/One-GGUF", few)
    assert load("hf:maker/One-GGUF", places).file_type == "Q8_0"


@pytest.mark.parametrize(
    ("choice", "kind", "near"),
    [
        ("Q4_K_S", UnknownNameError, "Q4_K_M"),
        ("Tiny-Q4_K_S.gguf", UnknownNameError, "Tiny-Q4_K_M.gguf"),
        ("mmproj-Tiny-F16.gguf", DataError, "model's own file"),
    ],
)
def test_what_is_not_there_names_what_is(
    choice: str, kind: type[NemofitError], near: str, hub: Site, places: Places
) -> None:
    publish(hub, REPO, FILES)
    with pytest.raises(kind) as caught:
        load(f"hf:{REPO}:{choice}", places)
    assert near in (caught.value.hint or "")


def test_a_set_with_a_hole_names_the_missing(hub: Site, places: Places) -> None:
    publish(hub, REPO, {"a-00002-of-00003.gguf": shard(1, 3), "a-00001-of-00003.gguf": shard(0, 3)})
    with pytest.raises(DataError, match=r"1 of 3 files are missing: a-00003-of-00003\.gguf"):
        load(f"hf:{REPO}", places)


def test_the_token_goes_to_the_hub_alone(
    hub: Site, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    publish(hub, REPO, FILES)
    with serve() as cdn:
        cdn.files["/x"] = WHOLE
        hub.special[f"/{REPO}/resolve/{COMMIT}/Tiny-Q4_K_M.gguf"] = lambda h: h.say(
            302, {"Location": f"{cdn.url}/x"}, b""
        )
        load(f"hf:{REPO}:Q4_K_M", places)
        assert all(sent["authorization"] == "Bearer hf_abc" for _, _, sent in hub.log)
        assert not any("authorization" in map(str.lower, sent) for _, _, sent in cdn.log)


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (404, "RepoNotFound", UnknownNameError, "'hf:maker/Tiny-GGUF' is not known"),
        (401, "RepoNotFound", UnknownNameError, "is not known"),
        (401, None, HardwareError, "refuses access"),
        (403, "GatedRepo", HardwareError, "is gated"),
        (401, "GatedRepo", HardwareError, "is gated"),
        (403, None, HardwareError, "refuses access"),
        (500, None, HardwareError, "answered 500"),
        (429, None, HardwareError, "answered 429"),
    ],
)
def test_a_listing_that_is_refused(
    status: int, code: str | None, kind: type[NemofitError], says: str, hub: Site, places: Places
) -> None:
    refuse(hub, REPO, status, code)
    with pytest.raises(kind, match=says) as caught:
        load(f"hf:{REPO}:Q4_K_M", places)
    assert "\n" not in caught.value.message
    assert "\n" not in (caught.value.hint or "\n")


def test_a_gated_file_says_where_to_accept(hub: Site, places: Places) -> None:
    """The listing of a gated repository is public, its files are not."""
    publish(hub, REPO, FILES)
    for status in (401, 403):
        hub.special[f"/{REPO}/resolve/{COMMIT}/Tiny-Q4_K_M.gguf"] = lambda h, s=status: h.say(
            s, {"X-Error-Code": "GatedRepo"}, b""
        )
        with pytest.raises(HardwareError, match="is gated") as caught:
            load(f"hf:{REPO}:Q4_K_M", places)
        assert f"{hub.url}/{REPO}, then: hf auth login" in (caught.value.hint or "")


def test_a_misspelt_repository_names_the_catalogs(hub: Site, places: Places) -> None:
    refuse(hub, "bartowski/Meta-Llama-3.1-8B-Instruct-GGUFF", 404, "RepoNotFound")
    with pytest.raises(UnknownNameError) as caught:
        load("hf:bartowski/Meta-Llama-3.1-8B-Instruct-GGUFF", places)
    assert "hf:bartowski/Meta-Llama-3.1-8B-Instruct-GGUF" in caught.value.near


def test_a_hub_that_says_nothing(
    hub: Site, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemofit.formats.hub._TIMEOUT_S", 0.2)
    hub.special[f"/api/models/{REPO}"] = stall
    with pytest.raises(HardwareError, match="does not answer in time"):
        load(f"hf:{REPO}", places)


def test_nobody_listens(places: Places) -> None:
    nowhere = replace(places, environ={"HF_ENDPOINT": "http://127.0.0.1:9"})
    with pytest.raises(HardwareError, match=r"cannot reach http://127\.0\.0\.1:9"):
        load(f"hf:{REPO}", nowhere)


def test_an_answer_that_is_no_listing(hub: Site, places: Places) -> None:
    for body in (b"<html>", b"[]", b'{"id": 3}'):
        hub.special[f"/api/models/{REPO}"] = lambda h, b=body: h.say(200, {}, b)
        with pytest.raises(NemofitError) as caught:
            load(f"hf:{REPO}:Q4_K_M", places)
        assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "ref", ["hf:", "hf:one", "hf:a/b/c", "hf:../../etc", "hf:a/..", "hf:/x", "hf:a b/c", "hf:a/b\n"]
)
def test_what_names_no_repository(ref: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no repository"):
        load(ref, Places(home=tmp_path))


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({}, ".cache/huggingface/hub"),
        ({"HF_HOME": "~/hf"}, "hf/hub"),
        ({"XDG_CACHE_HOME": "~/xdg"}, "xdg/huggingface/hub"),
        ({"HF_HUB_CACHE": "~/own", "HF_HOME": "~/hf"}, "own"),
        ({"LLAMA_CACHE": "~/llama"}, "llama"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_what_is_in_the_cache_is_read_without_network(
    environ: dict[str, str], cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without huggingface_hub."""
    snapshot = store(tmp_path / cache, REPO, {p: d for p, d in FILES.items() if "Q8" not in p})
    without_network(monkeypatch)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    places = Places(home=tmp_path, environ=environ)
    model = load(f"hf:{REPO}:Q4_K_M", places)
    assert model.origin is not None
    assert model.origin.path == str(snapshot / "Tiny-Q4_K_M.gguf")
    assert source_of(model, None, None).weights.option() == ("-hf", f"{REPO}:Q4_K_M")
    assert load(f"hf:{REPO}:BF16", places).id == "Tiny-BF16"
    assert headers_at(f"hf:{REPO}:mmproj-Tiny-F16.gguf", places)[0].version == 3
    with pytest.raises(HardwareError, match="not installed") as caught:
        load(f"hf:{REPO}:Q8_0", places)
    assert caught.value.hint == "pip install 'nemofit[hub]'"
    offline = replace(places, environ={**environ, "HF_HUB_OFFLINE": "1"})
    assert load(f"hf:{REPO}:Q4_K_M", offline) == model
    with pytest.raises(HardwareError, match="HF_HUB_OFFLINE"):
        load(f"hf:{REPO}:Q8_0", offline)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_half_a_set_in_the_cache_is_completed_over_the_network(hub: Site, places: Places) -> None:
    first = "big/Tiny-BF16-00001-of-00002.gguf"
    store(places.home / ".cache/huggingface/hub", REPO, {first: FILES[first]})
    publish(hub, REPO, FILES)
    assert load(f"hf:{REPO}:BF16", places).file_bytes == len(shard(0, 2)) + len(shard(1, 2))
    assert not any(first in path for _, path, _ in hub.log)


def test_a_cache_that_leads_astray_is_passed_over(hub: Site, places: Places) -> None:
    folder = places.home / ".cache/huggingface/hub/models--maker--Tiny-GGUF"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("../../../../../../etc")
    publish(hub, REPO, FILES)
    assert load(f"hf:{REPO}:Q4_K_M", places).origin.path is None  # type: ignore[union-attr]


def test_small_files_are_read_as_a_whole(hub: Site, places: Places) -> None:
    publish(hub, REPO, FILES)
    with Repository.open(REPO, places) as repository:
        assert repository.text("README.md", 100) == b"# Tiny"
        with pytest.raises(DataError, match="more than 10"):
            repository.text("Tiny-Q8_0.gguf", 10)


LISTING = [
    "X-IQ4_XS.gguf", "X-Q2_K.gguf", "X-TQ1_0.gguf", "X-Q4_K_M.gguf", "X-UD-Q4_K_M.gguf",
    "Q8_0/X-Q8_0-00001-of-00002.gguf", "Q8_0/X-Q8_0-00002-of-00002.gguf", "mmproj-F16.gguf",
    "X-Q1_0.gguf", "F16/model.gguf", "Q6_K/X-Q6_K.gguf", "X-Q6_K.gguf",
    "X.imatrix.gguf", "mtp-X-Q2_K.gguf",
]  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "path", "tag"),
    [
        ("Q4_K_M", "X-Q4_K_M.gguf", "Q4_K_M"),
        ("q2_k", "X-Q2_K.gguf", "Q2_K"),
        ("Q8_0", "Q8_0/X-Q8_0-00001-of-00002.gguf", "Q8_0"),
        ("Q1_0", "X-Q1_0.gguf", None),
        ("Q6_K", "Q6_K/X-Q6_K.gguf", None),
        ("X-UD-Q4_K_M.gguf", "X-UD-Q4_K_M.gguf", None),
        ("model.gguf", "F16/model.gguf", None),
        ("UD-Q4_K_M", "X-UD-Q4_K_M.gguf", None),
    ],
)
def test_the_launch_tag_is_what_llama_cpp_would_take(
    choice: str, path: str, tag: str | None
) -> None:
    """``-hf repo:Q1_0`` takes the first file with "Q1_0." in its path, which is the TQ1_0 here."""
    assert choose("o/r", LISTING, choice) == path
    assert launch_tag(path, LISTING) == tag


def test_names_are_read_as_llama_cpp_reads_them() -> None:
    assert tag_of("a/b-Q4_K_M-00001-of-00003.gguf") == tag_of("x.q4_k_m.gguf") == "Q4_K_M"
    assert [is_model(p) for p in ("mmproj-x.gguf", "a-00002-of-00003.gguf", "a/b.gguf")] == [
        False, False, True,
    ]  # fmt: skip
    assert parse_reference("hf:a/b") == ("a/b", None)
    assert parse_reference("hf://a/b-c.d_e:Q4") == ("a/b-c.d_e", "Q4")


def test_a_file_that_no_tag_names_is_launched_by_its_path(tmp_path: Path) -> None:
    from nemofit.catalog.model import Origin

    origin = Origin(repository="o/r", file="F16/model.gguf")
    spec = ModelSpec(id="x", architecture="llama", metadata={}, tensors=(), source="hf:o/r:x",
                     origin=origin)  # fmt: skip
    option = source_of(spec, None, None).weights.option()
    assert option == ("-hf", "o/r", "-hff", "F16/model.gguf")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_the_cache_knows_only_a_part_of_the_repository(tmp_path: Path) -> None:
    """A file named by its path is launched by it: in the whole repository its type may be another
    file. The only one there is taken, and the model says so."""
    store(tmp_path / ".cache/huggingface/hub", REPO, {"Tiny-UD-Q4_K_M.gguf": WHOLE})
    places = Places(home=tmp_path)
    model = load(f"hf:{REPO}:Tiny-UD-Q4_K_M.gguf", places)
    assert source_of(model, None, None).weights.option() == (
        "-hf", REPO, "-hff", "Tiny-UD-Q4_K_M.gguf",
    )  # fmt: skip
    assert any("only model" in note for note in load(f"hf:{REPO}", places).notes)
