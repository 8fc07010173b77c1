"""The compute buffer of each device, by replaying the engine's graph and allocator.

Source: llama-context.cpp (sched_reserve, graph_reserve), llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from nemofit.catalog.model import ModelSpec

from .config import RunConfig
from .graph.backends import BACKENDS
from .graph.context import Context, GraphShape, Weights
from .graph.models import builder_of
from .graph.scheduler import Scheduler
from .kv_cache import cells, micro_batch
from .layers import block_tensors, kinds, shorten
from .placement import HOST, Placement, gpu_layers

OUTPUT_COPY = "token_embd.as_output.weight"
_COPIES = 4  # GGML_SCHED_MAX_COPIES
_PINNED_BELOW = 32  # llama-context.cpp: graph_get_cb, tokens
_PIPELINED = ("cuda", "rocm", "rpc", "vulkan")  # backends with events and asynchronous compute


def copies(model: ModelSpec, config: RunConfig, n_gpus: int) -> int:
    """Pipeline copies: 4 when everything is spread over several GPUs, else 1."""
    on = (
        n_gpus > 1
        and gpu_layers(model, config) > model.integer("block_count")
        and config.kv_offload
        and not config.override_tensors
        and not config.cpu_moe_layers
        and config.backend in _PIPELINED
    )
    return _COPIES if on else 1


def outputs(config: RunConfig, tokens: int) -> int:
    """Rows of logits in the graph: one per sequence for a server, every token for a benchmark."""
    if config.program == "llama-server":
        return min(tokens, config.parallel)
    return min(tokens, config.batch)


def compute_bytes(
    model: ModelSpec,
    types: Sequence[str],
    types_key: Hashable,
    config: RunConfig,
    units: tuple[int, ...],
    placed: Callable[[], Placement],
    n_gpus: int,
    *,
    whole: bool = False,
) -> tuple[list[int], int]:
    """Compute buffers in bytes: one per GPU, and the host's.

    Args:
        types_key: Stands for ``types`` in the model's memory of earlier replays.
        placed: Gives the placement of every tensor; asked only when a graph is replayed.
        whole: Replay every block instead of the few that stand for all.

    Raises:
        LookupError: Nobody has modelled this architecture's graph.
    """
    backend = BACKENDS[config.backend]
    offloaded = backend.offload and config.op_offload and n_gpus > 0
    n_copies = copies(model, config, n_gpus)
    shape = graph_shape(model, config, units, n_gpus)
    pins = config.program != "llama-fit-params"
    moved = types_key if offloaded and (HOST in units or config.cpu_moe_layers) else None
    place_key = (units, config.cpu_moe_layers, config.override_tensors, moved, whole)
    signature = model.memo.get(place_key)
    if signature is None:
        signature = model.memo[place_key] = _signature(
            model, types, config, units, placed, typed=moved is not None, whole=whole
        )
    layers, sequence = signature
    key = (shape, sequence, units[-1], config.backend, n_copies, offloaded, pins)
    peaks = model.memo.get(key)
    if peaks is None:
        build = builder_of(model)
        full = replace(
            shape, layers=layers, device_of=tuple(n_gpus if d == HOST else d for d in units)
        )
        ctx = Context(model, full, _weights(model, types, placed(), n_gpus))
        build(ctx)
        scheduler = Scheduler([backend] * n_gpus + [BACKENDS["cpu"]], n_copies, offloaded)
        peaks = model.memo[key] = scheduler.peaks(ctx.g, pins)
    return peaks[:-1], peaks[-1]


def _signature(
    model: ModelSpec,
    types: Sequence[str],
    config: RunConfig,
    units: tuple[int, ...],
    placed: Callable[[], Placement],
    *,
    typed: bool,
    whole: bool,
) -> tuple[tuple[int, ...], Hashable]:
    """The blocks to replay, and what makes two replays the same."""
    blocks = block_tensors(model)
    devices = placed().device_of if config.override_tensors else None
    sequence: list[Hashable] = []
    for il, kind in enumerate(kinds(model)):
        apart: Hashable = il < config.cpu_moe_layers
        if devices is not None:
            apart = tuple(devices[i] for i in blocks[il])
        on_host = units[il] == HOST or apart is True or devices is not None
        host_types = tuple(types[i] for i in blocks[il]) if typed and on_host else None
        sequence.append((kind, units[il], apart, host_types))
    output_type = _output_type(model, types) if typed and units[-1] == HOST else ""
    layers = tuple(range(len(sequence))) if whole else shorten(sequence)
    return layers, (tuple(sequence[il] for il in layers), output_type)


def _output_type(model: ModelSpec, types: Sequence[str]) -> str:
    found = dict(zip((t.name for t in model.tensors), types, strict=True))
    return found.get("output.weight", found.get("token_embd.weight", ""))


def _weights(
    model: ModelSpec, types: Sequence[str], placed: Placement, n_gpus: int
) -> Weights:
    index = {t.name: i for i, t in enumerate(model.tensors)}
    names = {t.name: (types[i], t.shape) for i, t in enumerate(model.tensors)}
    if placed.output_copy is not None:
        e = model.tensors[placed.output_copy]
        names[OUTPUT_COPY] = (types[placed.output_copy], e.shape)

    def home(name: str) -> int:
        device = placed.units[-1] if name == OUTPUT_COPY else placed.device_of[index[name]]
        return n_gpus if device is None or device == HOST else device

    return Weights(names, home)


def graph_shape(
    model: ModelSpec, config: RunConfig, units: tuple[int, ...], n_gpus: int
) -> GraphShape:
    """What the engine reserves its graph for; the blocks and their devices are left out."""
    c = cells(model, config)
    tokens = micro_batch(config)
    n_outputs = outputs(config, tokens)
    tokens = -(-tokens // config.parallel) * config.parallel
    return GraphShape(
        tokens=tokens,
        sequences=config.parallel,
        outputs=n_outputs,
        streams=c.streams,
        cells=c.full,
        window_cells=c.window,
        flash=config.flash_attention,
        type_k=config.kv_type_k.upper(),
        type_v=config.kv_type_v.upper(),
        kv_offload=config.kv_offload,
        pins=gpu_layers(model, config) >= len(units) or tokens < _PINNED_BELOW,
        layers=(),
        device_of=(),
        cpu=n_gpus,
    )
