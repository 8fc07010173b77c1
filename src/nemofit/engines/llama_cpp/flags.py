"""Today's flags of llama.cpp, and how older builds say the same: the installed help decides.

    accepted(server_options(...), read_help(text_of_help))

The history is that of ``common/arg.cpp`` and ``tools/llama-bench`` of ggml-org/llama.cpp; pull
request 20834 took ``--no-mmap`` away, 14363 brought ``--kv-unified``, 15434 made ``-fa`` take a
value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from nemofit.errors import HardwareError

Option = tuple[str, ...]
"""A flag with its values."""
_FLAG = re.compile(r"\s*(--?[A-Za-z][\w-]*),?")


def read_help(text: str) -> dict[str, str]:
    """The flags that a program's ``--help`` lists, each with what its line says of the value."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        flags, at = [], 0
        while m := _FLAG.match(line, at):
            flags.append(m[1])
            at = m.end()
        value = re.split(r"\s{2,}", line[at:].strip(), maxsplit=1)[0]
        found.update(dict.fromkeys(flags, value))
    return found


def accepted(
    options: Sequence[Option], known: Mapping[str, str], program: str = "llama-server"
) -> tuple[list[Option], tuple[str, ...]]:
    """The same options as an installed build takes them, and what differs in it.

    Args:
        options: As today's builds take them.
        known: From :func:`read_help`; empty: nothing is known, so nothing is changed.
        program: For the message.

    Raises:
        HardwareError: The build is too old to be told one of them.
    """
    if not known:
        return list(options), ()
    taken: list[Option] = []
    notes = []
    for option in options:
        flag = option[0]
        older = OLDER.get(flag)
        if flag in known and not (flag == "-fa" and not _takes_words(known[flag])):
            taken.append(option)
        elif older is None:
            raise HardwareError(
                f"the installed {program} does not know {flag}", "update llama.cpp, then try again"
            )
        else:
            said, note = older(option[1:], known)
            taken += said
            notes += [note] if note else []
    return taken, tuple(notes)


def _takes_words(value: str) -> bool:
    return "on" in re.split(r"\W+", value)


def _flash_attention(values: Option, known: Mapping[str, str]) -> tuple[list[Option], str | None]:
    """A bare switch in older servers, 0 or 1 in older benchmarks."""
    on = values[0] == "on"
    if "0" in known.get("-fa", ""):
        return [("-fa", "1" if on else "0")], None
    return [("-fa",)] if on else [], None


def _experts(values: Option, known: Mapping[str, str]) -> tuple[list[Option], str | None]:
    """Before ``-ncmoe`` by the pattern that it stands for."""
    if "-ot" not in known:
        raise HardwareError(
            "the installed llama.cpp cannot keep experts in host memory: it knows neither -ncmoe "
            "nor -ot",
            "update llama.cpp, then try again",
        )
    blocks = "|".join(map(str, range(int(values[0]))))
    return [("-ot", rf"blk\.({blocks})\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU")], None


def _devices(values: Option, _: Mapping[str, str]) -> tuple[list[Option], str | None]:
    """Without the flag, no device means no layer on one; single devices cannot be chosen."""
    if values == ("none",):
        return [("-ngl", "0")], None
    raise HardwareError(
        "the installed llama.cpp cannot be told which cards to use (-dev)",
        "update llama.cpp, or hide the other cards from it",
    )


def _says(*said: Option, note: str | None = None) -> Callable[..., tuple[list[Option], str | None]]:
    return lambda values, known: (list(said), note)  # noqa: ARG005


OLDER: dict[str, Callable[[Option, Mapping[str, str]], tuple[list[Option], str | None]]] = {
    "-fa": _flash_attention,
    "-lm": _says(("--no-mmap",)),
    "-ncmoe": _experts,
    "-dev": _devices,
    "-fit": _says(),  # nothing is fitted
    "-cram": _says(),  # no prompts are saved
    "-kvu": _says(),  # the cache is always one
    "--swa-full": _says(),  # windows always have the full size
    "-nr": _says(note="this llama.cpp cannot leave its weights unpacked (-nr)"),
    "--repack": _says(note="this llama.cpp cannot leave its weights unpacked (--repack 0)"),
    "--no-op-offload": _says(note="this llama.cpp always computes large batches on the GPU"),
    "-nopo": _says(note="this llama.cpp always computes large batches on the GPU"),
}
"""By today's flag: what a build that does not know it is told instead, and what stays different."""


def words(program: str, options: Iterable[Option]) -> tuple[str, ...]:
    """Program and options as one list of arguments."""
    return (program, *(word for option in options for word in option))
