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
    home = _home()
    if catalog:
        store.use_personal_catalog(Path(catalog).expanduser(), must_exist=True)
    else:
        own = store.default_personal_directory(os.environ, sys.platform, home)
        store.use_personal_catalog(own if own.is_dir() else None)
    store.use_cache(store.default_cache_directory(os.environ, sys.platform, home))


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull).parent
