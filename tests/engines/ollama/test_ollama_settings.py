"""Ollama's own choices, and that the llama-server it starts does with them what is planned."""

from __future__ import annotations

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
from nemofit.engines.ollama import settings
from nemofit.errors import UsageError
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.load import load_model
from nemofit.machine import parse_machine
from nemofit.planner import Goal
from nemofit.planner.ollama import single
from nemofit.units import GIB, MIB


@pytest.mark.parametrize(
    ("machine", "tokens"),
    [
        ("16 GiB RAM", 4096),
        ("RTX 4060, 32 GiB RAM", 4096),
        ("RTX 4090, 64 GiB RAM", 32768),
        ("2x RTX 3090, 64 GiB RAM", 131072),
    ],
)
def test_the_context_follows_the_memory(machine: str, tokens: int) -> None:
    """docs/context-length.mdx of ollama/ollama: below 24 GiB 4k, 24 to 48 GiB 32k, above 256k."""
    model = find_model("llama-3.1-8b").spec()
    assert tokens == settings.default_context(model, parse_machine(machine).gpus)


def test_the_batch_follows_the_context_and_the_room() -> None:
    card = parse_machine("RTX 4090, 64 GiB RAM").gpus
    assert settings.automatic_batch(4096, card) == 512
    assert settings.automatic_batch(32768, card) == 1024
    assert settings.automatic_batch(65536, card) == 2048
    assert settings.automatic_batch(65536, card, predicted=22 * GIB) == 1024
    assert settings.automatic_batch(65536, card, predicted=23 * GIB + 512 * MIB) == 512
    assert settings.automatic_batch(65536, (), predicted=1 << 50) == 2048
    small = parse_machine("RTX 4060, 32 GiB RAM").gpus
    assert settings.automatic_batch(8192, small, attention=False) == 256
    assert settings.automatic_batch(4096, small, attention=False) == 512


def test_a_model_goes_to_one_card_if_it_takes_no_more_than_four_fifths() -> None:
    cards = parse_machine("RTX 3060, RTX 4090, 64 GiB RAM").gpus
    assert settings.one_card(cards, 10 * GIB) == 1
    assert settings.one_card(cards, 20 * GIB) is None
    assert settings.one_card((), 1) is None


def test_the_prediction_is_the_file_and_an_f16_cache() -> None:
    """32 layers x 8 KV heads x 128 x K and V x 2 bytes a token for Llama 3.1 8B."""
    model = find_model("llama-3.1-8b").spec()
    assert settings.predicted_bytes(model, 10, 4096) == 10 + 32 * 8 * 128 * 2 * 2 * 4096


def test_what_ollama_cannot_be_told_is_refused() -> None:
    for k, v in (("q8_0", "f16"), ("q5_1", "q5_1")):
        with pytest.raises(UsageError, match="no cache"):
            settings.check(RunConfig(kv_type_k=k, kv_type_v=v))
    machine = parse_machine("2x RTX 3090, 64 GiB RAM")
    model = find_model("llama-3.1-8b").spec()
    with pytest.raises(UsageError, match="tensor split"):
        single(model, machine, Goal(knobs={"tensor_split": (1.0, 1.0)}))


def test_some_architectures_have_one_slot() -> None:
    machine = parse_machine("RTX 4090, 64 GiB RAM")
    several = Goal(quant="Q4_K_M", knobs={"parallel": 4})
    plan, _ = single(find_model("qwen3-next").spec(), machine, several)
    assert plan.config.parallel == 1
    plan, _ = single(find_model("llama-3.1-8b").spec(), machine, several)
    assert plan.config.parallel == 4


def test_a_model_that_fits_one_of_two_cards_is_put_there() -> None:
    plan, _ = single(
        find_model("llama-3.1-8b").spec(), parse_machine("2x RTX 3090, 64 GiB RAM"),
        Goal(quant="Q4_K_M", context=8192),
    )  # fmt: skip
    assert len(plan.memory.gpus) == 1
    assert plan.config.context == 8192


def test_the_runner_loads_what_was_planned(engine: Engine, tmp_path: Path) -> None:
    """The arguments that Ollama gives to llama-server, given to the real one: the same bytes."""
    path = tmp_path / "model.gguf"
    shape = cut(find_model("llama-3.2-1b").spec(), 4)
    write_sparse(path, shape, tensor_types(shape, "Q6_K"))
    plan, _ = single(
        load_model(path), parse_machine("16 GiB RAM, 8 cores"),
        Goal(context=8192, knobs={"repack": False, "parallel": 2}),
    )  # fmt: skip
    assert plan.config.ubatch == 1024
    options = settings.runner_options(plan.config, str(path), 0)
    log = _load([*options, "-nr"], tmp_path / "log")
    loaded = parse_log(log).devices["CPU"]
    host = plan.memory.host
    assert loaded.model == pytest.approx(host.weights_bytes, abs=0.02 * MIB)
    assert loaded.kv == pytest.approx(host.kv_bytes, abs=0.02 * MIB)
    assert loaded.compute + loaded.output == pytest.approx(host.compute_bytes, abs=0.04 * MIB)


def _load(arguments: list[str], log: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = ["--no-warmup", "--offline", "-cram", "0", "-lv", "4", "--port", str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [str(programs() / "llama-server"), *arguments, *quiet],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL,
        )  # fmt: skip
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
