"""vLLM's own model classes on a machine without a GPU: parameters on the meta device, no kernels.

vLLM's Python code decides how a model is divided over ranks, how formats store a matrix and how
the cache is planned. None of that needs a card, but importing it does ask for one. This module
answers those questions (a CUDA platform of a chosen compute capability, compiled extensions that
are there but empty, parallel groups of any size in one process) and then builds the real classes.

It needs the unpacked wheel of the version below and, in the environment that runs it, a CPU build
of torch with the lighter half of vLLM's requirements::

    pip download --no-deps --only-binary :all: vllm==0.33.0 -d wheel
    unzip wheel/vllm-0.33.0-*.whl '*.py' '*.json' -d unpacked
    pip install 'torch==2.13.0' 'transformers==5.20.2' compressed-tensors==0.17.0 depyf==0.20.0 \
        oss-harmony uvloop xgrammar llguidance msgspec pyzmq cachetools blake3 ...
"""

# ruff: noqa: ARG005

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

VERSION = "0.33.0"
_EXTENSIONS = (
    "vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch", "vllm._qutlass_C", "vllm._C",
    "vllm._moe_C", "vllm._flashmla_C", "vllm._flashmla_extension_C", "vllm._deepselect_C",
    "vllm._flashkda_C", "vllm.vllm_flash_attn._vllm_fa2_C",
)  # fmt: skip
_QUESTIONS = (
    "cutlass_scaled_mm_supports_block_fp8", "cutlass_scaled_mm_supports_fp8",
    "cutlass_scaled_mm_supports_fp4", "cutlass_group_gemm_supported",
)  # fmt: skip


class Ranks:
    """A parallel group of any size, seen from one of its ranks."""

    def __init__(self, size: int, rank: int = 0) -> None:
        self.world_size = size
        self.rank = self.rank_in_group = self.local_rank = rank
        self.ranks = list(range(size))
        self.first_rank, self.last_rank = 0, size - 1
        self.device_group = types.SimpleNamespace(size=lambda: size, rank=lambda: rank)
        self.cpu_group = self.device_group
        self.device_communicator = None
        self.unique_name = "stand-in"
        self.is_first_rank = rank == 0
        self.is_last_rank = rank == size - 1


class StandIn:
    """vLLM, imported once per process.

    Args:
        unpacked: Directory of the unpacked wheel.
    """

    def __init__(self, unpacked: Path) -> None:
        os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
        logging.disable(logging.WARNING)
        sys.path.insert(0, str(unpacked))
        for name in _EXTENSIONS:
            sys.modules[name] = types.ModuleType(name)
        installed = importlib.metadata.version
        importlib.metadata.version = lambda n: VERSION if n == "vllm" else installed(n)  # type: ignore[assignment]
        self.capability = (8, 9)
        self._platform()
        self._torch()
        import vllm.model_executor.models.registry as registry

        registry._run_in_subprocess = lambda ask: ask()

    def _platform(self) -> None:
        import vllm.platforms as platforms
        from vllm.platforms.cuda import CudaPlatformBase
        from vllm.platforms.interface import DeviceCapability

        stand_in = self

        class Platform(CudaPlatformBase):
            get_device_capability = classmethod(
                lambda cls, device_id=0: DeviceCapability(*stand_in.capability)
            )
            get_device_name = classmethod(lambda cls, device_id=0: "NVIDIA stand-in")
            get_device_total_memory = classmethod(lambda cls, device_id=0: 24 << 30)
            current_device = classmethod(lambda cls: "meta")
            device_count = classmethod(lambda cls: 64)

        platforms._current_platform = self.platform = Platform()

    def _torch(self) -> None:
        import torch

        self._library = torch.library.Library("_C", "FRAGMENT")
        for name in _QUESTIONS:
            self._library.define(f"{name}(int capability) -> bool")
            self._library.impl(name, lambda capability: True, "CompositeExplicitAutograd")

        class Nothing:
            def __init__(self, *a: object, **k: object) -> None: ...

            def __getattr__(self, name: str) -> Any:
                return lambda *a, **k: None

        torch.cuda.Stream = torch.cuda.Event = torch.Stream = torch.Event = Nothing  # type: ignore
        torch.cuda.current_stream = lambda *a: Nothing()
        torch.cuda.current_device = torch.accelerator.current_device_index = lambda: 0
        torch.cuda._lazy_init = lambda: None
        torch.cuda.get_device_capability = lambda *a: self.capability
        torch.cuda.get_device_properties = lambda *a: types.SimpleNamespace(
            multi_processor_count=128, total_memory=24 << 30, name="stand-in", warp_size=32,
            shared_memory_per_block_optin=101376, L2_cache_size=1 << 20,
        )  # fmt: skip

    def _empty_operators(self) -> None:
        """Let operators of the missing extensions be named; none is ever called."""
        import torch._ops

        cuda = types.ModuleType("cuda")
        cuda.cudart = types.SimpleNamespace()  # type: ignore[attr-defined]
        sys.modules.setdefault("cuda", cuda)
        if getattr(torch._ops._OpNamespace, "empty", False):
            return
        known = torch._ops._OpNamespace.__getattr__

        def find(namespace: Any, name: str) -> Any:
            try:
                return known(namespace, name)
            except AttributeError:
                if namespace.__name__.endswith("_C") and not name.startswith("__"):
                    return types.SimpleNamespace(default=None)
                raise

        torch._ops._OpNamespace.__getattr__ = find  # type: ignore[method-assign]
        torch._ops._OpNamespace.empty = True  # type: ignore[attr-defined]

    def build(
        self,
        hf_config: dict[str, object],
        *,
        tensor: int = 1,
        pipeline: int = 1,
        stage: int = 0,
        **arguments: object,
    ) -> tuple[Any, Any]:
        """The model's modules on one rank, and vLLM's configuration.

        Args:
            hf_config: The model's ``config.json``.
            tensor, pipeline, stage: Sizes of the groups and the rank's stage.
            arguments: Engine arguments by their Python names.
        """  # fmt: skip
        import torch
        import vllm.distributed.parallel_state as state
        from vllm.config import set_current_vllm_config
        from vllm.engine.arg_utils import EngineArgs
        from vllm.model_executor.model_loader.utils import initialize_model
        from vllm.utils.torch_utils import set_default_torch_dtype

        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "config.json").write_text(json.dumps(hf_config))
            options: dict[str, object] = {"enforce_eager": True, "skip_tokenizer_init": True}
            config = EngineArgs(model=directory, **options, **arguments).create_engine_config()
        config.parallel_config.tensor_parallel_size = tensor
        config.parallel_config.pipeline_parallel_size = pipeline
        state._TP, state._EP, state._PP = Ranks(tensor), Ranks(tensor), Ranks(pipeline, stage)
        state._DP = state._DCP = state._PCP = state._EPLB = Ranks(1)
        state._WORLD, state._NODE_COUNT = Ranks(tensor * pipeline), 1
        self._empty_operators()
        with (
            set_current_vllm_config(config),
            torch.device("meta"),
            set_default_torch_dtype(config.model_config.dtype),
        ):
            return initialize_model(vllm_config=config), config
