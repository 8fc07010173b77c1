"""Weights of the shapes against sizes that others published: files, checkpoints, Ollama tags."""

from __future__ import annotations

import pytest

from nemofit.catalog.filetypes import tensor_bytes, tensor_types, weights_bytes
from nemofit.catalog.models import all_models

MODELS = all_models()
CORE = ("nemotron-70b", "llama-3.1-70b", "llama-3.3-70b", "qwen2.5-72b", "mixtral-8x22b")
METADATA = 16_000_000
"""Bytes: a file's vocabulary, templates and tensor list are smaller; with 128256 tokens, 7.8 MB."""
TENTH_OF_GB = 100_000_000

LARGER_EMBEDDINGS = {
    "Q2_K_L": "Q2_K",
    "Q3_K_XL": "Q3_K_L",
    "Q4_K_L": "Q4_K_M",
    "Q5_K_L": "Q5_K_M",
    "Q6_K_L": "Q6_K",
}
"""Some publishers' names for a file type with the two vocabulary matrices at Q8_0."""

FUSED_QKV_OF_2024 = {"Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "IQ1_M"}
"""For fused Q, K and V llama-quantize chose these types' tensors otherwise in 2024 than today."""

FILES = [
    pytest.param(card, repo, name, size, id=f"{card.id}-{name}-{repo.repo.split('/')[0]}")
    for card in MODELS
    for repo, name, size in card.published_sizes()
    if not (card.architecture == "phi3" and name in FUSED_QKV_OF_2024)
]


ROUTERS_AT_F16 = {"MaziyarPanahi/Mixtral-8x7B-Instruct-v0.1-GGUF"}
"""Files made before llama.cpp kept the routers at F32."""


def weights_of(card, name, imatrix):
    """Bytes of a published file type, publishers' own variants included."""
    spec = card.spec()
    if name not in LARGER_EMBEDDINGS:
        return weights_bytes(spec, name, imatrix)
    types = tensor_types(spec, LARGER_EMBEDDINGS[name], imatrix)
    return sum(
        tensor_bytes("Q8_0" if t.name in ("token_embd.weight", "output.weight") else kind, t.shape)
        for t, kind in zip(spec.tensors, types, strict=True)
    )


def excess(card, repo, name, size):
    """What the published file holds beyond the weights: least and most that its digits allow."""
    rest = size.bytes - weights_of(card, name, bool(repo.imatrix))
    if repo.repo in ROUTERS_AT_F16:
        rest += 2 * sum(t.elements for t in card.spec().tensors if "ffn_gate_inp" in t.name)
    low = size.within + (TENTH_OF_GB if repo.rounded_up else 0)
    return rest - low, rest + size.within


@pytest.mark.parametrize(("card", "repo", "name", "size"), FILES)
def test_a_published_file_holds_the_weights_and_its_metadata(card, repo, name, size):
    low, high = excess(card, repo, name, size)
    assert low <= METADATA
    assert high >= 0


def test_core_files_are_within_a_thousandth_of_what_is_published():
    apart = {}
    for card, repo, name, size in (p.values for p in FILES):
        if card.id in CORE:
            low, high = excess(card, repo, name, size)
            apart[f"{card.id} {name} {repo.repo}"] = max(low - METADATA / 2, -high, 0) / size.bytes
    assert len(apart) >= 60
    assert max(apart.values()) <= 0.001, max(apart, key=apart.__getitem__)


def test_exact_sizes_of_one_model_leave_the_same_metadata():
    """Files of one upload differ in their weights alone, to the byte."""
    checked = 0
    for card in MODELS:
        for repo in card.gguf:
            rest = [
                size.bytes - weights_bytes(card.spec(), name, bool(repo.imatrix))
                for name, size in repo.sizes.items()
                if size.within == 0 and card.architecture != "phi3"
            ]
            if len(rest) > 1:
                checked += 1
                assert max(rest) - min(rest) <= 1024, (card.id, rest)
    assert checked >= 10


@pytest.mark.parametrize(
    ("card", "tag"),
    [
        pytest.param(c, t, id=t.tag)
        for c in MODELS
        for t in c.ollama
        if t.bytes and t.file_type and t.tag not in ("gemma3:12b", "phi4:14b")
    ],
)
def test_an_ollama_tag_holds_the_weights_and_little_else(card, tag):
    assert 0 <= tag.bytes - weights_bytes(card.spec(), tag.file_type) <= METADATA


def test_a_tag_that_holds_more_is_not_taken_for_the_file_that_is_counted():
    """Ollama's own Q4_K_M of Qwen3 by its /api/tags: 2 to 34 % above llama-quantize's."""
    larger = {"qwen3-0.6b": 522653767, "qwen3-8b": 5225388164, "qwen3-32b": 20201253588}
    cards = {card.id: card for card in MODELS}
    for id, size in larger.items():
        assert size > 1.02 * weights_bytes(cards[id].spec(), "Q4_K_M")
        assert [tag.bytes for tag in cards[id].ollama] == [size]
        assert cards[id].ollama_tag("Q4_K_M") is None


@pytest.mark.parametrize(
    ("card", "checkpoint"),
    [
        pytest.param(card, v, id=card.id)
        for card in MODELS
        for v in card.vllm
        if v.size and v.format == "bf16" and not any("mmproj" in n for n in card.notes)
    ],
)
def test_a_bf16_checkpoint_is_two_bytes_per_parameter(card, checkpoint):
    spec = card.spec()
    last = spec.integer("block_count") - spec.integer("nextn_predict_layers")
    trunk = sum(
        t.elements
        for t in spec.tensors
        if not t.name.startswith("rope_f")
        and not (t.name.startswith("blk.") and int(t.name.split(".")[1]) >= last)
    )
    whole = sum(t.elements for t in spec.tensors if not t.name.startswith("rope_f"))
    slack = checkpoint.size.within + 2_000_000
    assert 2 * trunk - slack <= checkpoint.size.bytes <= 2 * whole + slack
