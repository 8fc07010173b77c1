"""Which weights each rank holds, and which divisions vLLM accepts.

Tensor parallelism divides every layer over ``--tensor-parallel-size`` ranks; pipeline parallelism
gives each group of ranks a run of whole layers. All ranks of a stage hold equally much.

Source: vllm-project/vllm 0.33.0: ``vllm/model_executor/layers/linear.py``,
``vocab_parallel_embedding.py``, ``vllm/distributed/utils.py`` (get_pp_indices),
``vllm/config/model.py`` (verify_with_parallel_config).
"""

from __future__ import annotations

from dataclasses import dataclass

from nemofit.catalog.model import ModelSpec
from nemofit.engines.transformers.parameters import (
    Parameter,
    decoder_layers,
    parameters,
    rotary_tables,
    rotated_elements,
    tied,
    unknown_parts,
)
from nemofit.errors import UsageError
from nemofit.units import gib

from .config import VllmConfig
from .formats import Format, find_format

_VOCABULARY_PADDING = 64  # vocab_parallel_embedding.py: DEFAULT_VOCAB_PADDING_SIZE
# Architectures whose first stage alone holds the embedding and whose last alone the output matrix;
# the models of the others build both on every stage, so that is what is assumed.
_ENDS_ONLY = frozenset(
    {"qwen2", "qwen3", "phi3", "deepseek2", "glm4moe", "minimax-m2", "granite", "nemotron"}
)
_NO_REPLICATED_KV = frozenset({"gpt-oss"})  # gpt_oss.py divides KV heads without a remainder
_WIDE_ROTARY_CACHE = frozenset({"gpt-oss"})  # float32: gpt_oss.py, dtype of get_rope


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWeights:
    """What every rank of one pipeline stage holds.

    Attributes:
        layers: First layer and the one after the last.
        weights_bytes: Parameters.
        rotary_bytes: Tables of cosines and sines, counted by vLLM as part of the model.
    """

    layers: tuple[int, int]
    weights_bytes: int
    rotary_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.rotary_bytes


def stage_layers(layers: int, stages: int) -> tuple[tuple[int, int], ...]:
    """The layers of each pipeline stage, first and end.

    Layers that are left over go one each to the stages before the last, from behind.

    Raises:
        UsageError: More stages than layers.
    """
    if stages > layers:
        raise UsageError(
            f"{stages} pipeline stages for {layers} layers leave a stage without any",
            f"use --pipeline-parallel-size of at most {layers}",
        )
    each, left = divmod(layers, stages)
    counts = [each] * stages
    for i in range(left):
        counts[stages - 2 - i] += 1
    out, first = [], 0
    for n in counts:
        out.append((first, first + n))
        first += n
    return tuple(out)


def check_parallel(model: ModelSpec, fmt: Format | str, config: VllmConfig) -> None:
    """Refuse a division that vLLM refuses, with its reason.

    Raises:
        UsageError: Heads, KV heads, widths or quantization groups do not divide.
    """
    tp = config.tensor_parallel
    stage_layers(decoder_layers(model), config.pipeline_parallel)
    if tp == 1:
        return
    for heads in sorted({h for h in model.per_layer("attention.head_count") if h}):
        _divides(heads, tp, f"{heads} attention heads", model)
    for kv in sorted({h for h in model.per_layer("attention.head_count_kv") if h > 1}):
        if kv % tp and (tp % kv or model.architecture in _NO_REPLICATED_KV):
            raise UsageError(
                f"{kv} KV heads cannot be divided by tensor parallel size {tp} nor repeated to it",
                _fitting(model, tp),
            )
    groups = model.integer("ssm.group_count")
    if groups > 1:
        _divides(groups, tp, f"{groups} groups of the recurrent layers", model)
    fmt = find_format(fmt)
    sparse = _is_sparse(model)
    for p in parameters(model):
        if p.kind in ("linear", "experts") and p.split in ("inputs", "outputs"):
            side = p.inputs if p.split == "inputs" else p.outputs
            _divides(side, tp, f"{p.name}: {side} {p.split}", model)
        if _is_cut_in_groups(fmt, p) and is_quantized(fmt, p, sparse):
            _check_group(p, fmt, tp)


def tensor_parallel_sizes(model: ModelSpec, most: int) -> tuple[int, ...]:
    """Sizes up to ``most`` that divide the model's heads."""
    heads = [h for h in model.per_layer("attention.head_count") if h] or [1]
    kvs = [h for h in model.per_layer("attention.head_count_kv") if h > 1]
    return tuple(
        tp
        for tp in range(1, most + 1)
        if all(h % tp == 0 for h in heads) and all(k % tp == 0 or tp % k == 0 for k in kvs)
    )


def is_quantized(fmt: Format, p: Parameter, sparse: bool) -> bool:
    """Whether a checkpoint of that format stores the parameter in it.

    Args:
        fmt: The format.
        p: The parameter.
        sparse: The model has routed experts.
    """
    if fmt.stored:
        return bool(p.stored)
    if not fmt.quantized:
        return False
    if fmt.experts_only and (sparse or fmt.name == "mxfp4"):
        return p.kind == "experts"
    return p.kind in ("linear", "experts")


def stage_weights(
    model: ModelSpec, fmt: Format | str, config: VllmConfig
) -> tuple[StageWeights, ...]:
    """What each rank of each stage holds.

    Raises:
        UsageError: vLLM refuses the division.
    """
    fmt = find_format(fmt)
    check_parallel(model, fmt, config)
    sparse = _is_sparse(model)
    tp = config.tensor_parallel
    stages = stage_layers(decoder_layers(model), config.pipeline_parallel)
    totals = [0] * len(stages)
    stage_of = {il: i for i, (first, end) in enumerate(stages) for il in range(first, end)}
    for p in parameters(model):
        if p.block is None:
            size = _bytes(p, tp, model, fmt if fmt.stored and p.stored else None)
            for stage in _stages_outside_layers(model, p.name, len(stages)):
                totals[stage] += size
        else:
            quantized = fmt if is_quantized(fmt, p, sparse) else None
            totals[stage_of[p.block]] += _bytes(p, tp, model, quantized)
    if fmt.stored and model.checkpoint is not None:  # towers: whole on every rank of the first
        totals[0] += model.checkpoint.tower_bytes
    rotary = _rotary_bytes(model)
    return tuple(
        StageWeights(layers=stages[i], weights_bytes=n, rotary_bytes=rotary)
        for i, n in enumerate(totals)
    )


def assumptions(model: ModelSpec) -> tuple[str, ...]:
    """One line for every part of the weights that no rule covers."""
    lines = []
    if parts := unknown_parts(model):
        lines.append(
            f"how vLLM divides {', '.join(parts)} is not known: counted whole on every rank"
        )
    if model.checkpoint is not None and model.checkpoint.tower_bytes:
        lines.append(
            f"{gib(model.checkpoint.tower_bytes)} beside the language model (vision or sound)"
            " are counted whole on every rank of the first stage"
        )
    return tuple(lines)


def _bytes(p: Parameter, tp: int, model: ModelSpec, quantized: Format | None) -> int:
    """Bytes of one parameter on one rank."""
    inputs, outputs = p.inputs, p.outputs
    if p.kind == "vocabulary":
        padded = -(-outputs // _VOCABULARY_PADDING) * _VOCABULARY_PADDING
        outputs = -(-padded // tp)
    elif p.split == "inputs":
        inputs = -(-inputs // tp)
    elif p.split == "outputs":
        outputs = -(-outputs // tp)
    elif p.split == "kv":
        outputs = _kv_outputs(outputs, tp, _kv_heads(model, p.block))
    elif p.split == "qkv":
        rest = p.outputs - p.query_outputs
        outputs = -(-p.query_outputs // tp) + _kv_outputs(rest, tp, _kv_heads(model, p.block))
    if quantized is not None and quantized.stored and quantized.padding is None:
        return _stored_bytes(p, inputs, outputs)
    if quantized is not None:
        if quantized.padding is not None and p.kind == "experts":
            wide, hidden = quantized.padding
            by = (wide, hidden) if p.split == "inputs" else (hidden, wide)
            inputs, outputs = -(-inputs // by[0]) * by[0], -(-outputs // by[1]) * by[1]
        group = quantized.group
        if p.kind == "experts" and group:  # halved until it divides an expert's width on the rank
            width = inputs if p.split == "inputs" else outputs
            while width % group:
                group //= 2
        return quantized.matrix_bytes(inputs, outputs, group) * p.experts
    return inputs * outputs * p.experts * p.element_bytes


def _stored_bytes(p: Parameter, inputs: int, outputs: int) -> int:
    """The rank's part of what a checkpoint keeps for a parameter.

    Scales of a whole matrix stay whole, and so do those along the side that is not divided.
    """
    shares = {
        "none": (1, 1),
        "inputs": (inputs, p.inputs),
        "outputs": (outputs, p.outputs),
        "both": (inputs * outputs, p.inputs * p.outputs),
    }
    size = 0
    for part in p.stored:
        own, of = shares[part.along]
        size += -(-part.bytes * own // of)
    return size


def _kv_outputs(outputs: int, tp: int, heads: int) -> int:
    """Outputs on one rank: at least one head each, so beyond ``heads`` ranks nothing shrinks."""
    return -(-outputs // min(tp, max(heads, 1)))


def _kv_heads(model: ModelSpec, block: int | None) -> int:
    if "attention.head_count_kv" not in model.metadata:
        return model.per_layer("attention.head_count")[block or 0]
    return model.per_layer("attention.head_count_kv")[block or 0]


def _stages_outside_layers(model: ModelSpec, name: str, stages: int) -> tuple[int, ...]:
    """The stages that hold a tensor outside the layers."""
    dense_llama = model.architecture == "llama" and not _is_sparse(model)
    if model.architecture not in _ENDS_ONLY and not dense_llama:
        return tuple(range(stages))
    if name.startswith("output"):
        return (stages - 1,)
    return (0, stages - 1) if tied(model) and stages > 1 else (0,)


def _rotary_bytes(model: ModelSpec) -> int:
    """Cosines and sines of every position that the model was made for."""
    positions = model.integer("context_length")
    if model.metadata.get("rope_factors_long_short"):  # a table each for short and long contexts
        positions += model.integer("rope.scaling.original_context_length")
    element = 4 if model.architecture in _WIDE_ROTARY_CACHE else 2
    return positions * rotated_elements(model) * rotary_tables(model) * element


def _is_sparse(model: ModelSpec) -> bool:
    return model.integer("expert_count") > 0


def _divides(n: int, tp: int, what: str, model: ModelSpec) -> None:
    if n % tp:
        raise UsageError(
            f"{what} cannot be divided by tensor parallel size {tp}", _fitting(model, tp)
        )


def _fitting(model: ModelSpec, tp: int) -> str:
    sizes = ", ".join(map(str, tensor_parallel_sizes(model, max(tp, 8))))
    return f"sizes that divide the heads: {sizes}; the rest can go to --pipeline-parallel-size"


def _is_cut_in_groups(fmt: Format, p: Parameter) -> bool:
    """Whether a rank's part of a matrix must be whole groups: not for AWQ's and GPTQ's experts."""
    if not fmt.group or fmt.padding is not None or p.split != "inputs":
        return False
    return p.kind == "linear" or fmt.name.startswith("compressed-tensors")


def _check_group(p: Parameter, fmt: Format, tp: int) -> None:
    inputs = p.inputs // tp
    if inputs % fmt.group:
        raise UsageError(
            f"{p.name}: {inputs} inputs on a rank are no multiple of {fmt.name}'s groups"
            f" of {fmt.group}, which vLLM reports as a tensor parallel size that is too large",
            f"use a smaller --tensor-parallel-size than {tp}, or a format without groups (fp8)",
        )
