"""Every engine in every format that makes sense; a clear no for the others; values that survive."""

from __future__ import annotations

import ast
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.engines.artifacts import FORMATS
from nemofit.errors import UsageError
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.load import load_model
from nemofit.machine import parse_machine
from nemofit.machine.records import Gpu, Machine
from nemofit.planner import Goal, ollama, transformers, vllm
from nemofit.planner.checkpoints import CheckpointGoal
from nemofit.planner.launching import Order, formats, make
from nemofit.planner.records import ENGINES, EnginePlan
from nemofit.planner.single import single

TWO = parse_machine("2x RTX 3090, 64 GiB RAM, linux")
DEFINED = json.loads((Path(__file__).parents[1] / "fixtures/vllm/flags.json").read_text())


def plan_on(engine: str, machine: Machine = TWO) -> EnginePlan:
    model = find_model("llama-3.1-8b").spec()
    if engine == "llama.cpp":
        return single(model, machine, Goal(context=8192, quant="Q4_K_M"))[0]
    if engine == "ollama":
        return ollama.single(model, machine, Goal(context=8192, quant="Q4_K_M"))[0]
    search = vllm.single if engine == "vllm" else transformers.single
    return search(model, machine, CheckpointGoal(context=8192))[0]  # type: ignore[operator, no-any-return]


def made(engine: str, format: str, **more: Any) -> str:
    return make(Order(plan=plan_on(engine), machine=TWO, format=format, **more)).text


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("format", FORMATS)
def test_each_engine_has_its_formats_and_refuses_the_others(engine: str, format: str) -> None:
    if format not in formats(engine):
        with pytest.raises(UsageError, match=f"no '{format}' for {engine}"):
            made(engine, format)
        return
    text = made(engine, format)
    assert text.endswith("\n") and text.strip()
    if format in ("shell", "script"):
        assert subprocess.run(["sh", "-n"], input=text.encode(), timeout=20).returncode == 0
    if format == "compose":
        assert len(yaml.safe_load(text)["services"]) == 1
    if format == "python":
        ast.parse(text)
    if format == "modelfile":
        assert "FROM " in text and "PARAMETER num_ctx 8192\n" in text


def fake_program(folder: Path, name: str) -> None:
    """A program that writes down how it was called."""
    path = folder / name
    path.write_text(
        f'#!/bin/sh\nfor w in "$0" "$@"; do printf \'%s\\0\' "$w"; done >> {folder}/said\n'
    )
    path.chmod(0o755)


def called(text: str, folder: Path, *names: str) -> list[str]:
    """The words that programs get when a real shell runs a script."""
    for name in names:
        fake_program(folder, name)
    subprocess.run(
        ["sh", "-c", text], cwd=folder, check=True, timeout=20,
        env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)},
    )  # fmt: skip
    return (folder / "said").read_text().split("\0")[:-1]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A real model file whose path no shell likes."""
    folder = tmp_path / "it's $(here) %h\n`x`"
    folder.mkdir()
    path = folder / '-a "b"; c\u00e9.gguf'
    shape = find_model("llama-3.2-1b").spec()
    write_sparse(path, shape, tensor_types(shape, "Q8_0"))
    return path


def own_file(path: Path) -> EnginePlan:
    return single(load_model(path), TWO, Goal(context=4096))[0]


@pytest.mark.parametrize("format", ["shell", "script"])
def test_a_hostile_path_reaches_llama_server(hostile: Path, tmp_path: Path, format: str) -> None:
    text = make(Order(plan=own_file(hostile), machine=TWO, format=format, port=8099)).text
    words = called(text, tmp_path, "llama-server")
    assert words[1:5] == ["-m", str(hostile), "-c", "4096"]
    assert words[-2:] == ["--port", "8099"]


def test_a_hostile_path_survives_unit_and_container(hostile: Path) -> None:
    plan = own_file(hostile)
    unit = make(Order(plan=plan, machine=TWO, format="systemd")).text
    [line] = [x for x in unit.splitlines() if x.startswith("ExecStart=")]
    assert "$(" not in line.replace("$$(", "") and "%%h" in line and "\\x0a" in line
    read = yaml.safe_load(make(Order(plan=plan, machine=TWO, format="compose")).text)
    service = read["services"]["llama"]
    assert service["command"][1].replace("$$", "$") == f"/models/{hostile.name}"
    assert service["volumes"][0]["source"].replace("$$", "$") == str(hostile.parent)


def test_relative_paths_hold_only_where_they_are_typed(hostile: Path) -> None:
    plan = own_file(hostile)
    near = replace(plan, weights=replace(plan.weights, path="x.gguf"))  # type: ignore[attr-defined, call-arg]
    folder = Path("/some where")
    for format, path in (("shell", "x.gguf"), ("script", "/some where/x.gguf")):
        artifact = make(Order(plan=near, machine=TWO, format=format, folder=folder))
        assert artifact.arguments[1] == path


def test_ollama_is_given_the_modelfile(tmp_path: Path) -> None:
    """What a real shell makes of the line: pull, a file with these lines, create, run."""
    words = called(made("ollama", "shell"), tmp_path, "ollama")
    assert words[1:3] == ["pull", "llama3.1:8b"]
    assert words[4] == "create" and words[6:8] == ["-f", "Modelfile"]
    assert words[-2:] == ["run", words[5]]
    lines = (tmp_path / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM llama3.1:8b"
    assert set(lines[1:]) == {
        "PARAMETER num_ctx 8192", "PARAMETER num_batch 1024", "PARAMETER num_gpu 33",
    }  # fmt: skip


def test_what_ollama_does_by_itself_needs_no_modelfile() -> None:
    machine = parse_machine("RTX 4090, 64 GiB RAM, linux")
    plan, _ = ollama.single(find_model("llama-3.1-8b").spec(), machine, Goal(quant="Q4_K_M"))
    assert plan.context == 32768
    assert plan.command() == ("ollama pull llama3.1:8b && ollama run llama3.1:8b")


def test_the_servers_settings_are_told_for_each_system() -> None:
    model = find_model("llama-3.1-8b").spec()
    goal = Goal(context=8192, quant="Q4_K_M", knobs={"kv_type_k": "q8_0", "kv_type_v": "q8_0"})
    for system, said in (
        ("linux", "Environment=OLLAMA_KV_CACHE_TYPE=q8_0"),
        ("macos", "launchctl setenv OLLAMA_KV_CACHE_TYPE q8_0"),
        ("windows", "setx OLLAMA_KV_CACHE_TYPE q8_0"),
    ):
        machine = parse_machine(f"RTX 4090, 64 GiB RAM, {system}")
        plan, _ = ollama.single(model, machine, goal)
        notes = make(Order(plan=plan, machine=machine, format="shell")).notes
        assert said in notes
        assert any("api/generate" in n for n in notes) and any("api/ps" in n for n in notes)
    unit = make(Order(plan=plan, machine=machine, format="systemd")).text
    assert "Environment=OLLAMA_FLASH_ATTENTION=1\n" in unit


def test_vllms_script_names_arguments_that_exist() -> None:
    """Keywords of ``LLM`` are vLLM's flags with underscores."""
    tree = ast.parse(made("vllm", "python"))
    [call] = [n for n in ast.walk(tree) if isinstance(n, ast.Call)
              and getattr(n.func, "id", "") == "LLM"]  # fmt: skip
    names = {k.arg for k in call.keywords} - {"model"}
    assert {f"--{str(name).replace('_', '-')}" for name in names} <= set(DEFINED["flags"])
    assert {"max_model_len", "gpu_memory_utilization", "tensor_parallel_size"} <= names


def two_kinds() -> Machine:
    """A card that does, and one that is too small to be of use, with their UUIDs."""
    cards = parse_machine("RTX 3090, GTX 1050 Ti, 64 GiB RAM").gpus
    return replace(
        TWO, gpus=tuple(replace(g, uuid=f"GPU-{i}", index=i) for i, g in enumerate(cards))
    )


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
def test_a_card_that_is_left_out_is_hidden(engine: str) -> None:
    machine = two_kinds()
    plan = plan_on(engine, machine)
    artifact = make(Order(plan=plan, machine=machine, format="shell"))
    assert dict(artifact.variables) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "GPU-0",
    }  # fmt: skip
    assert artifact.text.startswith("CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=GPU-0 ")
    assert not {"-dev", "-ts"} & set(artifact.arguments)
    read = yaml.safe_load(make(Order(plan=plan, machine=machine, format="compose")).text)
    [service] = read["services"].values()
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["GPU-0"]


def test_only_a_server_becomes_a_service() -> None:
    with pytest.raises(UsageError, match="llama-bench is none"):
        made("llama.cpp", "systemd", program="llama-bench")
    for engine, words in (("ollama", "no program of Ollama"), ("vllm", "no program of vLLM")):
        with pytest.raises(UsageError, match=words):
            made(engine, "shell", program="llama-bench")


def test_the_mac_has_no_gpu_in_a_container() -> None:
    machine = parse_machine("M3 Max 64GB")
    plan = single(find_model("llama-3.1-8b").spec(), machine, Goal(context=8192))[0]
    with pytest.raises(UsageError, match="Docker on a Mac"):
        make(Order(plan=plan, machine=machine, format="compose"))


def test_where_the_weights_go_can_be_said(tmp_path: Path) -> None:
    there = tmp_path / "my models"
    names = {"llama.cpp": "LLAMA_CACHE", "ollama": "OLLAMA_MODELS"}
    for engine in ENGINES:
        artifact = make(Order(plan=plan_on(engine), machine=TWO, format=formats(engine)[0],
                              directory=there))  # fmt: skip
        assert artifact.variables[names.get(engine, "HF_HUB_CACHE")] == str(there)


def test_hidden_cards_count_as_cards() -> None:
    """A card that the environment hides is there for a unit that does not inherit it."""
    [card] = parse_machine("RTX 3090, 64 GiB RAM").gpus
    hidden = Gpu(name="NVIDIA GeForce RTX 3090", index=1, uuid="GPU-b", total_bytes=24 << 30)
    shown = replace(card, uuid="GPU-a", index=0)
    machine = replace(TWO, gpus=(shown,), hidden_gpus=(hidden,))
    artifact = make(Order(plan=plan_on("llama.cpp", machine), machine=machine, format="systemd"))
    assert artifact.variables["CUDA_VISIBLE_DEVICES"] == "GPU-a"
