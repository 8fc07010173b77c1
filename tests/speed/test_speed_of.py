"""Published speeds, far apart, are each inside the range."""

from __future__ import annotations

from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.machine.records import Gpu, Machine
from nemofit.speed.estimate import figures_of, speed_of
from nemofit.speed.records import Speed
from nemofit.speed.work import work_of


def run(model: ModelSpec, kind: str, gpu: Gpu, **asked: int) -> Speed:
    config = RunConfig()
    types = [kind if len(t.shape) > 1 else "F32" for t in model.tensors]
    blocks = model.integer("block_count")
    device_of = [-1 if t.name.startswith("token_embd") else 0 for t in model.tensors]
    works = work_of(model, types, device_of, [0] * (blocks + 1), config)
    figures = figures_of(Machine(gpus=(gpu,)), config)
    return speed_of(works, figures, model=model, config=config, **asked)


def test_rtx_3090_f16(llama_8b: ModelSpec, rtx_3090: Gpu) -> None:
    """46.5 and 4240 tokens/s: XiongjieDai/GPU-Benchmarks-on-LLM-Inference, LLaMA 3 8B F16."""
    speed = run(llama_8b, "F16", rtx_3090, prompt_tokens=512, generated_tokens=128)
    assert speed.decode.low < 46.5 < speed.decode.high
    assert speed.prefill.low < 4240 < speed.prefill.high
    assert "reads weights from GPU memory" in speed.limit
