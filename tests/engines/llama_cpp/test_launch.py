"""The commands that are printed, against the real llama-server."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import time
from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine, parse_log, programs
from benchmarks.accuracy.sparse import cut

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.launch import (
    Weights,
    download_directory,
    server_arguments,
    server_command,
)
from nemofit.errors import UsageError
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.load import load_model
from nemofit.machine import parse_machine
from nemofit.planner import Goal
from nemofit.planner.single import single
from nemofit.units import MIB

EVERYTHING = RunConfig(
    context=4096,
    batch=1024,
    ubatch=256,
    parallel=2,
    kv_unified=True,
    gpu_layers=20,
    tensor_split=(1, 2.5),
    cpu_moe_layers=3,
    override_tensors=((r"blk\.1\.ffn_.*", "CPU"),),
    kv_type_k="q8_0",
    kv_type_v="q5_1",
    kv_offload=False,
    op_offload=False,
    swa_full=True,
    mmap=False,
    repack=False,
)


@pytest.mark.parametrize("config", [EVERYTHING, RunConfig(), RunConfig(flash_attention=False)])
@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_llama_server_takes_every_flag(engine: Engine, config: RunConfig, gpus: int) -> None:
    """Today's build reads them all before it prints its help; an unknown one it refuses."""
    arguments = server_arguments(config, Weights(path="model.gguf"), gpus)[1:]
    program = str(programs() / "llama-server")
    done = subprocess.run([program, *arguments, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused = subprocess.run([program, *arguments, "-fitx", "--help"], capture_output=True)
    assert refused.returncode != 0


def test_the_printed_command_loads_what_was_planned(engine: Engine, tmp_path: Path) -> None:
    """A file, its plan, the plan's command typed as it is: the server's log has the same bytes."""
    path = tmp_path / "it's a model.gguf"
    shape = cut(find_model("llama-3.2-1b").spec(), 4)
    write_sparse(path, shape, tensor_types(shape, "Q6_K"))
    machine = parse_machine("16 GiB RAM, 8 cores")
    plan, _ = single(load_model(path), machine, Goal(context=2048, knobs={"repack": False}))
    program, *arguments = shlex.split(plan.command())
    assert program == "llama-server"
    log = _load(arguments, tmp_path / "log")
    loaded = parse_log(log).devices["CPU"]
    host = plan.memory.host
    assert loaded.model == pytest.approx(host.weights_bytes, abs=0.02 * MIB)
    assert loaded.kv == pytest.approx(host.kv_bytes, abs=0.02 * MIB)
    assert loaded.compute + loaded.output == pytest.approx(host.compute_bytes, abs=0.04 * MIB)


def _load(arguments: list[str], log: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = ["--no-warmup", "--offline", "--cache-ram", "0", "-lv", "4", "--port", str(port)]
    command = [str(programs() / "llama-server"), *arguments, *quiet]
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        for _ in range(600):
            text = log.read_text(errors="replace")
            if "model loaded" in text:
                return text
            assert server.poll() is None, text[-2000:]
            time.sleep(0.05)
    finally:
        server.kill()
        server.wait()
    raise AssertionError("llama-server did not load the model")


def test_values_are_quoted_for_the_shell() -> None:
    """A path with a blank and a quote, a pattern with a backslash: the shell gives them back."""
    path = "/models/it's here/$HOME.gguf"
    command = server_command(EVERYTHING, Weights(path=path), 2)
    assert server_arguments(EVERYTHING, Weights(path=path), 2) == shlex.split(command)
    assert re.search(r"blk\\.1", command)


def test_a_repository_is_fetched_by_file_type() -> None:
    """``-hf owner/name:TYPE``."""
    arguments = server_arguments(RunConfig(), Weights(repository="a/b-GGUF", quant="Q4_K_M"), 1)
    assert arguments[1:3] == ["-hf", "a/b-GGUF:Q4_K_M"]


def test_what_a_plan_stands_on_is_always_said() -> None:
    """Context, layers, attention, sequences and no fitting, whatever the defaults are today."""
    arguments = server_arguments(RunConfig(repack=True), Weights(path="m.gguf"), 1)
    expected = "llama-server -m m.gguf -c 8192 -ngl all -fa on -np 1 -fit off"
    assert expected == " ".join(arguments)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/home/me/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "/h"}, "/h/hub"),
        ({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}, "/c"),
        ({"HF_HUB_CACHE": "/c", "LLAMA_CACHE": "/l"}, "/l"),
    ],
)
def test_where_downloads_go(environment: dict[str, str], expected: str) -> None:
    """In the order of llama.cpp's common/hf-cache.cpp."""
    assert Path(expected) == download_directory(environment, Path("/home/me"))


def test_the_cache_of_saved_prompts_fits_beside_the_plan() -> None:
    """llama-server keeps up to 8 GiB of prompts in host memory unless it is told otherwise."""
    config = RunConfig(gpu_layers=33, tensor_split=(1,))
    roomy = server_arguments(config, Weights(path="m.gguf"), 1, 8192 * 2**20)
    tight = server_arguments(config, Weights(path="m.gguf"), 1, 100 * 2**20)
    assert "-cram" not in roomy
    assert tight[tight.index("-cram") + 1] == "100"
    assert "-cram" not in server_arguments(config, Weights(path="m.gguf"), 1)


def test_a_model_without_a_known_file_has_no_command() -> None:
    with pytest.raises(UsageError, match="no GGUF file") as caught:
        server_command(RunConfig(gpu_layers=0), Weights(missing="owner/Model"), 0)
    assert "convert owner/Model" in (caught.value.hint or "")


def test_a_file_type_is_asked_for_by_the_name_that_files_have() -> None:
    """gpt-oss-20b-mxfp4.gguf; llama.cpp common/download.cpp looks for the tag before "." or "-"."""
    assert Weights(repository="o/r", quant="MXFP4_MOE").option() == ("-hf", "o/r:MXFP4")
