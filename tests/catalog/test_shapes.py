"""Which tensors a model has: their order, blocks that differ, metadata that makes no sense."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.catalog.model import Value
from nemofit.catalog.shapes import known_architectures, tensors_of
from nemofit.errors import DataError

Metadata = dict[str, Value]

LLAMA: Metadata = {
    "block_count": 3,
    "embedding_length": 64,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "feed_forward_length": 96,
    "vocab_size": 128,
}


def names(architecture: str, metadata: Metadata) -> list[str]:
    return [t.name for t in tensors_of(architecture, metadata)]


def of_block(i: int, architecture: str, metadata: Metadata) -> set[str]:
    prefix = f"blk.{i}."
    return {n.removeprefix(prefix) for n in names(architecture, metadata) if n.startswith(prefix)}


def test_architectures_are_sorted_and_spelled_as_in_gguf() -> None:
    """They are listed once each."""
    known = known_architectures()
    assert list(known) == sorted(set(known))
    assert {"llama", "gpt-oss", "nemotron_h_moe", "ernie4_5-moe"} <= set(known)


@pytest.mark.parametrize("architecture", known_architectures())
def test_an_empty_description_is_refused(architecture: str) -> None:
    """Without metadata there is no shape, and the message says what is missing."""
    with pytest.raises(DataError, match=f"{re.escape(architecture)}: .*lacks") as caught:
        tensors_of(architecture, {})
    assert caught.value.hint


def test_embedding_and_output_come_first_then_block_by_block() -> None:
    """Names, shapes in ggml's order, no types."""
    tensors = tensors_of("llama", LLAMA)
    assert [t.name for t in tensors[:4]] == [
        "token_embd.weight", "output_norm.weight", "output.weight", "blk.0.attn_norm.weight",
    ]  # fmt: skip
    blocks = [int(t.name.split(".")[1]) for t in tensors[3:]]
    assert blocks == sorted(blocks)
    shapes = {t.name: t.shape for t in tensors}
    assert shapes["blk.2.attn_k.weight"] == (64, 32)
    assert shapes["blk.2.ffn_down.weight"] == (96, 64)
    assert {t.type for t in tensors} == {None}


def test_tied_embeddings_leave_the_output_matrix_out() -> None:
    """The flag decides, where the architecture leaves it open."""
    assert "output.weight" not in names("llama", LLAMA | {"tied_embeddings": True})
    assert "output.weight" not in names("gemma2", LLAMA)


def test_flags_add_the_tensors_that_metadata_does_not_tell() -> None:
    """Frequency factors and biases."""
    plain = set(names("llama", LLAMA))
    flagged = set(names("llama", LLAMA | {"rope_factors": True, "attention_bias": True}))
    added = {n for n in flagged - plain if not n.startswith(("blk.1.", "blk.2."))}
    assert added == {
        "rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.attn_k.bias", "blk.0.attn_v.bias",
    }  # fmt: skip


def test_decis_blocks_lack_attention_or_feed_forward() -> None:
    """Attention, a matrix instead of it, no attention, nothing at all."""
    metadata = LLAMA | {
        "block_count": 4,
        "attention.head_count": (4, 4, 0, 0),
        "attention.head_count_kv": (2, 0, 0, 0),
        "feed_forward_length": (96, 0, 32, 0),
    }
    ff = {"ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"}
    assert of_block(0, "deci", metadata) >= ff | {"attn_q.weight"}
    assert of_block(1, "deci", metadata) == {"attn_norm.weight", "attn_output.weight"}
    assert of_block(2, "deci", metadata) == ff
    assert of_block(3, "deci", metadata) == set()


def test_leading_blocks_are_dense_and_the_appended_one_predicts() -> None:
    """GLM-4.5: one dense block, experts, and a block for the next token."""
    metadata = LLAMA | {
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_feed_forward_length": 16,
        "expert_shared_count": 1,
        "leading_dense_block_count": 1,
        "nextn_predict_layers": 1,
    }
    assert "ffn_gate.weight" in of_block(0, "glm4moe", metadata)
    middle, last = of_block(1, "glm4moe", metadata), of_block(2, "glm4moe", metadata)
    assert "ffn_gate_exps.weight" in middle
    assert last - middle == {
        "nextn.eh_proj.weight", "nextn.enorm.weight", "nextn.hnorm.weight",
        "nextn.shared_head_norm.weight",
    }  # fmt: skip


def test_recurrent_blocks_stand_between_full_attention() -> None:
    """Qwen 3.5: every third block attends here, the appended one always does."""
    metadata = LLAMA | {
        "block_count": 5,
        "full_attention_interval": 3,
        "nextn_predict_layers": 1,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 8,
        "ssm.group_count": 2,
        "ssm.time_step_rank": 4,
    }
    attends = ["attn_q.weight" in of_block(i, "qwen35", metadata) for i in range(5)]
    assert attends == [False, False, True, False, True]


def test_per_block_lists_may_be_longer_than_the_blocks() -> None:
    """Files keep one value more for a block that was left out."""
    longer = LLAMA | {"feed_forward_length": (96, 96, 96, 96)}
    assert tensors_of("llama", longer) == tensors_of("llama", LLAMA)


def test_an_unknown_architecture_points_to_a_file() -> None:
    """It is named, and a GGUF file works instead."""
    with pytest.raises(DataError, match="'gpt5'") as caught:
        tensors_of("gpt5", LLAMA)
    assert "GGUF file" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding_length": None}, "lacks embedding_length"),
        ({"embedding_length": 0}, "embedding_length is 0"),
        ({"embedding_length": -64}, "embedding_length is -64"),
        ({"embedding_length": 64.0}, "embedding_length is 64.0"),
        ({"embedding_length": "64"}, "embedding_length is '64'"),
        ({"embedding_length": True}, "embedding_length is True"),
        ({"vocab_size": 1 << 40}, "vocab_size is 1099511627776"),
        ({"block_count": 513}, "block_count is 513, expected at most 512"),
        ({"block_count": 1 << 31}, "block_count is"),
        ({"feed_forward_length": None}, "leaves ffn_gate.weight without a size"),
        ({"feed_forward_length": 0}, "leaves ffn_gate.weight without a size"),
        ({"feed_forward_length": (96, 96)}, "2 values for 3 blocks"),
        ({"feed_forward_length": (96, "x", 96)}, "feed_forward_length is 'x'"),
        ({"attention.head_count": None}, "lacks attention.head_count"),
        ({"attention.head_count": 0}, "attention.head_count is 0"),
        ({"tied_embeddings": 1}, "tied_embeddings is 1, expected true or false"),
        ({"nextn_predict_layers": 3}, "nextn_predict_layers is 3, expected below"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(
    change: dict[str, Value | None], message: str
) -> None:
    """The message names the key, its value and what was expected."""
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        tensors_of("llama", {**LLAMA, **change})  # type: ignore[dict-item]
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_pattern_must_be_a_list() -> None:
    """Gemma 4's windows cannot be guessed."""
    with pytest.raises(DataError, match="sliding_window_pattern has 0 values"):
        tensors_of("gemma4", LLAMA)
    with pytest.raises(DataError, match="sliding_window_pattern is 6, expected a list"):
        tensors_of("gemma4", LLAMA | {"attention.sliding_window_pattern": 6})


NUMBERS = st.integers(-1, 9)
KEYS = (
    "block_count", "embedding_length", "feed_forward_length", "vocab_size", "context_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.key_length_mla", "attention.value_length_mla",
    "attention.kv_lora_rank", "attention.q_lora_rank", "attention.sliding_window_pattern",
    "attention.indexer.head_count", "attention.indexer.key_length", "attention.indexer.types",
    "attention.compress_ratios", "attention.output_group_count", "attention.output_lora_rank",
    "expert_count", "expert_used_count", "expert_feed_forward_length", "expert_shared_count",
    "leading_dense_block_count", "interleave_moe_layer_step", "moe_every_n_layers",
    "nextn_predict_layers", "full_attention_interval", "rope.dimension_count",
    "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank",
    "ssm.group_count", "shortconv.l_cache", "kda.head_dim", "hyper_connection.count",
    "hash_layer_count", "tied_embeddings", "rope_factors", "embedding_length_per_layer_input",
)  # fmt: skip
VALUES = st.one_of(
    NUMBERS, st.lists(NUMBERS, max_size=9).map(tuple), st.booleans(), st.just(1 << 70), st.text()
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(known_architectures()), st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_metadata_gives_tensors_or_one_kind_of_error(
    architecture: str, metadata: Metadata
) -> None:
    """Nothing but DataError escapes, and no tensor is empty."""
    sound: Metadata = LLAMA | {"expert_count": 2, "ssm.conv_kernel": 4, "ssm.inner_size": 8}
    try:
        tensors = tensors_of(architecture, sound | metadata)
    except DataError:
        return
    assert all(min(t.shape) >= 1 for t in tensors)
    assert len({t.name for t in tensors}) == len(tensors)
