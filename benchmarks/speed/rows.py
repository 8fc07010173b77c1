"""The published measurements as rows: what was run on what, and how fast it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nemofit.catalog.cards import find_card
from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.ggml import tensor_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.placement import place
from nemofit.machine.records import Gpu, Host
from nemofit.speed.constants import CONSTANTS, Constants
from nemofit.speed.decode import step
from nemofit.speed.estimate import pipelined
from nemofit.speed.families import Figures, family_of, gpu_figures, host_figures
from nemofit.speed.prefill import prompt_seconds
from nemofit.speed.spread import SEVERAL_STREAMS, kind_of
from nemofit.speed.work import HOST, Work, work_of

from .shapes import shape

FILE = Path(__file__).parents[2] / "data" / "measurements.yaml"
OLD_WEIGHT = 0.15
"""What a row from before 2025 counts: the constants are for the kernels of today, but where only
old rows tell of a card they are better than none."""
OVERLAP_OF_SIZES = 1.3
"""A file larger or smaller than the nearest file type's by more is not the same mixture."""


@dataclass(frozen=True, slots=True)
class Run:
    """One configuration on one machine."""

    gpus: tuple[Gpu, ...]
    host: Host
    config: RunConfig
    model: ModelSpec
    works: tuple[Work, ...]
    device: str
    source: str
    old: bool
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One measurement: decode, prefill or whole, and its tokens per second."""

    run: Run
    test: str
    depth: int
    prompt: int
    generated: int
    streams: int
    speed: float

    @property
    def phase(self) -> str:
        return "prefill" if self.test == "prefill" else "decode"

    @property
    def sparse(self) -> bool:
        return self.run.model.integer("expert_count") > 0

    def kind(self) -> str:
        """The kind of run, as the ranges distinguish them."""
        if self.streams > 1 and self.test == "decode":
            return SEVERAL_STREAMS
        return kind_of(self.run.works, self.figures())

    def families(self) -> frozenset[str]:
        found = {family_of(g) for g in self.run.gpus}
        if any(w.device == HOST for w in self.run.works):
            found.add("cpu")
        return frozenset(found)

    def figures(self, constants: Constants = CONSTANTS) -> dict[int, Figures]:
        run = self.run
        out = {i: gpu_figures(g, run.config.backend, constants) for i, g in enumerate(run.gpus)}
        out[HOST] = host_figures(run.host, constants)
        return out

    def estimate(self, constants: Constants = CONSTANTS) -> float:
        """Tokens per second by the model."""
        run, figures = self.run, self.figures(constants)
        used = run.model.integer("expert_used_count")
        experts = run.model.integer("expert_count")

        def prompt(tokens: int, depth: float) -> float:
            return prompt_seconds(
                run.works,
                figures,
                tokens=tokens,
                ubatch=run.config.ubatch,
                used=used,
                experts=experts,
                depth=depth,
                flash=run.config.flash_attention,
                pipeline=pipelined(run.works, run.config),
                constants=constants,
            )

        if self.test == "prefill":
            return self.prompt / prompt(self.prompt, self.depth)
        parts = step(
            run.works,
            figures,
            used=used,
            experts=experts,
            depth=self.depth + self.prompt + self.generated / 2,
            streams=self.streams,
            constants=constants,
        )
        token = sum(p.seconds for p in parts)
        if self.test == "decode":
            return self.streams / token
        return self.generated / (prompt(self.prompt, 0) + self.generated * token)

    def error(self, constants: Constants = CONSTANTS) -> float:
        """Logarithm of estimated over measured speed."""
        return math.log(self.estimate(constants) / self.speed)


def rows(path: Path = FILE, every: int = 1) -> list[Row]:
    """The measurements of the file, of every n-th run."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [row for entry in data["runs"][::every] for row in _rows(entry)]


def _rows(entry: dict[str, Any]) -> Iterator[Row]:
    run = _run(entry)
    for depth, generated, streams, speed in entry.get("decode", []):
        yield Row(run, "decode", depth, 0, generated, streams, speed)
    for depth, prompt, speed in entry.get("prefill", []):
        yield Row(run, "prefill", depth, prompt, 0, 1, speed)
    for prompt, generated, speed in entry.get("whole", []):
        yield Row(run, "whole", 0, prompt, generated, 1, speed)


def _run(entry: dict[str, Any]) -> Run:
    ids = entry.get("gpus") or []
    if isinstance(ids, str):
        ids = [ids]
    elif ids and isinstance(ids[0], int):
        ids = [ids[1]] * ids[0]
    backend = entry.get("backend", "cpu")
    gpus = tuple(_gpu(i, backend) for i in ids)
    ubatch = entry.get("ubatch", 512)
    kv = entry.get("kv", "f16")
    config = RunConfig(
        gpu_layers=entry.get("gpu_layers"),
        cpu_moe_layers=entry.get("cpu_moe_layers", 0),
        override_tensors=tuple((p, "CPU") for p in entry.get("override", [])),
        flash_attention=entry.get("flash", True) or kv != "f16",
        kv_type_k=kv,
        kv_type_v=kv,
        ubatch=ubatch,
        batch=max(2048, ubatch),
        backend=backend,
    )
    model = shape(entry["model"])
    split = tuple(float(g.total_bytes or 1) for g in gpus)
    host = Host(
        cpu=entry.get("cpu"),
        physical_cores=entry.get("cores"),
        ram_bandwidth_gb_s=entry.get("ram_gb_s"),
    )
    old = str(entry.get("date", "")) < "2025"
    return Run(
        gpus,
        host,
        config,
        model,
        _works(model, entry["quant"], config, split, entry.get("file_gib")),
        " + ".join(dict.fromkeys(ids)) or str(entry["cpu"]),
        str(entry["src"]),
        old,
        {"A": 1.0, "B": 0.8, "C": 0.5}[entry.get("tier", "A")] * (OLD_WEIGHT if old else 1.0),
    )


def _works(
    model: ModelSpec, quant: str, config: RunConfig, split: tuple[float, ...], gib: float | None
) -> tuple[Work, ...]:
    types = tensor_types(model, quant, imatrix=True)
    placement = place(model, config, split)
    works = work_of(model, types, placement.device_of, placement.units, config)
    nearest = sum(tensor_bytes(t, x.shape) for t, x in zip(types, model.tensors, strict=True))
    scale = gib * 2**30 / nearest if gib else 1.0
    if 1 / OVERLAP_OF_SIZES < scale < OVERLAP_OF_SIZES:
        for work in works:
            for weights in (*work.dense.values(), *work.experts.values()):
                weights.bytes = int(weights.bytes * scale)
    return works


@cache
def _gpu(card_id: str, backend: str) -> Gpu:
    card = find_card(card_id)
    return Gpu(
        name=card.name,
        vendor=card.vendor,
        backend=backend,
        total_bytes=card.total_bytes or card.memory_bytes,
        shared=card.kind == "unified",
        bandwidth_gb_s=card.bandwidth_gb_s,
        fp16_tflops=card.fp16_tflops,
        fp32_tflops=card.fp32_tflops,
        compute_capability=card.compute_capability,
        architecture=card.architecture,
        card_id=card.id,
        pcie_gen=card.pcie_gen,
        pcie_lanes=card.pcie_lanes,
    )
