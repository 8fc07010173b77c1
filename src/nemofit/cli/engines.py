"""What several commands ask of an engine: its plans, its place for weights, its program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nemofit.catalog.model import ModelSpec
from nemofit.errors import UsageError
from nemofit.machine.records import Machine
from nemofit.planner.records import EnginePlan

from . import request
from .environment import home
from .options import Options

if TYPE_CHECKING:
    from nemofit.planner.changes import Change
    from nemofit.planner.checkpoints import CheckpointGoal
    from nemofit.planner.goal import Goal

CHECKPOINT_ENGINES = ("vllm", "transformers")


class Ranked(Protocol):
    """Plans of any engine, best first, with the reason."""

    @property
    def plans(self) -> Sequence[EnginePlan]: ...
    @property
    def considered(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def models(self) -> int: ...


def ranking(options: Options, engine: str, machine: Machine, count: int | None = None) -> Ranked:
    """The plans of one model on one engine, best first.

    Raises:
        DoesNotFitError: Nothing fits.
        UsageError: What was asked makes no sense for the engine.
    """
    model = request.model_of(options)
    if engine in CHECKPOINT_ENGINES:
        goal = request.checkpoint_goal_of(options, engine)
        if engine == "vllm":
            from nemofit.planner.vllm import rank as rank_vllm

            return rank_vllm(model, machine, goal)
        from nemofit.planner.transformers import rank as rank_transformers

        return rank_transformers(model, machine, goal)
    from nemofit.planner.ranking import PLANS, rank

    wanted = request.goal_of(options)
    if engine == "ollama":
        from nemofit.planner import ollama

        return ollama.rank(model, machine, wanted, count or PLANS)
    return rank(model, machine, wanted, count or PLANS)


def best(options: Options, engine: str, machine: Machine) -> EnginePlan:
    """The best plan of a model on one engine; errors as of :func:`ranking`."""
    return ranking(options, engine, machine, 1).plans[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One plan, whether it does or not.

    Attributes:
        plan: Of any engine.
        changes: Every single change that mends it.
        nearest: The nearest thing that would do, in words.
        misses: What it breaks, in words; None: nothing.
    """

    plan: EnginePlan
    changes: tuple[Change, ...] = ()
    nearest: str | None = None
    misses: str | None = None


def file_goal(options: Options, engine: str, machine: Machine) -> Goal:
    """The goal of a search for an engine that runs GGUF files.

    Raises:
        UsageError: What was asked makes no sense for the engine.
    """
    goal = request.goal_of(options)
    if engine != "ollama":
        return goal
    from nemofit.planner.ollama import goal_for

    return goal_for(goal, request.model_of(options), machine, own_context=False)


def single(options: Options, engine: str, machine: Machine) -> Found:
    """One plan, whether it does or not, and what would instead.

    Raises:
        DoesNotFitError: The engine does not run on such a machine.
        UsageError: What was asked makes no sense for the engine.
    """
    model = request.model_of(options)
    if engine in CHECKPOINT_ENGINES:
        plan, nearest = _checkpoint(engine)(
            model, machine, request.checkpoint_goal_of(options, engine)
        )
        return Found(plan=plan, nearest=nearest, misses=None if plan.fits else "it does not fit")
    from nemofit.planner.limits import unmet

    wanted = request.goal_of(options)
    if engine == "ollama":
        from nemofit.planner.ollama import single as single_plan
    else:
        from nemofit.planner.single import single as single_plan
    found, changes = single_plan(model, machine, wanted)
    return Found(
        plan=found,
        changes=changes,
        nearest=changes[0].text if changes else None,
        misses=unmet(found, wanted),
    )


def _checkpoint(
    engine: str,
) -> Callable[[ModelSpec, Machine, CheckpointGoal], tuple[EnginePlan, str | None]]:
    from nemofit.planner import transformers, vllm

    return vllm.single if engine == "vllm" else transformers.single


def download_directory(engine: str) -> Path:
    """Where an engine keeps what it fetches on this machine."""
    if engine == "ollama":
        from nemofit.engines.ollama.launch import download_directory
    elif engine in CHECKPOINT_ENGINES:
        from nemofit.engines.vllm.launch import download_directory
    else:
        from nemofit.engines.llama_cpp.launch import download_directory
    return download_directory(os.environ, home())


def installed(
    engine: str, program: str | None, machine: Machine, cache: Path
) -> tuple[str | None, Mapping[str, str]]:
    """The path of an engine's program on this machine, and the flags it lists; often nothing.

    Raises:
        HardwareError: It is there and cannot be asked.
    """
    if machine.source != "probe":
        return None, {}
    from nemofit.probe import find_program

    if engine != "llama.cpp":
        return (None if engine == "transformers" else find_program(engine)), {}
    from nemofit.engines.llama_cpp.flags import read_help
    from nemofit.probe.program_help import program_help

    name, path = program_of(program)
    path = path or find_program(name)
    if path is None:
        return None, {}
    return path, read_help(program_help(path, cache))


def program_of(said: str | None) -> tuple[str, str | None]:
    """A program of llama.cpp by its name, and its path where that was said: of it or its directory.

    Raises:
        UsageError: Not one of llama.cpp's programs, or not there.
    """
    from nemofit.engines.llama_cpp.launch import PROGRAMS

    if said is None or said in PROGRAMS:
        return said or PROGRAMS[0], None
    place = Path(said).expanduser()
    if place.is_dir():
        place = place / PROGRAMS[0]
    if place.stem not in PROGRAMS:
        raise UsageError(f"program {said!r:.80} is not known", "one of: " + ", ".join(PROGRAMS))
    if not place.is_file():
        raise UsageError(f"there is no {place}", "name a program of llama.cpp, or its directory")
    return place.stem, str(place)
