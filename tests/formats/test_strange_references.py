"""Whatever is typed or stands in a store: a model or one of our errors, never another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nemofit.errors import NemofitError
from nemofit.formats.hub_files import choose, launch_tag, parse_reference
from nemofit.formats.load import headers_at, load
from nemofit.formats.ollama import parse_name
from nemofit.formats.places import Places
from nemofit.formats.remote import check, name_of, shown_url, sibling_url

from .stores import LIST, blob

WORDS = st.text(st.characters(codec="utf-8"), max_size=40)
TYPED = st.one_of(
    WORDS, st.lists(st.sampled_from([*"ab/:.@%-_ \\\0\n~é?#[]", "hf.co", ".."])).map("".join)
)


@settings(max_examples=150, deadline=None)
@given(TYPED)
@example("a/b:c/d")
def test_references_are_read_or_refused(text: str) -> None:
    for read in (parse_reference, parse_name):
        try:
            read(text)  # type: ignore[operator]
        except NemofitError as error:
            assert "\n" not in error.message


@settings(max_examples=150, deadline=None)
@given(TYPED)
@example("[::1]:80/x")
def test_addresses_are_read_or_refused(text: str) -> None:
    try:
        parts = check(f"http://{text}")
    except NemofitError as error:
        assert "\n" not in error.message
        return
    assert name_of(parts.geturl()).isprintable()
    assert shown_url(parts).isprintable()
    assert check(sibling_url(parts.geturl(), "a b.gguf")).path.endswith("/a%20b.gguf")


@settings(max_examples=150, deadline=None)
@given(st.lists(TYPED.map(lambda name: name + ".gguf"), max_size=6), st.none() | TYPED)
def test_listings_of_strangers_are_searched(paths: list[str], choice: str | None) -> None:
    try:
        path = choose("o/r", paths, choice)
    except NemofitError as error:
        assert "\n" not in error.message
        return
    launch_tag(path, paths)


KEYS = st.sampled_from(["layers", "mediaType", "digest", "size", "manifests", "runner", "from"])
TEXTS = st.sampled_from(
    ["application/vnd.ollama.image.model", "application/vnd.ollama.image.params", LIST, "ollama",
     "sha256:" + "0" * 64, "sha256-" + "f" * 64, "../../x", ""]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(KEYS, VALUES, max_size=5), VALUES)
def test_manifests_of_strangers_are_read_or_refused(
    tmp_path: Path, content: object, parameters: object
) -> None:
    store = tmp_path / ".ollama/models"
    path = store / "manifests/registry.ollama.ai/library/x/latest"
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = blob(store, json.dumps(parameters).encode())
    path.write_text(json.dumps(content).replace("0" * 64, digest.removeprefix("sha256:")))
    with pytest.raises(NemofitError) as caught:
        load("ollama:x", Places(home=tmp_path, root=tmp_path))
    assert "\n" not in caught.value.message


def test_companions_that_are_gone_are_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(NemofitError, match="No such file"):
        headers_at(str(tmp_path / "mmproj.gguf"), Places(home=tmp_path))
