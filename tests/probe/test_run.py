"""Programs that end, crash, hang, flood or are not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nemofit.errors import HardwareError
from nemofit.probe.run import run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses a POSIX shell")


def test_both_outputs_and_the_exit_code_come_back() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 7"], seconds=10)
    assert (done.code, done.out, done.err, done.timed_out) == (7, "out\n", "err\n", False)


def test_a_crash_is_its_signal() -> None:
    assert run(["sh", "-c", "kill -SEGV $$"], seconds=10).code == -11


def test_a_program_that_hangs_ends_with_everything_it_started(tmp_path: Path) -> None:
    """The child of the child too, which would otherwise hold memory of the card."""
    mark = tmp_path / "pid"
    done = run(["sh", "-c", f"sleep 300 & echo $! > {mark}; wait"], seconds=0.5)
    assert done.timed_out
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.kill(int(mark.read_text()), 0)
            if _is_zombie(int(mark.read_text())):
                raise ProcessLookupError


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_flood_is_read_and_thrown_away() -> None:
    flood = "import sys; [sys.stdout.write('x' * 65536) for _ in range(400)]"
    done = run([sys.executable, "-c", flood], seconds=30, limit=1000)
    assert (done.code, len(done.out), done.cut) == (0, 1000, True)


def test_what_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "llama-fit-params"
    text.write_text("no program\n")
    for path in (text, tmp_path, tmp_path / "none", "with\0nul"):
        with pytest.raises(HardwareError, match="cannot be started") as caught:
            run([str(path)], seconds=5)
        assert "\n" not in caught.value.message
