"""The compute buffer of each device, by replaying the engine's graph and allocator.

Source: llama-context.cpp (sched_reserve, graph_reserve), llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

from nemofit.catalog.model import ModelSpec

from .compressed_cache import ratios
from .config import RunConfig
from .graph.backends import BACKENDS
from .graph.context import Context, GraphShape, Weights
from .graph.models import builder_of
from .graph.scheduler import Scheduler
from .kv_cache import cells, indexed_layers, is_causal, micro_batch, pools, row_of
from .layers import block_tensors, kinds, shorten
from .placement import HOST, Placement
from .recurrent_state import states

OUTPUT_COPY = "token_embd.as_output.weight"
_COPIES = 4  # GGML_SCHED_MAX_COPIES
_PINNED_BELOW = 32  # llama-context.cpp: graph_get_cb, tokens


def copies(config: RunConfig, n_gpus: int, full: bool) -> int:
    """Pipeline copies: 4 when everything is spread over several GPUs, else 1.

    Args:
        full: Every block and the output layer are offloaded.
    """
    on = (
        n_gpus > 1
        and full
        and config.kv_offload
        and not config.override_tensors
        and not config.cpu_moe_layers
        and BACKENDS[config.backend].pipelines
    )
    return _COPIES if on else 1


def outputs(model: ModelSpec, config: RunConfig, tokens: int) -> int:
    """Rows of results in the graph: one per sequence for a chat server, else every token."""
    if config.program == "llama-server" and not pools(model, config):
        return min(tokens, config.parallel)
    return min(tokens, config.batch)


def every_block_counts(model: ModelSpec) -> Iterator[bool]:
    """Why few blocks cannot stand for all, whatever the placement."""
    # each block's own input is handed over apart
    yield any(t.name.startswith("per_layer_token_embd") for t in model.tensors)
    # each indexer leaves a constant behind
    yield any(indexed_layers(model)) or any(ratios(model))


class ComputeBuffers:
    """The compute buffers of one base configuration, for any placement of the model.

    Args:
        types_key: Stands for ``types`` in the model's memory of earlier replays.
        config: The knobs; those of the placement (``gpu_layers``, ``tensor_split``,
            ``cpu_moe_layers``) are given with each question.
        whole: Replay every block instead of the few that stand for all.
        scattered: Not every tensor lies where its block does, even without overrides.

    Raises:
        LookupError: Nobody has modelled this architecture's graph.
    """

    def __init__(
        self,
        model: ModelSpec,
        types: Sequence[str],
        types_key: Hashable,
        config: RunConfig,
        n_gpus: int,
        *,
        whole: bool = False,
        scattered: bool = False,
    ) -> None:
        self.scattered = scattered
        self.model = model
        self.types = types
        self.types_key = types_key
        self.n_gpus = n_gpus
        self.whole = whole or any(every_block_counts(model))
        self.blocks = tuple(range(len(kinds(model))))
        self.build = builder_of(model)
        self.backend = BACKENDS[config.backend]
        self.offloaded = self.backend.offload and config.op_offload and n_gpus > 0
        self.shapes = graph_shapes(model, config, n_gpus)
        self.keeps_pins = config.program != "llama-fit-params"
        self.key = (self.shapes, config.backend, n_gpus, self.offloaded, self.keeps_pins)
        self.peaks: dict[Hashable, list[int]] = model.memo.setdefault(self.key, {})

    def bytes_for(
        self,
        config: RunConfig,
        units: tuple[int, ...],
        full: bool,
        placed: Callable[[], Placement],
    ) -> list[int]:
        """Compute buffers in bytes: one per GPU, the host's last.

        Args:
            config: With the placement's own knobs.
            units: Device of each block and of the output layer.
            full: Everything is offloaded.
            placed: Gives the placement of every tensor; asked only when a graph is replayed.
        """
        return self._peaks(config, units, full, placed, whole=self.whole) or self._peaks(
            config, units, full, placed, whole=True
        )

    def _peaks(
        self,
        config: RunConfig,
        units: tuple[int, ...],
        full: bool,
        placed: Callable[[], Placement],
        *,
        whole: bool,
    ) -> list[int]:
        """The same from one replay; empty where few blocks cannot stand for all."""
        typed = self.offloaded and (config.cpu_moe_layers > 0 or not full)
        moved = self.types_key if typed else None
        scattered = self.scattered or bool(config.override_tensors)
        place_key = (
            units,
            config.cpu_moe_layers,
            config.override_tensors,
            moved,
            whole,
            (self.types_key, config.backend) if self.scattered else None,
        )
        signature = self.model.memo.get(place_key)
        if signature is None:
            signature = self.model.memo[place_key] = _signature(
                self.model,
                self.types,
                config,
                units,
                placed,
                typed=typed,
                whole=whole,
                scattered=scattered,
            )
        layers, sequence = signature
        n_copies = copies(config, self.n_gpus, full)
        key = (sequence, n_copies, full)
        found = self.peaks.get(key)
        if found is None:
            shapes = self.shapes
            if typed and self.keeps_pins:
                # one token each is too few for the GPUs to take over what lies on the host
                few = self.shapes[0].sequences
                shapes += (replace(self.shapes[0], tokens=few, outputs=few),)
            found = self.peaks[key] = self._replay(shapes, layers, units, n_copies, full, placed())
        return found

    def _replay(
        self,
        shapes: tuple[GraphShape, ...],
        layers: tuple[int, ...],
        units: tuple[int, ...],
        n_copies: int,
        full: bool,
        placed: Placement,
    ) -> list[int]:
        n = self.n_gpus
        backends = [self.backend] * n + [self.backend.host() if n else BACKENDS["cpu"]]
        found = []
        for reserved in shapes:
            shape = replace(
                reserved,
                layers=layers,
                device_of=tuple(n if d == HOST else d for d in units),
                pins=full or reserved.tokens < _PINNED_BELOW,
            )
            ctx = Context(self.model, shape, _weights(self.model, self.types, placed, n))
            self.build(ctx)
            scheduler = Scheduler(backends, n_copies, self.offloaded)
            found.append(scheduler.peaks(ctx.g, self.keeps_pins))
            if n_copies > 1 and len(layers) < len(scheduler.splits) and layers != self.blocks:
                return []  # the copies of every split's inputs are kept all the time
        return [max(sizes) for sizes in zip(*found, strict=True)]


def _signature(
    model: ModelSpec,
    types: Sequence[str],
    config: RunConfig,
    units: tuple[int, ...],
    placed: Callable[[], Placement],
    *,
    typed: bool,
    whole: bool,
    scattered: bool,
) -> tuple[tuple[int, ...], Hashable]:
    """The blocks to replay, and what makes two replays the same."""
    blocks = block_tensors(model)
    devices = placed().device_of if scattered else None
    sequence: list[tuple[Hashable, ...]] = []
    for il, kind in enumerate(kinds(model)):
        apart: Hashable = il < config.cpu_moe_layers
        if devices is not None:
            apart = tuple(devices[i] for i in blocks[il])
        on_host = units[il] == HOST or apart is True or devices is not None
        host_types = tuple(types[i] for i in blocks[il]) if typed and on_host else None
        sequence.append((kind, units[il], apart, host_types))
    output_type = _output_type(model, types) if typed and units[-1] == HOST else ""
    if whole:
        layers = tuple(range(len(sequence)))
    else:
        layers = shorten(sequence, recurrent=any(states(model)))
    return layers, (tuple(sequence[il] for il in layers), units[-1], output_type)


def _output_type(model: ModelSpec, types: Sequence[str]) -> str:
    found = dict(zip((t.name for t in model.tensors), types, strict=True))
    return found.get("output.weight", found.get("token_embd.weight", ""))


def _weights(model: ModelSpec, types: Sequence[str], placed: Placement, n_gpus: int) -> Weights:
    index = {t.name: i for i, t in enumerate(model.tensors)}
    names = {t.name: (types[i], t.shape) for i, t in enumerate(model.tensors)}
    if placed.output_copy is not None:
        e = model.tensors[placed.output_copy]
        names[OUTPUT_COPY] = (types[placed.output_copy], e.shape)

    def home(name: str) -> int:
        device = placed.units[-1] if name == OUTPUT_COPY else placed.device_of[index[name]]
        return n_gpus if device is None or device == HOST else device

    return Weights(names, home)


def graph_shapes(model: ModelSpec, config: RunConfig, n_gpus: int) -> tuple[GraphShape, ...]:
    """What the engine reserves its buffers for; blocks, devices and pins are left out."""
    c = cells(model, config)
    tokens = micro_batch(config, is_causal(model))
    n_outputs = outputs(model, config, tokens)
    whole = -(-tokens // config.parallel) * config.parallel
    shape = GraphShape(
        tokens=whole,
        sequences=config.parallel,
        outputs=n_outputs,
        streams=c.streams,
        cells=c.full,
        window_cells=c.window,
        flash=config.flash_attention,
        type_k=config.kv_type_k.upper(),
        type_v=config.kv_type_v.upper(),
        kv_offload=config.kv_offload,
        pins=False,
        layers=(),
        device_of=(),
        cpu=n_gpus,
        states=config.parallel,
        embeddings=pools(model, config),
    )
    row = row_of(model)
    if config.parallel == 1 or config.program == "llama-fit-params":
        return (shape,)
    if row is None or not row.single_sequence:
        return (shape,)
    return shape, replace(shape, tokens=tokens, sequences=1)
