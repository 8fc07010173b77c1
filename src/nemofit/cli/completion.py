"""What the shell offers after Tab: read from the compiled catalog, silent where that fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable


def _from(source: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        try:
            words = list(source())
        except Exception:
            return []
        start = incomplete.casefold()
        return [word for word in words if word.casefold().startswith(start)]

    return complete


def _catalog(names: Callable[[], Iterable[str]]) -> Callable[[], Iterable[str]]:
    def read() -> Iterable[str]:
        from .environment import prepare

        prepare(os.environ.get("NEMOFIT_CATALOG"))
        return names()

    return read


def _models() -> Iterable[str]:
    from nemofit.catalog import store

    for id, entry in store.models().items():
        yield id
        aliases = entry.get("aliases", ())
        assert isinstance(aliases, list)
        yield from aliases


def _quants() -> Iterable[str]:
    from nemofit.catalog.ggml import file_types

    return file_types()


def _machines() -> Iterable[str]:
    from nemofit.catalog import store

    from .profiles import names

    yield from names(os.environ.get("NEMOFIT_CATALOG"))
    yield from (f"1x {entry.get('name') or id}" for id, entry in store.gpus().items())


def _kv_types() -> Iterable[str]:
    from nemofit.engines.llama_cpp.config import KV_TYPES

    return KV_TYPES


def _preferences() -> Iterable[str]:
    from nemofit.planner.goal import PREFERENCES

    return PREFERENCES


def _qualities() -> Iterable[str]:
    from nemofit.planner.goal import QUALITIES

    return QUALITIES


def _sorts() -> Iterable[str]:
    from nemofit.planner.need import SORTS

    return SORTS


def _use_cases() -> Iterable[str]:
    from nemofit.planner.use_cases import USE_CASES

    return USE_CASES


def _engines() -> Iterable[str]:
    from nemofit.planner.records import ENGINES

    return ENGINES


def _formats() -> Iterable[str]:
    from nemofit.engines.artifacts import FORMATS

    return FORMATS


def _programs() -> Iterable[str]:
    from nemofit.engines.llama_cpp.launch import PROGRAMS

    return PROGRAMS


def _schemas() -> Iterable[str]:
    from .schemas import REPORTS

    return REPORTS


models = _from(_catalog(_models))
quants = _from(_catalog(_quants))
machines = _from(_catalog(_machines))
kv_types = _from(_kv_types)
preferences = _from(_preferences)
qualities = _from(_qualities)
sorts = _from(_sorts)
use_cases = _from(_use_cases)
engines = _from(_engines)
formats = _from(_formats)
programs = _from(_programs)
schemas = _from(_schemas)
on_off = _from(lambda: ("on", "off"))
lists = _from(lambda: ("models", "quants", "gpus", "engines", "machines"))
catalog_actions = _from(lambda: ("show", "add", "check"))
