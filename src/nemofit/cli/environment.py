"""Where a person's own catalog lies and where compiled facts are kept: the environment says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nemofit.catalog import store


def prepare(catalog: str | None) -> None:
    """Point the catalog at the person's own files and at the cache.

    Args:
        catalog: Directory from ``--catalog`` or ``NEMOFIT_CATALOG``; None: the default place.

    Raises:
        DataError: The directory that was named does not exist.
    """
    personal = personal_directory(catalog)
    store.use_personal_catalog(personal, must_exist=bool(catalog))
    store.use_cache(cache_directory())
    if os.path.exists(calibration_file()):
        from . import calibration

        calibration.use(calibration_file())


def calibration_file() -> Path:
    """Where what was measured on this machine is kept."""
    own = store.default_personal_directory(os.environ, sys.platform, home())
    return own / "calibration.json"


def personal_directory(catalog: str | None) -> Path | None:
    """The directory of the person's own YAML: the named one, or the default one if it is there."""
    own = config_directory(catalog)
    return own if catalog or own.is_dir() else None


def config_directory(catalog: str | None) -> Path:
    """Where the person's own YAML and saved machines are, or would be."""
    if catalog:
        return Path(catalog).expanduser()
    return store.default_personal_directory(os.environ, sys.platform, home())


def personal_place(catalog: str | None) -> Path:
    """The directory of the person's own YAML, also where it is not there yet."""
    if catalog:
        return Path(catalog).expanduser()
    return store.default_personal_directory(os.environ, sys.platform, home())


def cache_directory() -> Path:
    """The directory of everything that can be made again."""
    return store.default_cache_directory(os.environ, sys.platform, home())


def home() -> Path:
    """The person's home directory; an empty place where there is none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)
