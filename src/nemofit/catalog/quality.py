"""What a file type costs in quality, as published for the model nearest in size.

from nemofit.catalog.quality import quality

quality("Q4_K_M", imatrix=True, parameters=8_000_000_000).grade     # "slight"
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Final, NamedTuple, cast

from . import store
from .ggml import find_file_type, section

GRADES: Final = (
    (0.02, "near-lossless"),
    (0.05, "slight"),
    (0.15, "noticeable"),
    (float("inf"), "heavy"),
)
"""Upper bounds of the KL divergence in nats. On Llama 3 8B, Q5_K_S and above are near-lossless,
Q4_K_S to Q5_0 and IQ4_XS slight, Q3_K_M and IQ3_XS noticeable, everything below IQ3_XS heavy."""


REFERENCE: Final = "llama-3-8b"
"""The table with the most file types, which the others are compared with."""
NOISE_PERCENT: Final = 0.5
ENOUGH: Final = 2
"""Other models that a file type must have been measured on for a spread of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLoss:
    """What a file type lost against the same model at 16 bits, where it was measured.

    Attributes:
        quant: File type.
        grade: near-lossless, slight, noticeable or heavy: :data:`GRADES` of the KL divergence.
        kl_divergence: Mean Kullback-Leibler divergence in nats.
        kl_low, kl_high: The same scaled by what other models lost to this file type compared with
            Llama 3 8B, the least and the most that is published; see :func:`_ratios`.
        kl_model, kl_source: On which model, and the source's id in ``data/quants.yaml``.
        perplexity_percent: Increase of perplexity on the Wikitext-2 test set in percent.
        perplexity_model, perplexity_source: The same for perplexity.
        imatrix: Whether the divergence is of files made with an importance matrix. Where it is not
            what was asked, only that was measured: without a matrix a file loses more than with.
    """

    quant: str
    grade: str
    kl_divergence: float
    kl_low: float
    kl_high: float
    kl_model: str
    kl_source: str
    perplexity_percent: float
    perplexity_model: str
    perplexity_source: str
    imatrix: bool


class _Figure(NamedTuple):
    value: float
    model: str
    parameters: int
    source: str
    imatrix: bool


def grade(kl_divergence: float) -> str:
    """The word for a loss in nats: near-lossless, slight, noticeable or heavy."""
    return next(word for bound, word in GRADES if kl_divergence < bound)


def bound_of(word: str) -> float:
    """The loss in nats that a grade stays below."""
    return next(bound for bound, grade in GRADES if grade == word)


def quality(quant: str, imatrix: bool, parameters: int) -> QualityLoss | None:
    """The published loss of a file type, on the model nearest in size.

    Only tables marked ``general`` in the data answer for other models: those of the Llama 3 family,
    since the same file type hurts a newer, more heavily trained model more. Divergence and
    perplexity may come from different models.

    Args:
        quant: A file type.
        imatrix: Made with an importance matrix.
        parameters: Weights of the model asked about.

    Returns:
        None where nothing is published about the file type.

    Raises:
        UnknownNameError: No such file type.
    """
    name = find_file_type(quant).name
    figures = store.derived("quants", _figures)
    kl = _nearest(figures.get((name, "kl"), ()), imatrix, parameters)
    percent = _nearest(figures.get((name, "percent"), ()), imatrix, parameters)
    if kl is None or percent is None:
        return None
    low, high = _spread(name)
    return QualityLoss(
        quant=name,
        grade=grade(kl.value),
        kl_divergence=kl.value,
        kl_low=kl.value * low,
        kl_high=kl.value * high,
        kl_model=kl.model,
        kl_source=kl.source,
        perplexity_percent=percent.value,
        perplexity_model=percent.model,
        perplexity_source=percent.source,
        imatrix=kl.imatrix,
    )


def size_class(parameters: int) -> int:
    """A number that is the same for all sizes of model for which the same figures answer."""
    return bisect_left(store.derived("quants", _bounds), parameters)


def _bounds(_: store.Entries) -> Sequence[float]:
    """The sizes at which another measured model becomes the nearest."""
    measured = store.derived("quants", _figures).values()
    sizes = {figure.parameters for figures in measured for figure in figures}
    return sorted(sqrt(a * b) for a in sizes for b in sizes if a < b)


def _nearest(figures: Sequence[_Figure], imatrix: bool, parameters: int) -> _Figure | None:
    def distance(figure: _Figure) -> tuple[float, bool]:
        return abs(log(figure.parameters / max(1, parameters))), figure.imatrix is not imatrix

    return min(figures, key=distance, default=None)


def _figures(entries: store.Entries) -> Mapping[tuple[str, str], Sequence[_Figure]]:
    """Figures by file type and what they measure."""
    out: dict[tuple[str, str], list[_Figure]] = {}
    for table in section(entries, "quality").values():
        if not table["general"]:
            continue
        model, source = str(table["model"]), str(table["source"])
        parameters = cast("int", table["parameters"])
        for row in cast("list[dict[str, float]]", table["rows"]):
            for what in ("kl", "percent"):
                if what in row and (what != "kl" or table["kl"] == "mean"):
                    figure = _Figure(row[what], model, parameters, source, bool(row["imatrix"]))
                    out.setdefault((str(row["quant"]), what), []).append(figure)
    return out


def _spread(quant: str) -> tuple[float, float]:
    """Least and most of a file type's ratios, and 1; of all types where it has too few."""
    spreads = store.derived("quants", _spreads)
    return spreads.get(quant) or spreads[""]


def _spreads(entries: store.Entries) -> Mapping[str, tuple[float, float]]:
    ratios = _ratios(entries)
    everything = sorted(ratio for each in ratios.values() for ratio in each) or [1.0]
    tenth = len(everything) // 10
    middle = everything[tenth : len(everything) - tenth]
    own = {quant: each for quant, each in ratios.items() if len(each) >= ENOUGH}
    return {
        quant: (min(1.0, *each), max(1.0, *each)) for quant, each in {**own, "": middle}.items()
    }


def _ratios(entries: store.Entries) -> Mapping[str, Sequence[float]]:
    """By file type, what each model of the other tables lost over what Llama 3 8B lost.

    Mean divergences where both have one, else increases of perplexity: to first order both grow
    alike. Increases below half a percent are within the measurement's noise and left out.
    """
    tables = section(entries, "quality")
    reference = tables.get(REFERENCE)
    rows = cast("list[dict[str, float]]", reference["rows"]) if reference else []
    known = {(str(row["quant"]), bool(row["imatrix"])): row for row in rows}
    out: dict[str, list[float]] = {}
    for name, table in tables.items():
        if name == REFERENCE or table["model"] == (reference or {}).get("model"):
            continue
        for row in cast("list[dict[str, float]]", table["rows"]):
            quant, imatrix = str(row["quant"]), bool(row["imatrix"])
            own = known.get((quant, imatrix)) or known.get((quant, not imatrix))
            if own is None:
                continue
            if "kl" in row and table["kl"] == "mean":
                out.setdefault(quant, []).append(row["kl"] / own["kl"])
            elif min(row.get("percent", 0.0), own["percent"]) > NOISE_PERCENT:
                out.setdefault(quant, []).append(row["percent"] / own["percent"])
    return out
