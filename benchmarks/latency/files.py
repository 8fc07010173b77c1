"""Measure how soon and with how little a model file is read, beside gguf-py in the same run.

    python -m venv /path/of/venv && /path/of/venv/bin/pip install gguf
    python -m benchmarks.latency.files --gguf-python /path/of/venv/bin/python

The files are sparse: true headers with made-up vocabularies of real sizes, holes for data. gguf-py
reads in an environment of its own; both sides are timed inside their process, after one reading to
warm the cache. Exit code 1: a figure is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.formats.connection import Connections
from nemofit.formats.gguf.header import header_of, read_header
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.remote import RemoteFile

from .run import BARE_MS, measure

MODELS = ("smollm2-135m", "llama-3.1-8b", "nemotron-70b", "gemma-3-27b")
TIMED = "llama-3.1-8b"
"""A vocabulary of 128256 tokens."""
HEADER_MS = 100.0
PLAN_MS = 300.0
"""Where a bare interpreter takes 12 ms; scaled by what it takes here."""
PEAK_MIB = 100.0
FETCHED = 1.1
_READ = """
import sys, time
from nemofit.formats.gguf.reader import read_gguf
best = []
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    read_gguf(sys.argv[1])
    best.append(time.perf_counter() - begin)
print(sorted(best)[len(best) // 2])
"""
_PEAK = """
import pathlib, re, resource, sys
from nemofit.formats.gguf.reader import read_gguf
read_gguf(sys.argv[1])
status = pathlib.Path("/proc/self/status")  # the other figure begins with the parent's
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
found = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
print((int(found[1]) if found else kib) / 1024)
"""
_GGUF_PY = """
import sys, time
import gguf
best = []
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    gguf.GGUFReader(sys.argv[1])
    best.append(time.perf_counter() - begin)
print(sorted(best)[len(best) // 2])
"""
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description="Read model files.")
    parser.add_argument("--rounds", type=int, default=9, help="times that each is measured")
    parser.add_argument("--gguf-python", help="a Python that has gguf-py")
    options = parser.parse_args(arguments)
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="nemofit-files-") as folder:
        files = {name: _file(Path(folder), name) for name in MODELS}
        missed = _reading(files[TIMED], options.gguf_python, options.rounds)
        missed += _planning(files[TIMED], options.rounds, folder)
        missed += sum(_memory(name, path) for name, path in files.items())
        missed += sum(_fetching(name, path) for name, path in files.items())
    return min(missed, 1)


def _file(folder: Path, name: str) -> Path:
    model = find_model(name).spec()
    path = folder / f"{name}-Q4_K_M.gguf"
    types = tensor_types(model, "Q4_K_M")
    write_sparse(path, replace(model, file_type="Q4_K_M"), types, vocabulary="dummy")
    return path


def _reading(path: Path, gguf_python: str | None, rounds: int) -> int:
    ours = _timed(sys.executable, _READ, path, rounds)
    missed = _line(f"header of {path.name}", ours, HEADER_MS, "ms")
    if gguf_python is None:
        print("  gguf-py is not measured: --gguf-python PYTHON")
        return missed
    theirs = _timed(gguf_python, _GGUF_PY, path, 1)
    version = subprocess.run(
        [gguf_python, "-m", "pip", "show", "gguf"], capture_output=True, text=True
    ).stdout.split()[3]
    print(f"  {'gguf-py ' + version:44} {theirs:9.1f} ms   {theirs / ours:.0f} times as long")
    return missed


def _timed(python: str, code: str, path: Path, rounds: int) -> float:
    command = [python, "-c", code, str(path), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return 1e3 * float(done.stdout)


def _planning(path: Path, rounds: int, folder: str) -> int:
    """A whole process, as a script would start it; the machine is described, not probed."""
    environment = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        "XDG_CACHE_HOME": folder,
        "PYTHONPYCACHEPREFIX": f"{folder}/bytecode",
    }
    machine = ["--machine", "RTX 4060, 32 GiB RAM"]
    command = [sys.executable, "-m", "nemofit", "plan", str(path), "--json", *machine]
    measure(command, environment)
    pairs = [
        (measure([sys.executable, "-c", "pass"], environment).ms, measure(command, environment).ms)
        for _ in range(rounds)
    ]
    bare, ms = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"  {'python -c pass':44} {bare:9.2f} ms")
    return _line("nemofit plan model.gguf --json", ms, PLAN_MS * max(1.0, bare / BARE_MS), "ms")


def _memory(name: str, path: Path) -> int:
    """The peak of a process that reads one file and does nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True
    )
    peak = float(done.stdout)
    with open(path, "rb") as file:
        size = read_header(file, name).data_offset
    return _line(f"peak memory, {name} ({size / 1e6:.1f} MB)", peak, PEAK_MIB, "MiB")


def _fetching(name: str, path: Path) -> int:
    with _served(path) as (url, sent), Connections() as connections:
        remote = RemoteFile(connections, url)
        header = header_of(remote, name)
    share = sum(sent) / header.data_offset
    return _line(f"over HTTP, {name}, {len(sent)} requests", share, FETCHED, "x header")


@contextmanager
def _served(path: Path) -> Iterator[tuple[str, list[int]]]:
    """The file on loopback, and the bytes that were sent of it."""
    sent: list[int] = []
    size = path.stat().st_size

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = _RANGE.fullmatch(self.headers["Range"])
            assert found
            first, last = int(found[1]), min(int(found[2]), size - 1)
            with open(path, "rb") as file:
                file.seek(first)
                body = file.read(last - first + 1)
            sent.append(len(body))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{path.name}", sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _line(what: str, value: float, most: float, unit: str) -> int:
    word = "ok" if value <= most else "MISSED"
    print(f"  {what:44} {value:9.2f} {unit:8} at most {most:.1f}  {word}")
    return int(value > most)


if __name__ == "__main__":
    sys.exit(main())
