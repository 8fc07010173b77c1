"""Whatever a value is, its reader gives it back: the real shell, the real YAML, the real unit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nemofit.engines import quoting
from nemofit.engines.artifacts import Process, Service, compose_file, shell_line, systemd_unit
from nemofit.errors import UsageError

HOSTILE = (
    "plain", "a b", " lead", "trail ", "it's", 'say "x"', "$HOME", "$(touch x)", "`x`", "a;b",
    "a&b|c", "<in >out", "new\nline", "tab\there", "back\\slash", "-dash", "--flag=1", "%h%%",
    "~", "*", "#not a comment", "key: value", "- item", "{a: 1}", "\u00fc\u4e2d\U0001f600",
    "\u2019curly\u201d", "", "\u2028", "\x7f", "\x1b[31m", "!bang", "a=b", "@file", "a,b",
)  # fmt: skip
WORDS = st.text(
    st.characters(min_codepoint=1, blacklist_categories=("Cs",)), max_size=20
) | st.sampled_from(HOSTILE)


def typed(line: str) -> list[str]:
    """What a real ``sh`` makes of the words of a line."""
    done = subprocess.run(
        ["sh", "-c", f"for w in {line}; do printf '%s\\0' \"$w\"; done"],
        capture_output=True, check=True, timeout=20,
    )  # fmt: skip
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("word", HOSTILE)
def test_a_posix_shell_gives_back_every_word(word: str) -> None:
    assert [word, "x"] == typed(quoting.posix([word, "x"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6))
def test_a_posix_shell_gives_back_any_words(words: list[str]) -> None:
    assert words == typed(quoting.posix(words))


@settings(max_examples=30, deadline=None)
@given(WORDS)
def test_a_variable_reaches_the_program_as_it_is(value: str) -> None:
    line = shell_line(Process(words=("printenv", "-0", "SHOWN"), variables={"SHOWN": value}))
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True, timeout=20)
    assert value == done.stdout.decode().removesuffix("\0")


@settings(max_examples=300, deadline=None)
@given(WORDS)
def test_yaml_gives_back_any_text(text: str) -> None:
    """Compose makes one dollar sign of two, after YAML."""
    assert text == yaml.safe_load(quoting.yaml(text)).replace("$$", "$")


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, WORDS)
def test_a_compose_file_keeps_every_value(words: list[str], variable: str, path: str) -> None:
    service = Service(
        name="x", image="i:1", arguments=tuple(words), variables={"A": variable},
        passed=("TOKEN",), port=8080, mounts=((path, "/m", False),), gpus=("GPU-1",),
    )  # fmt: skip
    read = yaml.safe_load(compose_file(service, [variable]))["services"]["x"]
    assert words == [word.replace("$$", "$") for word in read["command"]]
    assert read["environment"][0] == "TOKEN"
    assert f"A={variable}" == read["environment"][1].replace("$$", "$")
    [mount] = read["volumes"]
    assert (path, "/m", True) == (
        mount["source"].replace("$$", "$"), mount["target"], mount["read_only"],
    )  # fmt: skip
    [device] = read["deploy"]["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["GPU-1"]


def unit_words(line: str) -> list[str]:
    """A command line of a unit read by the rules of systemd.syntax(7) and systemd.service(5)."""
    words, at = [], 0
    while at < len(line):
        if line[at] == " ":
            at += 1
            continue
        word, quoted = "", line[at] == '"'
        at += quoted
        while at < len(line) and (line[at] != '"' if quoted else line[at] != " "):
            if line[at] == "\\":
                if line[at + 1] == "x":
                    word, at = word + chr(int(line[at + 2 : at + 4], 16)), at + 4
                else:
                    word, at = word + line[at + 1], at + 2
                continue
            word, at = word + line[at], at + 1
        at += quoted
        words.append(word.replace("%%", "%").replace("$$", "$"))
    return words


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_a_unit_gives_back_any_words(words: list[str]) -> None:
    """One line, and no word is empty or ends early."""
    line = " ".join(quoting.systemd(word) for word in words)
    assert "\n" not in line
    assert words == unit_words(line)


def test_systemd_itself_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / "llm.service"
    program = shutil.which("sh") or "/bin/sh"
    unit.write_text(
        systemd_unit(
            Process(words=(program, *HOSTILE), variables={"A": "b c"}, title="50 % $x")
        )
    )  # fmt: skip
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(unit)], capture_output=True, text=True
    )
    assert "llm.service" not in done.stderr


def powershell_word(text: str) -> str:
    """A single-quoted string by the rules of about_Quoting_Rules: quotes are doubled."""
    assert text[0] == text[-1] == "'"
    inner, out, at = text[1:-1], "", 0
    while at < len(inner):
        is_quote = inner[at] in "'\u2018\u2019\u201a\u201b"
        assert not is_quote or inner[at + 1] in "'\u2018\u2019\u201a\u201b"
        out, at = out + inner[at], at + 1 + is_quote
    return out


@given(WORDS)
def test_powershell_reads_every_quote_twice(word: str) -> None:
    said = quoting.powershell(word)
    assert word == said if not said.startswith("'") else word == powershell_word(said)
    if not said.startswith("'"):
        assert not set(word) & set(" ,;&|$`'\"(){}@#<>*?[]\n\t")


def modelfile_value(text: str) -> str:
    """A value as ollama/ollama parser/parser.go reads it: blanks off, then quotes off."""
    text = "".join(c for c in text if c.isprintable()).strip()
    for mark in ('"""', '"'):
        if text.startswith(mark) and text.endswith(mark) and len(text) >= 2 * len(mark):
            return text[len(mark) : -len(mark)]
    return text


@given(WORDS)
def test_a_modelfile_gives_back_or_refuses(word: str) -> None:
    if all(c.isprintable() for c in word):
        line = quoting.modelfile(word)
        assert "\n" not in line
        assert word == modelfile_value(line)
    else:
        with pytest.raises(UsageError, match="Modelfile"):
            quoting.modelfile(word)


@given(WORDS)
def test_a_comment_is_one_line(text: str) -> None:
    said = quoting.comment(text)
    assert len(said.splitlines()) <= 1
    assert not said.endswith("\\")
