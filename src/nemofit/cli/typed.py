"""The same command line through typer: help, shell completion, messages about mistakes."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nemofit.errors import UsageError

from . import completion, output
from .options import OPTIONS, Option, Options
from .table import COMMANDS, Entry


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


def parse(args: list[str]) -> tuple[str, Options] | int:
    """The command and its options, or the exit code where the line is already answered.

    Raises:
        Exception: Typer's errors about a mistake; they have a ``format_message``.
    """
    chosen = root().main(args, prog_name="nemofit", standalone_mode=False)
    return chosen if isinstance(chosen, tuple) else int(chosen or 0)


def root() -> Any:
    """The root command with every subcommand as a placeholder."""
    app = typer.Typer(
        name="nemofit",
        cls=_LazyGroup,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit codes: 0 it fits, 1 unexpected error, 2 mistake in the command line, "
        "3 definite no, 4 unknown name, 5 hardware unreadable.",
    )
    app.callback()(_root)
    return typer.main.get_command(app)


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


def _build(name: str, entry: Entry) -> Any:
    """A command whose function has the entry's options as its signature."""
    parameters = [
        inspect.Parameter(
            option,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=_annotation(OPTIONS[option]),
            default=inspect.Parameter.empty if option in entry.required else _unsaid(option),
        )
        for option in entry.options
    ]

    def chosen(**given: Any) -> tuple[str, Options]:
        for key in filter(lambda key: OPTIONS[key].many, given):
            given[key] = tuple(given[key] or ())
        return name, Options(**{OPTIONS[key].field or key: v for key, v in given.items()})

    chosen.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    chosen.__annotations__ = {p.name: p.annotation for p in parameters}
    one = typer.Typer(add_completion=False)
    examples = "\n\n".join(f"  {example}" for example in entry.examples)
    one.command(name, help=entry.summary, epilog=f"Examples:\n\n{examples}")(chosen)
    return typer.main.get_command(one)


def _unsaid(name: str) -> bool | None:
    option = OPTIONS[name]
    return False if option.metavar is None and option.off is None else None


def _annotation(option: Option) -> Any:
    more: dict[str, Any] = {"help": option.help, "metavar": option.metavar or ""}
    if option.complete is not None:
        more["autocompletion"] = getattr(completion, option.complete)
    if option.many:
        return Annotated[list[str] | None, typer.Argument(show_default=False, **more)]
    if not option.flags:
        return Annotated[str | None, typer.Argument(show_default=False, **more)]
    if option.variable is not None:
        more["envvar"] = option.variable
    if option.off is not None:
        return Annotated[bool | None, typer.Option(f"{option.flags[0]}/{option.off}", **more)]
    kind = bool if option.metavar is None else str | None
    return Annotated[kind, typer.Option(*option.flags, **more)]
