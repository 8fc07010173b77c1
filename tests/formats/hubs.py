"""A hub of our own: the two answers of the real one that huggingface_hub asks for, and a cache.

Shapes as documented at https://huggingface.co/docs/hub/api and in huggingface/huggingface_hub,
``docs/source/en/guides/manage-cache.md``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from .serving import Handler, Site

COMMIT = "a1" * 20


def publish(site: Site, repository: str, files: Mapping[str, bytes]) -> None:
    """Serve a repository: its listing, and its files by way of a redirect."""
    siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
    info = {"_id": "1", "id": repository, "modelId": repository, "sha": COMMIT}
    body = json.dumps({**info, "private": False, "siblings": siblings, "tags": []}).encode()
    json_type = {"Content-Type": "application/json"}
    site.special[f"/api/models/{repository}"] = lambda h: h.say(200, json_type, body)
    for path, data in files.items():
        stored = f"/cdn/{hashlib.sha256(data).hexdigest()}"
        site.files[stored] = data
        site.special[f"/{repository}/resolve/{COMMIT}/{path}"] = lambda h, to=stored: h.say(
            302, {"Location": to, "X-Repo-Commit": COMMIT}, b""
        )


def refuse(site: Site, repository: str, status: int, code: str | None = None) -> None:
    """Answer the listing of a repository with an error as the hub does."""
    headers = {"X-Error-Code": code} if code else {}

    def answer(handler: Handler) -> None:
        handler.say(status, headers, b'{"error": "no"}')

    site.special[f"/api/models/{repository}"] = answer


def store(cache: Path, repository: str, files: Mapping[str, bytes], commit: str = COMMIT) -> Path:
    """Put files into a cache, as a download leaves them; gives the snapshot's directory."""
    folder = cache / ("models--" + repository.replace("/", "--"))
    snapshot = folder / "snapshots" / commit
    for directory in (folder / "refs", folder / "blobs", snapshot):
        directory.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    for path, data in files.items():
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        link = snapshot / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
