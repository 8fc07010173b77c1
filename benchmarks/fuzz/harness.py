"""One worker that reads broken files by the million and keeps what should not have happened.

Its private memory is limited to 256 MiB by the kernel. Whatever else than
:class:`nemofit.NemofitError` comes out of a read, and whatever takes more than a second of the
processor, is a finding. A mutant whose answer is of a kind not seen before joins the files that are
mutated, so that the search goes deeper by itself. Needs Linux or another system that limits a
process's memory.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

MEMORY = 256 << 20
SECONDS = 1.0
HANGS = 10
"""Seconds of wall time after which a read is broken off."""
POOL = 600
"""Files that are mutated at most; the seeds stay, the others are replaced."""
_LONGEST = 1 << 15

T = TypeVar("T")


@dataclass(frozen=True)
class Target(Generic[T]):
    """What is broken, and how it is read.

    Attributes:
        seeds: Whole files, made in a directory.
        parts: A file's parts, where it is whole enough to have them.
        mutant: One broken file.
        place: Writes one for reading; the number alternates between ways to do so.
        answer: Reads it; the kind of answer in words without figures.
    """

    seeds: Callable[[Path], list[bytes]]
    parts: Callable[[bytes], T]
    mutant: Callable[[T, random.Random], bytes]
    place: Callable[[bytes, Path, int], Path]
    answer: Callable[[Path], str]


class Hang(BaseException):
    """A read that did not end."""


def without_figures(text: str) -> str:
    """A message's kind: what stands in quotes and brackets, and every number, left out."""
    assert text.isprintable(), "the message is not one line"
    return re.sub(r"b?'[^']*'|\"[^\"]*\"|\[[^]]*\]|\d+", "#", text)[:80]


def work(
    target: Target[T], count: int, seed: int, keep: Path, results: multiprocessing.Queue[str]
) -> None:
    """The worker: read ``count`` mutants and report in one JSON text."""
    rng = random.Random(seed)
    kinds: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    slowest = 0.0
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a disk would take most of the time
    with TemporaryDirectory(prefix="nemofit-fuzz-", dir=memory) as scratch:
        first = [target.parts(data) for data in target.seeds(Path(scratch))]
        pool = list(first)
        signal.signal(signal.SIGALRM, _hung)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        began = time.monotonic()
        for i in range(count):
            data = target.mutant(rng.choice(first if rng.random() < 0.5 else pool), rng)
            path = target.place(data, Path(scratch), i)
            kind, seconds, finding = _timed(target, path)
            slowest = max(slowest, seconds)
            if finding:
                findings[finding] += 1
                if findings[finding] <= 3:
                    name = hashlib.sha256(data).hexdigest()[:16]
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / name).write_bytes(data)
                    print(f"{name}: {finding}", flush=True)
            elif kind not in kinds and len(data) < _LONGEST:
                pool.append(target.parts(data))
                if len(pool) > POOL:
                    pool.pop(rng.randrange(len(first), len(pool)))
            kinds[kind] += 1
            if i % 100_000 == 99_999:
                passed = time.monotonic() - began
                print(f"{i + 1} read, {len(kinds)} kinds of answers, {passed:.0f} s", flush=True)
    report = {
        "read": count,
        "models": sum(n for k, n in kinds.items() if k.startswith("a model")),
        "kinds": len(kinds),
        "slowest_seconds": round(slowest, 4),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "findings": dict(findings),
    }
    results.put(json.dumps(report))


def _timed(target: Target[T], path: Path) -> tuple[str, float, str | None]:
    """The kind of answer, its processor seconds, and what is wrong with it."""
    began = time.process_time()
    signal.alarm(HANGS)
    try:
        kind = target.answer(path)
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


def main(target: Target[T], about: str) -> int:
    """Run the worker and print what it found; 1 where it found anything."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    results: multiprocessing.Queue[str] = multiprocessing.Queue()
    worker = multiprocessing.Process(
        target=work, args=(target, options.count, options.seed, options.keep, results)
    )
    worker.start()
    worker.join()
    if worker.exitcode != 0:
        print(f"the worker ended with {worker.exitcode}: out of memory, or Python itself crashed")
        return 1
    report = json.loads(results.get())
    print(json.dumps(report, indent=1))
    return 1 if report["findings"] else 0
