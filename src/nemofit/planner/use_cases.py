"""Models for a purpose: ranked by published scores that were measured in the same way.

A use case names benchmarks. Scores of one benchmark are compared only where one party published
them together; of all such sets the one that holds most of the models at hand is taken. A model in
it is ordered by the merit of its plan (:mod:`.score`, its size does not count) times its own score
over the set's best. Models that were measured otherwise come behind with what was measured, then
those without any score; both in the usual order. Nothing is converted, averaged or guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nemofit.catalog.models import ModelCard, Score, find_model
from nemofit.errors import UsageError

from .records import Plan
from .score import score as merit

USE_CASES: Mapping[str, tuple[str, ...]] = {
    "chat": ("Arena-Hard", "Arena Hard", "MT-Bench", "AlpacaEval 2 LC", "IFEval", "LMArena Elo"),
    "code": ("LiveCodeBench v5", "LiveCodeBench", "HumanEval", "MBPP", "MultiPL-E"),
    "reasoning": ("GPQA-Diamond", "GPQA Diamond", "GPQA", "MATH", "MMLU-Pro", "GSM8K"),
    "long-context": ("RULER", "InfiniteBench En.MC"),
    "tools": ("BFCL v3", "BFCL v2", "BFCL"),
    "multilingual": ("MMMLU", "MGSM"),
}
"""Benchmarks of each use case, the most telling first."""
LONG_CONTEXT = 32768
"""Tokens that a plan for long context has at least, where the person names no context."""

_Set = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A published score that a row stands on.

    Attributes:
        score: As the catalog has it.
        compared: Measured like the others that it is ordered with; False: only told.
    """

    score: Score
    compared: bool

    @property
    def text(self) -> str:
        """The score with who measured it and how."""
        s = self.score
        how = f", {s.how}" if s.how else ""
        return f"{s.benchmark} {s.value:g} ({s.by}{how})"

    @property
    def brief(self) -> str:
        """The same with the first words of how."""
        s = self.score
        how = f", {s.how.split(',')[0]}" if s.how else ""
        return f"{s.benchmark} {s.value:g} ({s.by}{how})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model with its evidence.

    Attributes:
        score: Of the plan, times the model's share of the best score where it is compared.
        evidence: None: no score for this use is published.
        variants: Ids of fine-tunes of the same model that were folded into this row.
    """

    plan: Plan
    score: float
    evidence: Evidence | None
    variants: tuple[str, ...] = ()


def check_use_case(name: str) -> str:
    """The name of a use case as it is known.

    Raises:
        UsageError: It is not.
    """
    if name.lower() not in USE_CASES:
        raise UsageError(f"use case {name!r:.40} is not known", "one of: " + ", ".join(USE_CASES))
    return name.lower()


def by_use_case(plans: Sequence[Plan], use_case: str, prefer: str = "balanced") -> list[Row]:
    """Order the best plans of several models for a use case, one row for each model.

    Args:
        plans: One for each model, in the usual order.
        use_case: A key of :data:`USE_CASES`.
        prefer: Weighs quality loss, speed and context of the compared; see :mod:`.score`.
    """
    cards = {plan.model.id: find_model(plan.model.id) for plan in plans}
    chosen = _chosen(cards.values(), USE_CASES[use_case])
    values = {id: _best(card, chosen) for id, card in cards.items()}
    top = max((score.value for score in values.values() if score), default=1.0)
    rows = []
    for plan in plans:
        own = values[plan.model.id]
        if own is not None:
            evidence = Evidence(score=own, compared=True)
            weighed = merit(plan, prefer) * own.value / top
            rows.append(Row(plan=plan, score=weighed, evidence=evidence))
        else:
            other = _other(cards[plan.model.id], USE_CASES[use_case])
            told = Evidence(score=other, compared=False) if other else None
            rows.append(Row(plan=plan, score=plan.score, evidence=told))
    rows.sort(key=lambda row: (_tier(row), -row.score))
    return _folded(rows, cards)


def reason_for(rows: Sequence[Row], use_case: str) -> str:
    """What leads, on what evidence, and how much there is of it."""
    best, count = rows[0], [0, 0, 0]
    for row in rows:
        count[_tier(row)] += 1
    name = find_model(best.plan.model.id).name
    if best.evidence is None or not best.evidence.compared:
        return f"{name} leads by size and speed alone: no scores for {use_case} can be compared."
    return (
        f"{name} leads for {use_case} with {best.evidence.brief}, weighed with the speed and loss "
        f"of its plan; {count[0]} rows were measured so, {count[1]} otherwise (in brackets, not "
        f"compared), and {count[2]} have no published score."
    )


def _tier(row: Row) -> int:
    if row.evidence is None:
        return 2
    return 0 if row.evidence.compared else 1


def _set_of(score: Score) -> _Set:
    """Scores of the same set were published together by whoever measured them."""
    return score.benchmark, score.by, score.sources


def _chosen(cards: Iterable[ModelCard], benchmarks: Sequence[str]) -> _Set | None:
    """The set that holds most of the models; of equals the more telling benchmark."""
    members: dict[_Set, set[str]] = defaultdict(set)
    for card in cards:
        for score in card.scores:
            if score.benchmark in benchmarks:
                members[_set_of(score)].add(card.id)
    return max(
        members,
        key=lambda of: (len(members[of]), -benchmarks.index(of[0]), of[1:]),
        default=None,
    )


def _best(card: ModelCard, chosen: _Set | None) -> Score | None:
    """A model's best score of the set: a model that can think has one with and one without."""
    own = (score for score in card.scores if _set_of(score) == chosen)
    return max(own, key=lambda score: score.value, default=None)


def _other(card: ModelCard, benchmarks: Sequence[str]) -> Score | None:
    own = (score for score in card.scores if score.benchmark in benchmarks)
    return min(own, key=lambda score: benchmarks.index(score.benchmark), default=None)


def _folded(rows: Sequence[Row], cards: Mapping[str, ModelCard]) -> list[Row]:
    """One row for a model and its fine-tunes, the best of them; one that has compared evidence of
    its own stands for itself."""
    origins = {card.hf_repo: id for id, card in cards.items() if card.hf_repo}
    kept: dict[str, Row] = {}
    more: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        id = row.plan.model.id
        own = row.evidence is not None and row.evidence.compared
        base = None if own else origins.get(cards[id].base_model or "")
        root = base or id
        if root in kept:
            more[root].append(id)
        else:
            kept[root] = row
    return [
        Row(plan=r.plan, score=r.score, evidence=r.evidence, variants=tuple(more[root]))
        for root, r in kept.items()
    ]
