"""Ask the real llama.cpp and nemofit the same questions and print where they differ.

python -m benchmarks.accuracy.compare --count 200 --seed 1           random configurations
python -m benchmarks.accuracy.compare --model qwen3-32b --count 50   of one model
python -m benchmarks.accuracy.compare --count 0 --loads 20           real loads of cut models
python -m benchmarks.accuracy.compare --rows answers.jsonl           recorded answers
python -m benchmarks.accuracy.compare --count 400 --loads 40 --write docs/accuracy.md
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import nemofit
from nemofit.catalog.models import all_models
from nemofit.engines.base import DeviceMemory
from nemofit.units import MIB

from .compare_report import markdown, plain
from .compare_rows import Row, draw, read_rows
from .engine import Engine, EngineError
from .sparse import ModelFiles

_SMALLEST_MIB = 64.0
_LOGGED_MIB = 0.02  # two log lines, each rounded to 0.01 MiB


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of one row.

    Attributes:
        row: The question.
        architecture: Of its model.
        basis: What nemofit says about its number: computed or assumed.
        device: "RPC0", ..., or "Host".
        kind: weights, cache or compute; on the host "host weights" and so on.
        engine_mib, nemofit_mib: Both answers; whole MiB, rounded down, of llama-fit-params.
        is_exact: Equal as far as the engine's resolution goes.
    """

    row: Row
    architecture: str
    basis: str
    device: str
    kind: str
    engine_mib: float
    nemofit_mib: float
    is_exact: bool

    @property
    def percent(self) -> float:
        """Signed, of the engine's figure, or of 64 MiB where that is less."""
        least = max(self.engine_mib, _SMALLEST_MIB)
        return 100 * (self.nemofit_mib - self.engine_mib) / least


@dataclass(slots=True)
class Outcome:
    """Everything that one run found."""

    version: str = ""
    differences: list[Difference] = field(default_factory=list)
    refused_by_engine: list[tuple[Row, str]] = field(default_factory=list)
    refused_by_nemofit: list[tuple[Row, str]] = field(default_factory=list)


def compare(row: Row) -> list[Difference]:
    """Ask nemofit what ``row`` asked the engine.

    Raises:
        NemofitError: nemofit refuses the question.
    """
    model, given = row.spec(), row.mib or {}
    memory = nemofit.estimate_memory(
        model, quant=row.quant, config=row.config, n_gpus=row.devices, imatrix=row.imatrix
    )
    prefix = "Vulkan" if row.config.backend == "vulkan" else "RPC"
    ours = [(f"{prefix}{i}", gpu) for i, gpu in enumerate(memory.gpus)]
    out = []
    for device, mine in [*ours, ("Host", memory.host)]:
        theirs = given.get(device) or (given.get("CPU") if device == "Host" else None) or {}
        for kind, engine_mib, nemofit_mib in _pairs(theirs, mine):
            is_whole = row.config.program == "llama-fit-params"
            seen = float(int(nemofit_mib)) if is_whole else nemofit_mib
            is_exact = abs(seen - engine_mib) <= (0 if is_whole else _LOGGED_MIB)
            out.append(
                Difference(
                    row=row,
                    architecture=model.architecture,
                    basis=memory.basis,
                    device=device,
                    kind=f"host {kind}" if device == "Host" else kind,
                    engine_mib=engine_mib,
                    nemofit_mib=seen,
                    is_exact=is_exact,
                )
            )
    return out


def _pairs(theirs: Mapping[str, float], ours: DeviceMemory) -> list[tuple[str, float, float]]:
    def total(*kinds: str) -> float:
        return sum(theirs.get(k, 0.0) for k in kinds)

    return [
        ("weights", total("model"), ours.weights_bytes / MIB),
        ("cache", total("context", "kv", "state"), ours.kv_bytes / MIB),
        ("compute", total("compute", "output"), ours.compute_bytes / MIB),
    ]


def ask_engine(rows: Iterable[Row], workers: int, outcome: Outcome) -> list[Row]:
    """Answer the questions with ``workers`` engines at a time."""
    with ExitStack() as stack:
        free: SimpleQueue[tuple[Engine, ModelFiles]] = SimpleQueue()
        for _ in range(workers):
            engine = stack.enter_context(Engine())
            outcome.version = engine.version()
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            free.put((engine, ModelFiles(engine, directory)))

        def ask(row: Row) -> Row | None:
            engine, files = free.get()
            try:
                return row.asked(engine, files)
            except EngineError as error:
                outcome.refused_by_engine.append((row, str(error)))
                return None
            finally:
                free.put((engine, files))

        pool = stack.enter_context(ThreadPoolExecutor(workers))
        return [row for row in pool.map(ask, rows) if row is not None]


def ask_nemofit(rows: Iterable[Row], outcome: Outcome) -> None:
    """Compare every answered question."""
    for row in rows:
        try:
            outcome.differences += compare(row)
        except nemofit.NemofitError as error:
            outcome.refused_by_nemofit.append((row, str(error)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit code is 1 if nemofit refused what the engine takes."""
    options = _options().parse_args(arguments)
    outcome = Outcome()
    if options.rows:
        rows = [row for path in options.rows for row in read_rows(path)]
    else:
        names = _names(options.arch, options.model)
        rng = random.Random(options.seed)
        questions = [draw(rng, names, "llama-fit-params") for _ in range(options.count)]
        questions += [draw(rng, names, "llama-server") for _ in range(options.loads)]
        rows = ask_engine(questions, options.workers, outcome)
    if options.record:
        options.record.write_text("".join(row.json() + "\n" for row in rows))
    ask_nemofit(rows, outcome)
    print(plain(outcome, options.worst))
    if options.write:
        options.write.write_text(markdown(outcome, options.worst, options))
    return 1 if outcome.refused_by_nemofit else 0


def _names(architectures: str | None, model: str | None) -> list[str]:
    wanted = set(architectures.split(",")) if architectures else None
    names = [
        card.id
        for card in all_models()
        if (wanted is None or card.spec().architecture in wanted)
        and (model is None or card.id in model.split(","))
    ]
    if not names:
        raise SystemExit("no model of the catalog is meant")
    return names


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="questions to llama-fit-params")
    parser.add_argument("--loads", type=int, default=0, help="real loads by llama-server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arch", help="only these architectures, comma separated")
    parser.add_argument("--model", help="only these catalog ids, comma separated")
    parser.add_argument("--rows", type=Path, nargs="+", help="recorded answers instead of asking")
    parser.add_argument("--record", type=Path, help="write the answers as JSON lines")
    parser.add_argument("--write", type=Path, help="write the report as Markdown")
    parser.add_argument("--worst", type=int, default=12, help="rows to print, worst first")
    parser.add_argument("--workers", type=int, default=2)
    return parser


if __name__ == "__main__":
    sys.exit(main())
