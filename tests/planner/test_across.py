"""The whole catalog at once agrees with each model asked about alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemofit.catalog.models import ModelCard, all_models, find_model
from nemofit.errors import DoesNotFitError
from nemofit.machine import budgets, parse_machine
from nemofit.machine.records import Machine
from nemofit.planner import Goal, across, footprints
from nemofit.planner.defaults import config_of
from nemofit.planner.records import Room, room_of
from nemofit.planner.sizing import Sizer
from nemofit.planner.sources import source_of

SOME = ("llama-3.2-1b", "qwen3-8b", "qwen3-30b-a3b", "nemotron-70b", "tinyllama-1.1b")


@pytest.fixture(autouse=True)
def _few_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cards = (*tuple(find_model(name) for name in SOME), find_model("bge-m3"))

    def few() -> tuple[ModelCard, ...]:
        return cards

    monkeypatch.setattr(footprints, "all_models", few)
    monkeypatch.setattr(across, "all_models", few)
    footprints.use_directories(tmp_path, None)
    yield
    footprints.use_directories(None, None)


def rows(machine: Machine, **goal: object) -> across.Ranking:
    return across.rank_catalog(machine, Goal(**goal))


def test_one_row_per_model_that_writes_text(machine: Machine) -> None:
    """No model twice, no embedding model, none over a budget, best score first."""
    plans = rows(machine).plans
    ids = [plan.model.id for plan in plans]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(SOME)
    offers = budgets(machine)
    for plan in plans:
        used = [device.total_bytes for device in plan.memory.gpus]
        assert offers.fits(used, plan.memory.host.total_bytes)
    assert plans == sorted(plans, key=lambda plan: plan.score, reverse=True)


def test_figures_equal_those_of_a_single_model(machine: Machine) -> None:
    """Memory and speed of a row are what the sizer says about that very configuration."""
    room = room_of(machine, None, False)
    for plan in rows(machine).plans:
        assert plan.quant is not None
        model = find_model(plan.model.id).spec()
        sizer = Sizer(model, room, Goal())
        alone = sizer.plan(
            plan.quant, plan.config, source_of(model, plan.quant, None), _room_of(plan.config, room)
        )
        assert alone.memory == plan.memory
        assert alone.tokens_per_second == pytest.approx(plan.tokens_per_second)
        assert model.parameters == plan.model.parameters


def _room_of(config: object, room: Room) -> Room:
    return room.without_gpus() if getattr(config, "backend", "") == "cpu" else room


def test_figures_are_kept_and_never_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is worked out; a touched source file makes it new."""
    told: list[str] = []
    room = room_of(parse_machine("16 GiB RAM"), None, False)
    config = config_of(room, Goal(), 4096)
    first = footprints.footprints(config, ("Q4_K_M",), None, prepare=told.append)
    again = footprints.footprints(config, ("Q4_K_M",), None, prepare=told.append)
    assert first == again
    assert len(told) == 1
    personal = tmp_path / "own"
    personal.mkdir()
    (personal / "models.yaml").write_text("models: {}\n")
    footprints.use_directories(tmp_path, personal)
    footprints.footprints(config, ("Q4_K_M",), None, prepare=told.append)
    assert len(told) == 2


@pytest.mark.parametrize("junk", ["", "null", "[]", '{"digest": 1}', "\x00" * 10])
def test_a_broken_cache_is_made_again(junk: str, tmp_path: Path) -> None:
    """Whatever lies in the cache file, the answer is right."""
    config = config_of(room_of(parse_machine("16 GiB RAM"), None, False), Goal(), 4096)
    right = footprints.footprints(config, ("Q4_K_M",), None)
    [path] = tmp_path.glob("footprints-*.json")
    path.write_text(junk)
    assert right == footprints.footprints(config, ("Q4_K_M",), None)


def test_a_shorter_trained_context_is_used() -> None:
    """TinyLlama was trained for 2048 tokens, and its row says so."""
    plans = rows(parse_machine("16 GiB RAM")).plans
    contexts = {plan.model.id: plan.context for plan in plans}
    assert (contexts["tinyllama-1.1b"], contexts["llama-3.2-1b"]) == (2048, 8192)


def test_limits_apply_to_every_row() -> None:
    """A fixed file type, cache type and speed hold for all rows."""
    plans = rows(
        parse_machine("1x RTX 3090, 64 GiB RAM"),
        quant="Q6_K",
        min_tokens_per_second=20,
        knobs={"kv_type_k": "q8_0", "kv_type_v": "q8_0"},
    ).plans
    assert plans
    for plan in plans:
        assert (plan.quant, plan.config.kv_type_k) == ("Q6_K", "q8_0")
        assert plan.tokens_per_second >= 20


def test_a_machine_for_nothing() -> None:
    """The refusal says what the smallest model needs and what there is."""
    with pytest.raises(DoesNotFitError, match=r"none of \d+ models fits.*needs .* GiB.*offers"):
        rows(parse_machine("2.2 GiB RAM"))


def test_limits_that_no_model_meets() -> None:
    """The limit is named with the nearest that works: asked for that, models are found."""
    machine = parse_machine("RTX 3060, 16 GiB RAM")
    with pytest.raises(DoesNotFitError, match="meets --min-tps 100000 ") as refused:
        rows(machine, min_tokens_per_second=100_000)
    assert refused.value.hint is not None
    reachable = float(refused.value.hint.split()[1])
    assert rows(machine, min_tokens_per_second=reachable).plans


def test_more_and_larger_experts_are_abler() -> None:
    """The published 30.5B-A3.3B counts as about 10B: the geometric mean."""
    assert across.ability(30_532_122_624, 3_344_000_000) == pytest.approx(0.5, abs=0.01)
    assert across.ability(8 * 10**9, 8 * 10**9) < across.ability(70 * 10**9, 70 * 10**9)


def test_every_model_of_the_catalog_has_a_footprint() -> None:
    """What does not generate text pools; there is nothing between."""
    poolers = [card.id for card in all_models() if not footprints.generates(card)]
    assert "bge-m3" in poolers
    assert "nemotron-70b" not in poolers
