"""Models whose weights were trained in MXFP4: their own file type is the one to take."""

from __future__ import annotations

from collections import Counter

import pytest

from nemofit.catalog.filetypes import tensor_types, weights_bytes
from nemofit.catalog.models import all_models, find_model
from nemofit.machine import parse_machine
from nemofit.planner import Goal, recommend
from nemofit.planner.quality import cache_loss, expected
from nemofit.planner.sources import native_type
from nemofit.units import gib

PUBLISHED = {"f32": 433, "q8_0": 146, "mxfp4": 108}
"""Tensors of gpt-oss-120b's file by type, and 59.02 GiB: the loader's log in ggml-org/llama.cpp
issue 15253."""


def test_the_native_file_is_the_published_one() -> None:
    """Tensor types and size as the engine prints them for the makers' GGUF file."""
    model = find_model("gpt-oss-120b").spec()
    native = native_type(model)
    assert native == "MXFP4_MOE"
    types = Counter(kind.lower() for kind in tensor_types(model, native))
    assert types == PUBLISHED
    assert gib(weights_bytes(model, native)) == "59.02 GiB"


def test_it_loses_nothing() -> None:
    """No loss against the original; the cache's own is still counted; others lose as published."""
    parameters = find_model("gpt-oss-20b").spec().parameters
    own = expected("MXFP4_MOE", False, parameters, native="MXFP4_MOE")
    assert (own.loss, own.grade) == (0.0, "near-lossless")
    cached = expected("MXFP4_MOE", False, parameters, "q8_0", "q8_0", native="MXFP4_MOE")
    assert cached.loss == cache_loss("q8_0")[0]
    assert expected("MXFP4_MOE", False, parameters).loss is None
    q8_0 = expected("Q8_0", False, parameters, native="MXFP4_MOE").loss
    assert q8_0 is not None and q8_0 > 0


@pytest.mark.parametrize("prefer", ["balanced", "quality"])
def test_it_is_recommended(prefer: str) -> None:
    """Where it fits no other type comes first: none is as good and as small."""
    model = find_model("gpt-oss-20b").spec()
    machine = parse_machine("RTX 4090, 64 GiB RAM")
    assert recommend(model, machine, Goal(context=8192, prefer=prefer))[0].quant == "MXFP4_MOE"


def test_others_have_none() -> None:
    """A model that was published at 16 bits is not offered MXFP4_MOE, whose loss is not known."""
    assert native_type(find_model("qwen3-30b-a3b").spec()) is None
    natives = {card.id for card in all_models() if card.native}
    assert natives == {"gpt-oss-20b", "gpt-oss-120b"}


def test_the_spread_is_what_other_models_lost() -> None:
    """Q4_K_M: 0.25 (Mistral 7B, +0.602 % against +2.43 %) to 1.71 times (Llama 3 70B, +4.83 %
    against the +2.82 % of a file without a matrix), by the tables of data/quants.yaml."""
    found = expected("Q4_K_M", True, 8 * 10**9)
    assert found.loss is not None and found.low is not None and found.high is not None
    assert found.low / found.loss == pytest.approx(0.602 / (100 * (6.382937 / 6.231636 - 1)), 0.01)
    worst = (2.9674 / 2.8308 - 1) / (6.407115 / 6.231636 - 1)
    assert found.high / found.loss == pytest.approx(worst, 0.01)


@pytest.mark.parametrize("quant", ["Q8_0", "Q6_K", "Q5_K_M", "IQ4_XS", "Q2_K", "IQ1_S"])
def test_the_loss_lies_within_its_spread(quant: str) -> None:
    """Also with a cache type, whose part is the same at both ends."""
    for kv in ("f16", "q8_0"):
        found = expected(quant, True, 70 * 10**9, kv, kv)
        assert found.low is not None and found.loss is not None and found.high is not None
        assert cache_loss(kv)[0] < found.low <= found.loss <= found.high
