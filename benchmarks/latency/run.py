"""Measure start-up and the ranking of the whole catalog beside llmfit, in one run.

    pip install llmfit
    python benchmarks/latency/run.py

Every program runs in turn, round after round, so that whatever else the machine does falls on all
of them alike. The median of the rounds counts. The first ranking after an installation works out
the catalog once and is shown apart. Exit code 1: a figure is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

VERSION_MS = 100.0
"""``nemofit --version`` where a bare interpreter takes 12 ms; scaled by what it takes here."""
BARE_MS = 12.0
SHARE_OF_LLMFIT = 0.5
PEAK_MIB = 70.0


@dataclass(frozen=True)
class Run:
    """One process: wall time in milliseconds, peak memory in MiB."""

    ms: float
    mib: float


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Run:
    """Run a command to its end with its output thrown away."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(environment)
    )
    _, status, usage = os.wait4(process.pid, 0)
    ms = 1e3 * (time.perf_counter() - begin)
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code not in (0, 3):
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Run(ms, usage.ru_maxrss / unit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, judge."""
    options = _options().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nemofit-latency-") as home:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("NEMOFIT_")},
            "XDG_CACHE_HOME": home,
            "PYTHONPYCACHEPREFIX": f"{home}/bytecode",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return _judge(options, environment)


def _judge(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    nemofit = [sys.executable, "-m", "nemofit"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "nemofit --version": [*nemofit, "--version"],
        "nemofit recommend --json": [*nemofit, "recommend", "--json"],
    }
    if options.llmfit:
        commands["llmfit recommend --json"] = [options.llmfit, "recommend", "--json"]
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(_versions(options.llmfit))
    first = measure(commands["nemofit recommend --json"], environment)
    print(f"first ranking after an installation: {first.ms:.0f} ms, {first.mib:.0f} MiB\n")
    for command in commands.values():
        measure(command, environment)
    rounds = [
        {name: measure(command, environment) for name, command in commands.items()}
        for _ in range(options.rounds)
    ]
    ms = {name: statistics.median(r[name].ms for r in rounds) for name in commands}
    mib = {name: statistics.median(r[name].mib for r in rounds) for name in commands}
    print(f"median of {options.rounds} rounds")
    for name in commands:
        print(f"  {name:26} {ms[name]:8.1f} ms   peak {mib[name]:6.1f} MiB")
    return _verdict(ms, mib["nemofit recommend --json"])


def _verdict(ms: Mapping[str, float], peak_mib: float) -> int:
    bare = ms["python -c pass"]
    allowed = VERSION_MS * max(1.0, bare / BARE_MS)
    figures = [
        ("nemofit --version", ms["nemofit --version"], allowed, "ms"),
        ("peak memory", peak_mib, PEAK_MIB, "MiB"),
    ]
    if "llmfit recommend --json" in ms:
        ratio = ms["nemofit recommend --json"] / ms["llmfit recommend --json"]
        figures.append(("ranking, share of llmfit's time", ratio, SHARE_OF_LLMFIT, ""))
    else:
        print("llmfit is not installed: pip install llmfit, or --llmfit PATH")
    missed = 0
    print()
    for name, value, most, unit in figures:
        word = "ok" if value <= most else "MISSED"
        missed += value > most
        print(f"  {name:32} {value:8.2f} {unit:3} at most {most:.2f}  {word}")
    return min(missed, 1)


def _versions(llmfit: str | None) -> str:
    from nemofit import __version__

    versions = [f"nemofit {__version__}"]
    if llmfit:
        done = subprocess.run([llmfit, "--version"], capture_output=True, text=True)
        versions.append(done.stdout.strip() or "llmfit (version unknown)")
    return ", ".join(versions)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15, help="rounds after one to warm up")
    parser.add_argument(
        "--llmfit", default=shutil.which("llmfit"), help="the llmfit program to compare with"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
