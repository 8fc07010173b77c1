"""What a command hands to the command edge: a record, how to show it, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .output import Block


@dataclass(frozen=True, slots=True)
class Answer:
    """The same record serves both forms: ``--json`` prints it, ``view`` makes text of it.

    Attributes:
        record: What ``--json`` prints.
        view: Turns the record into blocks for people; None: the answer is a document.
        exit_code: 0 it fits or the question was answered; 3 a definite no; 5 hardware unreadable.
        notes: Talk beside the data, for stderr.
        artifact: What stdout gets instead of a view, to the byte.
    """

    record: object
    view: Callable[[], Iterable[Block]] | None
    exit_code: int = 0
    notes: tuple[str, ...] = ()
    artifact: str | None = None
