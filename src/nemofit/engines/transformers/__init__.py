"""transformers with accelerate and bitsandbytes: placement, memory and a script."""

from .config import TransformersConfig
from .memory import TransformersMemory, estimate_memory
from .placement import place

__all__ = ["TransformersConfig", "TransformersMemory", "estimate_memory", "place"]
