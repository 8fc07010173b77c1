"""The commands that run a configuration on llama.cpp: its server, its chat, its benchmark.

Flags as the builds of October 2026 take them (``llama-server --help``). Every knob whose default
could change the placement is printed, also where it equals today's default: ``-np`` (automatic:
four slots), ``-fa`` (automatic) and ``-fit`` (on: it would move layers by itself).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemofit.errors import UsageError
from nemofit.units import MIB

from .config import RunConfig
from .flags import Option, words

_DEFAULTS = RunConfig()
_TAGS = {"MXFP4_MOE": "MXFP4"}  # file types that the names of published files call otherwise
_DEVICE_NAMES = {"rocm": "ROCm", "metal": "MTL", "vulkan": "Vulkan"}  # others: in capitals
PROGRAMS = ("llama-server", "llama-cli", "llama-bench")
PORT = 8080
_NO_GPU = ("-dev", "none")
_PROMPT_TOKENS, _ANSWER_TOKENS = 512, 128  # that speeds are estimated for, llama-bench's defaults
_PROMPT_CACHE_MIB = 8192  # llama-server's default of -cram, host memory for saved prompts


def file_tag(quant: str) -> str:
    """What the names of published files call a file type."""
    return _TAGS.get(quant, quant)


@dataclass(frozen=True, slots=True)
class Weights:
    """Where llama.cpp takes the weights from.

    Attributes:
        repository: Hub repository with GGUF files, ``owner/name``; None: a local file.
        quant: File type in that repository.
        file: Path of a file in that repository, where no file type names it.
        url: Address of a file, the first one of a set.
        path: Local file, the first one of a set.
        missing: Repository of the original weights (empty: not known), where no GGUF file is known.
        has_projector: The repository may hold a projector, which ``-hf`` would load as well.
    """

    repository: str | None = None
    quant: str | None = None
    file: str | None = None
    url: str | None = None
    path: str | None = None
    missing: str | None = None
    has_projector: bool = False

    def option(self) -> Option:
        """The flag that names them.

        Raises:
            UsageError: No file is known.
        """
        if self.missing is not None:
            convert = f"convert {self.missing} with llama.cpp's convert_hf_to_gguf.py, then: "
            raise UsageError(
                "no GGUF file of this model is known",
                f"{convert if self.missing else 'name a file of yours: '}nemofit plan FILE.gguf",
            )
        if self.url is not None:
            return "-mu", self.url
        if self.repository is None:
            return "-m", self.path or "model.gguf"
        if self.file is not None:
            return "-hf", self.repository, "-hff", self.file
        tag = file_tag(self.quant) if self.quant else None
        return "-hf", f"{self.repository}:{tag}" if tag else self.repository


def server_options(
    config: RunConfig, weights: Weights, gpus: int, spare_host_bytes: int | None = None
) -> list[Option]:
    """The options of ``llama-server`` for a configuration whose values are all settled.

    Args:
        config: With ``gpu_layers`` as a number (None prints ``all``).
        weights: Where the weights come from.
        gpus: Devices that the plan knows of; 0 tells llama.cpp to use none, whatever it finds.
        spare_host_bytes: Host memory beside the plan; the cache of saved prompts, 8 GiB by
            default, is limited to it. None: not known, the default stays.
    """
    c = config
    options: list[Option] = [weights.option()]
    if weights.has_projector:
        options.append(("--no-mmproj",))
    options += [("-c", str(c.context)), *_offload(c, gpus, ",")]
    if c.override_tensors:
        options.append(("-ot", ",".join(f"{name}={buffer}" for name, buffer in c.override_tensors)))
    options += [("-fa", "on" if c.flash_attention else "off"), *_types_and_batches(c)]
    options += [("-np", str(c.parallel)), *_switches(c, gpus)]
    if spare_host_bytes is not None and spare_host_bytes < _PROMPT_CACHE_MIB * MIB:
        options.append(("-cram", str(spare_host_bytes // MIB)))
    return [*options, ("-fit", "off")]


def chat_options(
    config: RunConfig, weights: Weights, gpus: int, spare_host_bytes: int | None = None
) -> list[Option]:
    """The same for ``llama-cli``, which has the server's options but that of one cache for all."""
    options = server_options(config, weights, gpus, spare_host_bytes)
    return [option for option in options if option[0] != "-kvu"]


def bench_options(config: RunConfig, weights: Weights, gpus: int) -> list[Option]:
    """The options of ``llama-bench`` for the same placement, with a prompt of 512 tokens and 128
    generated ones. It has no context: it allocates what each test takes.

    Raises:
        UsageError: A pattern of ``-ot`` has a comma, at which llama-bench splits its values.
    """
    c = config
    options: list[Option] = [weights.option(), ("-p", str(_PROMPT_TOKENS))]
    options += [("-n", str(_ANSWER_TOKENS)), *_offload(c, gpus, "/")]
    if c.override_tensors:
        pairs = [f"{name}={buffer}" for name, buffer in c.override_tensors]
        cut = next((pair for pair in pairs if set(pair) & {",", ";"}), None)
        if cut is not None:
            raise UsageError(
                f"llama-bench cannot be given the pattern {cut!r}: it splits at , and ;",
                "write the pattern without, or use --program llama-server",
            )
        options.append(("-ot", ";".join(pairs)))
    options += [("-fa", "on" if c.flash_attention else "off"), *_types_and_batches(c)]
    if gpus and not c.kv_offload:
        options.append(("-nkvo", "1"))
    if gpus and not c.op_offload:
        options.append(("-nopo", "1"))
    if not c.mmap:
        options.append(("-lm", "none"))
    if not c.repack:
        options.append(("--repack", "0"))
    return options


def options_of(
    program: str,
    config: RunConfig,
    weights: Weights,
    gpus: int,
    spare_host_bytes: int | None = None,
) -> list[Option]:
    """The options of one of :data:`PROGRAMS`.

    Raises:
        UsageError: No such program.
    """
    if program == "llama-server":
        return server_options(config, weights, gpus, spare_host_bytes)
    if program == "llama-cli":
        return chat_options(config, weights, gpus, spare_host_bytes)
    if program == "llama-bench":
        return bench_options(config, weights, gpus)
    raise UsageError(f"program {program!r} is not known", "one of: " + ", ".join(PROGRAMS))


def _offload(c: RunConfig, gpus: int, between: str) -> list[Option]:
    if not gpus:
        return [_NO_GPU]
    options: list[Option] = [("-ngl", "all" if c.gpu_layers is None else str(c.gpu_layers))]
    options += _devices(c, gpus, between)
    if c.cpu_moe_layers:
        options.append(("-ncmoe", str(c.cpu_moe_layers)))
    return options


def _devices(c: RunConfig, gpus: int, between: str) -> list[Option]:
    """The cards by name where some are left out, and how the layers are split over those used."""
    used = range(gpus) if c.devices is None else c.devices
    name = _DEVICE_NAMES.get(c.backend, c.backend.upper())
    options: list[Option] = []
    if c.devices is not None:
        options.append(("-dev", between.join(f"{name}{d}" for d in used)))
    if c.tensor_split is not None and len(used) > 1:
        options.append(("-ts", between.join(f"{c.tensor_split[d]:g}" for d in used)))
    return options


def _types_and_batches(c: RunConfig) -> list[Option]:
    options: list[Option] = []
    if (c.kv_type_k, c.kv_type_v) != (_DEFAULTS.kv_type_k, _DEFAULTS.kv_type_v):
        options += [("-ctk", c.kv_type_k), ("-ctv", c.kv_type_v)]
    if c.batch != _DEFAULTS.batch:
        options.append(("-b", str(c.batch)))
    if c.ubatch != _DEFAULTS.ubatch:
        options.append(("-ub", str(c.ubatch)))
    return options


def _switches(c: RunConfig, gpus: int) -> list[Option]:
    options: list[Option] = []
    if c.kv_unified:
        options.append(("-kvu",))
    if gpus and not c.kv_offload:
        options.append(("-nkvo",))
    if gpus and not c.op_offload:
        options.append(("--no-op-offload",))
    if c.swa_full:
        options.append(("--swa-full",))
    if not c.mmap:
        options.append(("-lm", "none"))
    if not c.repack:
        options.append(("-nr",))
    return options


def server_arguments(
    config: RunConfig, weights: Weights, gpus: int, spare_host_bytes: int | None = None
) -> list[str]:
    """:func:`server_options` as one list of arguments, the program first."""
    return list(words("llama-server", server_options(config, weights, gpus, spare_host_bytes)))


def server_command(
    config: RunConfig, weights: Weights, gpus: int, spare_host_bytes: int | None = None
) -> str:
    """The same as one line for a POSIX shell, every value quoted."""
    return shlex.join(server_arguments(config, weights, gpus, spare_host_bytes))


def download_directory(environ: Mapping[str, str], home: Path) -> Path:
    """Where ``-hf`` keeps what it downloads (llama.cpp, common/hf-cache.cpp).

    Args:
        environ: The environment's variables.
        home: The person's home directory.
    """
    places = (
        ("LLAMA_CACHE", ()),
        ("HF_HUB_CACHE", ()),
        ("HUGGINGFACE_HUB_CACHE", ()),
        ("HF_HOME", ("hub",)),
        ("XDG_CACHE_HOME", ("huggingface", "hub")),
    )
    for name, below in places:
        if environ.get(name):
            return Path(environ[name]).joinpath(*below)
    return home / ".cache" / "huggingface" / "hub"
