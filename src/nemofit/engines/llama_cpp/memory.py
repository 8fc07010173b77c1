"""Everything llama.cpp allocates for one configuration, per device and kind."""

from __future__ import annotations

from collections.abc import Sequence

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.ggml import tensor_bytes
from nemofit.catalog.model import ModelSpec
from nemofit.engines.base import DeviceMemory, Memory
from nemofit.errors import UsageError

from .compute import compute_bytes, copies
from .config import RunConfig
from .graph.backends import BACKENDS, row_padding
from .kv_cache import layer_bytes
from .placement import HOST, Placement, place

_HOST_ALIGNMENT = 32  # ggml-impl.h: TENSOR_ALIGNMENT


def estimate_memory(
    model: ModelSpec,
    quant: str | None = None,
    config: RunConfig | None = None,
    n_gpus: int = 1,
    *,
    imatrix: bool = False,
    budgets: Sequence[int] | None = None,
) -> Memory:
    """Size a configuration as the engine would.

    Args:
        model: The model.
        quant: llama.cpp file type; None: the types that the file has.
        config: The engine's knobs.
        n_gpus: Devices, 0 for CPU only.
        imatrix: The file was made with an importance matrix.
        budgets: Bytes per GPU, for the split when the configuration names none.

    Raises:
        UsageError: The configuration makes no sense or the engine refuses it.
    """
    config = config or RunConfig()
    types = tensor_types(model, quant, imatrix)
    split = split_of(config, n_gpus, budgets)
    placed = place(model, config, split)
    weights, host_weights = weight_bytes(model, types, config, placed, n_gpus)
    kv, host_kv = cache_bytes(model, config, placed, n_gpus)
    compute, host_compute = compute_bytes(model, types, config, placed, n_gpus)
    gpus = tuple(
        DeviceMemory(weights_bytes=w, kv_bytes=k, compute_bytes=c)
        for w, k, c in zip(weights, kv, compute, strict=True)
    )
    host = DeviceMemory(
        weights_bytes=host_weights,
        kv_bytes=host_kv,
        compute_bytes=host_compute + output_bytes(model, config),
    )
    return Memory(gpus=gpus, host=host, copies=copies(model, config, placed, n_gpus))


def split_of(config: RunConfig, n_gpus: int, budgets: Sequence[int] | None) -> tuple[float, ...]:
    """The proportions of the GPUs.

    Raises:
        UsageError: The split has another length than there are GPUs.
    """
    if n_gpus == 0:
        return ()
    if config.tensor_split is not None:
        if len(config.tensor_split) != n_gpus:
            raise UsageError(
                f"tensor split {config.tensor_split} has {len(config.tensor_split)} entries for {n_gpus} GPUs",
                "write one number per GPU, for example " + ",".join("1" * n_gpus),
            )
        return config.tensor_split
    if budgets is not None and sum(budgets) > 0:
        return tuple(float(b) for b in budgets)
    return (1.0,) * n_gpus


def weight_bytes(
    model: ModelSpec, types: Sequence[str], config: RunConfig, placed: Placement, n_gpus: int
) -> tuple[list[int], int]:
    """Weights per GPU and on the host, with each buffer's alignment and padding."""
    backend = BACKENDS[config.backend]
    gpus = [0] * n_gpus
    host = 0

    def add(device: int, i: int) -> None:
        nonlocal host
        t = model.tensors[i]
        size = tensor_bytes(types[i], t.shape)
        if device == HOST:
            host += _aligned(size, _HOST_ALIGNMENT)
        else:
            padding = row_padding(types[i], t.shape[0]) if backend.pads_rows else 0
            gpus[device] += _aligned(size + padding, backend.alignment)

    for i, device in enumerate(placed.device_of):
        if device is None:
            continue
        if model.tensors[i].name.startswith("rope_"):
            for d in sorted(set(placed.units[:-1])):
                add(d, i)
        else:
            add(device, i)
    if placed.output_copy is not None and placed.units[-1] != HOST:
        add(placed.units[-1], placed.output_copy)
    return gpus, host


def cache_bytes(
    model: ModelSpec, config: RunConfig, placed: Placement, n_gpus: int
) -> tuple[list[int], int]:
    """KV cache and recurrent state per GPU and on the host."""
    gpus, host = [0] * n_gpus, 0
    for device, size in zip(placed.units[:-1], layer_bytes(model, config), strict=True):
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


def _aligned(n: int, to: int) -> int:
    return -(-n // to) * to
