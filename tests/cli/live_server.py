"""A real llama-server of the accuracy build, with its log in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.accuracy.engine import Engine, _free_port

from nemofit.probe.served import ask_server


class LiveServer:
    """Runs until the block ends; the log is complete afterwards.

    Args:
        engine: The build.
        model: File to load.
        log: Where its output goes.
        arguments: Further flags.
        devices: How many ``ggml-rpc-server`` processes stand in for GPUs.
    """

    def __init__(
        self, engine: Engine, model: Path, log: Path, *arguments: str, devices: int = 0
    ) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._command = [
            engine._programs["llama-server"], "-m", str(model), "--host", "127.0.0.1",
            "--port", str(self.port), "-lv", "4", "-fit", "off", "--offline", "--no-warmup",
            *engine._rpc(devices), *arguments,
        ]  # fmt: skip

    def __enter__(self) -> LiveServer:
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                self._command,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            )
        return self

    def wait(self, line: str = "model loaded", seconds: float = 120.0) -> None:
        """Until the log has a line."""
        deadline = time.monotonic() + seconds
        while line.encode() not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, f"no {line!r} within {seconds} s"
            time.sleep(0.05)

    def wait_for_answer(self, seconds: float = 120.0) -> None:
        """Until it answers that it is ready."""
        deadline = time.monotonic() + seconds
        while ask_server("127.0.0.1", self.port, "/health") != {"status": "ok"}:
            assert self.process.poll() is None
            assert time.monotonic() < deadline, f"not ready within {seconds} s"
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
