"""Load sparse models of real size on this machine's NVIDIA card and record what the engine says.

    NEMOFIT_LLAMA_CPP=BUILD/bin python -m benchmarks.accuracy.gpu_record OUT.jsonl

One line per load: the engine's buffers by device and kind, the driver's used memory before the
load, after it and at its highest during a 2,048-token prompt, and what nemofit says. Called by
``gpu.sh``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.engines.llama_cpp import RunConfig, estimate_memory
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.load import load_model
from nemofit.units import MIB

from .engine import parse_log, programs

_LOADS: list[tuple[str, str, dict[str, object]]] = [
    ("llama-3.1-70b", "Q4_K_M", {"context": 8192}),
    ("llama-3.1-70b", "Q4_K_M", {"context": 8192, "flash_attention": False}),
    ("llama-3.1-70b", "Q4_K_M", {"context": 32768, "kv_type_k": "q8_0", "kv_type_v": "q8_0"}),
    ("llama-3.1-70b", "Q4_K_M", {"context": 8192, "gpu_layers": 41}),
    ("llama-3.1-70b", "Q4_K_M", {"context": 8192, "gpu_layers": 41, "op_offload": False}),
    ("qwen2.5-72b", "Q8_0", {"context": 4096, "gpu_layers": 60}),
    ("mixtral-8x22b", "Q4_K_M", {"context": 8192, "cpu_moe_layers": 30}),
    ("mixtral-8x22b", "Q4_K_M", {"context": 8192, "gpu_layers": 40, "cpu_moe_layers": 56}),
    ("qwen3-30b-a3b", "Q4_K_M", {"context": 32768}),
    ("qwen3-30b-a3b", "Q4_K_M", {"context": 32768, "cpu_moe_layers": 48}),
    ("gemma-3-27b", "Q4_K_M", {"context": 32768}),
    ("gpt-oss-20b", "MXFP4_MOE", {"context": 32768}),
]
_PORT = 18099
_PROMPT_TOKENS = 2048


def smi(*fields: str) -> list[str]:
    """Fields of the first card by nvidia-smi; memory is in MiB."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [f.strip() for f in first.splitlines()[0].split(",")]


def used_mib() -> int:
    return int(smi("memory.used")[0])


def flags(path: Path, config: RunConfig) -> list[str]:
    ngl = 999 if config.gpu_layers is None else config.gpu_layers
    out = [
        "-m", str(path), "-c", str(config.context), "-ub", str(config.ubatch), "-ngl", str(ngl),
        "-fa", "on" if config.flash_attention else "off", "-ctk", config.kv_type_k,
        "-ctv", config.kv_type_v, "-np", "1", "-lm", "none", "-lv", "4", "-fit", "off",
        "--no-warmup", "--offline", "--cache-ram", "0", "--port", str(_PORT),
        "--host", "127.0.0.1", "-no-kvu",
    ]  # fmt: skip
    if config.cpu_moe_layers:
        out += ["--n-cpu-moe", str(config.cpu_moe_layers)]
    return out if config.op_offload else [*out, "--no-op-offload"]


def prompt() -> None:
    """Send token ids, since a sparse file has no vocabulary."""
    body = json.dumps({"prompt": [1] * _PROMPT_TOKENS, "n_predict": 1}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{_PORT}/completion", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()


def highest_during(work: threading.Thread) -> int:
    most = used_mib()
    work.start()
    while work.is_alive():
        most = max(most, used_mib())
    return most


def record(model: ModelSpec, quant: str, config: RunConfig, directory: Path) -> dict[str, object]:
    """Load one model and return the row."""
    path = directory / "model.gguf"
    write_sparse(path, model, tensor_types(model, quant))
    before = used_mib()
    server = [str(programs() / "llama-server"), *flags(path, config)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(server, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            text = ""
            deadline = time.monotonic() + 300
            while "model loaded" not in text:
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(log.read()[-2000:])
                time.sleep(0.2)
                log.seek(0)
                text = log.read()
            after = used_mib()
            during = highest_during(threading.Thread(target=prompt))
        finally:
            process.kill()
            process.wait()
    path.unlink()
    mine = estimate_memory(model, quant, config, n_gpus=1)
    return {
        "devices": {k: asdict(b) for k, b in parse_log(text).devices.items()},
        "used_mib": {"before": before, "loaded": after, "prompt": during},
        "nemofit": {"gpu": asdict(mine.gpus[0]), "host": asdict(mine.host)},
    }


def rows() -> Iterator[dict[str, object]]:
    name, driver, total, free = smi("name", "driver_version", "memory.total", "memory.free")
    with tempfile.TemporaryDirectory() as directory:
        for model_name, quant, knobs in _LOADS:
            model = load_model(model_name)
            config = RunConfig(**knobs)  # type: ignore[arg-type]
            needs = estimate_memory(model, quant, config, n_gpus=1).gpus[0].total_bytes
            if needs > int(free) * MIB:
                print(f"left out: {model_name} {quant} {knobs}: {needs / MIB:.0f} of {free} MiB")
                continue
            row = record(model, quant, config, Path(directory))
            print(model_name, quant, knobs, row["used_mib"])
            yield {
                "card": name, "driver": driver, "total_mib": int(total), "model": model_name,
                "quant": quant, "config": knobs, **row,
            }  # fmt: skip


def main(arguments: list[str]) -> int:
    out = Path(arguments[0])
    with out.open("w") as file:
        for row in rows():
            file.write(json.dumps(row) + "\n")
    print(f"{out} written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
