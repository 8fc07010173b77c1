"""Today's flags for today's builds, older ones for older builds: the help decides."""

from __future__ import annotations

import subprocess

import pytest
from benchmarks.accuracy.engine import Engine, programs

from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.flags import accepted, read_help, words
from nemofit.engines.llama_cpp.launch import PROGRAMS, Weights, options_of
from nemofit.errors import HardwareError, UsageError

OLDER = """
-h, --help, --usage
-c, --ctx-size N
-b, --batch-size N
-ub, --ubatch-size N
-fa, --flash-attn
-nkvo, --no-kv-offload
-ctk, --cache-type-k TYPE
-ctv, --cache-type-v TYPE
-np, --parallel N
--mlock
--no-mmap
-dev, --device <dev1,dev2,..>
-ngl, --gpu-layers, --n-gpu-layers N
-sm, --split-mode {none,layer,row}
-ts, --tensor-split N0,N1,N2,...
-m, --model FNAME
-hfr, --hf-repo REPO
"""
"""Some rows of the flags of February 2025: ggml-org/llama.cpp, examples/server/README.md at commit
53dd4beb76787b6e8d7be86332bfd417880ebcd6."""
WITH_OVERRIDES = OLDER + "-ot, --override-tensor <tensor name pattern>=<buffer type>,...\n"
"""And of April 2025, after pull request 11397."""
EVERYTHING = RunConfig(
    context=4096, batch=1024, ubatch=256, parallel=2, kv_unified=True, gpu_layers=20,
    tensor_split=(1, 2.5), cpu_moe_layers=3, kv_type_k="q8_0", kv_type_v="q5_1", kv_offload=False,
    op_offload=False, swa_full=True, mmap=False, repack=False,
)  # fmt: skip


def options(config: RunConfig, program: str = "llama-server", gpus: int = 2):  # type: ignore[no-untyped-def]
    return options_of(program, config, Weights(path="m.gguf"), gpus, 1 << 30)


@pytest.mark.parametrize("program", ["llama-server", "llama-bench"])
def test_todays_build_is_told_everything(engine: Engine, program: str) -> None:
    """The real help lists every flag, so that nothing is changed; the real program takes them."""
    path = str(programs() / program)
    said = subprocess.run([path, "--help"], capture_output=True, text=True).stdout
    wanted = options(EVERYTHING, program)
    assert (wanted, ()) == accepted(wanted, read_help(said), program)
    arguments = words(path, wanted)
    done = subprocess.run([*arguments, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused = subprocess.run([*arguments, "--no-such-flag", "--help"], capture_output=True)
    assert refused.returncode != 0


def test_the_chat_program_has_these_flags(engine: Engine) -> None:
    """llama-cli is not built here: its source says which of the server's flags it has."""
    from benchmarks.accuracy.engine import source

    text = (source() / "common" / "arg.cpp").read_text()
    for option in options(EVERYTHING, "llama-cli"):
        assert f'"{option[0]}"' in text
    assert ("-kvu",) not in options(EVERYTHING, "llama-cli")


def test_an_older_build_is_told_the_same_in_its_words() -> None:
    taken, notes = accepted(options(EVERYTHING), read_help(WITH_OVERRIDES))
    line = " ".join(word for option in taken for word in option)
    assert "-fa -ctk" in line
    assert "--no-mmap" in line
    assert r"-ot blk\.(0|1|2)\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU" in line
    for gone in ("-lm", "-fit", "-cram", "-kvu", "--swa-full", "-ncmoe", "-nr", "-fa on"):
        assert f" {gone} " not in f" {line} "
    assert len(notes) == 2
    known = read_help(WITH_OVERRIDES)
    assert all(option[0] in known for option in taken)


def test_attention_off_is_silence_for_an_older_build() -> None:
    taken, _ = accepted(options(RunConfig(flash_attention=False, repack=True)), read_help(OLDER))
    assert not any(option[0] == "-fa" for option in taken)


def test_an_older_benchmark_takes_numbers() -> None:
    """llama-bench had ``-fa <0|1>`` before it took words."""
    lines = ("-fa, --flash-attn <0|1>      (default: 0)", "-m, --model <filename>",
             "-p, --n-prompt <n>", "-n, --n-gen <n>", "-dev, --device <d>")  # fmt: skip
    known = read_help("\n".join(f"  {line}" for line in lines))
    taken, _ = accepted(options(RunConfig(repack=True), "llama-bench", 0), known, "llama-bench")
    assert ("-fa", "1") in taken


def test_a_build_that_cannot_be_told_is_too_old() -> None:
    with pytest.raises(HardwareError, match="-ncmoe"):
        accepted(options(EVERYTHING), read_help(OLDER))
    on_the_hub = options_of("llama-server", RunConfig(), Weights(repository="a/b"), 1)
    with pytest.raises(HardwareError, match="does not know -hf"):
        accepted(on_the_hub, read_help(OLDER))
    with pytest.raises(HardwareError, match="does not know -c"):
        accepted(options(RunConfig()), {"-m": ""})


def test_without_a_program_todays_flags_are_printed() -> None:
    assert (options(EVERYTHING), ()) == accepted(options(EVERYTHING), {})


def test_help_names_every_spelling() -> None:
    known = read_help(OLDER)
    assert {"-fa", "--flash-attn", "-hfr", "--hf-repo", "--n-gpu-layers", "-h"} <= set(known)
    assert (known["-c"], known["-fa"], known["--no-mmap"]) == ("N", "", "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_gpu_is_said_to_each_program(program: str) -> None:
    assert ("-dev", "none") in options(RunConfig(gpu_layers=0), program, 0)


def test_the_benchmark_splits_at_commas() -> None:
    config = RunConfig(override_tensors=((r"blk\.[0-9]{1,2}\.ffn", "CPU"),))
    with pytest.raises(UsageError, match="splits at"):
        options(config, "llama-bench")
    with pytest.raises(UsageError, match="not known"):
        options(config, "llama-nothing")
