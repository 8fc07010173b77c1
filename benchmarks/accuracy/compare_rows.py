"""One question to the oracle with its answer: drawn at random, read from a file, written to one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nemofit.catalog.filetypes import file_types, needs_imatrix
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError
from nemofit.units import GIB, MIB

from .engine import Engine
from .sparse import ModelFiles, cut

Mib = Mapping[str, Mapping[str, float]]

_KEYS = {
    "n_ctx": "context", "n_batch": "batch", "n_ubatch": "ubatch", "type_k": "kv_type_k",
    "type_v": "kv_type_v", "n_parallel": "parallel", "kv_unified": "kv_unified",
    "n_gpu_layers": "gpu_layers", "tensor_split": "tensor_split", "n_cpu_moe": "cpu_moe_layers",
    "kv_offload": "kv_offload", "op_offload": "op_offload", "swa_full": "swa_full",
}  # fmt: skip
_LOADED_MOST = GIB  # weights of a model that is really loaded, so that it takes seconds


@dataclass(frozen=True, slots=True)
class Row:
    """A question and its answer.

    Attributes:
        model: Catalog name, with ``@4`` for a model cut to its first four blocks.
        quant: llama.cpp file type.
        config: Every knob; ``program`` says who was asked.
        devices: Number of devices.
        imatrix: The file is made as with an importance matrix.
        mib: MiB by device and kind; None: not asked yet. llama-fit-params answers in whole MiB
            (rounded down) for "model", "context" and "compute"; llama-server to 0.01 MiB, for
            "model", "kv", "state", "compute" and "output".
        copies: Pipeline copies as llama-server logged them.
    """

    model: str
    quant: str
    config: RunConfig
    devices: int
    imatrix: bool = False
    mib: Mib | None = None
    copies: int | None = None

    def spec(self) -> ModelSpec:
        """The model, cut where the name says so."""
        name, _, layers = self.model.partition("@")
        model = find_model(name).spec()
        return cut(model, int(layers)) if layers else model

    def asked(self, engine: Engine, files: ModelFiles) -> Row:
        """Return the row with the engine's answer.

        Raises:
            EngineError: The engine refuses the question.
        """
        path = files.path(self.spec(), self.quant, self.imatrix)
        if self.config.program == "llama-fit-params":
            answer = engine.fit_params(path, self.config, self.devices)
            kinds = ("model", "context", "compute")
            return replace(
                self, mib={d: dict(zip(kinds, v, strict=True)) for d, v in answer.items()}
            )
        load = engine.server_load(path, self.config, self.devices)
        mib = {
            device: {k: round(v / MIB, 2) for k, v in asdict(buffers).items() if v}
            for device, buffers in load.devices.items()
        }
        return replace(self, mib=mib, copies=load.copies)

    def json(self) -> str:
        """One line of a file that ``read_rows`` reads."""
        knobs: dict[str, Any] = {key: getattr(self.config, name) for key, name in _KEYS.items()}
        row = {"model": self.model, "quant": self.quant, "imatrix": self.imatrix,
               "devices": self.devices, "flash_attn": _on(self.config.flash_attention), **knobs,
               "mib": self.mib}  # fmt: skip
        return json.dumps(row | ({"copies": self.copies} if self.copies else {}))


def read_rows(path: Path) -> Iterator[Row]:
    """Read rows from JSON lines; a knob that is absent has llama.cpp's default."""
    for line in path.read_text().splitlines():
        given = json.loads(line)
        knobs = {name: given[key] for key, name in _KEYS.items() if given.get(key) is not None}
        knobs.setdefault("batch", max(2048, knobs["ubatch"]))
        loaded = "copies" in given
        yield Row(
            model=given["model"],
            quant=given["quant"],
            devices=given.get("devices", 1),
            imatrix=given.get("imatrix", False),
            mib=given["mib"],
            copies=given.get("copies"),
            config=RunConfig(
                **knobs,
                flash_attention=given["flash_attn"] == "on",
                backend="vulkan" if "Vulkan0" in given["mib"] else "rpc",
                program="llama-server" if loaded else "llama-fit-params",
                mmap=not loaded,
            ),
        )


def draw(rng: random.Random, names: Sequence[str], program: str) -> Row:
    """Draw a configuration as a person might choose it, odd ones included."""
    name = rng.choice(names)
    model = find_model(name).spec()
    quant, imatrix = _draw_quant(rng, model)
    if program == "llama-server":
        name, model = _draw_cut(rng, name, model)
        quant, imatrix = rng.choice(("Q2_K", "IQ4_XS", "Q4_0", "Q5_K_M")), False
    blocks = model.integer("block_count")
    devices = rng.choice((0, 1, 1, 1, 2, 2, 3, 4))
    ubatch = rng.choice((512, 512, 512, 32, 64, 128, 256, 1024, 2048))
    contexts = [512, 2048, 4096, 8192, 16384, 32768, rng.randint(1, 40000)]
    if program != "llama-server":
        contexts += [65536, 131072]
    flash = rng.random() < 0.75
    type_k = rng.choice(("f16", "f16", "f16", "q8_0", "q4_0", "q5_1", "bf16"))
    config = RunConfig(
        context=rng.choice(contexts),
        batch=max(2048, ubatch),
        ubatch=ubatch,
        flash_attention=flash,
        kv_type_k=type_k,
        kv_type_v=type_k if flash else rng.choice(("f16", "f16", "bf16")),
        parallel=rng.choice((1, 1, 1, 2, 4)),
        kv_unified=program == "llama-server" and rng.random() < 0.5,
        gpu_layers=rng.choice((blocks + 1, blocks + 1, blocks, 1, 0, rng.randint(0, blocks + 1)))
        if devices
        else None,
        tensor_split=tuple(float(rng.choice((1, 1, 2, 3))) for _ in range(devices)) or None,
        cpu_moe_layers=rng.randint(0, blocks)
        if devices and model.integer("expert_count") and rng.random() < 0.4
        else 0,
        kv_offload=not devices or rng.random() < 0.9,
        swa_full=model.integer("attention.sliding_window") > 0 and rng.random() < 0.15,
        mmap=program != "llama-server",
        backend="rpc",
        program=program,
    )
    return Row(name, quant, config, devices, imatrix)


def _draw_quant(rng: random.Random, model: ModelSpec) -> tuple[str, bool]:
    quant = rng.choice(tuple(file_types()))
    try:
        return quant, needs_imatrix(model, quant) or rng.random() < 0.3
    except UsageError:  # no such file can be made of this model
        return _draw_quant(rng, model)


def _draw_cut(rng: random.Random, name: str, model: ModelSpec) -> tuple[str, ModelSpec]:
    for layers in rng.sample(range(4, 9), 5):
        smaller = cut(model, layers)
        if smaller.parameters * 5 / 8 < _LOADED_MOST:
            return f"{name}@{layers}", smaller
    return f"{name}@4", cut(model, 4)  # fewer would leave a hybrid without attention


def _on(value: bool) -> str:
    return "on" if value else "off"
