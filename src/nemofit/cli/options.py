"""Every option, written once: its flags, its help and its place in one record.

The table is plain data, so that a usual command line is read without loading typer
(:mod:`.reader`); typer makes help, completion and messages about mistakes from it
(:mod:`.typed`).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True, eq=True, repr=False)
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
    tensor_parallel: str | None = None
    pipeline_parallel: str | None = None
    utilization: str | None = None
    cpu_offload: str | None = None
    eager: bool = False
    prefer: str | None = None
    min_tps: str | None = None
    min_context: str | None = None
    max_vram: str | None = None
    quality: str | None = None
    models: tuple[str, ...] = ()
    use_case: str | None = None
    prices: str | None = None
    power_price: str | None = None
    sort: str | None = None
    limit: str | None = None
    explain: bool = False
    machine: str | None = None
    save: str | None = None
    measure: bool = False
    reserve: str | None = None
    assume_idle: bool = False
    catalog: str | None = None
    directory: str | None = None
    format: str | None = None
    port: str | None = None
    run: bool = False
    what: str | None = None
    name: str | None = None
    local: bool = False
    program: str | None = None
    running: bool = False
    log: str | None = None
    url: str | None = None
    mmproj: str | None = None
    lora: str | None = None
    draft: str | None = None
    entry_name: str | None = None
    repo: str | None = None
    force: bool = False
    target: str | None = None
    seconds: str | None = None
    interval: str | None = None
    svg: str | None = None
    from_file: str | None = None
    repetitions: str | None = None
    show: bool = False
    forget: bool = False
    json: bool = False
    debug: bool = False


@dataclass(slots=True, eq=False, repr=False)
class Option:
    """How an option is typed.

    Attributes:
        help: One sentence.
        flags: As typed; none: an argument.
        metavar: What stands for the value in the help; None: a switch without a value.
        off: The flag that says no, for a switch that can be left unsaid.
        complete: Name of the function in :mod:`.completion` that knows the values.
        variable: Environment variable that says the same.
        field: Its place in :class:`Options` where that is not its own name.
        many: An argument that takes every word that is left.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    off: str | None = None
    complete: str | None = None
    variable: str | None = None
    field: str | None = field(default=None)
    many: bool = False


_MODEL = (
    "Catalog name or alias, path of a .gguf file, https:// address, "
    "hf:owner/repo[:quant or file], or ollama:name[:tag]."
)

OPTIONS: dict[str, Option] = {
    "model": Option(_MODEL, (), "MODEL", complete="models"),
    "model_option": Option(
        _MODEL + " Without it: all models.",
        ("-m", "--model"),
        "MODEL",
        complete="models",
        field="model",
    ),
    "quant": Option("File type, for example Q4_K_M.", ("-q", "--quant"), "TYPE", complete="quants"),
    "imatrix": Option(
        "Sizes and quality of files made with, or without, an importance matrix.",
        ("--imatrix",),
        off="--no-imatrix",
    ),
    "context": Option(
        "Tokens of context over all sequences, for example 8192 or 32k.",
        ("-c", "--context"),
        "TOKENS",
    ),
    "kv_type": Option(
        "Type of the KV cache; two types with a comma are K,V.",
        ("--kv-type",),
        "TYPE[,TYPE]",
        complete="kv_types",
    ),
    "parallel": Option("Sequences at a time.", ("--parallel",), "N"),
    "ubatch": Option("Tokens per micro-batch.", ("--ubatch",), "N"),
    "flash_attention": Option(
        "Flash attention, on or off.", ("--flash-attention",), "on|off", complete="on_off"
    ),
    "gpu_layers": Option(
        "Layers on the GPUs as llama.cpp counts them (blocks + 1 for the output), or all.",
        ("--gpu-layers",),
        "N",
    ),
    "tensor_split": Option(
        "Proportion of the layers per GPU, for example 3,2.", ("--tensor-split",), "A,B,..."
    ),
    "cpu_moe_layers": Option(
        "Keep the experts of the first N blocks in host memory.", ("--cpu-moe-layers",), "N"
    ),
    "engine": Option(
        "What shall run it: llama.cpp, ollama, vllm or transformers.",
        ("--engine",),
        "ENGINE",
        complete="engines",
    ),
    "tensor_parallel": Option(
        "vLLM: GPUs that share every layer.", ("--tensor-parallel-size",), "N"
    ),
    "pipeline_parallel": Option(
        "vLLM: groups of GPUs with whole layers each.", ("--pipeline-parallel-size",), "N"
    ),
    "utilization": Option(
        "vLLM: share of each GPU's memory to take.", ("--gpu-memory-utilization",), "X"
    ),
    "cpu_offload": Option("vLLM: GiB of weights per GPU in RAM.", ("--cpu-offload-gb",), "N"),
    "eager": Option("vLLM: no CUDA graphs.", ("--enforce-eager",)),
    "prefer": Option(
        "What to favour: quality, speed, context or balanced.",
        ("--prefer",),
        "WHAT",
        complete="preferences",
    ),
    "min_tps": Option("Least generated tokens per second that will do.", ("--min-tps",), "N"),
    "min_context": Option(
        "Least tokens of context that will do, where --context leaves it open.",
        ("--min-context",),
        "TOKENS",
    ),
    "max_vram": Option(
        "Most memory to use of every GPU, for example 20GiB.", ("--max-vram",), "SIZE"
    ),
    "quality": Option(
        "Heaviest loss that will do: near-lossless, slight or noticeable.",
        ("--quality",),
        "GRADE",
        complete="qualities",
    ),
    "models": Option(
        "Models, each with a file type behind a colon if you like (nemotron:Q4_K_M).",
        (),
        "MODEL...",
        complete="models",
        many=True,
    ),
    "use_case": Option(
        "Rank models by published scores for: chat, code, reasoning, long-context, tools "
        "or multilingual.",
        ("--use-case",),
        "CASE",
        complete="use_cases",
    ),
    "prices": Option(
        "Your price list, a YAML file: 'prices: {RTX 3090: 650}', 'currency: EUR'.",
        ("--prices",),
        "FILE",
    ),
    "power_price": Option(
        "Price of a kilowatt-hour, for what a million tokens cost.", ("--power-price",), "N"
    ),
    "sort": Option(
        "What comes first: memory, power, price or speed.", ("--sort",), "WHAT", complete="sorts"
    ),
    "limit": Option("Rows to show at most.", ("--limit",), "N"),
    "explain": Option("Show the arithmetic and where every number comes from.", ("--explain",)),
    "machine": Option(
        "Another machine: a description such as '2x RTX 3090, 64 GiB RAM', a name from "
        "'nemofit probe --save', a file from 'nemofit probe --json', or - to read that from stdin.",
        ("--machine",),
        "SPEC|NAME|FILE|-",
        complete="machines",
    ),
    "save": Option("Keep this machine under a name, for --machine NAME.", ("--save",), "NAME"),
    "measure": Option(
        "Measure the bandwidth of the RAM, for two seconds, and use it from now on.", ("--measure",)
    ),
    "reserve": Option(
        "Memory to leave free on every GPU, for example 1GiB, or by its number: 0:2GiB,1:512MiB.",
        ("--reserve",),
        "SIZE|N:SIZE,...",
    ),
    "assume_idle": Option(
        "Plan with the memory of an idle machine, not what is free now.", ("--assume-idle",)
    ),
    "catalog": Option(
        "Directory of your own models.yaml, quants.yaml, gpus.yaml.",
        ("--catalog",),
        "DIR",
        variable="NEMOFIT_CATALOG",
    ),
    "directory": Option(
        "Where the model file would go; its free space is checked.", ("--directory",), "DIR"
    ),
    "launch_directory": Option(
        "Where the weights shall be kept; without it: the engine's own place.",
        ("--directory",),
        "DIR",
        field="directory",
    ),
    "format": Option(
        "What to print: shell, script, compose, systemd, powershell, modelfile or python.",
        ("--format",),
        "FORMAT",
        complete="formats",
    ),
    "launch_program": Option(
        "Program of llama.cpp: llama-server, llama-cli or llama-bench, or where it lies.",
        ("--program",),
        "NAME|DIR|FILE",
        complete="programs",
        field="program",
    ),
    "port": Option("Where the server listens.", ("--port",), "N"),
    "run": Option("Run it here after showing it, and watch it load.", ("--run",)),
    "what": Option("models, quants, gpus, engines or machines.", (), "WHAT", complete="lists"),
    "name": Option("A command; without it: their names.", (), "[NAME]", complete="schemas"),
    "program": Option(
        "Directory of llama.cpp's programs, or one of them; without it: the first on PATH.",
        ("--program",),
        "DIR|FILE",
    ),
    "running": Option("Compare with an engine that is running now.", ("--running",)),
    "log": Option(
        "Compare with the log of llama.cpp, Ollama or vLLM; - reads it from stdin.",
        ("--log",),
        "FILE|-",
    ),
    "url": Option(
        "Address of the running engine, for example http://127.0.0.1:8080.", ("--url",), "URL"
    ),
    "mmproj": Option(
        "A projector for images or sound; auto takes the one beside the model, none leaves it out.",
        ("--mmproj",),
        "FILE|auto|none",
    ),
    "lora": Option("A LoRA adapter to load with the model.", ("--lora",), "FILE"),
    "draft": Option(
        "A small model that guesses tokens ahead, as the model is named.",
        ("--draft",),
        "MODEL",
        complete="models",
    ),
    "catalog_what": Option(
        "show, add or check.", (), "WHAT", complete="catalog_actions", field="what"
    ),
    "catalog_name": Option(
        "A model to show, or the file to add or to check.",
        (),
        "[NAME]",
        complete="models",
        field="name",
    ),
    "entry_name": Option("Id of the entry; left out: from the file's name.", ("--name",), "ID"),
    "repo": Option("The makers' repository of the original weights.", ("--repo",), "OWNER/NAME"),
    "force": Option("Replace the entry of that id.", ("--force",)),
    "local": Option(
        "Models that are on this disk: Ollama's, LM Studio's, the hub's and llama.cpp's.",
        ("--local",),
    ),
    "target": Option(
        "Number of a process, or llama.cpp, ollama or vllm; without it: the first that runs.",
        (),
        "[PID|ENGINE]",
    ),
    "seconds": Option("Stop after so long.", ("--seconds",), "N"),
    "interval": Option("Seconds between two looks; 0.5 without it.", ("--interval",), "N"),
    "svg": Option("Draw the memory over time into a file.", ("--svg",), "FILE"),
    "from_file": Option(
        "Take what llama-bench wrote with -o json; - reads it from stdin.", ("--from",), "FILE|-"
    ),
    "repetitions": Option("Runs of each test; 3 without it.", ("--repetitions",), "N"),
    "show": Option("Show what was measured here.", ("--show",)),
    "forget": Option("Forget what was measured here.", ("--forget",)),
    "json": Option("Print one JSON document instead of text.", ("--json",)),
    "debug": Option("Show the traceback of an error.", ("--debug",), variable="NEMOFIT_DEBUG"),
}
