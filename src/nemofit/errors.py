"""The tree of errors that a caller or a user can cause; nothing else leaves the public API.

    NemofitError            exit code
    ├── UsageError          2  a mistake in the command line or in an argument
    ├── DoesNotFitError     3  a definite no: nothing fits, or no plan meets the constraints
    ├── UnknownNameError    4  a model, quantization or card that is not known, with near misses
    ├── HardwareError       5  hardware, an engine, a server or a store could not be read
    └── DataError           2  a catalog, machine or model file that is broken

Every message is one line that says what happened with the values; ``hint`` is one line that says
what to try.
"""

from __future__ import annotations

from collections.abc import Sequence


class NemofitError(Exception):
    """Root of every error that a caller can cause.

    Args:
        message: One line: what happened, with the values.
        hint: One line: what to try, or None.
    """

    exit_code: int = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(NemofitError, ValueError):
    """An argument, a flag or a configuration that makes no sense or that the engine refuses."""

    exit_code = 2


class DataError(NemofitError, ValueError):
    """A file that cannot be understood: names the file, the place in it and what was expected."""

    exit_code = 2


class DoesNotFitError(NemofitError):
    """A definite no: nothing fits, or no plan meets the constraints.

    Args:
        changes: What would have to change, as :mod:`nemofit.planner.changes` found it.
    """

    exit_code = 3

    def __init__(
        self, message: str, hint: str | None = None, *, changes: Sequence[object] = ()
    ) -> None:
        super().__init__(message, hint)
        self.changes = tuple(changes)


class UnknownNameError(NemofitError, LookupError):
    """A name that is not known or matches several entries.

    Args:
        kind: What was looked for: "model", "quantization", "card", ...
        name: What was asked.
        near: Near misses, best first.
        ambiguous: True when ``near`` are equally good matches instead of misses.
        hint: What to try instead of a list that nemofit has; for names that are not its own.
    """

    exit_code = 4

    def __init__(
        self,
        kind: str,
        name: str,
        near: Sequence[str] = (),
        *,
        ambiguous: bool = False,
        hint: str | None = None,
    ) -> None:
        what = "is ambiguous" if ambiguous else "is not known"
        word = "one of: " if ambiguous else "did you mean: "
        if near:
            hint = word + ", ".join(near)
        elif hint is None:
            hint = f"see: nemofit list {_LIST.get(kind, kind + 's')}"
        super().__init__(f"{kind} {name!r} {what}", hint)
        self.kind = kind
        self.name = name
        self.near = tuple(near)
        self.ambiguous = ambiguous


class HardwareError(NemofitError):
    """The hardware, an engine, a server or a store of models could not be read."""

    exit_code = 5


_LIST = {"quantization": "quants", "card": "gpus"}
