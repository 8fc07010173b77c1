"""Names: forgiven in form, never replaced by another."""

import pytest

from nemofit.catalog.names import near_misses, plain, resolve
from nemofit.errors import UnknownNameError

MODELS = {
    "nemotron-70b": [
        "nemotron",
        "nemotron:70b",
        "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF",
        "bartowski/Llama-3.1-Nemotron-70B-Instruct-HF-GGUF",
    ],
    "llama-3.1-70b": ["llama3.1:70b", "meta-llama/Llama-3.1-70B-Instruct"],
    "llama-3.1-8b": ["llama3.1:8b", "meta-llama/Llama-3.1-8B-Instruct"],
    "command-r": ["CohereForAI/c4ai-command-r-v01"],
    "command-r-plus": ["CohereForAI/c4ai-command-r-plus"],
}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("nemotron-70b", "nemotron-70b"),
        ("nemotron", "nemotron-70b"),
        ("nemotron:latest", "nemotron-70b"),
        ("nemotron:70b", "nemotron-70b"),
        ("NEMOTRON 70B", "nemotron-70b"),
        ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", "nemotron-70b"),
        ("nvidia/llama-3.1-nemotron-70b-instruct-hf", "nemotron-70b"),
        ("Llama-3.1-Nemotron-70B-Instruct-HF", "nemotron-70b"),
        ("Llama 3.1 70b", "llama-3.1-70b"),
        ("llama31-70b", "llama-3.1-70b"),
        ("  llama3.1:8b\n", "llama-3.1-8b"),
        ("Command R+", "command-r-plus"),
        ("command r", "command-r"),
    ],
)
def test_case_and_punctuation_are_forgiven(asked: str, found: str) -> None:
    assert found == resolve("model", asked, MODELS)


@pytest.mark.parametrize("asked", ["llama-3.1-71b", "llama-3.1", "nemotrom", "", " ", "!!!", "70b"])
def test_an_unknown_name_is_never_replaced(asked: str) -> None:
    with pytest.raises(UnknownNameError) as e:
        resolve("model", asked, MODELS)
    assert not e.value.ambiguous
    assert e.value.exit_code == 4


def test_near_misses_are_ids_best_first() -> None:
    with pytest.raises(UnknownNameError) as e:
        resolve("model", "nemotrn", MODELS)
    assert e.value.near[0] == "nemotron-70b"
    assert e.value.hint == "did you mean: " + ", ".join(e.value.near)
    assert {"llama-3.1-70b", "llama-3.1-8b"} <= set(near_misses("llama-3.1", MODELS))


def test_a_short_name_is_near_to_names_with_that_word() -> None:
    names = {"deepseek-r1": ["deepseek-r1:671b"], "r1-distill-qwen-7b": [], "command-r": []}
    assert near_misses("R1", names) == ["deepseek-r1", "r1-distill-qwen-7b"]
    assert near_misses("r", names) == ["command-r"]
    assert near_misses("x1", names) == []


def test_an_ambiguous_name_lists_its_matches() -> None:
    names = {"rtx-3060-12gb": ["RTX 3060"], "rtx-3060-8gb": ["rtx3060"]}
    with pytest.raises(UnknownNameError) as e:
        resolve("card", "Rtx-3060", names)
    assert e.value.ambiguous
    assert e.value.near == ("rtx-3060-12gb", "rtx-3060-8gb")


def test_an_id_is_not_hidden_by_the_alias_of_another() -> None:
    names = {"a": ["b"], "b": ["c"]}
    assert resolve("model", "b", names) == "b"
    assert resolve("model", "c", names) == "b"


def test_a_name_written_as_it_is_wins_over_one_that_only_looks_alike() -> None:
    names = {"x": ["RTX 4000"], "y": ["rtx-4000"]}
    assert resolve("card", "RTX 4000", names) == "x"
    assert resolve("card", "rtx-4000", names) == "y"


def test_a_very_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(UnknownNameError) as e:
        resolve("model", "llama" * 100_000, MODELS)
    assert len(e.value.message) < 200


def test_plain() -> None:
    assert plain("NVIDIA GeForce RTX-3090") == "nvidiageforcertx3090"
    assert plain("c4ai-command-r+") == "c4aicommandrplus"
