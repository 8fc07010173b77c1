"""The command line: read, answer, show; every failure ends here as one message."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from . import output
from .errors import INTERRUPTED, failure
from .options import Options
from .reader import read


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    as_json = "--json" in args
    debug = "--debug" in args or bool(os.environ.get("NEMOFIT_DEBUG"))
    try:
        chosen = _parse(list(args) or ["--help"])
        return chosen if isinstance(chosen, int) else _answer(*chosen)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        output.abandon_stdout()
        return 0
    except Exception as error:
        if debug:
            import traceback

            output.talk(traceback.format_exc().rstrip())
        if isinstance(error, OSError):
            output.abandon_stdout()
        told = failure(error)
        changes = getattr(error, "changes", ())
        return _complain(told.message, told.hint, told.exit_code, as_json, changes)


def _parse(args: list[str]) -> tuple[str, Options] | int:
    completing = "_NEMOFIT_COMPLETE" in os.environ
    usual = None if completing else read(args, os.environ)
    if usual is not None:
        return usual
    from .typed import parse

    return parse(args)


def _answer(name: str, options: Options) -> int:
    answer = import_module(f"{__package__}.commands.{name}").answer(options)
    for note in answer.notes:
        output.talk(f"note: {note}")
    try:
        if answer.artifact is not None and not options.json:
            output.write_artifact(answer.artifact)
        elif options.json or answer.view is None:
            from .contract import to_json

            output.write_json(to_json(answer.record))
        else:
            output.show(answer.view())
    except BrokenPipeError:
        output.abandon_stdout()
    return int(answer.exit_code)


def _complain(
    message: str, hint: str | None, exit_code: int, as_json: bool, changes: Sequence[Any] = ()
) -> int:
    output.talk(f"error: {message}" + (f"\ntry:   {hint}" if hint else ""))
    for change in changes:
        if change.text not in (hint or ""):
            output.talk(f"or:    {change.text}")
    if as_json:
        from .contract import ErrorReport, to_json

        report = ErrorReport(message=message, hint=hint, exit_code=exit_code)
        if changes:
            from .records import change_records

            report.changes = change_records(changes)
        try:
            output.write_json(to_json(report))
        except OSError:
            output.abandon_stdout()
    return exit_code
