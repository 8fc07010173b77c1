"""Weights against the real llama-quantize: the type of every tensor, in every file type.

    python -m benchmarks.accuracy.weights check [--catalog] [--random 200] [--seed 1]
    python -m benchmarks.accuracy.weights record                            renew the fixtures

``llama-quantize --dry-run`` reads the header of a 16-bit model and prints the type that each tensor
would get, and the total. The shapes and its answers are kept in ``tests/fixtures/llama_quantize``;
``--catalog`` adds every shape of the catalog; ``--random`` draws models that exist nowhere, to try
what no real model tries. Every file type is asked for with and without an importance matrix.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from time import perf_counter

from benchmarks.accuracy.engine import Engine, EngineError, programs

from nemofit.catalog.filetypes import (
    file_types,
    needs_imatrix,
    source_types,
    tensor_bytes,
    tensor_types,
    weights_bytes,
)
from nemofit.catalog.model import ModelSpec, Tensor
from nemofit.catalog.models import all_models
from nemofit.errors import NemofitError, UsageError
from nemofit.formats.gguf.writer import write_sparse
from nemofit.units import MIB

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures" / "llama_quantize"


@dataclass(frozen=True, slots=True)
class Answer:
    """What llama-quantize says about one file type of one model.

    Attributes:
        types: Tensor name -> ggml type; empty where it refuses.
        mib: Its "quant size" in MiB with two decimals.
        needs_imatrix: It warns that the real run would need an importance matrix.
        refusal: Its reason for refusing.
    """

    types: Mapping[str, str]
    mib: float = 0.0
    needs_imatrix: bool = False
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """A model without types and the types of its 16-bit file."""

    model: ModelSpec
    source: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def ask(model: Path, file_type: str, imatrix: bool = False) -> Answer:
    """Ask llama-quantize about a 16-bit model file.

    Raises:
        EngineError: It died or printed something else.
    """
    with tempfile.TemporaryDirectory() as directory:
        flags: list[str] = []
        if imatrix:
            # The rules only ask whether there is a matrix, so one entry for no tensor is enough.
            matrix = Path(directory) / "imatrix.dat"
            matrix.write_bytes(struct.pack("<ii1siif", 1, 1, b"x", 1, 1, 1.0))
            flags = ["--imatrix", str(matrix)]
        command = [programs() / "llama-quantize", *flags, "--dry-run", model, file_type]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=300
        )
    text = done.stdout + done.stderr
    if refused := re.search(r"failed to quantize: (.+)", text):
        return Answer({}, refusal=refused.group(1))
    total = re.search(r"quant size += +([\d.]+) MiB", text)
    if done.returncode or total is None:
        raise EngineError(f"llama-quantize {file_type}: {text[-400:]}")
    types = {name: (new or old).upper() for name, old, new in _TENSOR.findall(text)}
    return Answer(types, float(total.group(1)), "will require an imatrix" in text)


_TENSOR = re.compile(
    r"^\[ *\d+/ *\d+\] (\S+) +- \[[^]]*\], type = +(\w+), .*?(?:\(WARN.*?)?size = +[\d.]+ MiB"
    r"(?: -> +[\d.]+ MiB \((\w+)\))?$",
    re.MULTILINE,
)


def read_fixture(path: Path) -> tuple[Shape, dict[tuple[str, bool], Answer]]:
    """A recorded model and llama-quantize's answers by file type and importance matrix."""
    recorded = json.loads(path.read_text())
    shape = _shape(recorded["model"])
    answers = {}
    for key, answer in recorded.get("answers", {}).items():
        name, _, matrix = key.partition(" ")
        found = Answer({}, refusal=answer["refusal"]) if "refusal" in answer else None
        if found is None:
            types = dict(zip((t.name for t in shape.model.tensors), shape.source, strict=True))
            for row, text in zip(shape.rows, answer["types"], strict=True):
                types.update(zip(row, _spread(text), strict=False) if text else ())
            found = Answer(types, answer["mib"], answer["needs_imatrix"])
        answers[name, bool(matrix)] = found
        if not matrix:
            answers[name, True] = found
    return shape, answers


def record(path: Path) -> None:
    """Ask llama-quantize again about a recorded model and write its answers.

    Only what an importance matrix changes is written for it.
    """
    recorded = json.loads(path.read_text())
    shape = _shape(recorded["model"])
    answers = {}
    with tempfile.TemporaryDirectory() as directory, Engine() as engine:
        file = Path(directory) / "model.gguf"
        write_sparse(file, shape.model, shape.source)
        for name in file_types():
            plain, matrix = ask(file, name), ask(file, name, imatrix=True)
            answers[name] = _packed(shape, plain)
            if plain.types != matrix.types:
                answers[f"{name} imatrix"] = _packed(shape, matrix)
        recorded["engine"] = f"llama.cpp {engine.version()}"
    recorded["command"] = "llama-quantize [--imatrix MATRIX] --dry-run MODEL-F16.gguf FILE_TYPE"
    recorded["answers"] = answers
    path.write_text(_pretty(recorded))


def random_model(rng: random.Random) -> ModelSpec:
    """A model that exists nowhere: any layer count, heads, experts and row lengths."""
    layers = rng.choice([1, 2, 5, 7, 8, 9, 16, 23, 32, 61, 68, 80, 81])
    heads = rng.choice([4, 6, 8, 12, 16])
    heads_kv = rng.choice([n for n in (1, 2, 3, 4, 6, 8, 16) if heads % n == 0])
    size = rng.choice([64, 80, 128])
    experts = rng.choice([0, 0, 0, 2, 4, 8, 8, 16])
    width, ff = heads * size, rng.choice([256, 704, 1000, 1024, 1408, 2112, 2560])
    vocab = 512
    architecture = rng.choice(["llama", "llama", "qwen2", "deci", "olmo", "falcon", "jais2"])
    metadata = {
        "block_count": layers,
        "context_length": 2048,
        "embedding_length": width,
        "feed_forward_length": ff,
        "attention.head_count": heads,
        "attention.head_count_kv": heads_kv,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "vocab_size": vocab,
        **({"expert_count": experts, "expert_used_count": 2} if experts else {}),
    }
    tensors = [Tensor("token_embd.weight", (width, vocab)), Tensor("output_norm.weight", (width,))]
    if rng.random() < 0.6:
        tensors.append(Tensor("output.weight", (width, vocab)))
    fused, shared = rng.random() < 0.3, rng.random() < 0.4
    for i in range(layers):
        block = {"attn_norm.weight": (width,), "attn_output.weight": (width, width)}
        if fused:
            block["attn_qkv.weight"] = (width, width + 2 * heads_kv * size)
        elif rng.random() < 0.9:
            block |= {
                "attn_q.weight": (width, width),
                "attn_k.weight": (width, heads_kv * size),
                "attn_v.weight": (width, heads_kv * size),
                "attn_v.bias": (heads_kv * size,),
            }
        ends = ("_exps.weight",) if experts else (".weight",)
        ends += ("_shexp.weight",) if shared and experts else ()
        for end in ends if rng.random() < 0.9 else ():
            stack = (experts,) if end.startswith("_exps") else ()
            block |= {
                f"ffn_gate{end}": (width, ff, *stack),
                f"ffn_up{end}": (width, ff, *stack),
                f"ffn_down{end}": (ff, width, *stack),
            }
        if experts:
            block["ffn_gate_inp.weight"] = (width, experts)
        tensors += [Tensor(f"blk.{i}.{name}", shape) for name, shape in block.items()]
    rng.shuffle(tensors)
    return ModelSpec(
        id="random", architecture=architecture, metadata=metadata, tensors=tuple(tensors)
    )


def differences(model: ModelSpec, name: str, imatrix: bool, answer: Answer) -> list[str]:
    """Where nemofit's answer differs from llama-quantize's; empty: nowhere."""
    try:
        types = tensor_types(model, name, imatrix)
        total = weights_bytes(model, name, imatrix)
    except UsageError as error:
        return [] if answer.refusal else [f"nemofit refuses: {error}"]
    if answer.refusal:
        return [f"llama-quantize refuses: {answer.refusal}"]
    found = [
        f"{tensor.name}: {mine}, llama-quantize {answer.types.get(tensor.name)}"
        for tensor, mine in zip(model.tensors, types, strict=True)
        if answer.types.get(tensor.name) != mine
    ]
    added = sum(tensor_bytes(t, x.shape) for t, x in zip(types, model.tensors, strict=True))
    if added != total:
        found.append(f"total {total}, tensors add up to {added}")
    if abs(total / MIB - answer.mib) > 0.0051:
        found.append(f"{total / MIB:.2f} MiB, llama-quantize {answer.mib}")
    if not imatrix and needs_imatrix(model, name) != answer.needs_imatrix:
        found.append(f"llama-quantize needs an imatrix: {answer.needs_imatrix}")
    return found


def check(models: Sequence[Shape]) -> int:
    """Compare every file type of every model with llama-quantize; print and count the misses."""
    wrong = asked = tensors = 0
    nemofit_s = 0.0
    for shape in models:
        missed: dict[str, list[str]] = {}
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "model.gguf"
            write_sparse(file, shape.model, shape.source)
            for name in file_types():
                for imatrix in (False, True):
                    answer = ask(file, name, imatrix)
                    start = perf_counter()
                    found = differences(shape.model, name, imatrix, answer)
                    nemofit_s += perf_counter() - start
                    asked += 1
                    tensors += len(answer.types)
                    if found:
                        missed[f"{name}{' imatrix' if imatrix else ''}"] = found
        wrong += len(missed)
        print(f"{shape.model.id:28} {len(shape.model.tensors):5} tensors  {len(missed)} differ")
        for what, found in list(missed.items())[:5]:
            print(f"    {what}: {found[0]}" + (f" and {len(found) - 1} more" * (len(found) > 1)))
    print(f"{asked} answers, {tensors} tensor types, {wrong} answers differ")
    return wrong


def _shape(recorded: dict[str, object]) -> Shape:
    tensors: list[Tensor] = []
    source: list[str] = []
    rows: list[tuple[str, ...]] = []
    for name, shape, type_name, *layers in recorded["tensors"]:  # type: ignore[attr-defined]
        names = tuple(name.replace("{}", str(i)) for i in _numbers(*layers)) if layers else (name,)
        rows.append(names)
        tensors += [Tensor(n, tuple(shape)) for n in names]
        source += [type_name] * len(names)
    metadata = {
        k: tuple(v) if isinstance(v, list) else v
        for k, v in recorded["metadata"].items()  # type: ignore[attr-defined]
    }
    model = ModelSpec(
        id=str(recorded["id"]),
        architecture=str(recorded["architecture"]),
        metadata=metadata,
        tensors=tuple(tensors),
    )
    return Shape(model, tuple(source), tuple(rows))


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _packed(shape: Shape, answer: Answer) -> dict[str, object]:
    """One string for each row of the model: "Q6_K*10 Q4_K*2"; empty: as in the 16-bit file."""
    if answer.refusal:
        return {"refusal": answer.refusal}
    source = dict(zip((t.name for t in shape.model.tensors), shape.source, strict=True))
    packed = []
    for row in shape.rows:
        types = [answer.types[name] for name in row]
        runs = [(t, len(list(run))) for t, run in groupby(types)]
        if types == [source[name] for name in row]:
            packed.append("")
        elif len(runs) == 1:
            packed.append(runs[0][0])
        else:
            packed.append(" ".join(f"{t}*{n}" if n > 1 else t for t, n in runs))
    return {"mib": answer.mib, "needs_imatrix": answer.needs_imatrix, "types": packed}


def _spread(text: str) -> Iterator[str]:
    runs = text.split()
    if len(runs) == 1 and "*" not in text:
        while True:
            yield text
    for run in runs:
        name, _, n = run.partition("*")
        yield from [name] * int(n or 1)


def _pretty(recorded: dict[str, object]) -> str:
    """One line for each tensor row and each answer."""
    model = dict(recorded["model"])  # type: ignore[call-overload]
    rows = ",\n  ".join(json.dumps(row) for row in model.pop("tensors"))
    answers = ",\n ".join(
        f"{json.dumps(k)}: {json.dumps(v)}" for k, v in recorded["answers"].items()
    )  # type: ignore[attr-defined]
    return (
        f'{{"engine": {json.dumps(recorded["engine"])},\n'
        f' "command": {json.dumps(recorded["command"])},\n'
        f' "model": {json.dumps(model)[:-1]}, "tensors": [\n  {rows}]}},\n'
        f' "answers": {{\n {answers}}}}}\n'
    )


def main(arguments: Sequence[str]) -> int:
    """Run ``check`` or ``record``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("command", choices=("check", "record"))
    parser.add_argument("--catalog", action="store_true", help="every shape of the catalog")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="random models")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="shapes with that in the name")
    options = parser.parse_args(arguments)
    paths = sorted(p for p in FIXTURES.glob("*.json") if options.only in p.name)
    if options.command == "record":
        for path in paths:
            record(path)
            print(path.name)
        return 0
    shapes = [_shape(json.loads(p.read_text())["model"]) for p in paths]
    rng = random.Random(options.seed)
    specs = [card.spec() for card in all_models()] if options.catalog else []
    models = list({(m.architecture, m.tensors): m for m in specs}.values())
    models += [random_model(rng) for _ in range(options.random)]
    shapes += [Shape(model, source_types(model), ()) for model in models]
    try:
        return 1 if check(shapes) else 0
    except NemofitError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
