"""A models file that a stranger wrote: what is kept, and what is said when it is broken."""

from __future__ import annotations

import json

import pytest

from nemofit.catalog import schema_models, store
from nemofit.catalog.models import find_model
from nemofit.catalog.yaml_load import parse
from nemofit.errors import DataError

GOOD = """\
sources: {card: "the maker's card"}
models:
  tiny-1b:
    name: Tiny 1B
    family: tiny
    aliases: [tiny]
    hf_repo: owner/Tiny-1B
    architecture: llama
    metadata:
      block_count: 2
      context_length: 4096
      vocab_size: 64
      embedding_length: 64
      feed_forward_length: [96, 128]
      attention.head_count: 4
      tied_embeddings: true
    gguf: [{repo: owner/Tiny-1B-GGUF, imatrix: false, sizes: {Q8_0: 42.52 GB, Q4_K_M: 4711}}]
    source: [card]
"""


def validate(text):
    return schema_models.validate(parse(text.encode(), "mine.yaml"), "mine.yaml")


def test_an_entry_becomes_plain_data_with_its_sources_spelt_out():
    entry = validate(GOOD)["tiny-1b"]
    assert entry == json.loads(json.dumps(entry))
    assert entry["source"] == ["the maker's card"]
    assert entry["metadata"]["feed_forward_length"] == [96, 128]


def test_a_published_size_keeps_what_its_digits_leave_open():
    sizes = validate(GOOD)["tiny-1b"]["gguf"][0]["sizes"]
    assert sizes["Q8_0"] == {"bytes": 42_520_000_000, "within": 5_000_000}
    assert sizes["Q4_K_M"] == {"bytes": 4711, "within": 0}


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("    family: tiny", "    famly: tiny", "line 5: model 'tiny-1b': famly: is not a field"),
        ("    family: tiny\n", "", "family: is missing"),
        ("owner/Tiny-1B\n", "Tiny-1B\n", "hf_repo: expected owner/name, found 'Tiny-1B'"),
        ("  tiny-1b:", "  Tiny 1B:", "model 'Tiny 1B': expected lower case letters"),
        ("      block_count: 2\n", "", "expected block_count with a whole number above 0"),
        ("block_count: 2", "block_count: two", "expected block_count with a whole number"),
        ("[96, 128]", "[96, [1]]", "feed_forward_length: expected a number"),
        ("[96, 128]", "[]", "feed_forward_length: expected a number"),
        ("vocab_size", "vocab size", "expected a GGUF key without its prefix, found 'vocab size'"),
        ("tied_embeddings: true", "tied_embeddings: 1", "expected tied_embeddings with true"),
        ("42.52 GB", "42.52 GX", "sizes.Q8_0: expected bytes as a whole number, or a size such"),
        ("4711}", "-1}", "sizes.Q4_K_M.bytes: input should be greater than 0"),
        ("source: [card]", "source: [crad]", "source 'crad' is not in the sources table"),
        ("source: [card]", "source: []", "source: list should have at least 1 item"),
        ("source: [card]", "source: [card]\n    released: July", "expected a date such as 2024"),
        ("models:", "modells:", "line 2: 'modells' is not a section that is known"),
        (GOOD[GOOD.index("  tiny") :], "  tiny: 3\n", "model 'tiny': "),
        (GOOD, "[1, 2]", "expected fields at the top"),
        (GOOD, "models: 7", "expected entries by id"),
    ],
)
def test_a_broken_file_names_the_entry_the_field_and_what_was_expected(good, bad, says):
    assert good in GOOD
    with pytest.raises(DataError) as e:
        validate(GOOD.replace(good, bad, 1))
    assert e.value.message.startswith("mine.yaml")
    assert says in e.value.message
    assert e.value.hint


@pytest.mark.parametrize(
    ("good", "bad", "near"),
    [("family:", "famly:", "family"), ("source: [card]", "source: [crad]", "card")],
)
def test_a_misspelt_field_or_source_lists_near_misses(good, bad, near):
    with pytest.raises(DataError) as e:
        validate(GOOD.replace(good, bad, 1))
    assert e.value.hint == f"did you mean: {near}"


def test_a_personal_model_joins_the_catalog_and_has_a_shape(tmp_path):
    (tmp_path / "models.yaml").write_text(GOOD)
    store.use_personal_catalog(tmp_path)
    try:
        card = find_model("Tiny")
        assert (card.id, card.sources) == ("tiny-1b", ("the maker's card",))
        assert card.spec().tensors[0].shape == (64, 64)
        assert find_model("nemotron").id == "nemotron-70b"
    finally:
        store.use_personal_catalog(None)


def test_a_shape_that_makes_no_sense_is_an_error_of_the_data(tmp_path):
    (tmp_path / "models.yaml").write_text(GOOD.replace("[96, 128]", "[96]"))
    store.use_personal_catalog(tmp_path)
    try:
        with pytest.raises(DataError, match="feed_forward_length"):
            find_model("tiny").spec()
    finally:
        store.use_personal_catalog(None)
