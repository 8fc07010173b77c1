"""vLLM: its memory accounting, divisions over several GPUs, and commands."""

from .config import VllmConfig
from .formats import find_format, formats
from .memory import VllmMemory, estimate_memory, longest_model_len

__all__ = [
    "VllmConfig",
    "VllmMemory",
    "estimate_memory",
    "find_format",
    "formats",
    "longest_model_len",
]
