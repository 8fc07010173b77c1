"""One way to find a model, a quantization or a card by what a person types.

>>> names = {"llama-3.1-70b": ["meta-llama/Llama-3.1-70B-Instruct", "llama3.1:70b"]}
>>> resolve("model", "Llama 3.1 70b", names)
'llama-3.1-70b'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from ..errors import UnknownNameError

NEAR: Final = 5
"""Near misses shown at most."""
_WORDS: Final = re.compile(r"[^a-z0-9.]+")
LONGEST: Final = 100
"""Characters of what was asked that are looked at; no name is longer."""


def plain(name: str) -> str:
    """A name without case, spaces and punctuation; a plus sign counts ("command-r+")."""
    folded = name.casefold().replace("+", "plus")
    return "".join(c for c in folded if c.isalnum())


def resolve(kind: str, asked: str, names: Mapping[str, Iterable[str]]) -> str:
    """Find the one id that ``asked`` names.

    Ids and names as written come first, then without case, then without punctuation, then a
    repository's name without its owner. The first step that knows the name decides, so an id is
    never hidden by another entry's alias.

    Args:
        kind: What is looked for, for messages: "model", "quantization", "card".
        asked: What a person typed.
        names: Every id with its other names: aliases, repository ids, Ollama tags.

    Raises:
        UnknownNameError: Not known, or several match; carries the near misses as ids.
    """
    asked = " ".join(asked.split()).removesuffix(":latest")
    if asked in names:
        return asked
    if 0 < len(asked) <= LONGEST:
        for form in _FORMS:
            wanted = form(asked)
            found = [i for i, name in _pairs(names) if wanted and form(name) == wanted]
            found = list(dict.fromkeys(found))
            if len(found) == 1:
                return found[0]
            if found:
                raise UnknownNameError(kind, asked, sorted(found), ambiguous=True)
    shown = asked if len(asked) <= LONGEST else asked[: LONGEST - 3] + "..."
    raise UnknownNameError(kind, shown, near_misses(shown, names))


def near_misses(asked: str, names: Mapping[str, Iterable[str]]) -> list[str]:
    """Ids whose names resemble ``asked``, best first: those that contain it, then by likeness.

    One or two characters have to be a word of the name: ``r1`` is in ``deepseek-r1``.
    """
    wanted = plain(asked[:LONGEST])
    if not wanted:
        return []
    if len(wanted) <= 2:
        found = [i for i in names if wanted in _WORDS.split(i.casefold())]
        return sorted(found, key=lambda i: (len(_WORDS.split(i)), i))[:NEAR]
    by_name: dict[str, list[str]] = {}
    for i, name in _pairs(names):
        by_name.setdefault(plain(name), []).append(i)
    containing = sorted((n for n in by_name if wanted in n), key=len)
    from difflib import get_close_matches

    close = get_close_matches(wanted, by_name, n=4 * NEAR, cutoff=0.6)
    ranked = dict.fromkeys(i for n in (*containing, *close) for i in by_name[n])
    return list(ranked)[:NEAR]


def _pairs(names: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, str]]:
    for i, others in names.items():
        yield i, i
        for other in others:
            yield i, other


def _without_owner(name: str) -> str:
    return plain(name.rpartition("/")[2])


_FORMS: Final[tuple[Callable[[str], str], ...]] = (str, str.casefold, plain, _without_owner)
