"""File types: names, arithmetic, and published sizes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from benchmarks.accuracy.weights import FIXTURES, read_fixture
from hypothesis import given
from hypothesis import strategies as st

from nemofit.catalog.filetypes import (
    file_types,
    find_file_type,
    ggml_type,
    ggml_types,
    needs_imatrix,
    quality,
    row_bytes,
    tensor_bytes,
    tensor_types,
    weights_bytes,
)
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import find_model
from nemofit.errors import DataError, NemofitError, UnknownNameError
from nemofit.units import GIB


def model(name: str) -> ModelSpec:
    return read_fixture(FIXTURES / f"{name}.json")[0].model


# llama.cpp, tools/quantize/README.md: bits per weight of Llama 3.1 8B. IQ3_XXS is printed for a
# file with an importance matrix, the others are the same with and without or were made without.
BITS = {
    "IQ1_S": 2.0042, "IQ1_M": 2.1460, "IQ2_XXS": 2.3824, "IQ2_XS": 2.5882, "IQ2_S": 2.7403,
    "IQ2_M": 2.9294, "IQ3_XXS": 3.2548, "IQ3_XS": 3.4977, "IQ3_S": 3.6606, "IQ3_M": 3.7628,
    "IQ4_XS": 4.4597, "IQ4_NL": 4.6818, "Q2_K_S": 2.9697, "Q2_K": 3.1593, "Q3_K_S": 3.6429,
    "Q3_K_M": 3.9960, "Q3_K_L": 4.2979, "Q4_K_S": 4.6672, "Q4_K_M": 4.8944, "Q5_K_S": 5.5704,
    "Q5_K_M": 5.7036, "Q6_K": 6.5633, "Q8_0": 8.5008, "F16": 16.0005,
}  # fmt: skip


@pytest.mark.parametrize(("name", "bits"), BITS.items())
def test_bits_per_weight_are_those_of_the_readme(name: str, bits: float) -> None:
    m = model("llama-3.1-8b")
    assert bits == round(8 * weights_bytes(m, name, name == "IQ3_XXS") / m.parameters, 4)


# bartowski/Meta-Llama-3.1-8B-Instruct-GGUF and bartowski/Llama-3.1-Nemotron-70B-Instruct-HF-GGUF.
FILES = {
    "llama-3.1-8b": {
        "Q2_K": 3179136416, "Q3_K_M": 4018922912, "Q4_K_M": 4920739232,
        "Q5_K_M": 5732992416, "Q6_K": 6596011424, "Q8_0": 8540775840,
    },
    "llama-3.1-70b": {"Q4_K_M": 42520398752, "Q3_K_M": 34267499424},
    "mixtral-8x7b": {
        "Q2_K": 17309173632, "Q3_K_M": 22544394112, "Q4_K_M": 28446410624,
        "Q6_K": 38378760064, "Q8_0": 49624262528,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_published_files_exceed_the_weights_by_their_metadata(name: str) -> None:
    """One number of bytes for all files of a repository: the vocabulary and the header.

    MaziyarPanahi's Mixtral is of a time when the router was written as F16.
    """
    m = model(name)
    router = 4096 * 8 * 32 * 2 if name == "mixtral-8x7b" else 0
    metadata = {size + router - weights_bytes(m, quant) for quant, size in FILES[name].items()}
    assert len(metadata) == 1
    assert 0 < metadata.pop() < 8_000_000


# Sizes in GB as published, made with an importance matrix unless said otherwise. Repositories:
# bartowski/Meta-Llama-3.1-70B-Instruct-GGUF, bartowski/Llama-3.3-70B-Instruct-GGUF and
# bartowski/Llama-3.1-Nemotron-70B-Instruct-HF-GGUF, one shape; bartowski/Qwen2.5-72B-Instruct-GGUF;
# mradermacher/Mixtral-8x22B-Instruct-v0.1-GGUF (static) and -i1-GGUF.
PUBLISHED = {
    "llama-3.1-70b": {
        "Q8_0": "74.98", "Q5_K_M": "49.95", "Q5_0": "48.8", "Q4_1": "44.3", "Q4_K_M": "42.52",
        "Q4_K_S": "40.35", "Q4_0": "40.12", "Q3_K_M": "34.27", "IQ3_M": "31.94", "Q3_K_S": "30.91",
        "IQ3_S": "30.9", "Q2_K_S": "24.5", "IQ2_S": "22.24", "IQ2_XS": "21.14", "IQ2_XXS": "19.1",
        "IQ1_M": "16.75", "IQ1_S": "15.3",
    },
    "qwen2.5-72b": {
        "Q8_0": "77.26", "Q5_K_M": "54.45", "Q4_K_M": "47.42", "IQ4_XS": "39.71",
        "Q3_K_L": "39.51", "Q3_K_M": "37.70", "Q3_K_S": "34.49", "IQ3_XXS": "31.85",
        "Q2_K": "29.81", "IQ2_M": "29.34", "IQ2_XXS": "25.49", "IQ1_M": "23.74",
    },
    "mixtral-8x22b": {
        "Q3_K_M": "67.8", "IQ3_M": "64.5", "IQ3_S": "61.5", "IQ3_XXS": "54.9", "Q2_K": "52.1",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "quant", "published"),
    [(name, quant, gb) for name, files in PUBLISHED.items() for quant, gb in files.items()],
)
def test_published_sizes_within_a_thousandth(name: str, quant: str, published: str) -> None:
    """Beyond what the published figure rounds away."""
    gb = Decimal(published)
    rounding = 0.5 * 10.0 ** (9 + int(gb.as_tuple().exponent))
    difference = abs(float(gb) * 1e9 - weights_bytes(model(name), quant, imatrix=True))
    assert difference <= 0.001 * float(gb) * 1e9 + rounding


# Sizes in GiB as llama-bench prints them, the sum over the tensors. Sources: ggml-org/llama.cpp,
# benches/dgx-spark/dgx-spark.md, benches/mac-m2-ultra/mac-m2-ultra.md and
# benches/nemotron/nemotron-dgx-spark.md; XiongjieDai/GPU-Benchmarks-on-LLM-Inference, README.md;
# kyuz0/amd-strix-halo-toolboxes, benchmark/results.
LOADED = [
    ("gpt-oss-20b", "MXFP4_MOE", 11.27),
    ("gpt-oss-120b", "MXFP4_MOE", 59.02),
    ("qwen3-coder-30b-a3b", "Q8_0", 30.25),
    ("qwen2.5-coder-7b", "Q8_0", 7.54),
    ("nemotron-3-nano-4b", "Q8_0", 3.94),
    ("llama-3.1-8b", "Q4_K_M", 4.58),
    ("llama-3.1-8b", "F16", 14.96),
    ("llama-3.1-70b", "Q4_K_M", 39.59),
    ("llama-3.1-70b", "F16", 131.42),
    ("gemma-4-31b", "BF16", 57.18),
    ("gemma-4-26b-a4b", "BF16", 47.02),
    ("ministral-3-14b", "BF16", 25.16),
    ("qwen3.6-35b-a3b", "BF16", 64.60),
]


@pytest.mark.parametrize(("name", "quant", "gib"), LOADED)
def test_sizes_that_llama_bench_prints(name: str, quant: str, gib: float) -> None:
    """The catalog's own shapes, made by llama-quantize or by the converter."""
    assert round(weights_bytes(find_model(name).spec(), quant) / GIB, 2) == gib


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Q4_K_M", "Q4_K_M"),
        ("q4_k_m", "Q4_K_M"),
        ("Q4-K-M", "Q4_K_M"),
        ("q4km", "Q4_K_M"),
        ("Q4_K", "Q4_K_M"),
        ("q3_k", "Q3_K_M"),
        ("iq2 xxs", "IQ2_XXS"),
        ("mxfp4_moe", "MXFP4_MOE"),
        ("bf16", "BF16"),
    ],
)
def test_case_and_punctuation_are_forgiven(asked: str, found: str) -> None:
    assert found == find_file_type(asked).name


@pytest.mark.parametrize("asked", ["Q4_K_X", "Q9_K", "", "q" * 10_000, "../../etc"])
def test_an_unknown_file_type_is_refused(asked: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_file_type(asked)
    assert set(caught.value.near) <= set(file_types())


def test_a_misspelt_file_type_gets_near_misses() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_file_type("Q4_K_X")
    assert "Q4_K_M" in caught.value.near


def test_tensor_types_are_found_in_either_case() -> None:
    assert ggml_type("q4_k").name == "Q4_K"
    with pytest.raises(UnknownNameError):
        ggml_type("Q4_Z")


def test_a_row_is_a_multiple_of_its_block() -> None:
    assert row_bytes("Q4_K", 8192) == 144 * 32
    assert tensor_bytes("Q4_K", (8192, 10, 3)) == 144 * 32 * 10 * 3
    with pytest.raises(DataError, match="29568 elements is no multiple of 256"):
        row_bytes("Q4_K", 29568)


@given(st.sampled_from(sorted(ggml_types())), st.lists(st.integers(-9, 1 << 40), max_size=5))
def test_any_shape_gets_a_size_or_an_error_of_ours(name: str, shape: list[int]) -> None:
    try:
        assert isinstance(tensor_bytes(name, shape), int)
    except NemofitError as error:
        assert error.hint


def test_a_shape_of_the_catalog_has_no_types_of_its_own() -> None:
    with pytest.raises(DataError, match="no types of its own"):
        tensor_types(model("phi-4"), None)
    with pytest.raises(DataError, match="no types of its own"):
        weights_bytes(model("phi-4"))


def test_the_general_word_about_imatrix_holds_for_a_usual_model() -> None:
    m = model("llama-3.1-8b")
    assert {n: t.needs_imatrix for n, t in file_types().items()} == {
        n: needs_imatrix(m, n) for n in file_types()
    }


def test_what_needs_an_imatrix_depends_on_the_rows() -> None:
    """Rows of 2880 take IQ4_NL instead of IQ2_XS, which needs no importance matrix."""
    assert needs_imatrix(model("llama-3.1-70b"), "IQ2_XS")
    assert not needs_imatrix(model("gpt-oss-20b"), "IQ3_XXS")


def test_quality_names_the_models_it_was_measured_on() -> None:
    """llama.cpp, tools/perplexity/README.md, and the table of LLaMA 3 70B."""
    small = quality("q4_k_m", imatrix=False, parameters=8_000_000_000)
    assert small is not None
    assert (small.kl_divergence, small.kl_model) == (0.031273, "Llama 3 8B")
    assert pytest.approx(small.perplexity_percent, abs=0.001) == 2.816  # README: ratio 1.02816
    large = quality("Q4_K_M", imatrix=True, parameters=70_000_000_000)
    assert large is not None
    assert pytest.approx(large.perplexity_percent, abs=0.005) == 4.83
    assert (large.kl_divergence, large.imatrix) == (0.028152, True)


@pytest.mark.parametrize(
    ("quant", "grade"),
    [
        ("Q8_0", "near-lossless"),
        ("Q5_K_M", "near-lossless"),
        ("Q4_K_M", "slight"),
        ("IQ4_XS", "slight"),
        ("Q3_K_M", "noticeable"),
        ("IQ2_XS", "heavy"),
    ],
)
def test_grades_follow_the_divergence(quant: str, grade: str) -> None:
    loss = quality(quant, imatrix=True, parameters=8_000_000_000)
    assert loss is not None
    assert grade == loss.grade


def test_more_bits_lose_less_within_a_family() -> None:
    order = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"]
    losses = [quality(name, True, 8_000_000_000) for name in order]
    values = [loss.kl_divergence for loss in losses if loss is not None]
    assert len(order) == len(values)
    assert values == sorted(values)


def test_what_was_never_measured_has_no_quality() -> None:
    assert quality("TQ1_0", imatrix=False, parameters=1) is None
    with pytest.raises(UnknownNameError):
        quality("Q0_K", imatrix=False, parameters=1)
