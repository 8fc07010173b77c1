"""Read broken GGUF headers by the million; each must end in a model or in one of our errors.

    python -m benchmarks.fuzz.gguf --count 1000000

One worker process reads them, with its private memory limited to 256 MiB by the kernel. Whatever
else than :class:`nemofit.NemofitError` comes out of a read, and whatever takes more than a second
of the processor, is a finding: its bytes are kept under ``--keep``. A mutant whose answer is of a
kind not seen before joins the headers that are mutated, so that the search goes deeper by itself.
Needs Linux or another system that limits a process's memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

MEMORY = 256 << 20
SECONDS = 1.0
HANGS = 10
"""Seconds of wall time after which a read is broken off."""
POOL = 600
"""Headers that are mutated at most; the seeds stay, the others are replaced."""
SPARSE = 1 << 40
"""Every fourth mutant gets a hole of this size behind it, so that its tensors are all there."""


class Hang(BaseException):
    """A read that did not end."""


def answer(path: Path) -> str:
    """Read one file and size it, as a plan does; the kind of answer without its figures."""
    from nemofit import NemofitError
    from nemofit.catalog.filetypes import weights_bytes
    from nemofit.engines.llama_cpp import estimate_memory
    from nemofit.engines.llama_cpp.config import RunConfig
    from nemofit.formats.gguf.reader import read_gguf

    try:
        model = read_gguf(path)
        weights_bytes(model, None)
        estimate_memory(model, config=RunConfig(context=512, ubatch=64), n_gpus=1)
    except NemofitError as error:
        assert f"{error.message}{error.hint}".isprintable(), "the message is not one line"
        return re.sub(r"b?'[^']*'|\"[^\"]*\"|\[[^]]*\]|\d+", "#", error.message)[:80]
    shown = f"{model.id}{model.architecture}{''.join(model.notes)}"
    assert shown.isprintable(), "the model has names that a terminal would obey"
    return f"a model, {model.architecture}, {len(model.notes)} notes"


def work(count: int, seed: int, keep: Path, results: multiprocessing.Queue[str]) -> None:
    """The worker: read ``count`` mutants and report in one JSON text."""
    from .mutate import mutant, parts
    from .seeds import seeds

    rng = random.Random(seed)
    kinds: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    slowest = 0.0
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a disk would take most of the time
    with TemporaryDirectory(prefix="nemofit-fuzz-", dir=memory) as scratch:
        first = [parts(data) for data in seeds(Path(scratch))]
        pool = list(first)
        path = Path(scratch) / "mutant.gguf"
        signal.signal(signal.SIGALRM, _hung)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        began = time.monotonic()
        for i in range(count):
            data = mutant(rng.choice(first if rng.random() < 0.5 else pool), rng)
            with path.open("wb") as file:
                file.write(data)
                if i % 4 == 0:
                    file.truncate(max(len(data), SPARSE))
            kind, seconds, finding = _timed(path)
            slowest = max(slowest, seconds)
            if finding:
                findings[finding] += 1
                if findings[finding] <= 3:
                    name = hashlib.sha256(data).hexdigest()[:16]
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}.gguf").write_bytes(data)
                    print(f"{name}: {finding}", flush=True)
            elif kind not in kinds and len(data) < 1 << 15:
                pool.append(parts(data))
                if len(pool) > POOL:
                    pool.pop(rng.randrange(len(first), len(pool)))
            kinds[kind] += 1
            if i % 100_000 == 99_999:
                passed = time.monotonic() - began
                print(f"{i + 1} read, {len(kinds)} kinds of answers, {passed:.0f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results.put(
        json.dumps(
            {
                "read": count,
                "models": sum(n for k, n in kinds.items() if k.startswith("a model")),
                "kinds": len(kinds),
                "slowest_seconds": round(slowest, 4),
                "peak_mib": round(peak / 1024, 1),
                "findings": dict(findings),
            }
        )
    )


def _timed(path: Path) -> tuple[str, float, str | None]:
    """The kind of answer, its processor seconds, and what is wrong with it."""
    began = time.process_time()
    signal.alarm(HANGS)
    try:
        kind = answer(path)
    except Hang:
        return "hang", HANGS, f"no answer within {HANGS} s"
    except (Exception, RecursionError) as error:
        frame = sys.exc_info()[2]
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else ""
        return "crash", 0.0, f"{type(error).__name__} at {where}: {str(error)[:80]}"
    finally:
        signal.alarm(0)
    seconds = time.process_time() - began
    return kind, seconds, f"{seconds:.1f} s: {kind}" if seconds > SECONDS else None


def _hung(*_: object) -> None:
    raise Hang


def main() -> int:
    """Run the worker and print what it found; 1 where it found anything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    results: multiprocessing.Queue[str] = multiprocessing.Queue()
    worker = multiprocessing.Process(
        target=work, args=(options.count, options.seed, options.keep, results)
    )
    worker.start()
    worker.join()
    if worker.exitcode != 0:
        print(
            f"the worker ended with {worker.exitcode}: out of memory, or a crash of Python itself"
        )
        return 1
    report = json.loads(results.get())
    print(json.dumps(report, indent=1))
    return 1 if report["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
