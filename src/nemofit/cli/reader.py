"""Read a usual command line: known command, known flags, each value behind its flag.

Whatever is not usual (help, an abbreviated flag, a mistake) is left to typer, which knows what to
say about it and takes as long to load as most answers take in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .options import OPTIONS, Option, Options
from .table import COMMANDS

_NOTHING = "\0"


def read(args: Sequence[str], environ: Mapping[str, str]) -> tuple[str, Options] | None:
    """The command and its options; None: not usual."""
    entry = COMMANDS.get(args[0]) if args else None
    if entry is None:
        return None
    chosen = {name: OPTIONS[name] for name in entry.options}
    flags = {flag: name for name, option in chosen.items() for flag in option.flags}
    offs = {option.off: name for name, option in chosen.items() if option.off}
    places = [name for name, option in chosen.items() if not option.flags]
    given: dict[str, Any] = {
        name: value for name, option in chosen.items() if (value := _said(option, environ))
    }
    rest = iter(args[1:])
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in flags:
            name = flags[flag]
            takes_value = chosen[name].metavar is not None
            if equals and not (takes_value and flag.startswith("--")):
                return None
            if takes_value and not equals:
                value = next(rest, _NOTHING)
                if value is _NOTHING:
                    return None
            given[name] = value if takes_value else True
        elif word in offs:
            given[offs[word]] = False
        elif word.startswith("-") or not places:
            return None
        elif chosen[places[0]].many:
            given[places[0]] = (*given.get(places[0], ()), word)
        else:
            given[places.pop(0)] = word
    if any(name not in given for name in entry.required):
        return None
    return args[0], Options(**{OPTIONS[name].field or name: v for name, v in given.items()})


def _said(option: Option, environ: Mapping[str, str]) -> str | bool | None:
    """What the environment says; a switch is on when its variable holds anything but a no."""
    said = environ.get(option.variable or "", "")
    if option.metavar is not None:
        return said or None
    return said.lower() not in ("", "0", "f", "false", "n", "no", "off")
