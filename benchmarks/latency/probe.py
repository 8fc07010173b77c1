"""Measure the probe: without a GPU, and with four cards behind the tests' stand-in for NVML.

    python -m benchmarks.latency.probe

Each round is a process of its own that loads the probe and asks once, as a command does; what is
counted begins before the first import of nemofit and ends with the machine; the card table is
compiled, as in a wheel and after the first command of a checkout. The stand-in answers at once, so
what a real driver takes to wake and to answer comes on top. Exit code 1: a figure is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
NO_GPU_MS = 60.0
FOUR_CARDS_MS = 150.0
BARE_MS = 12.0
"""What a bare interpreter takes where the figures are for; elsewhere they are scaled by it."""

_ROUND = """
import sys, time
begin = time.perf_counter()
from pathlib import Path
from nemofit.catalog import store
from nemofit.probe import probe_machine
store.use_cache(Path(sys.argv[2]))
machine = probe_machine()
spent = time.perf_counter() - begin
assert len(machine.gpus) == int(sys.argv[1]), machine
assert all(g.card_id and g.free_bytes for g in machine.gpus), machine
print(1e3 * spent)
"""


def measure(cards: int, rounds: int, environment: Mapping[str, str], cache: Path) -> float:
    """The median of fresh processes in milliseconds, after one that fills the caches."""
    command = [sys.executable, "-c", _ROUND, str(cards), str(cache)]
    times = [
        float(
            subprocess.run(command, check=True, capture_output=True, env=dict(environment)).stdout
        )
        for _ in range(rounds + 1)
    ]
    return statistics.median(times[1:])


def bare(rounds: int) -> float:
    """Milliseconds that an interpreter takes to start and to end."""
    import time

    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args(arguments).rounds
    sys.path.insert(0, str(ROOT / "tests" / "probe"))
    from standin import build, compiler, rtx_4090, script

    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    slow = max(1.0, bare(rounds) / BARE_MS)
    with tempfile.TemporaryDirectory(prefix="nemofit-probe-") as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        cases = [("without a GPU", 0, NO_GPU_MS, environment)]
        if compiler() is None:
            print("no C compiler: the stand-in for NVML cannot be built")
        else:
            library = build(Path(folder) / "lib")
            cards = Path(folder) / "script"
            cards.write_text(script(*(rtx_4090(n) for n in range(4))))
            more = {"LD_LIBRARY_PATH": str(library), "NEMOFIT_FAKE_NVML": str(cards)}
            cases.append(("with four cards", 4, FOUR_CARDS_MS, {**environment, **more}))
        missed = 0
        for name, count, most, variables in cases:
            ms = measure(count, rounds, variables, Path(folder) / "cache")
            word = "ok" if ms <= most * slow else "MISSED"
            missed += word != "ok"
            print(f"  {name:16} {ms:6.1f} ms   at most {most * slow:.0f} ms  {word}")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
