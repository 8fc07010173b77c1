"""Where programs and Python packages lie on this machine. Nothing is run and nothing imported.

Places: the installers' own (installation pages of ggml-org/llama.cpp and of ollama/ollama),
Homebrew's prefixes, WinGet's links.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .site import Site

HINTS = ("LLAMA_CPP_DIR", "LLAMA_CPP_PATH", "LLAMA_CPP_HOME")
"""Variables that name a folder with llama.cpp's programs, or its build or source folder."""
_BUILD = ("", "bin", "build/bin", "build/bin/Release")
_ENVIRONMENTS = ("VIRTUAL_ENV", "CONDA_PREFIX")
_UNIX = (
    "/usr/local/bin", "/usr/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin",
    "/opt/local/bin", "/snap/bin", "/run/current-system/sw/bin", "/app", "/opt/llama.cpp/bin",
    "/opt/llama.cpp/build/bin",
)  # fmt: skip
_HOME = (
    ".local/bin", ".nix-profile/bin", "bin", "llama.cpp/build/bin", "llama.cpp",
    "src/llama.cpp/build/bin", "git/llama.cpp/build/bin",
)  # fmt: skip
_MAC = (
    "/Applications/Ollama.app/Contents/Resources",
    "~/Applications/Ollama.app/Contents/Resources",
)
_WINDOWS = (
    ("LOCALAPPDATA", "Programs/Ollama"),
    ("LOCALAPPDATA", "Programs/llama.cpp"),
    ("LOCALAPPDATA", "Microsoft/WinGet/Links"),
    ("PROGRAMFILES", "WinGet/Links"),
    ("PROGRAMFILES", "Ollama"),
    ("PROGRAMFILES", "llama.cpp"),
    ("USERPROFILE", "scoop/shims"),
    ("USERPROFILE", "llama.cpp/build/bin/Release"),
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program's path and the place that led to it: a variable, "PATH" or a folder."""

    path: str
    source: str


def find(name: str, site: Site) -> Program | None:
    """The first executable file of a name: by hint, on PATH, then in the usual places."""
    endings = (".exe", ".cmd", ".bat") if site.system == "win32" else ("",)
    for source, folder in folders(site):
        for ending in endings:
            path = os.path.join(site.path(folder), name + ending)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return Program(path, source)
    return None


def folders(site: Site) -> Iterator[tuple[str, str]]:
    """Every place where programs are looked for, as (source, folder), in order."""
    environ = site.environ
    for name in HINTS:
        if environ.get(name):
            for below in _BUILD:
                yield name, os.path.join(environ[name], below).rstrip("/")
    separator = ";" if site.system == "win32" else ":"
    for folder in environ.get("PATH", "").split(separator):
        if os.path.isabs(folder):  # never from the folder that somebody happens to stand in
            yield "PATH", folder
    scripts = "Scripts" if site.system == "win32" else "bin"
    for name in _ENVIRONMENTS:
        if environ.get(name):
            yield name, os.path.join(environ[name], scripts)
    for folder in _usual(site):
        yield folder, folder


def _usual(site: Site) -> Iterator[str]:
    if site.system == "win32":
        for variable, below in _WINDOWS:
            if site.environ.get(variable):
                yield os.path.join(site.environ[variable], below)
        return
    home = site.environ.get("HOME", "")
    if site.system == "darwin":
        yield from (f.replace("~", home, 1) for f in _MAC)
    yield from _UNIX
    if os.path.isabs(home):
        yield from (os.path.join(home, below) for below in _HOME)


@dataclass(frozen=True, slots=True)
class Package:
    """An installed Python distribution: version, its site-packages, and what led there."""

    version: str
    folder: str
    source: str


def packages(names: tuple[str, ...], site: Site, near: str | None = None) -> dict[str, Package]:
    """Distributions by name, from the metadata folders that installers leave.

    A folder is named ``{name}-{version}.dist-info`` (packaging.python.org, "Recording installed
    projects"). All are taken from the first environment that has the first of ``names``.

    Args:
        names: Normalized names.
        near: A program whose environment is looked through first.
    """
    for source, folder in _site_packages(site, near):
        found: dict[str, Package] = {}
        for entry in site.names(folder):
            m = re.fullmatch(r"([A-Za-z0-9._]+)-([0-9][^-/]*)\.dist-info", entry)
            name = re.sub(r"[-_.]+", "-", m[1]).lower() if m else ""
            if m and name in names:
                found[name] = Package(m[2], site.path(folder), source)
        if names[0] in found:
            return found
    return {}


def _site_packages(site: Site, near: str | None) -> Iterator[tuple[str, str]]:
    if near is not None:
        prefix = os.path.dirname(os.path.dirname(os.path.realpath(near)))
        if site.root != "/":
            prefix = prefix.removeprefix(os.path.realpath(site.root))
        yield from (("its own environment", f) for f in _of_prefix(site, prefix))
    for name in _ENVIRONMENTS:
        if site.environ.get(name):
            yield from ((name, f) for f in _of_prefix(site, site.environ[name]))
    yield from (("this Python", f) for f in site.python_path if os.path.isabs(f))
    home = site.environ.get("HOME", "")
    for prefix in (os.path.join(home, ".local") if os.path.isabs(home) else "", "/usr/local"):
        if prefix and site.system != "win32":
            yield from ((prefix, f) for f in _of_prefix(site, prefix))


def _of_prefix(site: Site, prefix: str) -> Iterator[str]:
    if site.system == "win32":
        yield os.path.join(prefix, "Lib/site-packages")
        return
    for lib in ("lib", "lib64"):
        for python in site.names(f"{prefix}/{lib}"):
            if re.fullmatch(r"python3\.\d+", python):
                yield f"{prefix}/{lib}/{python}/site-packages"
                yield f"{prefix}/{lib}/{python}/dist-packages"
