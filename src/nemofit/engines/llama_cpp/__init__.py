"""llama.cpp: its memory accounting, placement and commands."""

from .config import RunConfig
from .memory import Estimator, estimate_memory

__all__ = ["Estimator", "RunConfig", "estimate_memory"]
