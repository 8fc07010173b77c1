"""Everything llama.cpp allocates for one configuration, per device and kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.errors import UsageError

from .bound import bound_bytes
from .compute import compute_bytes, copies
from .config import RunConfig
from .graph.models import is_modelled
from .kv_cache import layer_bytes
from .overhead import overhead_bytes
from .placement import (
    HOST,
    WeightSizes,
    gpu_layers,
    place,
    place_units,
    tensor_sizes,
    weight_sizes,
)


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
        units = place_units(self.blocks, gpu_layers(self.model, config), split)
        if config.override_tensors:
            gpu_weights, host_weights = self._weights_one_by_one(config, split)
        else:
            sizes = weight_sizes(self.model, self.types, self.key, config.backend)
            gpu_weights, host_weights = _weights(sizes, units, config.cpu_moe_layers, n_gpus)
        gpu_kv, host_kv = _cache(self.model, config, units, n_gpus)
        basis = "computed"
        notes: tuple[str, ...] = ()
        if is_modelled(self.model):
            gpu_compute, host_compute = compute_bytes(
                self.model,
                self.types,
                self.key,
                config,
                units,
                lambda: place(self.model, config, split),
                n_gpus,
            )
        else:
            gpu_compute, host_compute = bound_bytes(self.model, config, units, n_gpus)
            basis = "assumed"
            notes = (
                f"the graph of architecture {self.model.architecture!r} is not modelled:"
                " compute buffers are an upper bound",
            )
        gpus = tuple(
            DeviceMemory(
                weights_bytes=gpu_weights[d],
                kv_bytes=gpu_kv[d],
                compute_bytes=gpu_compute[d],
                overhead_bytes=overhead_bytes(
                    self.model, config, generations[d] if generations else None
                )
                if gpu_weights[d] or gpu_compute[d]
                else 0,
            )
            for d in range(n_gpus)
        )
        host = DeviceMemory(
            weights_bytes=host_weights,
            kv_bytes=host_kv,
            compute_bytes=host_compute + output_bytes(self.model, config),
        )
        return Memory(
            gpus=gpus,
            host=host,
            copies=copies(self.model, config, n_gpus),
            basis=basis,
            notes=notes,
        )

    def _weights_one_by_one(
        self, config: RunConfig, split: Sequence[float]
    ) -> tuple[list[int], int]:
        placed = place(self.model, config, split)
        gpu, host_sizes = tensor_sizes(self.model, self.types, config.backend)
        gpus, host = [0] * len(split), 0
        for i, device in enumerate(placed.device_of):
            if device is None:
                continue
            where = (
                sorted(set(placed.units[:-1]))
                if self.model.tensors[i].name.startswith("rope_")
                else [device]
            )
            for d in where:
                if d == HOST:
                    host += host_sizes[i]
                else:
                    gpus[d] += gpu[i]
        if placed.output_copy is not None and placed.units[-1] != HOST:
            gpus[placed.units[-1]] += gpu[placed.output_copy]
        return gpus, host


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
    return estimator.memory(
        config or RunConfig(), n_gpus, budgets=budgets, generations=generations
    )


def split_of(
    config: RunConfig, n_gpus: int, budgets: Sequence[int] | None = None
) -> tuple[float, ...]:
    """The proportions of the GPUs.

    Raises:
        UsageError: The split has another length than there are GPUs.
    """
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
        return given
    if budgets is not None and sum(budgets) > 0:
        return tuple(float(b) for b in budgets)
    return (1.0,) * n_gpus


def _weights(
    sizes: WeightSizes, units: tuple[int, ...], cpu_moe: int, n_gpus: int
) -> tuple[list[int], int]:
    """Weights per GPU and on the host: units are contiguous, so prefix sums suffice."""
    gpus = [0] * n_gpus
    host = sizes.input_host
    if units[-1] == HOST:
        host += sizes.output_host
    else:
        gpus[units[-1]] += sizes.output_gpu
    for device, first, end in _segments(units):
        moved = min(max(cpu_moe, first), end)
        if device == HOST:
            host += sizes.host[end] - sizes.host[first] + sizes.rope_host
        else:
            gpus[device] += sizes.gpu[end] - sizes.gpu[first] + sizes.rope_gpu
            gpus[device] -= sizes.experts_gpu[moved] - sizes.experts_gpu[first]
            host += sizes.experts_host[moved] - sizes.experts_host[first]
    return gpus, host


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


def _cache(
    model: ModelSpec, config: RunConfig, units: tuple[int, ...], n_gpus: int
) -> tuple[list[int], int]:
    """KV cache and recurrent state per GPU and on the host."""
    key = (
        "cache",
        config.context,
        config.parallel,
        config.kv_unified,
        config.kv_type_k,
        config.kv_type_v,
        config.flash_attention,
        config.swa_full,
        min(config.ubatch, config.batch),
    )
    sums = model.memo.get(key)
    if sums is None:
        sums = model.memo[key] = tuple(accumulate(layer_bytes(model, config), initial=0))
    gpus, host = [0] * n_gpus, 0
    for device, first, end in _segments(units):
        size = sums[end] - sums[first]
        if device == HOST or not config.kv_offload:
            host += size
        else:
            gpus[device] += size
    return gpus, host


def output_bytes(model: ModelSpec, config: RunConfig) -> int:
    """The buffer that logits are read from: one row per sequence when it is first reserved.

    The print of llama-fit-params leaves it out.
    """
    if config.program == "llama-fit-params":
        return 0
    return 4 * model.integer("vocab_size") * config.parallel
