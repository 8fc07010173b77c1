"""Does the placement solver choose what trying every value on the real engine finds?

    python -m benchmarks.accuracy.solver [--cases 300] [--seed 1]

For shapes cut to a few blocks, llama-fit-params is asked for every ``-ngl``, every split and every
``--n-cpu-moe`` on RPC devices; for random budgets the best of its answers (most layers, then the
fewest experts on the host) is compared with ``nemofit.best_offload``. Budgets within 3 MiB of an
answer are skipped: llama-fit-params prints whole MiB of three kinds.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp import RunConfig, best_offload
from nemofit.errors import DoesNotFitError
from nemofit.formats.load import load_model
from nemofit.units import MIB

from .engine import Engine
from .sparse import ModelFiles, cut

_QUANT = "Q4_K_M"
_SHAPES = [
    ("llama-3.1-70b", 4, 1), ("llama-3.1-8b", 6, 2), ("qwen2.5-72b", 4, 2), ("gemma-3-27b", 7, 1),
    ("qwen3-30b-a3b", 5, 1), ("mixtral-8x22b", 4, 1), ("gpt-oss-20b", 4, 2), ("qwen3-8b", 5, 3),
]  # fmt: skip
_MARGIN = 3 * MIB

Choice = tuple[int, int]
Answers = dict[tuple[int, tuple[int, ...], int], tuple[int, ...]]


def splits(n_gpus: int, active: int) -> Iterator[tuple[int, ...]]:
    """Every way to deal ``active`` units to the GPUs in order."""
    for cuts in itertools.combinations_with_replacement(range(active + 1), n_gpus - 1):
        edges = (0, *cuts, active)
        yield tuple(b - a for a, b in itertools.pairwise(edges))


def placements(blocks: int, n_gpus: int, moe: bool) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Every (-ngl, -ts, -ncmoe) that the solver may choose from."""
    for ngl in range(blocks + 2):
        experts = [0]
        if moe:
            experts = list(range(blocks + 1)) if ngl == blocks + 1 else [blocks]
        for counts, n in itertools.product(splits(n_gpus, ngl), experts):
            yield ngl, counts if sum(counts) else (1,) * n_gpus, n


def ask(engine: Engine, path: Path, model: ModelSpec, config: RunConfig, n_gpus: int) -> Answers:
    """Bytes per GPU of every placement, by the real engine."""
    moe = any("_exps." in t.name for t in model.tensors)
    out: Answers = {}
    for ngl, counts, n in placements(model.integer("block_count"), n_gpus, moe):
        trial = config.replace(gpu_layers=ngl, tensor_split=counts, cpu_moe_layers=n)
        answer = engine.fit_params(path, trial, n_gpus)
        out[ngl, counts, n] = tuple(sum(answer[f"RPC{i}"]) * MIB for i in range(n_gpus))
    return out


def best(answers: Answers, budgets: list[int]) -> Choice | None:
    """The most layers, then the fewest experts on the host."""
    fitting = [
        (-ngl, n)
        for (ngl, _, n), used in answers.items()
        if all(u <= b for u, b in zip(used, budgets, strict=True))
    ]
    return (-min(fitting)[0], min(fitting)[1]) if fitting else None


def is_close(answers: Answers, budgets: list[int]) -> bool:
    return any(
        -_MARGIN < b - u < _MARGIN
        for used in answers.values()
        for u, b in zip(used, budgets, strict=True)
        if u
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    done = wrong = over = 0
    with Engine() as engine, tempfile.TemporaryDirectory() as directory:
        files = ModelFiles(engine, Path(directory))
        print(f"llama.cpp {engine.version()}, {_QUANT}, {options.cases} cases")
        for name, blocks, n_gpus in _SHAPES:
            model = cut(load_model(name), blocks)
            config = RunConfig(
                context=rng.choice([2048, 8192]),
                ubatch=rng.choice([256, 512]),
                flash_attention=rng.random() < 0.7,
                backend="rpc",
                program="llama-fit-params",
            )
            answers = ask(engine, files.path(model, _QUANT), model, config, n_gpus)
            most = max(max(used) for used in answers.values())
            target = done + -(-options.cases // len(_SHAPES))
            while done < target:
                budgets = [int(most * rng.uniform(0.05, 1.1)) for _ in range(n_gpus)]
                if is_close(answers, budgets):
                    continue
                done += 1
                want = best(answers, budgets)
                try:
                    got = best_offload(model, _QUANT, config=config, budgets=budgets)
                except DoesNotFitError:
                    wrong += want is not None
                    continue
                assert got.gpu_layers is not None
                if (got.gpu_layers, got.cpu_moe_layers) != want:
                    wrong += 1
                    print(f"  {name}@{blocks} {budgets}: solver {got}, engine's best {want}")
                used = answers.get((got.gpu_layers, got.tensor_split or (), got.cpu_moe_layers))
                if used is not None and any(u > b for u, b in zip(used, budgets, strict=True)):
                    over += 1
            print(f"{name}@{blocks} on {n_gpus} GPU: {len(answers)} placements asked")
    print(f"{done} cases: {done - wrong} equal, {wrong} different, {over} over a budget")
    return 1 if wrong or over else 0


if __name__ == "__main__":
    raise SystemExit(main())
