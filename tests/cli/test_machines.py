"""Saved machines, measured memory, and descriptions that can be pasted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_lines import TWO_CARDS, Say

from nemofit.errors import HardwareError
from nemofit.probe import bandwidth
from nemofit.probe.bandwidth import Bandwidth


def plans(document: object) -> object:
    """A ranking without the name that the machine was asked by."""
    assert isinstance(document, dict)
    return {**document, "machine": {**document["machine"], "source": ""}}


def test_a_saved_machine_answers_by_its_name(say: Say) -> None:
    saved = say("probe", "--machine", TWO_CARDS, "--save", "office")
    assert saved.code == 0
    assert "--machine office" in saved.err
    asked = ("recommend", "-m", "nemotron", "-c", "8k", "--json", "--machine")
    assert plans(say(*asked, "office").json) == plans(say(*asked, TWO_CARDS).json)
    assert say("probe", "--json", "--machine", "office").json["source"] == "office"


def test_saved_machines_are_listed_in_words(say: Say) -> None:
    assert "no machine is saved" in say("list", "machines").out
    for name, words in (("b", TWO_CARDS), ("a", "M3 Max 64GB")):
        say("probe", "--machine", words, "--save", name)
    items = say("list", "machines", "--json").json["items"]
    assert [i["name"] for i in items] == ["a", "b"]
    assert items[1]["description"] == "2x RTX 3090, 64 GiB RAM"
    assert "M3 Max" in say("list", "machines").out


def test_saving_again_replaces(say: Say) -> None:
    say("probe", "--machine", "RTX 3090", "--save", "x")
    say("probe", "--machine", "RTX 4090", "--save", "x")
    (item,) = say("list", "machines", "--json").json["items"]
    assert item["description"] == "RTX 4090"


def test_only_the_exact_name_is_the_saved_machine(say: Say, tmp_path: Path) -> None:
    """A machine called like a card hides that card's name, and no other way to write it."""
    say("probe", "--machine", "16 GiB RAM", "--save", "3090")
    assert say("probe", "--json", "--machine", "3090").json["gpus"] == []
    assert len(say("probe", "--json", "--machine", "RTX 3090").json["gpus"]) == 1
    assert len(say("probe", "--json", "--machine", "1x 3090").json["gpus"]) == 1
    said = say("probe", "--machine", "3091")
    assert said.code == 4
    assert "saved machine '3091'" in said.err
    assert "3090" in said.err
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_of_the_same_name_is_reached_by_its_path(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("probe", "--machine", TWO_CARDS, "--save", "office")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "office").write_text(
        json.dumps(say("probe", "--json", "--machine", "8 GiB RAM").json)
    )
    assert len(say("probe", "--json", "--machine", "office").json["gpus"]) == 2
    assert say("probe", "--json", "--machine", "./office").json["gpus"] == []


def test_names_from_files_move_no_cursor(say: Say, tmp_path: Path) -> None:
    """A process may call itself what it likes; a terminal must not obey it."""
    machine = say("probe", "--json", "--machine", "RTX 3090 8 GiB free").json
    machine["gpus"][0]["name"] = "card \x1b[2J"
    machine["gpus"][0]["holders"] = [{"pid": 1, "name": "x\x1b]0;title\x07\x9b", "bytes": 4 << 30}]
    machine["host"]["cpu"] = "cpu \x1b[31m"
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(machine))
    for command in (("probe",), ("check", "llama-3.2-1b", "-c", "512")):
        said = say(*command, "--machine", str(file))
        assert not set(said.out + said.err) & set("\x1b\x07\x9b")
        assert "x?]0;title" in said.out


@pytest.mark.parametrize(
    "name",
    ["", "../x", "a/b", "a\\b", ".hidden", "-", "x.json", "x" * 65, "nul", "COM1.x", "a b", "ä"],
)
def test_names_that_could_be_something_else(say: Say, name: str) -> None:
    said = say("probe", "--machine", TWO_CARDS, f"--save={name}")
    assert said.code == 2
    assert "is no name for a machine" in said.err
    assert said.out == ""


def test_a_folder_that_cannot_be_written(say: Say, tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "machines").write_text("a file\n")
    where = ("--catalog", str(tmp_path / "catalog"))
    said = say("probe", "--machine", TWO_CARDS, "--save", "office", *where)
    assert said.code == 2
    assert "cannot be written" in said.err
    assert os.listdir(tmp_path / "catalog") == ["machines"]


def test_a_broken_profile_is_named(say: Say, tmp_path: Path) -> None:
    say("probe", "--machine", TWO_CARDS, "--save", "office", "--catalog", str(tmp_path))
    (tmp_path / "machines" / "office.json").write_text('{"gpus": [{"name": 3}]}')
    said = say("plan", "llama-3.2-1b", "--machine", "office", "--catalog", str(tmp_path))
    assert said.code == 2
    assert "office.json" in said.err
    (item,) = say("list", "machines", "--json", "--catalog", str(tmp_path)).json["items"]
    assert item["description"] is None
    assert "gpus[0].name" in item["description_note"]


def test_the_description_can_be_pasted(say: Say) -> None:
    """For a machine in words, and for this one: the same host again."""
    for args in (("--machine", TWO_CARDS), ()):
        first = say("probe", "--json", *args).json
        again = say("probe", "--json", "--machine", first["description"]).json
        assert again["description"] == first["description"]
        for key in ("physical_cores", "ram_total_bytes", "ram_available_bytes", "os"):
            assert again["host"][key] == first["host"][key]
    assert first["description"] in say("probe").out or first["host"]["ram_available_bytes"]


def fake_measure(monkeypatch: pytest.MonkeyPatch, gb_s: float) -> None:
    found = Bandwidth(gb_s=gb_s, threads=4, bytes=1, passes=3)
    monkeypatch.setattr(bandwidth, "measure", lambda *_: found)


def test_a_measurement_is_kept(say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = say("probe", "--json").json["host"]
    assert before["ram_bandwidth_basis"] != "measured"
    for gb_s in (77.7, 81.5):
        fake_measure(monkeypatch, gb_s)
        host = say("probe", "--measure", "--json").json["host"]
        assert (host["ram_bandwidth_gb_s"], host["ram_bandwidth_basis"]) == (gb_s, "measured")
        assert say("probe", "--json").json["host"]["ram_bandwidth_gb_s"] == gb_s
    assert sum("measured on 20" in note for note in host["notes"]) == 1
    assert "82 GB/s (measured)" in say("probe").out
    described = say("probe", "--json", "--machine", "8 GiB RAM").json["host"]
    assert described["ram_bandwidth_gb_s"] is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"FP": 3}', '{"FP": {"gb_s": -1}}', '{"FP": {"gb_s": 9, "date": 1}}']
)
def test_a_broken_cache_is_as_none(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fake_measure(monkeypatch, 50.0)
    say("probe", "--measure")
    (cache,) = (tmp_path / "cache").rglob("ram-bandwidth.json")
    (key,) = json.loads(cache.read_text())
    cache.write_text(text.replace("FP", key))
    said = say("probe", "--json")
    assert said.code == 0
    assert said.json["host"]["ram_bandwidth_basis"] != "measured"


def test_another_machine_is_not_measured(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say("probe", "--measure", "--machine", TWO_CARDS).code == 2

    def fails(*_: object) -> Bandwidth:
        raise HardwareError("RAM bandwidth cannot be measured", "close something first")

    monkeypatch.setattr(bandwidth, "measure", fails)
    assert say("probe", "--measure").code == 5


def budgets_of(said: object) -> list[int]:
    assert isinstance(said, dict)
    return [gpu["budget_bytes"] for gpu in said["memory"]["gpus"]]


def test_a_reserve_for_each_card(say: Say) -> None:
    asked = ("plan", "llama-3.1-8b", "-q", "Q8_0", "-c", "8k", "--json", "--machine", TWO_CARDS)
    free = budgets_of(say(*asked, "--reserve", "0").json)
    one = budgets_of(say(*asked, "--reserve", "1:2GiB,0:512MiB").json)
    rest = budgets_of(say(*asked, "--reserve", "1GiB,0:0").json)
    assert [a - b for a, b in zip(free, one, strict=True)] == [512 << 20, 2 << 30]
    assert [a - b for a, b in zip(free, rest, strict=True)] == [0, 1 << 30]


def test_reserves_count_cards_that_could_not_be_read(say: Say, tmp_path: Path) -> None:
    """The numbers are those of ``nemofit probe``."""
    machine = say("probe", "--json", "--machine", TWO_CARDS).json
    machine["gpus"].insert(0, {"name": "NVIDIA GPU 0", "vendor": "nvidia", "error": "lost"})
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(machine))
    asked = ("plan", "llama-3.2-1b", "-q", "Q8_0", "-c", "8k", "--json", "--machine", str(file))
    free = budgets_of(say(*asked, "--reserve", "0").json)
    one = budgets_of(say(*asked, "--reserve", "0,1:2GiB").json)
    assert [a - b for a, b in zip(free, one, strict=True)] == [2 << 30, 0]


@pytest.mark.parametrize(
    "text", ["2:1GiB", "x:1GiB", "0:1GiB,0:2GiB", "0:", ":1GiB", "1GiB,2GiB", "0:1GiB,", "0:-1"]
)
def test_reserves_that_make_no_sense(say: Say, text: str) -> None:
    said = say("plan", "llama-3.2-1b", "-q", "Q8_0", "--machine", TWO_CARDS, f"--reserve={text}")
    assert said.code == 2
    assert said.err.count("\n") == 2


def test_check_names_who_holds_memory(say: Say, tmp_path: Path) -> None:
    machine = say("probe", "--json", "--machine", "RTX 3060 12GB 7 GiB free, 32 GiB RAM").json
    holders = [{"pid": 4711, "name": "firefox", "bytes": 4 << 30}]
    machine["gpus"][0]["holders"] = holders
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(machine))
    asked = ("check", "llama-3.1-8b", "-q", "Q8_0", "-c", "8k", "--gpu-layers", "all")
    said = say(*asked, "--machine", str(file), "--json")
    (item,) = (i for i in said.json["items"] if i["item"] == "GPU memory in use")
    assert item["have"] == "firefox holds 4.00 GiB on GPU 0"
    assert item["note"].endswith("with it closed Q8_0 fits at 8192 tokens")
    assert "with it closed Q8_0 fits" in say(*asked, "--machine", str(file)).out


def test_probe_shows_who_holds_memory_and_what_there_is_to_say(say: Say, tmp_path: Path) -> None:
    """A note that is true of several cards is said once."""
    machine = say("probe", "--json", "--machine", "2x RTX 3060 12GB 7 GiB free").json
    for gpu in machine["gpus"]:
        gpu["notes"] = ["unknown card: the line to add"]
    machine["gpus"][1]["holders"] = [{"pid": 4711, "name": "firefox", "bytes": 4 << 30}]
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(machine))
    shown = say("probe", "--machine", str(file)).out
    assert "firefox holds 4.00 GiB on GPU 1" in shown
    assert shown.count("the line to add") == 1
    assert "GPU 0, 1: unknown card" in shown
