"""YAML from strangers: plain data, line numbers, hard limits."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.catalog.yaml_load import Lines, line_of, parse, read_bytes
from nemofit.errors import DataError


def test_what_is_written_is_what_is_read() -> None:
    text = "{a: no, b: 2024-10-15, c: 1_000, d: 1e3, e: 0x2204, f: null, g: true, h: '1', 5: .inf}"
    expected = {
        "a": "no", "b": "2024-10-15", "c": 1000, "d": 1000.0, "e": "0x2204", "f": None,
        "g": True, "h": "1", "5": ".inf",
    }  # fmt: skip
    assert expected == parse(text.encode(), "f.yaml")


def test_lines_are_known() -> None:
    raw = parse(b"gpus:\n  one: {memory: 1}\n  two:\n    memory: 2\n    names: [a, b]\n", "f.yaml")
    assert isinstance(raw, Lines)
    assert line_of(raw, ("gpus", "two", "memory")) == 4
    assert line_of(raw, ("gpus", "two", "missing")) == 3
    assert line_of(raw, ("nothing",)) is None


ALIAS_BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "line 2: not YAML"),
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is already defined in line 1"),
        ("a:\n  b: 1\n  b: 2", "line 3: 'b' is already defined in line 2"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag"),
        ("a: &x [*x]", "names nothing that is complete before it"),
        ("[" * 100_000, "nested more than"),
        ("{a: " * 30 + "}" * 30, "nested more than"),
        ("- " * 5000, "nested more than"),
        (ALIAS_BOMB, "values (aliases followed)"),
        ("a: &x 1\nb: [" + "*x," * 2000 + "]", "more than 1000 aliases"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("a: &x {b: 1}\nc: {<<: *x}", "merge keys"),
        ("? [a]\n: b", "a key has to be plain text"),
        ("a: \x00", "not YAML"),
        ("a: \tb\n\t- c", "not YAML"),
    ],
)
def test_hostile_files_end_in_one_line(text: str, says: str) -> None:
    with pytest.raises(DataError) as e:
        parse(text.encode(), "f.yaml")
    assert says in e.value.message
    assert e.value.message.startswith("f.yaml")
    assert "\n" not in e.value.message
    assert e.value.hint


def test_a_byte_that_is_no_text_is_named_with_its_line() -> None:
    with pytest.raises(DataError, match=r"line 2: byte 0xff"):
        parse(b"a: 1\nb: \xff", "f.yaml")


def test_aliases_within_the_limits_are_followed() -> None:
    assert parse(b"a: &x [1, 2]\nb: *x", "f.yaml") == {"a": [1, 2], "b": [1, 2]}


def test_only_regular_files_of_reasonable_size_are_read(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * 101)
    assert len(read_bytes(big, 101)) == 101
    with pytest.raises(DataError, match="larger than 100 bytes"):
        read_bytes(big, 100)
    with pytest.raises(DataError, match="not a regular file"):
        read_bytes(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(tmp_path / "missing.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_give_data_or_a_data_error(raw: bytes) -> None:
    try:
        parse(raw, "f.yaml")
    except DataError as e:
        assert "\n" not in e.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=20),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
def test_what_pyyaml_writes_comes_back(value: dict[str, object]) -> None:
    """PyYAML quotes text that could be anything else, so its own dump is the judge."""
    text = yaml.safe_dump(value)
    if "&id" not in text:
        assert value == parse(text.encode("utf-8"), "f.yaml")
