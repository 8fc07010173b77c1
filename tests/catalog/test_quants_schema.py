"""``quants.yaml``: what is refused, how it is named, and a person's own entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemofit.catalog import store
from nemofit.catalog.clauses import choose, parse_clause
from nemofit.catalog.filetypes import file_types, find_file_type, tensor_types, weights_bytes
from nemofit.catalog.model import ModelSpec, Tensor
from nemofit.catalog.schema_quants import validate
from nemofit.catalog.yaml_load import parse
from nemofit.errors import DataError

MODEL = ModelSpec(
    id="m",
    architecture="llama",
    metadata={"block_count": 8, "attention.head_count": 8, "vocab_size": 8},
    tensors=tuple(Tensor(f"blk.{i}.ffn_down.weight", (256, 4)) for i in range(8)),
)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A personal catalog's quants.yaml."""
    store.use_personal_catalog(tmp_path)
    yield tmp_path / "quants.yaml"
    store.use_personal_catalog(None)


def test_the_shipped_file_comes_out_as_plain_data() -> None:
    """A compiled form in JSON is the same as the file."""
    path = store.data_directory() / "quants.yaml"
    entries = validate(parse(path.read_bytes(), str(path)), str(path))
    assert json.loads(json.dumps(entries)) == entries
    sources = {key.partition("/")[2] for key in entries if key.startswith("sources/")}
    for key, entry in entries.items():
        if key.startswith(("quality/", "checkpoint_formats/")):
            assert isinstance(entry, dict)
            assert entry["source"] in sources


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[]", ["expected fields", "found a list"]),
        ("cards: {}", ["line 1", "'cards' is not a section"]),
        ("ggml_types:\n  Q4_K: {id: 12, block: 0, bytes: 144}", ["line 2", "Q4_K", "block"]),
        ("ggml_types:\n  Q4_K: {id: 12, bytes: 144}", ["Q4_K", "block", "is missing"]),
        ("ggml_types:\n  Q4_K: {id: 1.5, block: 1, bytes: 1}", ["Q4_K", "id", "1.5"]),
        ("file_types:\n  MY: {id: 1, type: Q4_K, colour: red}", ["MY", "colour"]),
        ("file_types:\n  MY: {id: 1, type: Q4_K, mixture: x}", ["MY", "mixture", "standard"]),
        ("file_types:\n  MY: {id: 1, type: Q4_K, rules: {attn: []}}", ["MY", "attn"]),
        (
            "file_types:\n  MY:\n    id: 1\n    type: Q4_K\n    rules: {attn_v: [Q6_K if i<L/0]}",
            ["MY", "attn_v", "'i<L/0' is no condition"],
        ),
        ("file_types:\n  MY: {id: 1, type: Q4_K, rules: {attn_v: [a b]}}", ["'a b' is no rule"]),
        (
            "quality:\n t: {model: m, parameters: 1, source: s, rows: [{quant: Q, perplexity: 2}]}",
            ["'t'", "needs the field reference"],
        ),
        ("tensors:\n  keep: 5", ["tensors", "keep", "list"]),
    ],
)
def test_a_broken_file_is_named(own: Path, text: str, parts: list[str]) -> None:
    """File, line, entry, field and what was expected."""
    own.write_text(text)
    with pytest.raises(DataError) as caught:
        file_types()
    assert str(own) in caught.value.message
    for part in parts:
        assert part in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "file_types:\n  MY: {id: 99, type: Q7_K}",
        "file_types:\n  MY: {id: 99, type: Q4_K, rules: {attn_v: [Q7_K]}}",
        "ggml_types:\n  Q4_K: {id: 12, block: 256, bytes: 144, fallback: Q7_K}",
    ],
)
def test_an_unknown_tensor_type_is_named(own: Path, text: str) -> None:
    own.write_text(text)
    with pytest.raises(DataError, match="'Q7_K' is not listed"):
        weights_bytes(MODEL, "Q4_K_M")


def test_a_personal_file_type_is_added(own: Path) -> None:
    """Its rules count as the shipped ones do."""
    own.write_text(
        "file_types:\n  MY_MIX:\n    id: 99\n    type: Q4_K\n"
        "    rules: {ffn_down: [Q8_0 if i<2, Q6_K if i>=6L/8]}\n"
    )
    types = tensor_types(MODEL, "my mix")
    assert types == ("Q8_0",) * 2 + ("Q4_K",) * 4 + ("Q6_K",) * 2
    assert "Q4_K_M" in file_types()


def test_a_changed_fact_changes_the_answer(own: Path) -> None:
    """What was worked out for a model before is not used again."""
    before = weights_bytes(MODEL, "Q4_K_S")
    own.write_text("ggml_types:\n  Q4_K: {id: 12, block: 256, bytes: 145, fallback: Q5_0}\n")
    store.reload()
    assert before + 7 * 4 == weights_bytes(MODEL, "Q4_K_S")
    own.write_text("tensors:\n  keep: [ffn_down]\n")
    store.reload()
    assert {"F16"} == set(tensor_types(MODEL, "Q4_K_S"))
    own.unlink()
    store.reload()
    assert before == weights_bytes(MODEL, "Q4_K_S")
    assert find_file_type("q4_k_m").name == "Q4_K_M"


@pytest.mark.parametrize(
    ("rules", "values", "expected"),
    [
        (["Q6_K"], {}, "Q6_K"),
        ([], {}, "Q4_K"),
        (["Q6_K if gqa>=4", "Q5_K"], {"gqa": 4}, "Q6_K"),
        (["Q6_K if gqa>=4", "Q5_K"], {"gqa": 3}, "Q5_K"),
        (["Q6_K if experts=8"], {"experts": 16}, "Q4_K"),
        (["Q6_K if imatrix"], {"imatrix": 1}, "Q6_K"),
        (["Q6_K if no_imatrix"], {"imatrix": 1}, "Q4_K"),
        (["Q6_K if no_imatrix"], {}, "Q6_K"),
    ],
)
def test_conditions_on_the_model(rules: list[str], values: dict[str, int], expected: str) -> None:
    given = {"gqa": 1, "experts": 0, "imatrix": 0, **values}
    assert (expected,) == choose(map(parse_clause, rules), "Q4_K", given, 80).types


def test_more_bits_is_llama_quantizes_choice() -> None:
    """The layers of a 32-layer Q4_K_M that really have more bits, as llama-quantize prints them."""
    choice = choose(
        [parse_clause("Q6_K if more_bits")], "Q4_K", {"gqa": 1, "experts": 0, "imatrix": 0}, 32
    )
    more = [i for i, name in enumerate(choice.types[:32]) if name == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
