"""vLLM's paged cache: bytes per token and per block, how many tokens fit, how many requests.

All layers of a model share one pool of blocks. Layers that need the same tokens form a group with
one block table; a model with windows or recurrent layers has several groups of (nearly) equally
many layers, whose pages are made equally large.

Source: vllm-project/vllm 0.33.0, ``vllm/v1/core/kv_cache_planning.py`` (get_kv_cache_groups,
get_kv_cache_configs), ``vllm/v1/kv_cache_interface.py`` (max_memory_usage_bytes of each spec),
``vllm/platforms/interface.py`` (_align_hybrid_block_size), ``vllm/v1/core/kv_cache_utils.py``
(get_kv_cache_capacity).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.kv_cache import window_layers, window_width
from nemofit.engines.llama_cpp.recurrent_state import State, states
from nemofit.engines.transformers.parameters import decoder_layers

from .config import VllmConfig
from .placement import stage_layers

Reach = Literal["full", "window", "chunk", "state"]

_ATTENDS = re.compile(r"blk\.(\d+)\.(attn_k|attn_qkv|attn_kv_a_mqa|attn_kv|attn_v)\.weight")
_CHUNKED = frozenset({"llama4"})  # attention within chunks of 8192 tokens instead of a window
_KERNEL_BLOCK = 16  # smallest block of the attention kernels
# Bytes of one element of a recurrence's state: what the models' config.json asks for
# (mamba_ssm_cache_dtype, mamba_ssm_dtype: float32), else the model's own type.
_STATE_BYTES = {"qwen3next": 2}
_WIDE_STATE = 4
# Blocks that a request needs for states while prefix caching is on: the newest state, one that is
# kept, and one that a prefill exports from its middle; gated delta nets export only on some cards.
_STATE_BLOCKS = 3
_DELTA_NET_BLOCKS = 2
_DELTA_NETS = frozenset({"qwen3next", "qwen35", "qwen35moe"})
_PADDING_LIMIT = 1.5  # few layers too many: pad the smaller kinds instead of cutting the larger


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one layer keeps on one rank.

    Attributes:
        reach: Which tokens: all, those of a window or chunk, or none but a state.
        token_bytes: K and V, or the latent, of one token; 0 for a state.
        state_bytes: Fixed size per request, 0 for attention.
    """

    reach: Reach
    token_bytes: int = 0
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Layers with one block table.

    Attributes:
        reach: Which tokens its blocks hold.
        layers: Their numbers.
        block_tokens: Tokens of one block.
        page_bytes: Bytes of one layer's block.
    """

    reach: Reach
    layers: tuple[int, ...]
    block_tokens: int
    page_bytes: int
    pages: tuple[int, ...] = ()

    def bytes_on(self, first: int, end: int) -> int:
        """Bytes that one block takes on a pipeline stage."""
        if self.pages:
            return sum(
                p for il, p in zip(self.layers, self.pages, strict=True) if first <= il < end
            )
        return self.page_bytes * sum(first <= il < end for il in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """How the pool is cut into blocks.

    Attributes:
        groups: See :class:`Group`; none for a model without attention and state.
        block_bytes: Bytes of one block on a rank of each pipeline stage.
        window: Tokens that a window or chunk holds, 0 without.
        in_flight: Tokens that may be scheduled and not yet settled.
        state_blocks: Blocks that a request takes in a group of states.
        token_bytes: Bytes that one more token of a long request costs on the fullest stage.
    """

    groups: tuple[Group, ...]
    block_bytes: tuple[int, ...]
    window: int
    in_flight: int
    state_blocks: int
    token_bytes: float

    def request_blocks(self, tokens: int) -> int:
        """Blocks that one request of that length takes at most."""
        return sum(self._blocks(g, tokens) for g in self.groups)

    def _blocks(self, group: Group, tokens: int) -> int:
        if group.reach == "state":
            return self.state_blocks
        if group.reach == "window":
            held = min(self.window - 1 + self.in_flight, tokens)
            return -(-held // group.block_tokens) + 1
        if group.reach == "chunk":
            tokens = min(self.window + self.in_flight, tokens)
        return -(-tokens // group.block_tokens)

    def request_bytes(self, tokens: int, stage: int = 0) -> int:
        """Bytes that one request of that length takes on a rank of a stage."""
        return self.request_blocks(tokens) * self.block_bytes[stage]

    def blocks(self, available: Sequence[int]) -> int:
        """Blocks of the pool, given the bytes left on a rank of each stage."""
        fitting = [a // b for a, b in zip(available, self.block_bytes, strict=True) if b]
        return max(min(fitting, default=0), 0)

    def capacity(self, available: Sequence[int], max_model_len: int) -> tuple[int, float]:
        """What vLLM prints: "GPU KV cache size" in tokens and "Maximum concurrency".

        Concurrency counts whole requests of ``max_model_len``, and the tokens are concurrency
        times that length, so with windows or states they are no measure of bytes.
        """
        needed = self.request_blocks(max_model_len)
        if not needed:
            return 0, 0.0
        concurrency = self.blocks(available) / needed
        return int(concurrency * max_model_len), concurrency

    def longest(self, available: Sequence[int], limit: int) -> int:
        """Largest ``--max-model-len`` up to ``limit`` of which one request fits; 0: none.

        One block of the pool is never used: it stands for "no block".
        """
        blocks = self.blocks(available) - 1
        if not self.groups:
            return limit
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.request_blocks(middle) <= blocks:
                low = middle
            else:
                high = middle - 1
        return low


def layer_caches(model: ModelSpec, config: VllmConfig) -> tuple[tuple[LayerCache, ...], ...]:
    """What each layer keeps on one rank: usually one entry, none for a layer without a mixer."""
    n = decoder_layers(model)
    attends = {int(m.group(1)) for t in model.tensors if (m := _ATTENDS.fullmatch(t.name))}
    recurrent = states(model)
    windows = window_layers(model)
    chunked = model.architecture in _CHUNKED
    shared = model.integer("attention.shared_kv_layers")
    kv_heads = _kv_heads(model)
    out = []
    for il in range(n):
        found = []
        state = recurrent[il]
        if state is not None:
            found.append(LayerCache("state", state_bytes=_state_bytes(model, config, state)))
        if il in attends and not (state and state.alone) and il < n - shared and kv_heads[il]:
            reach: Reach = "full" if not windows[il] else "chunk" if chunked else "window"
            found.append(LayerCache(reach, _token_bytes(model, config, kv_heads[il], windows[il])))
        out.append(tuple(found))
    return tuple(out)


def token_bytes(model: ModelSpec, config: VllmConfig) -> int:
    """K and V of one token over all layers on one rank, windows not considered."""
    return sum(c.token_bytes for layer in layer_caches(model, config) for c in layer)


def cache_plan(model: ModelSpec, config: VllmConfig, batched_tokens: int) -> CachePlan:
    """Group the layers and size their blocks.

    Args:
        model: The model.
        config: The engine's knobs.
        batched_tokens: Tokens of one step (``--max-num-batched-tokens``).

    Raises:
        UsageError: More pipeline stages than layers.
    """
    kinds: dict[LayerCache, list[int]] = {}
    for il, layer in enumerate(layer_caches(model, config)):
        for cache in layer:
            kinds.setdefault(cache, []).append(il)
    groups = _groups(kinds, config.block_size)
    stages = stage_layers(decoder_layers(model), config.pipeline_parallel)
    # a step may be prepared while another runs: one more batch than there are stages
    in_flight = (config.pipeline_parallel + 1) * batched_tokens
    widest = tuple(max((g.bytes_on(*s) for g in groups), default=0) for s in stages)
    return CachePlan(
        groups=groups,
        block_bytes=widest,
        window=window_width(model),
        in_flight=in_flight,
        state_blocks=(_DELTA_NET_BLOCKS if model.architecture in _DELTA_NETS else _STATE_BLOCKS),
        token_bytes=sum(max(widest) / g.block_tokens for g in groups if g.reach == "full"),
    )


def _token_bytes(model: ModelSpec, config: VllmConfig, kv_heads: int, window: bool) -> int:
    """K and V of one token of one layer on one rank; of latent attention the one latent."""
    latent = model.integer("attention.kv_lora_rank")
    if latent:
        return (latent + model.integer("rope.dimension_count")) * config.kv_element_bytes
    heads = max(model.integer("attention.head_count", 1), 1)
    default = model.integer("embedding_length") // heads
    key = model.integer("attention.key_length", default)
    value = model.integer("attention.value_length", default)
    if window:
        key = model.integer("attention.key_length_swa", key)
        value = model.integer("attention.value_length_swa", value)
    local = max(1, kv_heads // config.tensor_parallel)
    return local * (key + value) * config.kv_element_bytes


def _kv_heads(model: ModelSpec) -> tuple[int, ...]:
    if "attention.head_count_kv" in model.metadata:
        return model.per_layer("attention.head_count_kv")
    return model.per_layer("attention.head_count")


def _state_bytes(model: ModelSpec, config: VllmConfig, state: State) -> int:
    wide = _STATE_BYTES.get(model.architecture, _WIDE_STATE)
    return (state.convolution * 2 + state.recurrence * wide) // config.tensor_parallel


def _groups(kinds: dict[LayerCache, list[int]], block: int) -> tuple[Group, ...]:
    """Layers with one block table each, all with pages of one size."""
    if not kinds:
        return ()
    if len({k.reach for k in kinds}) == 1 and next(iter(kinds)).reach != "state":
        return (_uniform(kinds, block),)
    block = _hybrid_block(kinds, block)
    pages = {k: k.state_bytes or k.token_bytes * block for k in kinds}
    page = max(pages.values())
    merged: dict[tuple[Hashable, int], list[int]] = {}
    for cache, layers in kinds.items():
        whole = page % pages[cache] == 0 and cache.reach != "state"
        tokens = block * (page // pages[cache]) if whole else block
        merged.setdefault((cache.reach, tokens), []).extend(layers)
    sizes = [len(layers) for layers in merged.values()]
    size = max(sizes) if max(sizes) < min(sizes) * _PADDING_LIMIT else min(sizes)
    out = []
    for (reach, tokens), layers in merged.items():
        layers.sort()
        n = -(-len(layers) // size)
        template = Group(reach, (), tokens, page)  # type: ignore[arg-type]
        out += [replace(template, layers=tuple(layers[i::n])) for i in range(n)]
    return tuple(out)


def _uniform(kinds: dict[LayerCache, list[int]], block: int) -> Group:
    """All layers keep the same tokens: one group, whatever the pages' sizes."""
    by_layer = sorted((il, k.token_bytes * block) for k, layers in kinds.items() for il in layers)
    return Group(
        reach=next(iter(kinds)).reach,
        layers=tuple(il for il, _ in by_layer),
        block_tokens=block,
        page_bytes=max(p for _, p in by_layer),
        pages=tuple(p for _, p in by_layer),
    )


def _hybrid_block(kinds: dict[LayerCache, list[int]], block: int) -> int:
    """Tokens of a block such that a page of attention is no smaller than a state."""
    state = max((k.state_bytes for k in kinds), default=0)
    token = max((k.token_bytes for k in kinds), default=0)
    if not state or not token:
        return block
    align = max(_KERNEL_BLOCK, block)
    return max(block, align * -(-state // (align * token)))
