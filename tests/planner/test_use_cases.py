"""Models by published scores: only what was measured alike is ordered against each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemofit.catalog.models import all_models, find_model
from nemofit.errors import DataError, UsageError
from nemofit.machine import parse_machine
from nemofit.planner import Goal, Plan
from nemofit.planner.single import single
from nemofit.planner.use_cases import USE_CASES, Row, by_use_case, check_use_case, reason_for

NAMES = (
    "qwen3-8b", "llama-3.1-8b", "gemma-3-12b", "phi-4", "mistral-7b-v0.3", "llama-3-8b",
)  # fmt: skip


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    machine = parse_machine("RTX 4090, 64 GiB RAM")
    goal = Goal(context=8192, quant="Q4_K_M")
    return [single(find_model(name).spec(), machine, goal)[0] for name in NAMES]


def order(rows: list[Row]) -> list[str]:
    return [row.plan.model.id for row in rows]


@pytest.mark.parametrize("use_case", USE_CASES)
def test_compared_rows_share_benchmark_measurer_and_source(
    plans: list[Plan], use_case: str
) -> None:
    """One set only; rows outside it come behind, those without a score last."""
    rows = by_use_case(plans, use_case)
    assert sorted(order(rows)) == sorted(NAMES)
    compared = [row.evidence.score for row in rows if row.evidence and row.evidence.compared]
    assert len({(s.benchmark, s.by, s.sources) for s in compared}) == 1
    kinds = [0 if r.evidence and r.evidence.compared else 1 if r.evidence else 2 for r in rows]
    assert kinds == sorted(kinds)
    for row in rows:
        if row.evidence is not None:
            assert row.evidence.score in find_model(row.plan.model.id).scores
            assert row.evidence.score.benchmark in USE_CASES[use_case]


def test_scores_are_the_published_ones(plans: list[Plan]) -> None:
    """Qwen3 Technical Report (arXiv 2505.09388), tables 16 to 18: GPQA-Diamond, BFCL v3, MMMLU."""
    published = {
        "reasoning": {"qwen3-8b": 62.0, "llama-3.1-8b": 32.8, "gemma-3-12b": 40.9, "phi-4": 56.1},
        "tools": {"qwen3-8b": 68.1, "llama-3.1-8b": 49.6, "gemma-3-12b": 50.6, "phi-4": 47.0},
        "multilingual": {"qwen3-8b": 74.4, "llama-3.1-8b": 44.4, "gemma-3-12b": 70, "phi-4": 74.7},
    }
    for use_case, expected in published.items():
        rows = by_use_case(plans, use_case)
        found = {
            row.plan.model.id: row.evidence.score.value
            for row in rows
            if row.evidence and row.evidence.compared
        }
        assert found == expected


def test_equal_plans_are_ordered_by_their_scores(plans: list[Plan]) -> None:
    """With one speed, loss and context for all, the published order is the order."""
    one = plans[0]
    same = [replace(one, model=plan.model, score=0.5) for plan in plans]
    rows = [row for row in by_use_case(same, "reasoning") if row.evidence and row.evidence.compared]
    values = [row.evidence.score.value for row in rows if row.evidence]
    assert values == sorted(values, reverse=True)


def test_what_has_no_score_says_so(plans: list[Plan]) -> None:
    """Mistral 7B has no published score in the catalog; it is last, in the usual order."""
    rows = by_use_case(plans, "chat")
    assert order(rows)[-1] == "mistral-7b-v0.3"
    assert rows[-1].evidence is None
    assert "1 have no published score" in reason_for(rows, "chat")


def test_a_fine_tune_is_folded_into_its_model() -> None:
    """Nemotron 70B is a tuned Llama 3.1 70B: one row, the other named in it."""
    machine, goal = parse_machine("2x RTX 3090, 64 GiB RAM"), Goal(context=8192, quant="Q4_K_M")
    two = [
        single(find_model(name).spec(), machine, goal)[0]
        for name in ("llama-3.1-70b", "nemotron-70b")
    ]
    [row] = by_use_case(two, "multilingual")
    assert row.plan.model.id == "llama-3.1-70b"
    assert row.variants == ("nemotron-70b",)


def test_every_table_has_models_and_sources() -> None:
    """What the tables hold reaches the cards, with a source that can be opened."""
    scored = [card for card in all_models() if card.scores]
    assert len(scored) >= 35
    for card in scored:
        for score in card.scores:
            assert score.by and score.sources and all(score.sources)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("{by: A, source: [s], benchmarks: [X, Y], rows: {m: [1]}}", "1 values for 2 benchmarks"),
        ("{by: A, source: [s], benchmarks: [X], rows: {nobody: [1]}}", "not a model of this file"),
        ("{by: A, source: [s], benchmarks: [X], rows: {m: [high]}}", "score table 1"),
        ("{source: [s], benchmarks: [X], rows: {m: [1]}}", "by"),
    ],
    ids=["short row", "unknown model", "a word", "no measurer"],
)
def test_a_broken_table_is_named(table: str, says: str) -> None:
    """One line with the file, the table and what is wrong."""
    from nemofit.catalog.schema_models import validate
    from nemofit.catalog.yaml_load import parse

    text = (
        "sources: {s: a page}\nmodels:\n  m:\n    name: M\n    family: m\n    hf_repo: a/m\n"
        "    architecture: llama\n    metadata: {block_count: 1, context_length: 8, vocab_size: 8,"
        " embedding_length: 8, tied_embeddings: true}\n    source: [s]\n"
        f"score_tables:\n- {table}\n"
    )
    with pytest.raises(DataError, match=says):
        validate(parse(text.encode(), "mine.yaml"), "mine.yaml")


def test_a_use_case_that_is_not_known() -> None:
    """The ones that are known are named."""
    assert check_use_case("Chat") == "chat"
    with pytest.raises(UsageError) as refused:
        check_use_case("poetry")
    assert "reasoning" in (refused.value.hint or "")
