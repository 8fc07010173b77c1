"""llama.cpp: its memory accounting, placement and commands."""

from .config import RunConfig
from .memory import Estimator, estimate_memory
from .offload import best_offload, longest_context

__all__ = ["Estimator", "RunConfig", "best_offload", "estimate_memory", "longest_context"]
