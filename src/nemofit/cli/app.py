"""The command line: parse, answer, show; every failure ends here as one message."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from types import MethodType
from typing import Any

import typer
from typer.core import TyperGroup

from nemofit.errors import UsageError

from . import output
from .errors import INTERRUPTED, failure
from .options import Options, parser
from .table import COMMANDS, Entry

_PARSE_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def _plain(command: Any) -> Any:
    """Let a command take its values as they were typed: :mod:`.request` reads them.

    Converting them would load pydantic, which costs more than most answers.
    """
    make_help_option = command.get_help_option

    def get_help_option(ctx: Any) -> Any:
        option = make_help_option(ctx)
        return option and _take_plainly(option)

    command.get_help_option = get_help_option
    for param in command.params:
        _take_plainly(param)
    return command


def _take_plainly(param: Any) -> Any:
    param.process_value = MethodType(_take, param)
    return param


def _take(param: Any, ctx: Any, value: Any) -> Any:
    if value is None and param.required:
        return type(param).process_value(param, ctx, value)
    return value if param.callback is None else param.callback(ctx, param, value)


class _LazyGroup(TyperGroup):
    """Knows every command's name; builds a command's options only when it is chosen."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is not None:
            return _build(cmd_name, entry)
        if ctx.resilient_parsing or cmd_name.startswith("-"):
            return None
        from difflib import get_close_matches

        near = get_close_matches(cmd_name, COMMANDS, n=1)
        hint = f"nemofit {near[0]}" if near else "one of: " + ", ".join(COMMANDS)
        raise UsageError(f"there is no command {cmd_name!r}", hint)


def _build(name: str, entry: Entry) -> Any:
    parse = parser(entry)

    def chosen(**given: Any) -> tuple[str, Options]:
        return name, parse(**given)

    chosen.__signature__ = parse.__signature__  # type: ignore[attr-defined]
    chosen.__annotations__ = parse.__annotations__
    one = typer.Typer(add_completion=False)
    examples = "\n\n".join(f"  {example}" for example in entry.examples)
    one.command(name, help=entry.summary, epilog=f"Examples:\n\n{examples}")(chosen)
    return _plain(typer.main.get_command(one))


def _version(wanted: bool) -> None:
    if wanted:
        from nemofit import __version__

        output.write(f"nemofit {__version__}\n")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Which language model, quantization and offload setting fits your machine, and how fast.

    The numbers are the inference engine's own, before anything is downloaded.
    """


def root() -> Any:
    """Build the root command with every subcommand as a placeholder."""
    app = typer.Typer(
        name="nemofit",
        cls=_LazyGroup,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit codes: 0 it fits, 1 unexpected error, 2 mistake in the command line, "
        "3 definite no, 4 unknown name, 5 hardware unreadable.",
    )
    app.callback()(_root)
    return _plain(typer.main.get_command(app))


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    as_json = "--json" in args
    debug = "--debug" in args or bool(os.environ.get("NEMOFIT_DEBUG"))
    try:
        return _run(list(args) or ["--help"])
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        output.abandon_stdout()
        return 0
    except _PARSE_ERROR as error:
        return _complain(error.format_message(), _advice(error), 2, as_json)  # type: ignore[attr-defined]
    except Exception as error:
        if debug:
            import traceback

            output.talk(traceback.format_exc().rstrip())
        if isinstance(error, OSError):
            output.abandon_stdout()
        told = failure(error)
        return _complain(told.message, told.hint, told.exit_code, as_json)


def _run(args: list[str]) -> int:
    chosen = root().main(args, prog_name="nemofit", standalone_mode=False)
    if not isinstance(chosen, tuple):
        return int(chosen or 0)
    name, options = chosen
    answer = import_module(f"{__package__}.commands.{name}").answer(options)
    for note in answer.notes:
        output.talk(f"note: {note}")
    try:
        if options.json or answer.view is None:
            from .contract import to_json

            output.write_json(to_json(answer.record))
        else:
            output.show(answer.view())
    except BrokenPipeError:
        output.abandon_stdout()
    return int(answer.exit_code)


def _complain(message: str, hint: str | None, exit_code: int, as_json: bool) -> int:
    output.talk(f"error: {message}" + (f"\ntry:   {hint}" if hint else ""))
    if as_json:
        from .contract import ErrorReport, to_json

        report = ErrorReport(message=message, hint=hint, exit_code=exit_code)
        try:
            output.write_json(to_json(report))
        except OSError:
            output.abandon_stdout()
    return exit_code


def _advice(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", None) or "nemofit"
    return f"{path} --help"
