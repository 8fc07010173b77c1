"""What to type to run a configuration on vLLM.

Flags as the argument definitions of vLLM 0.33.0 take them; the tests compare every one with the
list that ``benchmarks/engines/vllm_flags.py`` extracts. ``--gpu-memory-utilization`` is always
printed: its default was 0.9 in older releases and is 0.92 now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nemofit.catalog.models import ModelCard
from nemofit.engines.artifacts import Process, Service, powershell_line, shell_line
from nemofit.engines.artifacts import compose_file as _compose
from nemofit.engines.devices import visibility
from nemofit.engines.quoting import comment
from nemofit.errors import UnknownNameError
from nemofit.machine.records import Gpu

from .config import VllmConfig
from .formats import find_format

VERSION = "0.33.0"
IMAGE = f"vllm/vllm-openai:v{VERSION}"
_DEFAULTS = VllmConfig()
_PORT = 8000
_PROMPT = "Explain in two sentences what a key-value cache is."


def checkpoint(card: ModelCard, quant: str) -> str:
    """The repository with a model's checkpoint in a format.

    Raises:
        UnknownNameError: The format is not known, or the catalog knows no such checkpoint.
    """
    wanted = find_format(quant).name
    for known in card.vllm:
        if find_format(known.format).name == wanted:
            return known.repo
    if wanted == "bf16" and card.hf_repo:
        return card.hf_repo
    known_formats = [c.format for c in card.vllm]
    raise UnknownNameError(f"{card.id} checkpoint", quant, known_formats or ["bf16"])


def server_arguments(config: VllmConfig, model: str, port: int | None = None) -> list[str]:
    """The argument list of ``vllm serve``.

    Args:
        config: The configuration; what is None is left to vLLM.
        model: Repository or directory of the checkpoint.
        port: Where it listens; None: vLLM's default, 8000.
    """
    c = config
    args = ["vllm", "serve", model, "--max-model-len", str(c.max_model_len)]
    args += ["--gpu-memory-utilization", f"{c.gpu_memory_utilization:g}"]
    for flag, value, default in (
        ("--tensor-parallel-size", c.tensor_parallel, 1),
        ("--pipeline-parallel-size", c.pipeline_parallel, 1),
        ("--kv-cache-dtype", c.kv_cache_dtype, _DEFAULTS.kv_cache_dtype),
        ("--dtype", c.dtype, _DEFAULTS.dtype),
        ("--max-num-seqs", c.max_num_seqs, None),
        ("--max-num-batched-tokens", c.max_num_batched_tokens, None),
        ("--cpu-offload-gb", f"{c.cpu_offload_gb:g}", "0"),
        ("--block-size", c.block_size, _DEFAULTS.block_size),
        ("--port", port, None),
    ):
        if value != default:
            args += [flag, str(value)]
    if c.enforce_eager:
        args.append("--enforce-eager")
    if c.language_model_only:
        args.append("--language-model-only")
    return args


def environment(config: VllmConfig, gpus: Sequence[Gpu]) -> dict[str, str]:
    """Variables that keep vLLM to the first cards of a list that has more than it needs."""
    return visibility(gpus, gpus[: config.ranks])


def process(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    port: int | None = None,
    comments: Sequence[str] = (),
) -> Process:
    """The server with its environment.

    A directory whose name begins with a dash is named from here on, so that it is no flag.
    """
    named = f"./{model}" if model.startswith("-") else model
    return Process(
        words=tuple(server_arguments(config, named, port)),
        variables=dict(variables or {}),
        title=f"vLLM: {model}",
        comments=tuple(comments),
    )


def server_command(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    port: int | None = None,
) -> str:
    """One line for a POSIX shell, every value quoted."""
    return shell_line(process(config, model, variables, port)).rstrip("\n")


def server_command_powershell(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    port: int | None = None,
) -> str:
    """One line for PowerShell, every value quoted. (vLLM itself runs under WSL on Windows.)"""
    return powershell_line(process(config, model, variables, port)).rstrip("\n")


def compose_service(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    port: int = _PORT,
    gpus: tuple[str, ...] | None = None,
) -> Service:
    """The same in vLLM's own image, with the weights kept outside it.

    A token for gated repositories is taken from the environment of whoever starts it.

    Args:
        config: The configuration.
        model: Repository of the checkpoint.
        variables: Set in the container.
        port: Where it listens.
        gpus: The cards to pass in, by UUID; None: all.
    """
    return Service(
        name="vllm",
        image=IMAGE,
        arguments=tuple(server_arguments(config, model, None if port == _PORT else port)[2:]),
        variables=dict(variables or {}),
        passed=("HF_TOKEN",),
        port=port,
        volumes=(("${HF_HOME:-~/.cache/huggingface}", "/root/.cache/huggingface"),),
        gpus=gpus,
        shares_memory=True,
    )


def compose_file(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    port: int = _PORT,
    comments: Sequence[str] = (),
) -> str:
    """:func:`compose_service` as a file."""
    return _compose(compose_service(config, model, variables, port), comments)


def offline_script(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    comments: Sequence[str] = (),
) -> str:
    """A Python script that answers one prompt without a server; every value is a literal."""
    arguments = server_arguments(config, model)[3:]
    names = [word for word in arguments if word.startswith("--")]
    settings = {name[2:].replace("-", "_"): _literal(arguments, name) for name in names}
    lines = [
        *(f"# {comment(line)}" for line in comments if line),
        f"# pip install vllm=={VERSION}",
        *(["import os", ""] if variables else []),
        *(f"os.environ[{name!r}] = {value!r}" for name, value in (variables or {}).items()),
        "from vllm import LLM, SamplingParams",
        "",
        'if __name__ == "__main__":',
        "    llm = LLM(",
        f"        model={model!r},",
        *(f"        {name}={value!r}," for name, value in settings.items()),
        "    )",
        f"    messages = [{{'role': 'user', 'content': {_PROMPT!r}}}]",
        "    (answer,) = llm.chat(messages, SamplingParams(max_tokens=256))",
        "    print(answer.outputs[0].text)",
    ]
    return "\n".join(lines) + "\n"


def _literal(arguments: Sequence[str], name: str) -> object:
    """The value behind a flag as Python has it; True where there is none."""
    at = list(arguments).index(name) + 1
    if at == len(arguments) or arguments[at].startswith("--"):
        return True
    for kind in (int, float):
        try:
            return kind(arguments[at])
        except ValueError:
            continue
    return arguments[at]


def download_directory(environ: Mapping[str, str], home: Path) -> Path:
    """Where Hugging Face's libraries keep what they fetch (huggingface_hub, constants.py)."""
    for name, below in (
        ("HF_HUB_CACHE", ()),
        ("HUGGINGFACE_HUB_CACHE", ()),
        ("HF_HOME", ("hub",)),
        ("XDG_CACHE_HOME", ("huggingface", "hub")),
    ):
        if environ.get(name):
            return Path(environ[name]).joinpath(*below)
    return home / ".cache" / "huggingface" / "hub"
