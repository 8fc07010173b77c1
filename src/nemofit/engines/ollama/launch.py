"""What to type to fetch and run a model with Ollama.

Install lines: ollama/ollama/docs/linux.mdx and its siblings for macOS and Windows; the Modelfile:
ollama/ollama/docs/modelfile.mdx and ollama/ollama/parser/parser.go; where variables are set:
ollama/ollama/docs/faq.mdx; files of the hub: huggingface.co/docs/hub/ollama.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from nemofit.engines import quoting
from nemofit.engines.llama_cpp.config import RunConfig

PORT = 11434
IMAGE = "ollama/ollama"
INSTALL = {
    "linux": "curl -fsSL https://ollama.com/install.sh | sh",
    "macos": "brew install --cask ollama-app",
    "windows": "winget install --id Ollama.Ollama",
}
"""By operating system as :class:`nemofit.machine.records.Host` names it."""
PROMPT = "Explain in two sentences what a key-value cache is."
_PROMPTS_KEPT = "LLAMA_ARG_CACHE_RAM"


def run_command(tag: str, is_here: bool = False) -> str:
    """Fetch a model by its name, where it is not here yet, and talk to it: for a POSIX shell."""
    quoted = shlex.quote(tag)
    if is_here:
        return f"ollama run {quoted}"
    return f"ollama pull {quoted} && ollama run {quoted}"


def hub_name(repository: str, quant: str | None) -> str:
    """The name by which Ollama pulls a GGUF file from the Hugging Face hub."""
    return f"hf.co/{repository}" + (f":{quant}" if quant else "")


def own_name(source: str) -> str:
    """A name for a model made from another one: letters, digits, dots, dashes, underscores."""
    last = source.rsplit("/", 1)[-1].removesuffix(".gguf")
    plain = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")
    return f"{plain[:60].strip('-._') or 'model'}-nemofit"


def modelfile(source: str, parameters: Mapping[str, int], comments: Iterable[str] = ()) -> str:
    """A Modelfile.

    Args:
        source: A model's name, or the path of a GGUF file.
        parameters: ``num_ctx`` and others, whole numbers.
        comments: Lines for people.

    Raises:
        UsageError: The source cannot stand in a Modelfile.
    """
    lines = [f"# {quoting.comment(line)}" for line in comments if line]
    lines += [f"FROM {quoting.modelfile(source)}"]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def parameters(config: RunConfig, layers: int | None) -> dict[str, int]:
    """The parameters of a configuration; the context is that of one slot.

    Args:
        config: Settled.
        layers: Layers on the GPUs to insist on; None: Ollama places them.
    """
    found = {"num_ctx": config.context // config.parallel, "num_batch": config.ubatch}
    if layers is not None:
        found["num_gpu"] = layers
    return found


def server_variables(
    config: RunConfig, spare_host_bytes: int | None = None, directory: str | None = None
) -> dict[str, str]:
    """What has to be set for Ollama's server, which is one for all models.

    Args:
        config: Settled.
        spare_host_bytes: Host memory beside the plan, to which saved prompts are limited.
        directory: Where models shall be kept; None: Ollama's own place.
    """
    found = {}
    if config.parallel > 1:
        found["OLLAMA_NUM_PARALLEL"] = str(config.parallel)
    if not config.flash_attention:
        found["OLLAMA_FLASH_ATTENTION"] = "0"
    elif config.kv_type_k != "f16":
        found["OLLAMA_FLASH_ATTENTION"] = "1"
        found["OLLAMA_KV_CACHE_TYPE"] = config.kv_type_k
    if spare_host_bytes is not None and spare_host_bytes < 8 << 30:
        found[_PROMPTS_KEPT] = str(spare_host_bytes >> 20)
    if directory is not None:
        found["OLLAMA_MODELS"] = directory
    return found


def setting_lines(variables: Mapping[str, str], system: str) -> tuple[str, ...]:
    """How the server's variables are set where it runs as a service, a line each.

    Args:
        variables: Names and values.
        system: ``linux``, ``macos`` or ``windows``.
    """
    if not variables:
        return ()
    if system == "macos":
        set_them = [f"launchctl setenv {n} {shlex.quote(v)}" for n, v in variables.items()]
        return (*set_them, "then quit Ollama and start it again")
    if system == "windows":
        set_them = [f"setx {n} {_cmd(v)}" for n, v in variables.items()]
        return (*set_them, "then quit Ollama in the task bar and start it again")
    pairs = [quoting.systemd(f"{n}={v}", command=False) for n, v in variables.items()]
    return (
        "sudo systemctl edit ollama.service, and under [Service]:",
        *(f"Environment={pair}" for pair in pairs),
        "sudo systemctl daemon-reload && sudo systemctl restart ollama",
    )


def _cmd(value: str) -> str:
    return '"' + value.replace('"', '\\"') + '"' if re.search(r"[^\w.:\\/-]", value) else value


def test_line(name: str, port: int = PORT) -> str:
    """A prompt through the HTTP API: one line for a POSIX shell (ollama/ollama/docs/api.md)."""
    body = json.dumps({"model": name, "prompt": PROMPT, "stream": False})
    return f"curl -s http://127.0.0.1:{port}/api/generate -d {shlex.quote(body)}"


def check_line(port: int = PORT) -> str:
    """What shows that it was right: ``size_vram`` and ``context_length`` of what is loaded."""
    return f"curl -s http://127.0.0.1:{port}/api/ps"


def download_directory(environ: Mapping[str, str], home: Path) -> Path:
    """Where Ollama keeps models: of a server that the person started, not of a system service."""
    if environ.get("OLLAMA_MODELS"):
        return Path(environ["OLLAMA_MODELS"])
    return home / ".ollama" / "models"
