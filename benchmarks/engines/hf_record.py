"""What llama.cpp's own converter makes of the tiny checkpoints, recorded for the tests.

    python -m benchmarks.engines.hf_record tests/fixtures/checkpoints.jsonl

Needs the extra ``transformers-test``, numpy, sentencepiece and the source of llama.cpp that the
accuracy build uses. One line for each family: its ``config.json`` and tensors as transformers
saves them, then architecture, keys and tensors of the GGUF file.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.accuracy.engine import source

from .hf_tiny import EDITS, TINY, save

_PREDICTS = ("qwen3-next", "qwen3.5", "qwen3.5-moe")  # saved without their next-token layers


def convert(directory: Path, *, is_raw: bool, predicts: bool) -> tuple[str, Any, Any]:
    """Architecture, keys and tensors of the GGUF file.

    Args:
        directory: A checkpoint.
        is_raw: Read config.json as it is instead of through transformers.
        predicts: The family has next-token layers, which this checkpoint lacks.
    """
    sys.path[:0] = [str(source() / "gguf-py"), str(source())]
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    logging.disable(logging.ERROR)
    tokens = {"model": {"vocab": {str(i): i for i in range(128)}}, "added_tokens": []}
    (directory / "tokenizer.json").write_text(json.dumps(tokens))
    if is_raw:
        raw = json.loads((directory / "config.json").read_text())
        ModelBase.load_hparams = staticmethod(lambda *_, **__: dict(raw))
    ModelBase.no_mtp = predicts
    hparams = ModelBase.load_hparams(directory, False)
    kind = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    with torch.inference_mode():
        model = kind(directory, gguf.LlamaFileType.MOSTLY_F16, directory / "out.gguf", eager=True)
        model = getattr(model, "impl", model)
        model.prepare_tensors()
        model.set_gguf_parameters()
    writer = model.gguf_writer
    prefix = writer.arch + "."
    keys = {k: v.value for part in writer.kv_data for k, v in part.items()}
    return (
        writer.arch,
        {k.removeprefix(prefix): v for k, v in keys.items() if k.startswith(prefix)},
        {
            name: [int(n) for n in reversed(t.shape)]
            for part in writer.tensors
            for name, t in part.items()
        },
    )


def row(name: str, directory: Path) -> dict[str, Any]:
    from safetensors import safe_open

    path = save(name, directory)
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                part = opened.get_slice(key)
                tensors[key] = [part.get_dtype(), part.get_shape()]
    architecture, keys, gguf = convert(path, is_raw=name in EDITS, predicts=name in _PREDICTS)
    config = json.loads((path / "config.json").read_text())
    return {
        "name": name, "config": config, "tensors": tensors,
        "architecture": architecture, "keys": keys, "gguf": gguf,
    }  # fmt: skip


def main(target: str, names: list[str]) -> None:
    if names:  # one process for each: the converter keeps its state in classes
        with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
            rows = [row(name, Path(directory)) for name in names]
        with open(target, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(r, separators=(",", ":")) + "\n" for r in rows)
        return
    import subprocess

    Path(target).write_text("")
    for name in TINY:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.engines.hf_record", target, name],
            capture_output=True,
            check=False,
        )
        last = done.stderr.decode().strip().splitlines()[-1:] if done.returncode else ["recorded"]
        print(name, *last)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
