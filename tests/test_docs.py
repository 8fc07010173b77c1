"""The documentation is true: its examples print what the pages show, its links lead somewhere.

``python -m benchmarks.docs.refresh`` writes the outputs of today into the pages.
"""

from __future__ import annotations

import re
import shlex
import sys
from difflib import unified_diff
from pathlib import Path

import pytest
from benchmarks.docs.page import PAGES, REASONS, ROOT, Block, blocks, fresh, matches, settled
from benchmarks.docs.shell import Shell

from nemofit.catalog.schema_gpus import CardEntry
from nemofit.catalog.schema_models import ModelEntry
from nemofit.cli.options import OPTIONS
from nemofit.cli.reader import read
from nemofit.cli.schemas import REPORTS
from nemofit.cli.table import COMMANDS

README = ROOT / "README.md"
DOCS = ROOT / "docs"
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)#?([^)\s]*)\)")
_COMMAND = re.compile(r"(?:^|\$ |&& )nemofit ([^|&;<>]+)")
_LANGUAGES = {"console", "json", "python", "sh", "text", "yaml", ""}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all pages, so that the catalog is read once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.skipif(sys.platform == "win32", reason="the examples are for a POSIX shell")
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_print_what_the_page_shows(page: Path, tmp_path: Path, cache: Path) -> None:
    """Every example that is not marked otherwise, in the order of the page."""
    shown = text_of(page)
    printed = fresh(shown, Shell(tmp_path, cache))
    if printed != shown:
        lines = unified_diff(shown.splitlines(), printed.splitlines(), "page", "now", lineterm="")
        pytest.fail("python -m benchmarks.docs.refresh\n" + "\n".join(lines), pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_marked_as_the_index_says(page: Path) -> None:
    """Whatever is not run has a reason, and whatever stands there to copy is understood."""
    for block in blocks(text_of(page)):
        where = f"{name(page)}:{block.at}"
        assert block.language is None or block.language in _LANGUAGES, where
        assert not block.words or block.file or block.reason in REASONS, where
        for line in block.lines if block.language in ("sh", "console") else ():
            for command in _COMMAND.findall(line) if block.runs is False else ():
                assert read(shlex.split(command), {}), f"{where}: nemofit {command}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    """Links within the project; others are for people to follow."""
    for target, heading in _LINK.findall(text_of(page)):
        if target.startswith(("https://", "http://")):
            continue
        there = (page.parent / target) if target else page
        assert there.exists(), f"{name(page)} links to {target}"
        if heading:
            assert heading in _headings(there), f"{name(page)} links to {target}#{heading}"


def test_readme_begins_with_the_two_commands() -> None:
    """The gate runs the second one, so both stand alone in the first block."""
    shown = text_of(README)
    recommend, test = _first_sh(README).lines
    assert recommend.startswith("python3 -m venv .venv && ")
    assert recommend.endswith(".venv/bin/nemofit recommend --model nemotron")
    assert test.startswith("python3 -m venv .venv && ")
    assert test.endswith(".venv/bin/pytest")
    assert len(shown.splitlines()) < 200


def test_pages_that_the_program_names_exist() -> None:
    """Messages and docstrings send people to pages."""
    source = ROOT / "src"
    named = {
        page
        for path in source.rglob("*.py")
        for page in re.findall(r"(?<![\w/])docs/[\w-]+\.md", text_of(path))
        if page != "docs/gguf.md"  # of ggml-org
    }
    assert {page for page in named if not (ROOT / page).exists()} == set()
    assert "docs/catalog.md" in named


def test_every_page_is_in_the_index() -> None:
    linked = {target for target, _ in _LINK.findall(text_of(DOCS / "README.md"))}
    assert {page.name for page in DOCS.glob("*.md")} - linked == {"README.md"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_its_options(command: str) -> None:
    """``docs/commands.md`` shows each command run, and names each option."""
    page = text_of(DOCS / "commands.md")
    assert f"\n$ nemofit {command}" in page
    flags = [flag for key in COMMANDS[command].options for flag in OPTIONS[key].flags]
    assert [flag for flag in flags if f"`{flag}" not in page] == []


def test_every_schema_is_described() -> None:
    page = text_of(DOCS / "json.md")
    assert [schema for schema in REPORTS if f"`{schema}`" not in page] == []


def test_every_field_of_the_catalog_is_described() -> None:
    """What a broken personal catalog sends people to."""
    page = text_of(DOCS / "catalog.md")
    fields = {*ModelEntry.model_fields, *CardEntry.model_fields}
    assert {field for field in fields if f"`{field}`" not in page} == set()


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a", "..."], ["a", "b", "c"], True),
        (["...", "c"], ["a", "b", "c"], True),
        (["a", "...", "c", "..."], ["a", "c", "d"], True),
        (["a", "...", "c"], ["a", "b"], False),
        (["..."], [], True),
        ([], ["a"], False),
    ],
)
def test_dots_stand_for_any_lines(shown: list[str], printed: list[str], expected: bool) -> None:
    assert matches(shown, printed) is expected


def test_a_cut_output_stays_cut() -> None:
    """A refresh keeps as many lines above and below the dots."""
    assert settled(["old", "...", "end"], ["new", "x", "y", "last"]) == ["new", "...", "last"]
    assert settled(["old"], ["new", "x"]) == ["new", "x"]


@pytest.mark.skipif(sys.platform == "win32", reason="the examples are for a POSIX shell")
def test_what_is_not_true_is_written_anew(tmp_path: Path, cache: Path) -> None:
    """A wrong output, a wrong result, an exit code; what is marked stays."""
    page = "\n".join(
        [
            "```sh file=ask.sh",
            "nemofit schema | head -n 1",
            "```",
            "```console",
            "$ sh ask.sh",
            "wrong",
            "$ nemofit schema cats > /dev/null 2>&1",
            "$ echo $?",
            "0",
            "```",
            "```python",
            "print(6 * 7)",
            "```",
            "",
            "```text",
            "41",
            "```",
            "```console not-run this-machine",
            "$ nemofit probe",
            "wrong",
            "```",
            "",
        ]
    )
    found = fresh(page, Shell(tmp_path, cache))
    expected = page.replace("wrong", "Ask for one of these: nemofit schema NAME", 1)
    assert found == expected.replace("\n0\n", "\n4\n").replace("41", "42")


@pytest.mark.skipif(sys.platform == "win32", reason="the examples are for a POSIX shell")
def test_without_jq_its_fields_are_looked_up(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output is then taken for granted, the fields are not."""
    monkeypatch.setattr("benchmarks.docs.shell.shutil.which", lambda name: None)
    shell = Shell(tmp_path, cache)
    assert shell.type("nemofit schema --json | jq '.names[0]'", ["check"]) == ["check"]
    with pytest.raises(ValueError, match="colours"):
        shell.type("nemofit schema --json | jq '.colours[0]'", [])


def _first_sh(page: Path) -> Block:
    return next(block for block in blocks(text_of(page)) if block.language == "sh")


def _headings(page: Path) -> set[str]:
    """Anchors of a page as GitHub makes them."""
    lines = [block.lines for block in blocks(text_of(page)) if block.language is None]
    titles = [line.lstrip("#").strip() for part in lines for line in part if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
