"""Everything llama.cpp allocates for one configuration, per device and kind."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.errors import DataError, UsageError

from .bound import bound_bytes
from .compute import ComputeBuffers, copies
from .config import RunConfig
from .graph.models import is_modelled
from .kv_cache import layer_bytes, pools
from .overhead import overhead_bytes
from .placement import (
    HOST,
    Placement,
    WeightSizes,
    gpu_layers,
    holds_copy,
    place,
    place_units,
    tensor_sizes,
    weight_sizes,
)
from .refusals import check
from .saved import saved_bytes
from .stranded import stranded

# what a graph runs into when a file lacks tensors or its numbers contradict each other
_SENSELESS = (LookupError, ArithmeticError, AssertionError)


class Estimator:
    """Sizes many configurations of one model and file type.

    Weights come from prefix sums over the blocks, and each distinct graph is replayed once.

    Args:
        model: The model.
        quant: llama.cpp file type; None: the types that the file has.
        imatrix: The file was made with an importance matrix.
    """

    def __init__(self, model: ModelSpec, quant: str | None = None, imatrix: bool = False) -> None:
        self.model = model
        self.types = tensor_types(model, quant, imatrix)
        self.key = (quant, imatrix)
        self.blocks = model.integer("block_count")
        self._frames: dict[object, Frame] = {}
        self._likes: dict[object, Frame] = {}

    def frame(
        self, config: RunConfig, n_gpus: int, generations: Sequence[str | None] | None = None
    ) -> Frame:
        """One base configuration, ready for any placement."""
        key = knobs_of(config), n_gpus
        names = None if generations is None else tuple(generations)
        found = self._frames.get((key, names))
        if found is None:
            like = self._likes.get(key)
            found = like.of(config, names) if like else Frame(self, config, n_gpus, names)
            self._frames[key, names] = self._likes[key] = found
        return found

    def memory(
        self,
        config: RunConfig,
        n_gpus: int = 1,
        *,
        budgets: Sequence[int] | None = None,
        generations: Sequence[str | None] | None = None,
    ) -> Memory:
        """Size one configuration; arguments and errors as for :func:`estimate_memory`."""
        split = split_of(config, n_gpus, budgets)
        used = config.devices
        if used is not None:
            alone = config.replace(devices=None, tensor_split=tuple(split[d] for d in used))
            kinds = [generations[d] for d in used] if generations else None
            found = self.memory(alone, len(used), generations=kinds)
            gpus = dict(zip(used, found.gpus, strict=True))
            return replace(found, gpus=tuple(gpus.get(d, DeviceMemory()) for d in range(n_gpus)))
        try:
            return self.frame(config, n_gpus, generations).memory(config, split)
        except _SENSELESS as e:
            raise DataError(
                f"the metadata and tensors of {self.model.id} do not make"
                f" a {self.model.architecture!r} model ({type(e).__name__}: {e})",
                "the file is damaged, or made for another version of its architecture",
            ) from e


class Frame:
    """One base configuration of one model, for any ``-ngl``, ``-ts`` and ``-ncmoe``."""

    def __init__(
        self,
        estimator: Estimator,
        config: RunConfig,
        n_gpus: int,
        generations: Sequence[str | None] | None,
    ) -> None:
        check(estimator.model, config)
        self.estimator = estimator
        self.model = estimator.model
        self.n_gpus = n_gpus
        self.cache = tuple(accumulate(layer_bytes(self.model, config), initial=0))
        self.output = output_bytes(self.model, config)
        self.saved = saved_bytes(self.model, config)
        names = generations or (None,) * n_gpus
        self.overhead = [overhead_bytes(self.model, config, g) for g in names]
        self.sizes = weight_sizes(self.model, estimator.types, estimator.key, config.backend)
        self.stranded = (
            stranded(self.model, estimator.types, estimator.key, config.backend)
            if n_gpus
            else frozenset()
        )
        self.compute: ComputeBuffers | None = None
        if is_modelled(self.model):
            self.compute = ComputeBuffers(
                self.model,
                estimator.types,
                estimator.key,
                config,
                n_gpus,
                scattered=bool(self.stranded),
            )

    def of(self, config: RunConfig, generations: Sequence[str | None] | None) -> Frame:
        """The same on cards of other generations, which have other overheads alone."""
        made = copy(self)
        names = generations or (None,) * self.n_gpus
        made.overhead = [overhead_bytes(self.model, config, g) for g in names]
        return made

    def totals(self, config: RunConfig, split: tuple[float, ...]) -> tuple[list[int], int]:
        """Bytes per GPU, overhead included, and on the host."""
        weights, kv, compute, overhead = self._parts(config, split)
        gpus = [weights[d] + kv[d] + compute[d] + overhead[d] for d in range(self.n_gpus)]
        return gpus, weights[-1] + kv[-1] + compute[-1] + overhead[-1]

    def memory(self, config: RunConfig, split: tuple[float, ...]) -> Memory:
        """Bytes by device and kind."""
        weights, kv, compute, overhead = self._parts(config, split)
        devices = [
            DeviceMemory(
                weights_bytes=weights[d],
                kv_bytes=kv[d],
                compute_bytes=compute[d],
                overhead_bytes=overhead[d],
            )
            for d in range(self.n_gpus + 1)
        ]
        full = gpu_layers(self.model, config) > self.estimator.blocks
        notes: tuple[str, ...] = ()
        if self.compute is None:
            notes = (
                f"the graph of architecture {self.model.architecture!r} is not modelled:"
                " compute buffers are an upper bound",
            )
        return Memory(
            gpus=tuple(devices[:-1]),
            host=devices[-1],
            copies=copies(config, self.n_gpus, full),
            basis="assumed" if notes else "computed",
            notes=notes,
        )

    def _parts(
        self, config: RunConfig, split: tuple[float, ...]
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        """Weights, cache, compute and overhead: per GPU, the host's last."""
        blocks = self.estimator.blocks
        ngl = gpu_layers(self.model, config)
        units = place_units(blocks, ngl, split)
        n = self.n_gpus
        if config.override_tensors or self.stranded:
            weights = self._weights_one_by_one(config, split)
        else:
            weights = _weights(self.sizes, units, config.cpu_moe_layers, n)
        kv = [0] * (n + 1)
        for device, first, end in _segments(units):
            # the host's -1 is the last entry
            kv[device if config.kv_offload else HOST] += self.cache[end] - self.cache[first]
        if self.compute is None:
            gpus, host = bound_bytes(self.model, config, units, n)
            compute = [*gpus, host]
        else:
            compute = self.compute.bytes_for(
                config, units, ngl > blocks, lambda: self._place(config, split)
            )
        overhead = [
            o if w or c else 0 for o, w, c in zip(self.overhead, weights, compute, strict=False)
        ]
        return weights, kv, [*compute[:-1], compute[-1] + self.output], [*overhead, self.saved]

    def _place(self, config: RunConfig, split: Sequence[float]) -> Placement:
        return place(self.model, config, split, self.stranded)

    def _weights_one_by_one(self, config: RunConfig, split: Sequence[float]) -> list[int]:
        placed = self._place(config, split)
        gpu, host = tensor_sizes(self.model, self.estimator.types, config.backend)
        out = [0] * (self.n_gpus + 1)
        for i, device in enumerate(placed.device_of):
            if device is None:
                continue
            everywhere = self.model.tensors[i].name.startswith("rope_")
            for d in set(placed.units[:-1]) if everywhere else (device,):
                out[d] += host[i] if d == HOST else gpu[i]
        last = placed.units[-1]
        if placed.output_copy is not None and holds_copy(self.model, last):
            out[last] += (host if last == HOST else gpu)[placed.output_copy]
        return out


def estimate_memory(
    model: ModelSpec,
    quant: str | None = None,
    config: RunConfig | None = None,
    n_gpus: int = 1,
    *,
    imatrix: bool = False,
    budgets: Sequence[int] | None = None,
    generations: Sequence[str | None] | None = None,
) -> Memory:
    """Size a configuration as the engine would.

    Args:
        model: The model.
        quant: llama.cpp file type; None: the types that the file has.
        config: The engine's knobs; None: its defaults.
        n_gpus: Devices, 0 for CPU only.
        imatrix: The file was made with an importance matrix.
        budgets: Bytes per GPU, for the split when the configuration names none.
        generations: Architecture of each card ("Ampere", "Ada Lovelace", ...), which decides
            the driver's overhead; unknown ones get the largest figure measured.

    Raises:
        UsageError: The configuration makes no sense or the engine refuses it.
    """
    estimator = Estimator(model, quant, imatrix)
    return estimator.memory(config or RunConfig(), n_gpus, budgets=budgets, generations=generations)


def knobs_of(config: RunConfig) -> tuple[object, ...]:
    """What makes two base configurations the same, whatever is placed where."""
    return (
        config.context, config.batch, config.ubatch, config.flash_attention,
        config.kv_type_k, config.kv_type_v, config.parallel, config.kv_unified,
        config.override_tensors, config.kv_offload, config.op_offload, config.swa_full,
        config.backend, config.program, config.cache_ram, config.checkpoints,
    )  # fmt: skip


def split_of(
    config: RunConfig, n_gpus: int, budgets: Sequence[int] | None = None
) -> tuple[float, ...]:
    """The proportions of the GPUs; 0 for one that the engine is not to use.

    Raises:
        UsageError: The split has another length than there are GPUs, or gives something to a GPU
            that is not used.
    """
    used = config.devices
    if used is not None and used[-1] >= n_gpus:
        raise UsageError(
            f"devices {list(used)} of a machine with {n_gpus} GPUs", "they are numbered from 0"
        )
    if n_gpus == 0:
        return ()
    if config.tensor_split is not None:
        given = tuple(float(x) for x in config.tensor_split)
        if len(given) != n_gpus:
            raise UsageError(
                f"tensor split {list(config.tensor_split)} has {len(given)} entries"
                f" for {n_gpus} GPUs",
                "write one number per GPU, for example " + ",".join("1" * n_gpus),
            )
        if used is not None and any(given[d] for d in range(n_gpus) if d not in used):
            raise UsageError(
                f"tensor split {list(given)} gives layers to GPUs that are not in {list(used)}",
                "write 0 for those that are left out",
            )
        return given
    found = (1.0,) * n_gpus
    if budgets is not None and sum(budgets) > 0:
        found = tuple(float(b) for b in budgets)
    if used is None:
        return found
    return tuple(x if d in used else 0.0 for d, x in enumerate(found))


def _weights(sizes: WeightSizes, units: tuple[int, ...], cpu_moe: int, n_gpus: int) -> list[int]:
    """Weights per GPU, the host's last: units are contiguous, so prefix sums suffice."""
    out = [0] * n_gpus
    host = sizes.input_host
    if units[-1] == HOST:
        host += sizes.output_host
    else:
        out[units[-1]] += sizes.output_gpu
    for device, first, end in _segments(units):
        if device == HOST:
            host += sizes.host[end] - sizes.host[first] + sizes.rope_host
            continue
        out[device] += sizes.gpu[end] - sizes.gpu[first] + sizes.rope_gpu
        if cpu_moe > first:
            moved = min(cpu_moe, end)
            out[device] -= sizes.experts_gpu[moved] - sizes.experts_gpu[first]
            host += sizes.experts_host[moved] - sizes.experts_host[first]
    out.append(host)
    return out


@lru_cache(maxsize=4096)
def _segments(units: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Runs of blocks on one device: (device, first, end)."""
    out = []
    first = 0
    for il in range(1, len(units)):
        if il == len(units) - 1 or units[il] != units[first]:
            out.append((units[first], first, il))
            first = il
    return tuple(out)


def output_bytes(model: ModelSpec, config: RunConfig) -> int:
    """The buffer that results are read from: one row per sequence when it is first reserved.

    The print of llama-fit-params leaves it out.
    """
    if config.program == "llama-fit-params":
        return 0
    width = model.integer("vocab_size")
    if pools(model, config):
        width += model.integer("embedding_length_out") or model.integer("embedding_length")
    return 4 * width * config.parallel
