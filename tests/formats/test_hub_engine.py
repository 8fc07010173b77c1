"""The real llama-server, asked by ``-hf``, takes from our hub the file that a plan is about."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.accuracy.engine import Engine, programs

from nemofit.engines.llama_cpp.launch import Weights
from nemofit.formats.hub_files import choose, launch_tag

from .hubs import COMMIT
from .serving import Handler, Site, serve
from .test_hub import LISTING

LOADED = re.compile(rf"failed to load model from \S*snapshots/{COMMIT}/(\S+)")


@pytest.fixture
def hub() -> Iterator[Site]:
    """The answers that llama.cpp asks for (``common/hf-cache.cpp``); no file is a model."""
    with serve() as site:
        refs = {"branches": [{"name": "main", "targetCommit": COMMIT}]}
        tree = [{"type": "file", "path": path, "oid": f"{n:040x}", "size": 9}
                for n, path in enumerate(LISTING)]  # fmt: skip
        for path, answer in (
            ("/api/models/o/r/refs", refs),
            (f"/api/models/o/r/tree/{COMMIT}", tree),
        ):
            body = json.dumps(answer).encode()
            site.special[path] = lambda h, b=body: whole(h, b)
        for path in LISTING:
            site.special[f"/o/r/resolve/{COMMIT}/{path}"] = lambda h: whole(h, b"no model.")
        yield site


def whole(handler: Handler, body: bytes) -> None:
    headers = {"ETag": '"1"', "Content-Length": str(len(body))}
    handler.say(200, headers, b"" if handler.command == "HEAD" else body)


@pytest.mark.parametrize(
    "choice", ["Q4_K_M", "q2_k", "Q8_0", "Q1_0", "IQ4_XS", "X-UD-Q4_K_M.gguf", "model.gguf"]
)
def test_llama_server_takes_the_file_that_is_planned(
    choice: str, engine: Engine, hub: Site, tmp_path: Path
) -> None:
    path = choose("o/r", LISTING, choice)
    tag = launch_tag(path, LISTING)
    weights = Weights(repository="o/r", quant=tag, file=None if tag else path)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "LLAMA_CACHE": str(tmp_path)}
    done = subprocess.run(
        [str(programs() / "llama-server"), *weights.option(), "--no-mmproj", "-dev", "none"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = LOADED.search(done.stdout + done.stderr)
    assert found, (done.stdout + done.stderr)[-2000:]
    assert found.group(1) == path
