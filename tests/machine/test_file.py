"""Machines as JSON files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.errors import DataError
from nemofit.machine import (
    Gpu,
    Holder,
    Host,
    Machine,
    machine_from_json,
    machine_to_json,
    parse_machine,
    read_machine,
)
from nemofit.units import GIB

PROBED = Machine(
    host=Host(os="linux", ram_total_bytes=64 * GIB, ram_available_bytes=60 * GIB, cpu_quota=7.5),
    gpus=(
        Gpu(
            name="NVIDIA GeForce RTX 3090",
            vendor="nvidia",
            total_bytes=24 * GIB,
            free_bytes=20 * GIB,
            display=True,
            holders=(Holder(pid=4321, name="firefox", bytes=GIB), Holder(pid=1)),
        ),
        Gpu(name="a card that is lost", error="GPU is lost"),
    ),
    hidden_gpus=(Gpu(name="NVIDIA T400", notes=("CUDA_VISIBLE_DEVICES leaves it out",)),),
    driver="580.95.05",
    notes=("one note",),
)


def written(machine: Machine, **more: object) -> dict[str, Any]:
    document = {"schema": "nemofit/probe/1", "nemofit": "9.9", **machine_to_json(machine), **more}
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


@pytest.mark.parametrize("machine", [PROBED, parse_machine("2x RTX 3090, 64 GiB RAM"), Machine()])
def test_a_machine_survives_the_way_through_a_file(machine: Machine) -> None:
    assert machine == machine_from_json(written(machine))
    under_a_key = {
        "schema": "nemofit/probe/1",
        "machine": json.loads(json.dumps(machine_to_json(machine))),
    }
    assert machine == machine_from_json(under_a_key)


def test_a_file_names_itself_as_the_source(tmp_path: Path) -> None:
    path = tmp_path / "office.json"
    path.write_text(json.dumps(written(PROBED)), encoding="utf-8")
    assert read_machine(path) == replace(PROBED, source=str(path))


def test_fields_that_a_later_release_adds_are_left_out() -> None:
    document = written(PROBED, weather="fine")
    document["gpus"][0]["smell"] = {"new": 1}
    assert machine_from_json(document) == PROBED


def test_fields_that_are_missing_are_unknown() -> None:
    m = machine_from_json({"gpus": [{"name": "some card"}]})
    assert m.gpus == (Gpu(name="some card"),)
    assert m.host == Host()


def test_a_file_of_the_future_is_refused_in_one_line() -> None:
    with pytest.raises(DataError) as e:
        machine_from_json(written(PROBED, schema="nemofit/probe/2"), "office.json")
    assert "office.json is nemofit/probe/2" in e.value.message
    assert "newer" in e.value.message
    assert "update nemofit" in (e.value.hint or "")


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("schema",), "nemofit/plan/1", "expected 'nemofit/probe/1'"),
        (("schema",), 1, "schema is 1"),
        (("schema",), "nemofit/probe/" + "9" * 5000, "schema is"),
        (("gpus",), 7, "gpus: expected a list, found 7"),
        (("gpus", 0), "RTX 3090", "gpus[0]: expected an object"),
        (("gpus", 0, "name"), None, "gpus[0].name: expected text, found null"),
        (("gpus", 0, "total_bytes"), "24 GB", "gpus[0].total_bytes: expected a whole number"),
        (("gpus", 0, "total_bytes"), -1, "gpus[0].total_bytes"),
        (("gpus", 0, "total_bytes"), True, "found True"),
        (("gpus", 0, "total_bytes"), 1 << 70, "gpus[0].total_bytes"),
        (("gpus", 0, "total_bytes"), 1.5, "found 1.5"),
        (("gpus", 0, "bandwidth_gb_s"), float("nan"), "expected a number, found nan"),
        (("gpus", 0, "bandwidth_gb_s"), float("inf"), "expected a number, found inf"),
        (("gpus", 0, "shared"), "no", "expected true or false"),
        (("gpus", 0, "free_bytes"), 25 * GIB, "is more than its total"),
        (("gpus", 0, "holders", 0, "pid"), "x", "gpus[0].holders[0].pid"),
        (("gpus", 0, "notes"), "one", "gpus[0].notes: expected a list"),
        (("host",), [], "host: expected an object"),
        (("host", "physical_cores"), {}, "host.physical_cores"),
        (("hidden_gpus", 0, "vendor"), ["nvidia"], "hidden_gpus[0].vendor"),
    ],
)
def test_a_broken_field_is_named(place: tuple[str | int, ...], value: object, says: str) -> None:
    document: Any = written(PROBED)
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(DataError) as e:
        machine_from_json(document)
    assert says in e.value.message
    assert "\n" not in e.value.message
    assert len(e.value.message) < 300


def test_a_missing_name_is_named() -> None:
    with pytest.raises(DataError, match=r"gpus\[0\]\.name is missing"):
        machine_from_json({"gpus": [{}]})


@pytest.mark.parametrize(
    "obj", [None, [], 1, "x", {}, {"machine": 3}, {"schema": "nemofit/probe/1"}]
)
def test_what_is_no_machine_is_refused(obj: object) -> None:
    with pytest.raises(DataError):
        machine_from_json(obj)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"name: yaml\n"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(raw)
    with pytest.raises(DataError, match="is not JSON"):
        read_machine(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda v: (
        st.lists(v, max_size=3)
        | st.dictionaries(
            st.sampled_from(["host", "gpus", "name", "notes", "total_bytes"]), v, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(JSON)
def test_any_json_gives_a_machine_or_a_data_error(obj: object) -> None:
    try:
        assert isinstance(machine_from_json(obj), Machine)
    except DataError as e:
        assert "\n" not in e.message
