"""Read broken checkpoints by the million: a safetensors header, its config.json, or both.

    python -m benchmarks.fuzz.safetensors --count 1000000

Each must end in a model or in one of our errors; a model is also sized as Q4_K_M.
"""

from __future__ import annotations

import json
import random
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from .harness import Target, main, without_figures

_EDGES = (
    "0", "-1", "1", "2", "3", "4", "64", "255", "512", "513", "1025", "65536", "1e3", "1e999",
    "-0.0", "NaN", "Infinity", "2147483648", "4294967296", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "9" * 5000, "true", "null", '"8"', "[]", "{}",
    "[1]", "[[1]]", "[" * 2000, '{"a":' * 2000, '"' + "x" * 5000 + '"', '"\\ud800"', '"\\u0000"',
)  # fmt: skip
_WORDS = (
    "BF16", "F32", "F8_E4M3", "I64", "U8", "Q4_K", "LlamaForCausalLM", "DeepseekV3ForCausalLM",
    "awq", "gptq", "fp8", "compressed-tensors", "bitsandbytes", "mxfp4", "__metadata__", "weight",
    "model.embed_tokens.weight", "lm_head.weight", "quant_method", "text_config", "",
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_TEXT = re.compile(rb'"[^"\\]{0,80}"')
_VALUE = re.compile(rb':\s*("[^"\\]*"|\[[^][]*\]|\{[^{}]*\}|[\w.+-]+)')
_LONGEST = 1 << 16


def seeds(_: Path) -> list[bytes]:
    """Checkpoints of one block: plain, tied, quantized, with experts."""
    plain = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 1, "vocab_size": 128, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    }  # fmt: skip
    fp8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    moe = {
        **plain, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32, "head_dim": 16,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
    }  # fmt: skip
    return [
        _packed(plain, _tensors("BF16")),
        _packed({**plain, "tie_word_embeddings": True}, _tensors("F16", is_tied=True)),
        _packed({**plain, "quantization_config": fp8}, _tensors("F8_E4M3")),
        _packed(moe, _tensors("BF16", experts=2)),
    ]


def _tensors(dtype: str, is_tied: bool = False, experts: int = 0) -> dict[str, object]:
    block = "model.layers.0."
    attention = block + "self_attn."
    shapes: dict[str, list[int]] = {
        "model.embed_tokens.weight": [128, 64], "model.norm.weight": [64],
        block + "input_layernorm.weight": [64], block + "post_attention_layernorm.weight": [64],
        attention + "q_proj.weight": [64, 64], attention + "k_proj.weight": [32, 64],
        attention + "v_proj.weight": [32, 64], attention + "o_proj.weight": [64, 64],
    }  # fmt: skip
    if not is_tied:
        shapes["lm_head.weight"] = [128, 64]
    if experts:
        shapes |= {attention + f"{n}_norm.weight": [16] for n in "qk"}
        shapes[block + "mlp.gate.weight"] = [experts, 64]
    for mlp in [f"mlp.experts.{i}." for i in range(experts)] or ["mlp."]:
        width = 32 if experts else 96
        shapes |= {block + mlp + f"{n}_proj.weight": [width, 64] for n in ("gate", "up")}
        shapes[block + mlp + "down_proj.weight"] = [64, width]
    out: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        kind = dtype if name.endswith("proj.weight") else "BF16"
        size = shape[0] * (shape[1] if len(shape) > 1 else 1) * (1 if kind == "F8_E4M3" else 2)
        out[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return out


def _packed(config: dict[str, object], tensors: dict[str, object]) -> bytes:
    head = json.dumps(tensors).encode()
    return _joined(json.dumps(config).encode(), struct.pack("<Q", len(head)) + head)


def _joined(config: bytes, head: bytes) -> bytes:
    return struct.pack("<I", len(config)) + config + head


def parts(data: bytes) -> tuple[bytes, bytes]:
    """The configuration and the header, with the eight bytes of its length."""
    n = struct.unpack_from("<I", data)[0]
    return data[4 : 4 + n], data[4 + n :]


def mutant(seed: tuple[bytes, bytes], rng: random.Random) -> bytes:
    """One broken checkpoint: one to four breakages of either file."""
    config, head = seed
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        way = rng.choice(_WAYS)
        if rng.random() < 0.5:
            config = way(config, rng)[:_LONGEST]
        elif rng.random() < 0.8:
            text = way(head[8:], rng)[:_LONGEST]
            head = struct.pack("<Q", len(text)) + text
        else:
            head = rng.choice((_cut, _flip, _length))(head, rng)
    return _joined(config, head)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _length(data: bytes, rng: random.Random) -> bytes:
    n = rng.choice((0, 1, 2, len(data), len(data) - 8, 1 << 31, (1 << 63) - 1, (1 << 64) - 1))
    return struct.pack("<Q", max(n, 0)) + data[8:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 4, 40))) + data[at:]


def _number(data: bytes, rng: random.Random) -> bytes:
    return _swapped(_NUMBER, data, rng.choice(_EDGES).encode(), rng)


def _value(data: bytes, rng: random.Random) -> bytes:
    return _swapped(_VALUE, data, b": " + rng.choice(_EDGES).encode(), rng)


def _text(data: bytes, rng: random.Random) -> bytes:
    others = _TEXT.findall(data) or [b'""']
    new = rng.choice(others) if rng.random() < 0.5 else json.dumps(rng.choice(_WORDS)).encode()
    return _swapped(_TEXT, data, new, rng)


def _swapped(pattern: re.Pattern[bytes], data: bytes, new: bytes, rng: random.Random) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data
    one = rng.choice(found)
    return data[: one.start()] + new + data[one.end() :]


def _again(data: bytes, rng: random.Random) -> bytes:
    """A piece between two commas a second time."""
    commas = [i for i, b in enumerate(data) if b == 0x2C]
    if len(commas) < 2:
        return data
    start, end = sorted(rng.sample(commas, 2))
    return data[:end] + data[start:end] + data[end:]


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut, _flip, _insert, _number, _number, _number, _value, _value, _text, _text, _again,
)  # fmt: skip


def place(data: bytes, directory: Path, number: int) -> Path:
    """Write both files; three of four times with as many bytes of data as the header asks for."""
    config, head = parts(data)
    (directory / "config.json").write_bytes(config)
    ends = [int(n) for n in re.findall(rb'"data_offsets": \[\d{1,9}, (\d{1,9})\]', head)]
    with (directory / "model.safetensors").open("wb") as file:
        file.write(head)
        if number % 4:
            file.truncate(len(head) + max(ends, default=0))
    return directory


def answer(path: Path) -> str:
    """Read the checkpoint and size it; the kind of answer without its figures."""
    from nemofit import NemofitError
    from nemofit.catalog.filetypes import weights_bytes
    from nemofit.formats.safetensors.reader import read_checkpoint

    try:
        model = read_checkpoint(path)
        weights_bytes(model, "Q4_K_M")
    except NemofitError as error:
        return without_figures(f"{error.message} {error.hint}".replace(str(path), "#"))
    shown = f"{model.id}{model.architecture}{''.join(model.notes)}"
    assert shown.isprintable(), "the model has names that a terminal would obey"
    return f"a model, {model.architecture}, {len(model.notes)} notes"


TARGET = Target(seeds=seeds, parts=parts, mutant=mutant, place=place, answer=answer)

if __name__ == "__main__":
    sys.exit(main(TARGET, __doc__.splitlines()[0]))
