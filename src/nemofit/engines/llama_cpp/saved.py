"""What llama-server saves of prompts in host memory, for when they come again.

Sources: tools/server/server-context.cpp (create_checkpoint), server-task.cpp
(server_prompt_cache), llama-kv-cache.cpp (state_write), llama.cpp 0c1e570.
"""

from __future__ import annotations

from nemofit.catalog.ggml import row_bytes
from nemofit.catalog.model import ModelSpec

from .config import RunConfig
from .kv_cache import cells, layer_caches, window_width
from .recurrent_state import state_bytes


def checkpoint_bytes(model: ModelSpec, config: RunConfig) -> int:
    """Bytes of one context checkpoint: what a sequence's cache cannot be rolled back to.

    The window of sliding-window blocks and the state of recurrent ones; 0 for models that have
    neither, which need no checkpoints. A few bytes per token of bookkeeping are left out.
    """
    state = sum(state_bytes(model, config.replace(parallel=1)))
    if config.swa_full:
        return state
    tokens = min(window_width(model), cells(model, config).window)
    type_k, type_v = config.kv_type_k.upper(), config.kv_type_v.upper()
    return state + tokens * sum(
        row_bytes(type_k, x.k_width) + row_bytes(type_v, x.v_width)
        for x in layer_caches(model)
        if x is not None and x.window
    )


def saved_bytes(model: ModelSpec, config: RunConfig) -> int:
    """Host memory that saved prompts and checkpoints may fill, as far as they are asked for."""
    found = config.cache_ram
    if config.checkpoints:
        found += config.checkpoints * config.parallel * checkpoint_bytes(model, config)
    return found
