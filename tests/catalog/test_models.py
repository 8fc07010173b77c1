"""The shipped models: shapes that count as published, names that mean one model."""

from __future__ import annotations

import pytest

from nemofit.catalog.models import active_parameters, all_models, find_model
from nemofit.catalog.names import plain
from nemofit.catalog.shapes import known_architectures
from nemofit.errors import UnknownNameError

MODELS = all_models()
SHAPED = [m for m in MODELS if m.architecture in known_architectures()]


def counted_by_makers(card):
    """What makers count: no precomputed rope factors, no appended prediction blocks."""
    spec = card.spec()
    end = spec.integer("block_count") - spec.integer("nextn_predict_layers")
    return sum(
        t.elements
        for t in spec.tensors
        if not t.name.startswith("rope_f")
        and not (t.name.startswith("blk.") and int(t.name.split(".")[1]) >= end)
    )


@pytest.mark.parametrize("card", [m for m in SHAPED if m.parameters], ids=lambda m: m.id)
def test_the_shape_has_as_many_parameters_as_published(card):
    assert card.parameters == counted_by_makers(card)


@pytest.mark.parametrize("card", [m for m in SHAPED if m.active], ids=lambda m: m.id)
def test_as_many_parameters_work_on_a_token_as_published(card):
    spec = card.spec()
    factors = sum(t.elements for t in spec.tensors if t.name.startswith("rope_f"))
    assert card.active == active_parameters(spec) - factors


def test_every_name_means_one_model():
    owners: dict[str, set[str]] = {}
    for m in MODELS:
        for name in (m.id, m.name, *m.aliases, m.hf_repo, *(t.tag for t in m.ollama)):
            owners.setdefault(plain(name), set()).add(m.id)
    assert {name: ids for name, ids in owners.items() if len(ids) > 1} == {}


@pytest.mark.parametrize(
    ("asked", "id"),
    [
        ("nemotron", "nemotron-70b"),
        ("nemotron:70b", "nemotron-70b"),
        ("NVIDIA/Llama-3.1-Nemotron-70B-Instruct-HF", "nemotron-70b"),
        ("Llama 3.3 70B", "llama-3.3-70b"),
        ("llama3.1:70b", "llama-3.1-70b"),
        ("qwen2.5:72b", "qwen2.5-72b"),
        ("mixtral 8x22b", "mixtral-8x22b"),
        ("bartowski/Qwen2.5-72B-Instruct-GGUF", "qwen2.5-72b"),
    ],
)
def test_a_model_is_found_by_any_of_its_names(asked, id):
    assert id == find_model(asked).id


def test_nearly_every_model_can_be_fetched():
    """A repository or a library tag; those that are left had none in any list that was read."""
    assert {m.id for m in MODELS if not m.gguf and not m.ollama} == {
        "deepseek-v4-pro", "mamba-codestral-7b", "mistral-large-3-675b",
        "nemotron-3-ultra-550b-a55b", "nemotron-h-56b", "nemotron-nano-12b-v2-vl",
    }  # fmt: skip


def test_a_repository_has_sizes_or_says_where_it_is_named():
    bare = [(m.id, r.repo) for m in MODELS for r in m.gguf if not r.sizes and not r.sources]
    assert bare == [("mixtral-8x22b", "MaziyarPanahi/Mixtral-8x22B-Instruct-v0.1-GGUF")]


def test_a_family_is_ambiguous_and_lists_its_members():
    with pytest.raises(UnknownNameError) as e:
        find_model("llama")
    assert e.value.ambiguous
    assert {"llama-3.1-70b", "llama-3.3-70b"} <= set(e.value.near)


def test_a_misspelt_name_is_not_replaced_but_suggested():
    with pytest.raises(UnknownNameError) as e:
        find_model("nemotrn 70b")
    assert (e.value.ambiguous, e.value.exit_code) == (False, 4)
    assert "nemotron-70b" in e.value.near
