"""Plans with companions: nothing is counted twice, nothing is forgotten, the whole fits."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.accuracy import attachments
from benchmarks.accuracy.engine import Engine
from benchmarks.accuracy.sparse import cut

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.model import ModelSpec
from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp import estimate_memory
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import UsageError
from nemofit.formats.companions import Attachment, read_attachment
from nemofit.formats.gguf.reader import read_gguf
from nemofit.formats.gguf.writer import write_sparse
from nemofit.formats.places import Places
from nemofit.machine import parse_machine
from nemofit.planner.companions import DRAFTED, Companions, single_with
from nemofit.planner.goal import Goal
from nemofit.planner.records import Plan, room_for
from nemofit.units import MIB

CARD = parse_machine("RTX 4060, 32 GiB RAM")
CARDS = parse_machine("2x RTX 3060, 64 GiB RAM")
NONE = parse_machine("16 GiB RAM, 8 cores")


def written(path: Path, name: str, blocks: int, vocabulary: bool = False) -> ModelSpec:
    model = replace(cut(find_model(name).spec(), blocks), file_type="Q4_0")
    types = tensor_types(model, "Q4_0", imatrix=False)
    write_sparse(path, model, types, vocabulary="dummy" if vocabulary else "none")
    return read_gguf(path)


def attached(path: Path) -> Attachment:
    return read_attachment(str(path), Places(home=path.parent))


def part(plan: Plan, alone: Plan) -> list[tuple[int, ...]]:
    """What the companions added to each device."""
    pairs = zip(
        (*plan.memory.gpus, plan.memory.host), (*alone.memory.gpus, alone.memory.host), strict=True
    )
    return [
        (a.weights_bytes - b.weights_bytes, a.kv_bytes - b.kv_bytes,
         a.compute_bytes - b.compute_bytes, a.overhead_bytes - b.overhead_bytes)
        for a, b in pairs
    ]  # fmt: skip


def test_without_companions_nothing_changes() -> None:
    model = find_model("llama-3.2-1b").spec()
    plan, alone, _ = single_with(model, CARD, Goal(quant="Q8_0"), Companions())
    assert plan is alone


def test_every_companion_is_in_the_sum(tmp_path: Path) -> None:
    model = written(tmp_path / "g.gguf", "gemma-3-4b", 4)
    companions = Companions(
        projector=attached(attachments.gemma3(tmp_path / "p.gguf")),
        adapter=attached(attachments.lora(tmp_path / "l.gguf", model)),
        draft=written(tmp_path / "d.gguf", "gemma-3-1b", 2),
    )
    plan, alone, _ = single_with(model, CARD, Goal(), companions)
    added = [[0, 0, 0, 0], [0, 0, 0, 0]]
    for one in plan.beside:
        for row, device in zip(added, (*one.memory.gpus, one.memory.host), strict=True):
            row[0] += device.weights_bytes
            row[1] += device.kv_bytes
            row[2] += device.compute_bytes
    assert part(plan, alone) == [tuple(row) for row in added]
    assert [one.kind for one in plan.beside] == ["projector", "adapter", "draft"]
    assert plan.room.budgets.gpus == room_for(CARD, Goal()).budgets.gpus


def test_the_model_gives_way_so_that_the_whole_fits() -> None:
    """A model that fills its card leaves blocks to the host when a draft model comes."""
    model = find_model("qwen3-14b").spec()
    goal = Goal(quant="Q4_K_M", context=4096)
    card = parse_machine("RTX 3060, 64 GiB RAM")
    bare, _, _ = single_with(model, card, goal, Companions())
    draft = find_model("qwen3-1.7b").spec()
    plan, _, _ = single_with(model, card, goal, Companions(draft=draft))
    assert bare.config.gpu_layers == 41
    assert plan.config.gpu_layers is not None
    assert plan.config.gpu_layers < 41
    assert plan.fits


def test_a_companion_that_leaves_no_room_is_a_no() -> None:
    model = find_model("qwen3-4b").spec()
    draft = find_model("qwen3-14b").spec()
    plan, _, _ = single_with(model, NONE, Goal(quant="Q8_0"), Companions(draft=draft))
    assert not plan.fits
    assert plan.words == "does not fit"


def test_without_a_gpu_all_lies_in_host_memory(tmp_path: Path) -> None:
    model = written(tmp_path / "g.gguf", "gemma-3-4b", 4)
    companions = Companions(projector=attached(attachments.gemma3(tmp_path / "p.gguf")))
    plan, alone, _ = single_with(model, NONE, Goal(), companions)
    assert plan.memory.gpus == ()
    weights, kv, compute, overhead = part(plan, alone)[0]
    assert round(weights / 1e6) == 851
    assert (kv, overhead) == (0, 0)
    assert compute == pytest.approx(121.25 * MIB)


def test_a_draft_model_is_told_to_stay_on_the_first_card() -> None:
    model = find_model("qwen2.5-32b").spec()
    companions = Companions(draft=find_model("qwen2.5-0.5b").spec())
    plan, alone, _ = single_with(model, CARDS, Goal(quant="Q4_K_M"), companions)
    assert len(alone.config.tensor_split or ()) == 2
    first, second, _ = part(plan, alone)
    assert first[0] > 0
    assert second == (0, 0, 0, 0)
    words = shlex.split(plan.command())
    assert words[words.index("--spec-type") + 1] == "draft-simple"
    assert words[words.index("-devd") + 1] == "CUDA0"
    assert words[words.index("-hfd") + 1].endswith(":Q8_0")


def test_vocabularies_have_to_match() -> None:
    with pytest.raises(UsageError, match="differ by 102912 tokens"):
        single_with(
            find_model("qwen2.5-7b").spec(), CARD, Goal(quant="Q4_K_M"),
            Companions(draft=find_model("smollm2-135m").spec()),
        )  # fmt: skip


def test_a_draft_model_takes_what_the_engine_takes(engine: Engine, tmp_path: Path) -> None:
    """llama-server, 0.5.0-dev, with and without ``-md`` on one device: the difference to 0.02 MiB.

    The logits of the tokens that are drafted at a time are counted on top; the engine makes room
    for them when they first come.
    """
    target = written(tmp_path / "t.gguf", "smollm2-360m", 3, vocabulary=True)
    draft = written(tmp_path / "d.gguf", "smollm2-135m", 2, vocabulary=True)
    config = RunConfig(context=2048, ubatch=128, backend="rpc")
    load = engine.server_load(
        Path(target.source), config, 1,
        extra=["--spec-type", "draft-simple", "-md", draft.source, "-ngld", "all"],
    )  # fmt: skip
    mine = [estimate_memory(m, config=config, n_gpus=1) for m in (target, draft)]
    real = load.devices["RPC0"]
    assert abs(real.model - sum(m.gpus[0].weights_bytes for m in mine)) <= 0.02 * MIB
    assert real.kv == sum(m.gpus[0].kv_bytes for m in mine)
    # the log parser keeps the last reservation of a device, which is the draft model's
    assert abs(real.compute - mine[1].gpus[0].compute_bytes) <= 0.02 * MIB
    goal = Goal(context=2048, knobs={"ubatch": 128})
    plan, _, _ = single_with(target, CARD, goal, Companions(draft=draft))
    logits = 4 * DRAFTED * target.integer("vocab_size")
    [found] = plan.beside
    assert found.memory.gpus[0].kv_bytes == mine[1].gpus[0].kv_bytes
    assert found.memory.gpus[0].compute_bytes >= logits
