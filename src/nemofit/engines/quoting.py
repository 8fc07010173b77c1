"""One value, written so that its reader gives back the very same value.

Readers: a POSIX shell, PowerShell, a systemd unit, YAML as Compose reads it, Ollama's Modelfile.
A Python literal is ``repr``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from nemofit.errors import UsageError

_POWERSHELL_QUOTES = "'\u2018\u2019\u201a\u201b"
"""All of them end a single-quoted string: PowerShell/PowerShell, engine/parser/CharTraits.cs."""
_POWERSHELL_PLAIN = re.compile(r"[A-Za-z0-9_./:=\\-]+")
_SYSTEMD_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@+-]+")
_YAML_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def posix(words: Iterable[str]) -> str:
    """Words as one line for a POSIX shell."""
    return shlex.join(words)


def powershell(word: str) -> str:
    """A word for PowerShell, where nothing is special between single quotes but those quotes."""
    if _POWERSHELL_PLAIN.fullmatch(word) and not (word.startswith("-") and set(word) & {".", ":"}):
        return word  # a flag with a dot or a colon would be cut in two
    doubled = "".join(c * 2 if c in _POWERSHELL_QUOTES else c for c in word)
    return f"'{doubled}'"


def systemd(word: str, *, command: bool = True) -> str:
    """A word of a unit file: systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers".

    Args:
        word: The value.
        command: In a command line, where a dollar sign is special as well; False: a setting.
    """
    text = word.replace("%", "%%")
    if command:
        text = text.replace("$", "$$")
    if _SYSTEMD_PLAIN.fullmatch(text):
        return text
    escaped = "".join(_systemd_character(c) for c in text)
    return f'"{escaped}"'


def _systemd_character(c: str) -> str:
    if c in '\\"':
        return "\\" + c
    if c < " " or c == "\x7f":
        return f"\\x{ord(c):02x}"
    return c


def yaml(text: str) -> str:
    """A double-quoted YAML scalar; Compose reads ``$$`` as one dollar sign."""
    return '"' + "".join(map(_yaml_character, text)).replace("$", "$$") + '"'


def _yaml_character(c: str) -> str:
    code = ord(c)
    if c in _YAML_ESCAPES:
        return _YAML_ESCAPES[c]
    if " " <= c <= "~" or (code >= 0xA0 and c.isprintable()):
        return c
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def modelfile(value: str) -> str:
    """A value of a Modelfile (ollama/ollama, parser/parser.go).

    The parser drops what is not printable and cuts blanks at both ends unless quoted.

    Raises:
        UsageError: It has a character that no Modelfile can hold.
    """
    if any(not (c.isprintable() or c == " ") for c in value):
        raise UsageError(
            f"{value!r} cannot stand in a Modelfile: the parser drops control characters",
            "rename the file",
        )
    plain = value and value == value.strip() and not value.startswith('"')
    return value if plain else f'"""{value}"""'


def comment(text: str) -> str:
    """Text as one line of a comment: whatever would end the line becomes a blank."""
    return "".join(c if c.isprintable() else " " for c in text).strip(" \\")
