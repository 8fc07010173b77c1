"""The command that runs a configuration on llama.cpp.

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

_DEFAULTS = RunConfig()
_NO_GPU = ["-dev", "none"]
_TAGS = {"MXFP4_MOE": "MXFP4"}  # file types that the names of published files call otherwise
_DEVICE_NAMES = {"rocm": "ROCm", "metal": "MTL", "vulkan": "Vulkan"}  # others: in capitals
_PROMPT_CACHE_MIB = 8192  # llama-server's default of -cram, host memory for saved prompts


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
    """

    repository: str | None = None
    quant: str | None = None
    file: str | None = None
    url: str | None = None
    path: str | None = None
    missing: str | None = None

    def arguments(self) -> list[str]:
        """How ``llama-server`` is told the file.

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
            return ["-mu", self.url]
        if self.repository is None:
            return ["-m", self.path or "model.gguf"]
        if self.file is not None:
            return ["-hf", self.repository, "-hff", self.file]
        tag = _TAGS.get(self.quant or "", self.quant)
        return ["-hf", f"{self.repository}:{tag}" if tag else self.repository]


def server_arguments(
    config: RunConfig, weights: Weights, gpus: int, spare_host_bytes: int | None = None
) -> list[str]:
    """The argument list of ``llama-server`` for a configuration whose values are all settled.

    Args:
        config: With ``gpu_layers`` as a number (None prints ``all``).
        weights: Where the weights come from.
        gpus: Devices that the plan knows of; 0 tells llama.cpp to use none, whatever it finds.
        spare_host_bytes: Host memory beside the plan; the cache of saved prompts, 8 GiB by
            default, is limited to it. None: not known, the default stays.
    """
    c = config
    args = ["llama-server", *weights.arguments(), "-c", str(c.context)]
    args += ["-ngl", "all" if c.gpu_layers is None else str(c.gpu_layers)] if gpus else _NO_GPU
    args += _devices(c, gpus)
    if c.cpu_moe_layers:
        args += ["-ncmoe", str(c.cpu_moe_layers)]
    if c.override_tensors:
        args += ["-ot", ",".join(f"{pattern}={buffer}" for pattern, buffer in c.override_tensors)]
    args += ["-fa", "on" if c.flash_attention else "off"]
    if (c.kv_type_k, c.kv_type_v) != (_DEFAULTS.kv_type_k, _DEFAULTS.kv_type_v):
        args += ["-ctk", c.kv_type_k, "-ctv", c.kv_type_v]
    if c.batch != _DEFAULTS.batch:
        args += ["-b", str(c.batch)]
    if c.ubatch != _DEFAULTS.ubatch:
        args += ["-ub", str(c.ubatch)]
    args += ["-np", str(c.parallel), *_switches(c, gpus)]
    if spare_host_bytes is not None and spare_host_bytes < _PROMPT_CACHE_MIB * MIB:
        args += ["-cram", str(spare_host_bytes // MIB)]
    return [*args, "-fit", "off"]


def _devices(c: RunConfig, gpus: int) -> list[str]:
    """The cards by name where some are left out, and how the layers are split over those used."""
    used = range(gpus) if c.devices is None else c.devices
    name = _DEVICE_NAMES.get(c.backend, c.backend.upper())
    args = ["-dev", ",".join(f"{name}{d}" for d in used)] if c.devices is not None else []
    if c.tensor_split is not None and len(used) > 1:
        args += ["-ts", ",".join(f"{c.tensor_split[d]:g}" for d in used)]
    return args


def _switches(c: RunConfig, gpus: int) -> list[str]:
    args = []
    if c.kv_unified:
        args.append("-kvu")
    if gpus and not c.kv_offload:
        args.append("-nkvo")
    if gpus and not c.op_offload:
        args.append("--no-op-offload")
    if c.swa_full:
        args.append("--swa-full")
    if not c.mmap:
        args += ["-lm", "none"]
    if not c.repack:
        args.append("-nr")
    return args


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
