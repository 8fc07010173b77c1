"""The most that a configuration could keep on the GPUs, by weights and cache alone.

Nothing that fits keeps more there than what fits without a compute buffer, so the speed of that
placement is an upper bound, found without replaying a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nemofit.engines.llama_cpp import Estimator
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.engines.llama_cpp.placement import HOST, weight_sizes

from .records import Room


@dataclass(frozen=True, slots=True)
class Bound:
    """Where everything would lie.

    Attributes:
        units: Device of each block and of the output.
        gpu_layers, cpu_moe_layers: The same as llama.cpp's counts.
        gpu_bytes: Weights and cache on the GPUs.
    """

    units: tuple[int, ...]
    gpu_layers: int
    cpu_moe_layers: int
    gpu_bytes: int


def bound(
    estimator: Estimator,
    config: RunConfig,
    room: Room,
    cache: Sequence[int],
    *,
    move_experts: bool = True,
) -> Bound | None:
    """The placement, all GPUs taken for one as fast as the fastest; None: not even this fits.

    Args:
        cache: Bytes of KV cache of the first n blocks, for n from 0 on.
        move_experts: Experts may lie on the host although their block does not.
    """
    blocks = estimator.blocks
    sizes = weight_sizes(estimator.model, estimator.types, estimator.key, config.backend)
    kept = cache if config.kv_offload else (0,) * (blocks + 1)

    def on_gpus(first: int, moe: int) -> int:
        """Bytes of the blocks from ``first`` on and the output, without the first experts."""
        if first > blocks:
            return 0
        moved = max(moe, first)
        experts = sizes.experts_gpu[moved] - sizes.experts_gpu[first]
        weights = sizes.gpu[blocks] - sizes.gpu[first] - experts
        return weights + kept[blocks] - kept[first] + sizes.output_gpu

    pool = sum(room.budgets.gpus)
    experts = blocks if move_experts and sizes.experts_gpu[blocks] else 0
    first, moe = _most(config, blocks, experts, lambda f, m: on_gpus(f, m) <= pool)
    if first < 0:
        return None
    moved = max(moe, min(first, blocks))
    host = sizes.input_host + cache[blocks] - kept[blocks]
    host += sizes.host[min(first, blocks)] + kept[min(first, blocks)]
    host += sizes.experts_host[moved] - sizes.experts_host[min(first, blocks)]
    host += sizes.output_host if first > blocks else 0
    host += on_gpus(first, moe) if any(room.budgets.shared) else 0
    if room.budgets.host is not None and host > room.budgets.host:
        return None
    fastest = max(
        range(len(room.machine.gpus)),
        key=lambda i: room.machine.gpus[i].bandwidth_gb_s or 0.0,
        default=HOST,
    )
    first = min(first, blocks + 1)
    layers = blocks + 1 - first
    return Bound((HOST,) * first + (fastest,) * layers, layers, moe, on_gpus(first, moe))


def _most(
    config: RunConfig, blocks: int, experts: int, fits: Callable[[int, int], bool]
) -> tuple[int, int]:
    """The first block on the GPUs and the blocks without experts there; (-1, 0): nothing fits."""
    given = config.cpu_moe_layers
    most = given or experts
    if config.gpu_layers is not None:
        first = max(blocks + 1 - config.gpu_layers, 0)
        if fits(first, given):
            return first, given
        return (first, most) if fits(first, most) else (-1, 0)
    if fits(0, given):
        return 0, given
    if fits(0, most):
        return 0, _first(lambda moe: fits(0, moe), given, most)
    return _first(lambda first: fits(first, most), 0, blocks + 1), most


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number of a range for which ``holds``; it does for ``high``."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
