"""What to type to run a configuration on vLLM.

Flags as the argument definitions of vLLM 0.33.0 take them; the tests compare every one with the
list that ``benchmarks/engines/vllm_flags.py`` extracts. ``--gpu-memory-utilization`` is always
printed: its default was 0.9 in older releases and is 0.92 now.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from nemofit.catalog.models import ModelCard
from nemofit.errors import UnknownNameError
from nemofit.machine.records import Gpu

from .config import VllmConfig
from .formats import find_format

IMAGE = "vllm/vllm-openai:v0.33.0"
_DEFAULTS = VllmConfig()
_PORT = 8000


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
    return args


def environment(config: VllmConfig, gpus: Sequence[Gpu]) -> dict[str, str]:
    """Variables that keep vLLM to the first cards of a list that has more than it needs.

    Cards are named by UUID where all are known, else by index in PCI order.
    """
    used = gpus[: config.ranks]
    if len(used) == len(gpus):
        return {}
    names = [g.uuid for g in used]
    if all(names):
        return {"CUDA_VISIBLE_DEVICES": ",".join(n for n in names if n)}
    indices = [g.index if g.index is not None else i for i, g in enumerate(used)]
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)),
    }


def server_command(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    port: int | None = None,
) -> str:
    """One line for a POSIX shell, every value quoted."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    return " ".join([*settings, shlex.join(server_arguments(config, model, port))])


def server_command_powershell(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    port: int | None = None,
) -> str:
    """One line for PowerShell, every value quoted. (vLLM itself runs under WSL on Windows.)"""
    settings = [f"$env:{name}={_powershell(value)};" for name, value in (variables or {}).items()]
    args = server_arguments(config, model, port)
    return " ".join([*settings, *(_powershell(a) if _special(a) else a for a in args)])


def compose_file(
    config: VllmConfig,
    model: str,
    variables: Mapping[str, str] | None = None,
    port: int = _PORT,
) -> str:
    """A Compose file that runs the same in vLLM's own image, with the weights kept outside it.

    A token for gated repositories is taken from the environment of whoever starts it.
    """
    command = server_arguments(config, model)[2:]
    lines = [
        "services:",
        "  vllm:",
        f"    image: {IMAGE}",
        "    command:",
        *(f"      - {_yaml(a)}" for a in command),
        "    environment:",
        "      - HF_TOKEN",
        *(f"      - {_yaml(f'{name}={value}')}" for name, value in (variables or {}).items()),
        "    ports:",
        f"      - {_yaml(f'127.0.0.1:{port}:{_PORT}')}",
        "    volumes:",
        '      - "${HF_HOME:-~/.cache/huggingface}:/root/.cache/huggingface"',
        "    ipc: host",
        "    deploy:",
        "      resources:",
        "        reservations:",
        "          devices:",
        "            - driver: nvidia",
        "              count: all",
        "              capabilities: [gpu]",
    ]
    return "\n".join(lines) + "\n"


def _yaml(text: str) -> str:
    """A double-quoted YAML scalar; Compose reads ``$$`` as one dollar sign."""
    import json

    return json.dumps(text, ensure_ascii=False).replace("$", "$$")


def _powershell(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _special(text: str) -> bool:
    return not text or not all(c.isalnum() or c in "-_./:=" for c in text)
