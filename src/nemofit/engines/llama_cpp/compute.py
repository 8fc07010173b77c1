"""The compute buffer of each device, by replaying the engine's graph and allocator.

Source: llama-context.cpp (sched_reserve, graph_reserve), llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Sequence

from nemofit.catalog.model import ModelSpec

from .config import RunConfig
from .graph.backends import BACKENDS, Backend
from .graph.context import Context, GraphShape, Weights
from .graph.models import builder_of
from .graph.scheduler import Scheduler
from .kv_cache import cells, micro_batch
from .placement import HOST, Placement, gpu_layers

_COPIES = 4  # GGML_SCHED_MAX_COPIES
_PINNED_BELOW = 32  # llama-context.cpp: graph_get_cb, tokens


def copies(model: ModelSpec, config: RunConfig, placed: Placement, n_gpus: int) -> int:
    """Pipeline copies: 4 when everything is spread over several GPUs, else 1."""
    on = (
        n_gpus > 1
        and gpu_layers(model, config) > model.integer("block_count")
        and config.kv_offload
        and not placed.overridden
        and config.backend in ("cuda", "rocm", "rpc", "vulkan")
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
    config: RunConfig,
    placed: Placement,
    n_gpus: int,
) -> tuple[list[int], int]:
    """Compute buffers in bytes: one per GPU, and the host's.

    Raises:
        LookupError: Nobody has modelled this architecture's graph.
    """
    build = builder_of(model)
    shape = graph_shape(model, config, placed, n_gpus)
    index = {t.name: i for i, t in enumerate(model.tensors)}
    names = {t.name: (types[i], t.shape) for i, t in enumerate(model.tensors)}
    output = placed.units[-1]

    def home(name: str) -> int:
        if name == OUTPUT_COPY:
            device: int | None = output
        else:
            device = placed.device_of[index[name]]
        return n_gpus if device is None or device == HOST else device

    if placed.output_copy is not None:
        e = model.tensors[placed.output_copy]
        names[OUTPUT_COPY] = (types[placed.output_copy], e.shape)
    ctx = Context(model, shape, Weights(names, home))
    build(ctx)
    backends: list[Backend] = [BACKENDS[config.backend]] * n_gpus + [BACKENDS["cpu"]]
    scheduler = Scheduler(backends, copies(model, config, placed, n_gpus), config.op_offload)
    peaks = scheduler.peaks(ctx.g, pins=config.program != "llama-fit-params")
    return peaks[:-1], peaks[-1]


OUTPUT_COPY = "token_embd.as_output.weight"


def graph_shape(
    model: ModelSpec, config: RunConfig, placed: Placement, n_gpus: int
) -> GraphShape:
    """What the engine reserves its graph for."""
    c = cells(model, config)
    tokens = micro_batch(config)
    n_outputs = outputs(config, tokens)
    tokens = -(-tokens // config.parallel) * config.parallel
    blocks = model.integer("block_count")
    full = gpu_layers(model, config) > blocks
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
        pins=full or tokens < _PINNED_BELOW,
        layers=tuple(range(blocks - model.integer("nextn_predict_layers"))),
        device_of=tuple(n_gpus if d == HOST else d for d in placed.units),
        cpu=n_gpus,
    )
