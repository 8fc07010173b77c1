"""What projectors and adapters take, against the real llama-server's log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.accuracy import attachments
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import cut

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec, Tensor
from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp import estimate_memory
from nemofit.engines.llama_cpp.attached import adapter_memory, projector_memory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import DataError
from nemofit.formats.companions import Attachment, read_attachment
from nemofit.formats.gguf.reader import read_gguf
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.places import Places
from nemofit.units import MIB


def written(path: Path, name: str, blocks: int) -> ModelSpec:
    model = replace(cut(find_model(name).spec(), blocks), file_type="Q4_0")
    write_sparse(path, model, tensor_types(model, "Q4_0", imatrix=False))
    return read_gguf(path)


def attachment(path: Path) -> Attachment:
    return read_attachment(str(path), Places(home=path.parent))


@pytest.mark.parametrize("flash_attention", [True, False])
def test_gemmas_projector_to_the_byte(
    engine: Engine, tmp_path: Path, flash_attention: bool
) -> None:
    """121.25 MiB with flash attention, 1132 MiB without; the last reservation that is logged."""
    model = written(tmp_path / "g.gguf", "gemma-3-4b", 1)
    path = attachments.gemma3(tmp_path / "p.gguf")
    config = RunConfig(context=256, ubatch=32, flash_attention=flash_attention, backend="cpu")
    load = engine.server_load(Path(model.source), config, extra=["--mmproj", str(path), "--warmup"])
    found = attachment(path)
    device, is_known = projector_memory(found.tensors, found.values, config, on_gpu=False)
    assert is_known
    assert abs(load.devices["CPU"].compute - device.compute_bytes) <= 0.005 * MIB
    assert device.weights_bytes == pytest.approx(found.file_bytes, rel=1e-4)


def test_a_projector_for_any_image_is_never_too_small(engine: Engine, tmp_path: Path) -> None:
    model = written(tmp_path / "m.gguf", "mistral-small-3.2-24b", 1)
    path = attachments.pixtral(tmp_path / "p.gguf")
    config = RunConfig(context=256, ubatch=32, backend="cpu")
    load = engine.server_load(Path(model.source), config, extra=["--mmproj", str(path), "--warmup"])
    found = attachment(path)
    device, _ = projector_memory(found.tensors, found.values, config, on_gpu=False)
    assert 1.0 <= device.compute_bytes / load.devices["CPU"].compute <= 1.25


@pytest.mark.parametrize("layers", [3, 1, 0])
def test_an_adapter_lies_where_its_tensors_lie(engine: Engine, tmp_path: Path, layers: int) -> None:
    model = written(tmp_path / "q.gguf", "qwen2.5-0.5b", 3)
    path = attachments.lora(tmp_path / "l.gguf", model)
    config = RunConfig(context=512, ubatch=128, backend="rpc", gpu_layers=layers)
    plain = estimate_memory(model, config=config, n_gpus=1)
    load = engine.server_load(
        Path(model.source), config, 1, extra=["--lora", str(path), "--warmup"]
    )
    found = attachment(path)
    [gpu], host = adapter_memory(model, found.tensors, config, (1.0,), config.ubatch)
    assert gpu.weights_bytes + host.weights_bytes == pytest.approx(found.file_bytes, rel=1e-2)
    for mine, other, real in (
        (gpu, plain.gpus[0], load.devices.get("RPC0")),
        (host, plain.host, load.devices["CPU"]),
    ):
        if real is not None:
            grown = real.compute + real.output - other.compute_bytes
            assert -0.02 * MIB <= grown <= mine.compute_bytes + 0.02 * MIB


def test_an_adapter_of_another_model_is_refused() -> None:
    model = find_model("smollm2-135m").spec()
    odd = [Tensor("blk.40.attn_q.weight.lora_a", (576, 8), "F16")]
    with pytest.raises(DataError, match=r"'blk\.40\.attn_q\.weight', which smollm2"):
        adapter_memory(model, odd, RunConfig(gpu_layers=0), (), 512)


def test_a_type_that_is_not_known_has_no_size() -> None:
    with pytest.raises(DataError, match="type 99"):
        projector_memory([Tensor("v.x", (8, 8), "type 99")], {}, RunConfig(), True)


def test_numbers_of_a_stranger_stay_numbers() -> None:
    values = {"clip.vision.embedding_length": 1 << 62, "clip.vision.image_size": 1 << 62,
              "clip.vision.patch_size": -1, "clip.vision.feed_forward_length": True}  # fmt: skip
    device, is_known = projector_memory([], values, RunConfig(), True)
    assert not is_known
    assert device.compute_bytes < 1 << 80
