"""The answers of llama-fit-params: read from the real one, and from what is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import ModelFiles

import nemofit
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.engines.llama_cpp import verify
from nemofit.errors import HardwareError
from nemofit.units import MIB

PRINT = "RPC0 20038 1312 312 \nRPC1 19940 1248 426 \nHost 563 0 112 \n"


def test_the_real_print_is_read_and_equals_the_prediction(
    engine: Engine, model_files: ModelFiles
) -> None:
    """Nemotron 70B over two devices, from a file of a few KiB."""
    model = nemofit.load_model("nemotron")
    config = nemofit.RunConfig(context=8192, gpu_layers=81, tensor_split=(41, 40), backend="rpc")
    path = model_files.path(model, "Q4_K_M")
    flags = [*verify.arguments(config, str(path), 2), *engine._rpc(2)]
    out, log = engine._ask(verify.PROGRAM, flags)
    rows = verify.parse_projection(out)
    assert [row.device for row in rows] == ["RPC0", "RPC1", "Host"]
    memory = nemofit.estimate_memory(model, "Q4_K_M", verify.projected(config, "rpc"), 2)
    found = verify.compare(memory, rows)
    assert len(found) == 8
    assert all(d.agrees and d.predicted // MIB * MIB == d.engine for d in found)
    assert verify.unknown_flag(log) is None


def test_the_real_engine_names_the_flag_that_it_does_not_know(engine: Engine) -> None:
    log = _failed(engine, ["--no-such-flag"])
    assert verify.unknown_flag(log) == "--no-such-flag"


def test_the_real_engine_says_why_it_refuses(engine: Engine, tmp_path: Path) -> None:
    """An architecture that it has never heard of."""
    from nemofit.catalog.filetypes import tensor_types
    from nemofit.formats.gguf.writer import write_sparse

    model = nemofit.load_model("llama-3.2-1b")
    path = tmp_path / "odd.gguf"
    types = tensor_types(model, "Q8_0")
    write_sparse(path, replace(model, architecture="llamazon", file_type="Q8_0"), types)
    logs = [_failed(engine, ["-m", str(path), "-fitp", "on"]) for _ in range(8)]
    assert all(verify.refuses(log) for log in logs)
    said = {verify.refusal(log) for log in logs} - {None}  # it may end before its log is written
    assert all("unknown model architecture: 'llamazon'" in str(why) for why in said) and said


def _failed(engine: Engine, flags: list[str]) -> str:
    import subprocess

    done = subprocess.run(
        [engine._programs[verify.PROGRAM], *flags],
        capture_output=True,
        text=True,
        env=engine._environment,
        timeout=60,
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize("text", ["", "segfault\n", "-c 8192 -ngl 17\n", "CUDA0 1 2 3\n"])
def test_another_print_is_said_to_be_none(text: str) -> None:
    with pytest.raises(HardwareError, match="printed no memory figures"):
        verify.parse_projection(text)


def test_another_number_of_devices_is_no_agreement() -> None:
    memory = Memory(gpus=(DeviceMemory(),), host=DeviceMemory())
    with pytest.raises(HardwareError, match=r"uses 2 GPUs \(RPC0, RPC1\), the plan has 1"):
        verify.compare(memory, verify.parse_projection(PRINT))


def test_the_tolerance_is_a_hundredth_of_the_device() -> None:
    """21662 MiB on the first device: 216 MiB more agree, 217 do not."""
    rows = verify.parse_projection(PRINT)
    for extra, agrees in ((216, True), (217, False)):
        gpus = [
            DeviceMemory(
                weights_bytes=r.weights_bytes, kv_bytes=r.kv_bytes, compute_bytes=r.compute_bytes
            )
            for r in rows
        ]
        gpus[0] = replace(gpus[0], compute_bytes=gpus[0].compute_bytes + extra * MIB)
        found = verify.compare(Memory(gpus=tuple(gpus[:2]), host=gpus[2]), rows)
        assert all(d.agrees for d in found) is agrees


def test_devices_as_the_real_program_lists_them() -> None:
    """The first line is recorded from the accuracy build, the second has a card's name in it."""
    text = (
        "Available devices:\n  RPC0: 127.0.0.1:55171 (24105 MiB, 24105 MiB free)\n"
        "  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23871 MiB free)\n"
    )
    first, second = verify.parse_devices(text)
    assert (first.name, first.free_bytes) == ("RPC0", 24105 * MIB)
    assert (second.description, second.total_bytes) == ("NVIDIA GeForce RTX 3090", 24124 * MIB)
    assert verify.parse_devices("Available devices:\n  (none)\n") == ()
    assert [verify.backend_of(d.name) for d in (first, second)] == ["rpc", "cuda"]
    assert verify.backend_of("CANN0") is None
