"""Which language model, quantization and offload setting fits a machine, and how fast it runs.

    import nemofit

    model = nemofit.load_model("nemotron")
    machine = nemofit.parse_machine("2x RTX 3090, 64 GiB RAM")
    plans = nemofit.recommend(model, machine, goal=nemofit.Goal(context=8192))
    print(plans[0].command("llama.cpp"))

Everything public is here, and each name is loaded when it is first used: importing the package
costs nothing. Sizes are bytes; every error that a caller can cause is a :class:`NemofitError`.
"""

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False  # as type checkers know it; importing typing would cost every start 8 ms
if TYPE_CHECKING:
    from .catalog.filetypes import weights_bytes
    from .catalog.model import ModelSpec
    from .engines.base import Memory
    from .engines.llama_cpp import best_offload, estimate_memory
    from .engines.llama_cpp.config import RunConfig
    from .errors import NemofitError
    from .formats.load import load_model
    from .machine import parse_machine
    from .machine.records import Machine
    from .planner import Goal, Plan, recommend
    from .probe import probe_machine
    from .speed import Speed, estimate_speed

_HOMES = {
    "Goal": "planner",
    "Machine": "machine.records",
    "Memory": "engines.base",
    "ModelSpec": "catalog.model",
    "NemofitError": "errors",
    "Plan": "planner",
    "RunConfig": "engines.llama_cpp.config",
    "Speed": "speed",
    "best_offload": "engines.llama_cpp",
    "estimate_memory": "engines.llama_cpp",
    "estimate_speed": "speed",
    "load_model": "formats.load",
    "parse_machine": "machine",
    "probe_machine": "probe",
    "recommend": "planner",
    "weights_bytes": "catalog.filetypes",
}

__all__ = [
    "Goal",
    "Machine",
    "Memory",
    "ModelSpec",
    "NemofitError",
    "Plan",
    "RunConfig",
    "Speed",
    "__version__",
    "best_offload",
    "estimate_memory",
    "estimate_speed",
    "load_model",
    "parse_machine",
    "probe_machine",
    "recommend",
    "weights_bytes",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
