"""``nemofit probe --json | nemofit recommend --machine -`` plans as ``nemofit recommend`` does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "probe"))

from standin import build, compiler, rtx_4090, script

RECOMMEND = ("recommend", "-m", "llama-3.1-8b", "-c", "8k", "--json", "--assume-idle")
"""With the idle machine's memory: what is free changes between two commands."""


def nemofit(*args: str, environment: dict[str, str], stdin: str = "") -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "nemofit", *args],
        input=stdin, capture_output=True, text=True, env=environment, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("cards", [0, 2])
def test_a_pipe_gives_the_same_plans(cards: int, tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1"}
    if cards:
        if compiler() is None:
            pytest.skip(
                "no C compiler on Linux: the stand-in for the NVIDIA driver cannot be built"
            )
        library = build(tmp_path / "lib")
        held = rtx_4090(1, compute="1:5000000000", free=18 << 30, display=1, pcie_gen_now=1)
        (tmp_path / "script").write_text(script(rtx_4090(0), held))
        environment["LD_LIBRARY_PATH"] = str(library)
        environment["NEMOFIT_FAKE_NVML"] = str(tmp_path / "script")
    machine = nemofit("probe", "--json", environment=environment)
    assert len(machine["gpus"]) == cards
    here = nemofit(*RECOMMEND, environment=environment)
    piped = nemofit(
        *RECOMMEND, "--machine", "-", environment=environment, stdin=json.dumps(machine)
    )
    assert here.keys() == piped.keys()
    for key in here:
        if key != "machine":
            assert piped[key] == here[key]
    passing = {"source": "", "ram_available_bytes": 0}
    assert {**piped["machine"], **passing} == {**here["machine"], **passing}
    assert here["plans"]
