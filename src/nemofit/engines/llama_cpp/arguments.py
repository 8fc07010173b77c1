"""The command line of a running llama-server, read back into knobs.

Names as common/arg.cpp of llama.cpp has them, with those of builds of the last two years.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .config import KV_TYPES, RunConfig

_ALL = (1 << 16) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerArguments:
    """What a server was started with.

    Attributes:
        path: Model file, None: it came from elsewhere.
        repository: ``-hf``, None: none.
        host, port: Where it listens.
        log_file: ``--log-file``.
        knobs: Fields of :class:`RunConfig` that were said.
        no_gpu: ``-dev none``.
    """

    path: str | None = None
    repository: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    log_file: str | None = None
    knobs: dict[str, Any] = field(default_factory=dict)
    no_gpu: bool = False


def parse_arguments(command: Sequence[str]) -> ServerArguments:
    """Read a command line; a flag that is not known here is passed over."""
    found: dict[str, Any] = {}
    knobs: dict[str, Any] = {}
    words = list(command[1:])
    for i, word in enumerate(words):
        value = words[i + 1] if i + 1 < len(words) else ""
        if word in _TEXTS:
            found[_TEXTS[word]] = value
        elif word in _SWITCHES:
            name, said = _SWITCHES[word]
            knobs[name] = said
        elif word in _KNOBS:
            name, read = _KNOBS[word]
            try:
                knobs[name] = read(value)
            except ValueError:
                continue
        elif word in ("--port",) and value.isdecimal():
            found["port"] = int(value[:6])
        elif word in ("-dev", "--device"):
            found["no_gpu"] = value == "none"
        elif word in ("-lm", "--load-mode"):
            knobs["mmap"] = value in ("mmap", "mmap+mlock", "auto")
    knobs = {name: value for name, value in knobs.items() if value is not None}
    return ServerArguments(knobs=knobs, **found)


def config_of(arguments: ServerArguments, **more: Any) -> RunConfig:
    """The configuration, with what the server or the machine says beside it."""
    return RunConfig(**{"repack": True, **arguments.knobs, **more})


def _count(text: str) -> int | None:
    number = int(text)
    return number if 0 < number < 1 << 24 else None


def _layers(text: str) -> int | None:
    if text in ("all", "auto"):
        return _ALL if text == "all" else None
    return min(int(text), _ALL) if int(text) >= 0 else None


def _split(text: str) -> tuple[float, ...] | None:
    found = tuple(float(part) for part in text.replace("/", ",").split(","))
    return found if sum(found) > 0 else None


def _cache_type(text: str) -> str | None:
    return text if text in KV_TYPES else None


_Reader = Callable[[str], Any]
_KNOBS: dict[str, tuple[str, _Reader]] = {
    flag: knob
    for flags, knob in (
        (("-c", "--ctx-size"), ("context", _count)),
        (("-b", "--batch-size"), ("batch", _count)),
        (("-ub", "--ubatch-size"), ("ubatch", _count)),
        (("-np", "--parallel"), ("parallel", _count)),
        (("-ngl", "--gpu-layers", "--n-gpu-layers"), ("gpu_layers", _layers)),
        (("-ts", "--tensor-split"), ("tensor_split", _split)),
        (("-ncmoe", "--n-cpu-moe"), ("cpu_moe_layers", _count)),
        (("-ctk", "--cache-type-k"), ("kv_type_k", _cache_type)),
        (("-ctv", "--cache-type-v"), ("kv_type_v", _cache_type)),
        (("-fa", "--flash-attn"), ("flash_attention", lambda text: text not in ("off", "0"))),
    )
    for flag in flags
}
_SWITCHES = {
    "-nkvo": ("kv_offload", False),
    "--no-kv-offload": ("kv_offload", False),
    "-kvu": ("kv_unified", True),
    "--kv-unified": ("kv_unified", True),
    "--no-op-offload": ("op_offload", False),
    "--swa-full": ("swa_full", True),
    "--no-mmap": ("mmap", False),
    "-nr": ("repack", False),
    "--no-repack": ("repack", False),
    "-cmoe": ("cpu_moe_layers", _ALL),
    "--cpu-moe": ("cpu_moe_layers", _ALL),
}
_TEXTS = {
    "-m": "path",
    "--model": "path",
    "-hf": "repository",
    "--hf-repo": "repository",
    "--host": "host",
    "--log-file": "log_file",
}
