"""Every option, written once: its flags, its help and its place in one record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from . import completion
from .table import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the person typed. None or False: not said, so free to choose."""

    model: str | None = None
    quant: str | None = None
    imatrix: bool | None = None
    context: str | None = None
    kv_type: str | None = None
    parallel: str | None = None
    ubatch: str | None = None
    flash_attention: str | None = None
    gpu_layers: str | None = None
    tensor_split: str | None = None
    cpu_moe_layers: str | None = None
    engine: str | None = None
    prefer: str | None = None
    min_tps: str | None = None
    limit: str | None = None
    explain: bool = False
    machine: str | None = None
    reserve: str | None = None
    assume_idle: bool = False
    catalog: str | None = None
    directory: str | None = None
    what: str | None = None
    name: str | None = None
    json: bool = False
    debug: bool = False


_Text = str | None
_MODEL_HELP = "Catalog name or alias, or the path of a .gguf file."


def _option(kind: Any, *flags: str, help: str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(*flags, help=help, **more)]


def _argument(help: str, metavar: str, complete: Callable[[str], list[str]]) -> Any:
    return Annotated[
        _Text,
        typer.Argument(help=help, metavar=metavar, autocompletion=complete, show_default=False),
    ]


_TYPES: dict[str, Any] = {
    "model": _argument(_MODEL_HELP, "MODEL", completion.models),
    "model_option": _option(
        _Text,
        "-m",
        "--model",
        help=_MODEL_HELP + " Without it: all models.",
        metavar="MODEL",
        autocompletion=completion.models,
    ),
    "quant": _option(
        _Text,
        "-q",
        "--quant",
        help="File type, for example Q4_K_M.",
        metavar="TYPE",
        autocompletion=completion.quants,
    ),
    "imatrix": _option(
        bool | None,
        "--imatrix/--no-imatrix",
        help="Sizes and quality of files made with, or without, an importance matrix.",
    ),
    "context": _option(
        _Text,
        "-c",
        "--context",
        help="Tokens of context over all sequences, for example 8192 or 32k.",
        metavar="TOKENS",
    ),
    "kv_type": _option(
        _Text,
        "--kv-type",
        help="Type of the KV cache; two types with a comma are K,V.",
        metavar="TYPE[,TYPE]",
        autocompletion=completion.kv_types,
    ),
    "parallel": _option(_Text, "--parallel", help="Sequences at a time.", metavar="N"),
    "ubatch": _option(_Text, "--ubatch", help="Tokens per micro-batch.", metavar="N"),
    "flash_attention": _option(
        _Text,
        "--flash-attention",
        help="Flash attention, on or off.",
        metavar="on|off",
        autocompletion=completion.on_off,
    ),
    "gpu_layers": _option(
        _Text,
        "--gpu-layers",
        help="Layers on the GPUs as llama.cpp counts them (blocks + 1 for the output), or all.",
        metavar="N",
    ),
    "tensor_split": _option(
        _Text,
        "--tensor-split",
        help="Proportion of the layers per GPU, for example 3,2.",
        metavar="A,B,...",
    ),
    "cpu_moe_layers": _option(
        _Text,
        "--cpu-moe-layers",
        help="Keep the experts of the first N blocks in host memory.",
        metavar="N",
    ),
    "engine": _option(
        _Text,
        "--engine",
        help="Whose command to print: llama.cpp or ollama.",
        metavar="ENGINE",
        autocompletion=completion.engines,
    ),
    "prefer": _option(
        _Text,
        "--prefer",
        help="What to favour: quality, speed, context or balanced.",
        metavar="WHAT",
        autocompletion=completion.preferences,
    ),
    "min_tps": _option(
        _Text,
        "--min-tps",
        help="Least generated tokens per second that will do.",
        metavar="N",
    ),
    "limit": _option(_Text, "--limit", help="Rows to show at most.", metavar="N"),
    "explain": _option(
        bool, "--explain", help="Show the arithmetic and where every number comes from."
    ),
    "machine": _option(
        _Text,
        "--machine",
        help="Another machine: a description such as '2x RTX 3090, 64 GiB RAM', "
        "a file from 'nemofit probe --json', or - to read that from stdin.",
        metavar="SPEC|FILE|-",
        autocompletion=completion.machines,
    ),
    "reserve": _option(
        _Text,
        "--reserve",
        help="Memory to leave free on every GPU, for example 1GiB.",
        metavar="SIZE",
    ),
    "assume_idle": _option(
        bool, "--assume-idle", help="Plan with the memory of an idle machine, not what is free now."
    ),
    "catalog": _option(
        _Text,
        "--catalog",
        help="Directory of your own models.yaml, quants.yaml, gpus.yaml.",
        metavar="DIR",
        envvar="NEMOFIT_CATALOG",
    ),
    "directory": _option(
        _Text,
        "--directory",
        help="Where the model file would go; its free space is checked.",
        metavar="DIR",
    ),
    "what": _argument("models, quants, gpus or engines.", "WHAT", completion.lists),
    "name": _argument("A command; without it: their names.", "[NAME]", completion.schemas),
    "json": _option(bool, "--json", help="Print one JSON document instead of text."),
    "debug": _option(
        bool,
        "--debug",
        help="Show the traceback of an error.",
        envvar="NEMOFIT_DEBUG",
    ),
}  # fmt: skip

_FLAGS = {f.name for f in fields(Options) if f.default is False}


def parser(entry: Entry) -> Callable[..., Options]:
    """Make the function whose signature typer turns into the command's options."""

    def parse(**given: Any) -> Options:
        if "model_option" in given:
            given["model"] = given.pop("model_option")
        return Options(**given)

    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=_TYPES[name],
            default=(
                inspect.Parameter.empty
                if name in entry.required
                else False
                if name in _FLAGS
                else None
            ),
        )
        for name in entry.options
    ]
    parse.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    parse.__annotations__ = {p.name: p.annotation for p in parameters}
    return parse
