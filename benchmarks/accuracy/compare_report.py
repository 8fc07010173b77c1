"""The outcome of a comparison in words: for the terminal and for docs/accuracy.md."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compare import Difference, Outcome
    from .compare_rows import Row

_KINDS = ("weights", "cache", "compute", "host weights", "host cache", "host compute")
_HEAD = ("", "numbers", "exact", "mean", "worst below", "worst above")

_BASES = (
    ("computed", "Architectures whose graph is replayed by the engine's own rules (`computed`):\n"),
    (
        "assumed",
        "Architectures with a kind of layer that is not modelled yet, for which an upper bound of "
        "the compute buffer stands in (`assumed`), so that what is below matters:\n",
    ),
)
_INTRO = """\
# Accuracy

Every number of memory is compared with what llama.cpp itself says.
No GPU and no download is needed for that: a GGUF file whose header is true and whose tensor data \
is a hole is enough for llama.cpp to build its graph and to size every buffer, and \
`ggml-rpc-server` processes on loopback stand in for GPUs.

Two programs are asked, because they do not agree with each other and nemofit tells them apart: \
`llama-fit-params` projects a configuration in whole MiB, and `llama-server` really loads a model \
(cut to a few blocks, its weights zeros) and logs each buffer to 0.01 MiB.
The tensor types in these files come from `llama-quantize --dry-run`, so nothing of nemofit's own \
is in the engine's answer.

A number is exact where it is equal at the engine's resolution.
Differences are in percent of the engine's figure, or of 64 MiB where that is less.
"""


def plain(outcome: Outcome, worst: int) -> str:
    """Worst rows first, then the summaries, as text."""
    parts = [
        "\n".join(
            f"{_place(d)}\n    {_question(d.row)}" for d in _worst(outcome.differences, worst)
        ),
        _aligned(_summary(outcome.differences, lambda d: d.kind, _KINDS)),
        _aligned(_summary(outcome.differences, lambda d: f"{d.architecture} ({d.basis})")),
        _aligned(_summary(outcome.differences, lambda d: d.row.config.program)),
    ]
    for name, refused in (
        ("the engine", outcome.refused_by_engine),
        ("nemofit", outcome.refused_by_nemofit),
    ):
        for row, why in refused[:worst]:
            parts.append(f"refused by {name}: {_question(row)}\n    {why[:300]}")
        parts.append(f"{len(refused)} questions refused by {name}")
    return "\n\n".join(p for p in parts if p)


def markdown(outcome: Outcome, worst: int, options: argparse.Namespace) -> str:
    """The same as a page."""
    asked = len({id(d.row) for d in outcome.differences})
    command = (
        f"python -m benchmarks.accuracy.compare --count {options.count} --loads {options.loads} "
        f"--seed {options.seed} --write docs/accuracy.md"
    )
    parts = [
        _INTRO,
        f"## Result\n\n{asked} random configurations of {_count(outcome, 'model')} models and "
        f"{_count(outcome, 'architecture')} architectures, seed {options.seed}, "
        f"llama.cpp {outcome.version}.\n",
        *_by_basis(outcome),
        "## By program\n",
        _table(_summary(outcome.differences, lambda d: f"`{d.row.config.program}`")),
        "## By architecture\n",
        _table(_summary(outcome.differences, lambda d: f"{d.architecture} ({d.basis})")),
        "## The worst of the computed\n",
        "\n".join(
            f"- {_place(d)}: `{_question(d.row)}`"
            for d in _worst([d for d in outcome.differences if d.basis == "computed"], worst)
        )
        or "Every number is exact.",
        f"\n{len(outcome.refused_by_engine)} more questions were refused by llama.cpp, "
        f"{len(outcome.refused_by_nemofit)} by nemofit.\n",
        "## Do it again\n\n```sh\npython -m benchmarks.accuracy.engine build\n" + command + "\n```",
    ]
    return "\n".join(parts) + "\n"


def _by_basis(outcome: Outcome) -> list[str]:
    parts = []
    for basis, title in _BASES:
        of = [d for d in outcome.differences if d.basis == basis]
        if of:
            parts += [title, _table(_summary(of, lambda d: d.kind, _KINDS))]
    return parts


def _worst(differences: Sequence[Difference], n: int) -> list[Difference]:
    """The worst number of each of the ``n`` worst rows."""
    by_row: dict[int, Difference] = {}
    for d in differences:
        if not d.is_exact and abs(d.percent) > abs(getattr(by_row.get(id(d.row)), "percent", 0)):
            by_row[id(d.row)] = d
    return sorted(by_row.values(), key=lambda d: -abs(d.percent))[:n]


def _summary(
    differences: Sequence[Difference],
    key: Callable[[Difference], str],
    order: Sequence[str] | None = None,
) -> list[tuple[str, ...]]:
    groups: dict[str, list[Difference]] = defaultdict(list)
    for d in differences:
        groups[key(d)].append(d)
    rows: list[tuple[str, ...]] = [_HEAD]
    for name in [n for n in order if n in groups] if order else sorted(groups):
        group = groups[name]
        off = [d.percent for d in group if not d.is_exact]
        rows.append(
            (
                name,
                str(len(group)),
                f"{100 * (1 - len(off) / len(group)):.1f} %",
                f"{sum(map(abs, off)) / len(group):.3f} %",
                f"{min([*off, 0.0]):+.1f} %",
                f"{max([*off, 0.0]):+.1f} %",
            )
        )
    return rows


def _place(d: Difference) -> str:
    return (
        f"{d.percent:+.1f} % {d.kind} on {d.device}: llama.cpp {d.engine_mib:g} MiB, "
        f"nemofit {d.nemofit_mib:.2f} MiB"
    )


def _question(row: Row) -> str:
    c = row.config
    words = [row.model, row.quant + (" imatrix" if row.imatrix else "")]
    words += [c.program, f"-c {c.context} -ub {c.ubatch} -np {c.parallel}"]
    words += [f"-fa {'on' if c.flash_attention else 'off'} -ctk {c.kv_type_k} -ctv {c.kv_type_v}"]
    if row.devices:
        split = ",".join(f"{x:g}" for x in c.tensor_split or (1,) * row.devices)
        words += [f"{row.devices} devices -ngl {c.gpu_layers} -ts {split}"]
    words += [f"-ncmoe {c.cpu_moe_layers}"] if c.cpu_moe_layers else []
    words += ["-kvu"] if c.kv_unified else []
    words += [] if c.kv_offload else ["-nkvo"]
    words += ["--swa-full"] if c.swa_full else []
    return " ".join(words)


def _count(outcome: Outcome, what: str) -> int:
    if what == "architecture":
        return len({d.architecture for d in outcome.differences})
    return len({d.row.model.partition("@")[0] for d in outcome.differences})


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|---|" + "---:|" * (len(rows[0]) - 1)
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
