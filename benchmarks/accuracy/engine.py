"""The real llama.cpp as an oracle: its own answers for a model of which there is only a header.

    python benchmarks/accuracy/engine.py build      download, compile and cache it (5 minutes)
    python benchmarks/accuracy/engine.py where      print where it is and its version

Devices are ``ggml-rpc-server`` processes on loopback, so no GPU is needed. They differ from CUDA:
no op offload, 32-byte alignment, no padding of rows, no f16 copies of a quantized cache.

    with Engine() as engine:
        engine.fit_params(path, RunConfig(context=8192), n_devices=2)
        {"RPC0": (20287, 1312, 298), "RPC1": (19691, 1248, 570), "Host": (563, 0, 64)}
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.units import MIB

SDIST = ("llama-cpp-python", "0.3.36")  # carries llama.cpp 0.5.0-dev, commit 0c1e570
TARGETS = (
    "llama-quantize", "llama-fit-params", "ggml-rpc-server", "llama-server", "llama-bench",
)  # fmt: skip
CMAKE_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_RPC=ON",
    "-DGGML_NATIVE=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)
_TIMEOUT_S = 300.0


class EngineError(RuntimeError):
    """llama.cpp is missing, refused the question or died over it."""


def programs() -> Path:
    """Directory of the programs: ``NEMOFIT_LLAMA_CPP`` or the one that ``build`` fills."""
    named = os.environ.get("NEMOFIT_LLAMA_CPP")
    return Path(named) if named else cache() / "build" / "bin"


def is_built() -> bool:
    """Whether every program that the oracle needs is there."""
    return all(shutil.which(name, path=str(programs())) for name in TARGETS)


def build(jobs: int = 2) -> Path:
    """Download the source, compile the programs and return their directory; once is enough."""
    if is_built():
        return programs()
    out = cache() / "build"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    subprocess.run(
        ["cmake", "-S", str(source()), "-B", str(out), *generator, *CMAKE_FLAGS], check=True
    )
    command = ["cmake", "--build", str(out), "--config", "Release", "-j", str(jobs), "--target"]
    subprocess.run([*command, *TARGETS], check=True)
    return out / "bin"


def cache() -> Path:
    """Where the engine is kept, by version and outside the repository."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "nemofit" / "llama.cpp" / SDIST[1]


def source() -> Path:
    """The engine's source, downloaded when it is first asked for."""
    tree = cache() / "source"
    if not tree.exists():
        _download(tree)
    return tree


def _download(source: Path) -> None:
    name, version = SDIST
    source.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=source.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", name]
        subprocess.run([*pip, f"{name}=={version}", "-d", temporary], check=True)
        (archive,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        (tree,) = (p for p in Path(temporary).iterdir() if p.is_dir())
        (tree / "vendor" / "llama.cpp").rename(source)


@dataclass(slots=True)
class Buffers:
    """What a real load put on one device, in bytes, as logged: to 0.01 MiB."""

    model: int = 0
    kv: int = 0
    state: int = 0
    compute: int = 0
    output: int = 0


@dataclass(slots=True)
class Load:
    """What llama-server logged about one load.

    Attributes:
        devices: Buffers by device: "RPC0", "RPC1", ..., and "CPU" for every kind of host memory.
        copies: Pipeline copies: 1 or 4.
        graph: The log line about nodes and splits.
    """

    devices: dict[str, Buffers] = field(default_factory=dict)
    copies: int = 1
    graph: str = ""


class Engine:
    """The programs, with RPC devices that live until ``close``.

    One engine answers one question at a time; use one per thread.

    Args:
        stand_in: Whose rules the devices follow, see ``stand_in.py``; None: a CPU's.

    Raises:
        EngineError: The programs are not built.
    """

    def __init__(self, stand_in: str | None = None) -> None:
        if not is_built():
            raise EngineError(
                f"no llama.cpp in {programs()}; python benchmarks/accuracy/engine.py build"
            )
        self._programs = {n: str(shutil.which(n, path=str(programs()))) for n in TARGETS}
        self._devices: list[tuple[subprocess.Popen[bytes], str]] = []
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LLAMA_", "GGML_"))}
        self._environment = {**inherited, "GGML_NO_BACKTRACE": "1"}
        if stand_in is not None:
            from benchmarks.accuracy.stand_in import environment

            self._environment |= environment(stand_in)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the device processes."""
        for process, _ in self._devices:
            _end(process)
        self._devices.clear()

    def version(self) -> str:
        """As llama.cpp reports it: "0.5.0-dev (build 1, commit 0c1e570)"."""
        text = "".join(self._ask("llama-server", ["--version"]))
        found = re.search(r"version: (.+)", text)
        return found.group(1).strip() if found else "unknown"

    def fit_params(
        self,
        model: Path,
        config: RunConfig,
        n_devices: int = 0,
        extra: Sequence[str] = (),
    ) -> dict[str, tuple[int, int, int]]:
        """Ask llama-fit-params for its projection.

        ``config.backend`` and ``config.program`` are not asked for: the devices are RPC, the
        accounting is llama-fit-params' own.

        Returns:
            Whole MiB (rounded down) of weights, context and compute by device: "RPC0", ...,
            and "Host".
        """
        if config.kv_unified and config.parallel > 1:
            raise EngineError("llama-fit-params has no --kv-unified; ask server_load")
        flags = [*_flags(config, n_devices), *self._rpc(n_devices), *extra]
        out, log = self._ask("llama-fit-params", ["-m", str(model), *flags, "-fitp", "on"])
        rows = re.findall(r"^(\S+) (\d+) (\d+) (\d+) *$", out, re.MULTILINE)
        if [name for name, *_ in rows] != [*(f"RPC{i}" for i in range(n_devices)), "Host"]:
            raise EngineError(f"llama-fit-params {' '.join(flags)}: {out or _tail(log)}")
        return {name: (int(a), int(b), int(c)) for name, a, b, c in rows}

    def server_load(
        self, model: Path, config: RunConfig, n_devices: int = 0, extra: Sequence[str] = ()
    ) -> Load:
        """Let llama-server load the model (its weights are zeros) and read its log.

        The weights are really allocated: cut a large model to a few layers first.
        """
        unified = "-kvu" if config.kv_unified else "-no-kvu"
        command = [
            self._programs["llama-server"], "-m", str(model), "-lv", "4", "-fit", "off",
            "--no-warmup", "--offline", "--cache-ram", "0", "--host", "127.0.0.1",
            "--port", str(_free_port()), unified,
            *_flags(config, n_devices), *self._rpc(n_devices), *extra,
        ]  # fmt: skip
        with tempfile.TemporaryFile("w+b") as log:
            process = self._spawn(command, log.fileno())
            try:
                text = _wait_for("model loaded", process, log.fileno())
            finally:
                _end(process)
        return parse_log(text, [endpoint for _, endpoint in self._devices])

    def dry_run_quantize(
        self, model: Path, file_type: str, imatrix: bool = False
    ) -> list[tuple[str, str]]:
        """Ask llama-quantize which type each tensor would get, without reading a weight.

        Args:
            model: A file at F16 or F32.
            file_type: As llama-quantize names it: "Q4_K_M".
            imatrix: As with an importance matrix.

        Returns:
            Tensor name and ggml type ("Q6_K") in the file's order.
        """
        flags: list[str] = []
        with tempfile.TemporaryDirectory() as temporary:
            if imatrix:
                matrix = Path(temporary) / "imatrix.dat"
                matrix.write_bytes(struct.pack("<ii1siif", 1, 1, b"x", 1, 1, 1.0))
                flags = ["--imatrix", str(matrix)]
            flags += ["--dry-run", str(model), file_type]
            out, log = self._ask("llama-quantize", flags)
        rows = _QUANTIZED.findall(out + log)
        if not rows:
            raise EngineError(f"llama-quantize {file_type}: {_tail(out + log)}")
        return [(name, (after or before).upper()) for name, before, after in rows]

    def _rpc(self, n: int) -> list[str]:
        while len(self._devices) < n:
            self._devices.append(self._start_device())
        return ["--rpc", ",".join(e for _, e in self._devices[:n])] if n else []

    def _start_device(self) -> tuple[subprocess.Popen[bytes], str]:
        port = _free_port()
        process = self._spawn(
            [self._programs["ggml-rpc-server"], "-H", "127.0.0.1", "-p", str(port), "-t", "1"],
            subprocess.DEVNULL,
        )
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process, f"127.0.0.1:{port}"
            if process.poll() is not None:
                break
            time.sleep(0.01)
        _end(process)
        raise EngineError(f"ggml-rpc-server does not listen on port {port}")

    def _spawn(self, command: Sequence[str], log: int) -> subprocess.Popen[bytes]:
        """Start a server that ends with this process, however this process ends."""
        watched = command if os.name == "nt" else ["sh", "-c", _WATCH, *command]
        return subprocess.Popen(
            watched, stdout=log, stderr=log, stdin=subprocess.PIPE, env=self._environment
        )

    def _ask(self, program: str, flags: Sequence[str]) -> tuple[str, str]:
        try:
            done = subprocess.run(
                [self._programs[program], *flags],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                env=self._environment,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{program} did not answer within {_TIMEOUT_S:.0f} s") from error
        if done.returncode:
            raise EngineError(
                f"exit {done.returncode}: {_tail(done.stderr)}: {program} {' '.join(flags)}"
            )
        return done.stdout, done.stderr


def parse_log(text: str, endpoints: Sequence[str] = ()) -> Load:
    """Read the buffers out of llama-server's log.

    Args:
        text: The log at verbosity 4.
        endpoints: RPC servers in device order, to tell "RPC0[host:port]" apart.
    """
    names: Mapping[str, str] = {e: f"RPC{i}" for i, e in enumerate(endpoints)}
    load = Load()
    compute: dict[str, int] = {}
    for raw, kind, mib in _BUFFER.findall(text):
        device = names[raw.partition("[")[2].rstrip("]")] if "[" in raw else "CPU"
        size = round(float(mib) * MIB)
        if kind == "compute":
            compute[device] = size  # a second reservation replaces the first
            continue
        buffers = load.devices.setdefault(device, Buffers())
        key = {"model": "model", "KV": "kv", "RS": "state", "output": "output"}[kind]
        setattr(buffers, key, getattr(buffers, key) + size)
    for device, size in compute.items():
        load.devices.setdefault(device, Buffers()).compute = size
    if found := re.search(r"sched copies = (\d+)", text):
        load.copies = int(found.group(1))
    if found := re.search(r"graph: (.+)", text):
        load.graph = found.group(1)
    return load


# Runs "$0" "$@" until it ends or until the pipe on standard input is closed.
_WATCH = (
    'exec 3<&0; "$0" "$@" 3<&- & server=$!; (read -r _ <&3; kill -9 $server) & '
    "wait $server; code=$?; kill $! 2>&-; exit $code"
)
_WHY = re.compile(r" E |what\(\)|GGML_ASSERT|fatal error|error:")
_BUFFER = re.compile(
    r"^.*: +(\S+) +(model|KV|RS|output|compute) buffer size = +([\d.]+) MiB", re.MULTILINE
)
_QUANTIZED = re.compile(
    r"^\[ *\d+/ *\d+\] (\S+) +- \[.*?\], type = +(\w+), size = .*?(?:-> .*?\((\w+)\).*)?$",
    re.MULTILINE,
)


def _flags(config: RunConfig, n_devices: int) -> list[str]:
    flags = [
        "-c", str(config.context), "-b", str(config.batch), "-ub", str(config.ubatch),
        "-fa", "on" if config.flash_attention else "off",
        "-ctk", config.kv_type_k, "-ctv", config.kv_type_v, "-np", str(config.parallel),
    ]  # fmt: skip
    if n_devices:
        split = config.tensor_split or (1.0,) * n_devices
        layers = "all" if config.gpu_layers is None else str(config.gpu_layers)
        flags += ["-ngl", layers, "-ts", ",".join(f"{x:g}" for x in split)]
    if config.cpu_moe_layers:
        flags += ["-ncmoe", str(config.cpu_moe_layers)]
    if config.override_tensors:
        flags += ["-ot", ",".join(f"{regex}={where}" for regex, where in config.override_tensors)]
    for wanted, flag in (
        (not config.kv_offload, ["-nkvo"]),
        (not config.op_offload, ["--no-op-offload"]),
        (config.swa_full, ["--swa-full"]),
        (not config.mmap, ["-lm", "none"]),
        (not config.repack, ["--no-repack"]),
    ):
        flags += flag if wanted else []
    return flags


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if os.name == "nt":
        process.kill()
    process.wait()


def _wait_for(line: str, process: subprocess.Popen[bytes], log: int) -> str:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        is_over = process.poll() is not None
        text = os.pread(log, 1 << 24, 0).decode(errors="replace")
        if line in text:
            return text
        if is_over:
            raise EngineError(f"llama-server: exit {process.returncode}: {_tail(text)}")
        time.sleep(0.02)
    raise EngineError(f"llama-server did not load within {_TIMEOUT_S:.0f} s")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _tail(text: str) -> str:
    """The lines that say why."""
    lines = text.strip().splitlines()
    return " / ".join([line for line in lines if _WHY.search(line)][-3:] or lines[-3:])


def main(arguments: Sequence[str]) -> int:
    """Run ``build`` or ``where``."""
    if list(arguments) == ["build"]:
        build()
    elif list(arguments) != ["where"]:
        print((__doc__ or "").split("\n\n")[1])
        return 2
    with Engine() as engine:
        print(f"{programs()}  {engine.version()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
