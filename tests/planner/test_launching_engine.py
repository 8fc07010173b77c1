"""Every command that is printed for llama.cpp, typed as it is: the real server's log is the plan.

Devices are the real ggml-rpc-server; plans are made for a machine that has such.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.accuracy.engine import Engine, Load, _free_port, parse_log, programs
from benchmarks.accuracy.sparse import cut

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.load import load_model
from nemofit.machine import parse_machine
from nemofit.machine.records import Gpu, Machine
from nemofit.planner import Goal, Plan
from nemofit.planner.launching import Order, make
from nemofit.planner.single import single
from nemofit.units import MIB

BASE = {"repack": False}
# With mmap the log counts the range of the file from the first to the last tensor on the host; so
# where experts lie between, the weights are read instead.


def machine_of(*sizes: int) -> Machine:
    """A host with RPC devices of so many MiB."""
    host = parse_machine("16 GiB RAM, 8 cores")
    cards = tuple(
        Gpu(name=f"RPC {i}", backend="rpc", total_bytes=n * MIB, bandwidth_gb_s=100.0)
        for i, n in enumerate(sizes)
    )
    return replace(host, gpus=cards)


CASES: dict[str, tuple[str, int, str, tuple[int, ...], dict[str, Any]]] = {
    "all on one of two": ("qwen2.5-0.5b", 6, "Q4_K_M", (4000, 4000), {}),
    "spread over two": ("qwen2.5-0.5b", 8, "Q8_0", (240, 240), {}),
    "unequal cards": ("qwen2.5-0.5b", 8, "Q8_0", (260, 180), {}),
    "partly in RAM": ("qwen2.5-0.5b", 8, "Q8_0", (150,), {}),
    "a quantized cache": (
        "qwen2.5-0.5b", 6, "Q6_K", (4000,), {"kv_type_k": "q8_0", "kv_type_v": "q8_0"},
    ),
    "a cache in RAM": ("qwen2.5-0.5b", 6, "Q6_K", (4000,), {"kv_offload": False}),
    "two sequences": (
        "qwen2.5-0.5b", 6, "Q6_K", (4000,), {"parallel": 2, "ubatch": 256},
    ),
    "no attention kernel": (
        "qwen2.5-0.5b", 6, "Q6_K", (4000,), {"flash_attention": False},
    ),
    "experts in RAM": (
        "qwen3-30b-a3b", 2, "Q4_0", (4000,), {"cpu_moe_layers": 1, "mmap": False},
    ),
    "a split": ("qwen2.5-0.5b", 8, "Q8_0", (4000, 4000), {"tensor_split": (3.0, 1.0)}),
}  # fmt: skip


@pytest.fixture
def plan(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Plan:
    name, layers, quant, sizes, knobs = CASES[request.param]
    shape = cut(find_model(name).spec(), layers)
    path = tmp_path / "a model.gguf"
    write_sparse(path, shape, tensor_types(shape, quant))
    goal = Goal(context=2048, knobs={**BASE, **knobs}, reserve_bytes=0)
    found, _ = single(load_model(path), machine_of(*sizes), goal)
    assert found.fits
    return found


@pytest.mark.parametrize("plan", CASES, indirect=True)
def test_the_real_server_does_what_the_line_says(
    plan: Plan, engine: Engine, tmp_path: Path
) -> None:
    machine = plan.room.machine
    line = make(Order(plan=plan, machine=machine, format="shell")).text
    program, *arguments = shlex.split(line)
    assert program == "llama-server"
    used = len(machine.gpus)
    load = _load(engine, arguments, used, tmp_path / "log")
    host = plan.memory.host
    for i, device in enumerate(plan.memory.gpus):
        real = load.devices.get(f"RPC{i}")
        if real is None:
            assert device.weights_bytes == 0
            continue
        assert real.model == pytest.approx(device.weights_bytes, abs=0.02 * MIB)
        assert real.kv + real.state == pytest.approx(device.kv_bytes, abs=0.02 * MIB)
        assert real.compute == pytest.approx(device.compute_bytes, abs=0.02 * MIB)
    real = load.devices["CPU"]
    assert real.model == pytest.approx(host.weights_bytes, abs=0.02 * MIB)
    assert real.kv + real.state == pytest.approx(host.kv_bytes, abs=0.02 * MIB)
    assert real.compute + real.output == pytest.approx(host.compute_bytes, abs=0.04 * MIB)


def _load(engine: Engine, arguments: list[str], devices: int, log: Path) -> Load:
    more = [*engine._rpc(devices), "--no-warmup", "--offline", "-cram", "0", "-lv", "4",
            "--port", str(_free_port())]  # fmt: skip
    with log.open("wb") as out:
        server = subprocess.Popen(
            [str(programs() / "llama-server"), *more, *arguments],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        for _ in range(1200):
            text = log.read_text(errors="replace")
            if "model loaded" in text:
                return parse_log(text, [endpoint for _, endpoint in engine._devices])
            assert server.poll() is None, text[-3000:]
            time.sleep(0.05)
    finally:
        server.kill()
        server.wait()
    raise AssertionError("llama-server did not load the model")
