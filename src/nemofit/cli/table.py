"""The commands: their words, their options, their examples. Their code loads when one is chosen."""

from __future__ import annotations

from dataclasses import dataclass

_MODEL_KNOBS = (
    "quant",
    "imatrix",
    "context",
    "kv_type",
    "parallel",
    "ubatch",
    "flash_attention",
    "gpu_layers",
    "tensor_split",
    "cpu_moe_layers",
    "engine",
    "tensor_parallel",
    "pipeline_parallel",
    "utilization",
    "cpu_offload",
    "eager",
)
_MACHINE = ("machine", "reserve", "assume_idle", "catalog")
_GOAL = ("prefer", "min_tps", "min_context", "max_vram", "quality")
_BESIDE = ("mmproj", "lora", "draft")
_ALWAYS = ("json", "debug")


@dataclass(frozen=True, slots=True)
class Entry:
    """One command.

    Attributes:
        summary: What it does, one sentence in the imperative; the first line of its help.
        options: Names of fields of :class:`.options.Options`, in the order of its help.
        examples: What to type, with a comment where it helps.
        required: Arguments that must be given.
    """

    summary: str
    options: tuple[str, ...]
    examples: tuple[str, ...]
    required: tuple[str, ...] = ()


COMMANDS: dict[str, Entry] = {
    "check": Entry(
        "Check this machine against a model, or against the whole catalog.",
        ("model", *_MODEL_KNOBS, *_GOAL, *_MACHINE, "directory", *_ALWAYS),
        (
            "nemofit check",
            "nemofit check nemotron && ollama pull nemotron",
            "nemofit check qwen2.5-72b --machine '2x RTX 3090, 64 GiB RAM'",
        ),
    ),
    "recommend": Entry(
        "Rank the plans for a model, or all models, on this machine.",
        ("model_option", *_MODEL_KNOBS, *_GOAL, "use_case", "limit", *_MACHINE, *_ALWAYS),
        (
            "nemofit recommend -m nemotron",
            "nemofit recommend -m nemotron --prefer context --min-tps 10",
            "nemofit recommend --use-case code --machine '1x RTX 4090, 64 GiB RAM'",
        ),
    ),
    "plan": Entry(
        "Account for every byte of one configuration.",
        ("model", *_MODEL_KNOBS, *_GOAL, *_BESIDE, "explain", *_MACHINE, *_ALWAYS),
        (
            "nemofit plan nemotron -q Q4_K_M -c 16k --explain",
            "nemofit plan ./model.gguf --gpu-layers 40",
        ),
        required=("model",),
    ),
    "compare": Entry(
        "Show models side by side on this machine.",
        ("models", *_MODEL_KNOBS, *_GOAL, "power_price", *_MACHINE, *_ALWAYS),
        (
            "nemofit compare nemotron qwen2.5-72b mixtral-8x22b",
            "nemofit compare qwen3-8b:Q4_K_M qwen3-8b:Q8_0 --power-price 0.30",
        ),
        required=("models",),
    ),
    "need": Entry(
        "Find the least hardware for a model, a context and a speed.",
        (
            "model",
            *_MODEL_KNOBS[:7],
            "min_tps",
            "quality",
            "prices",
            "power_price",
            "sort",
            "limit",
            "reserve",
            "catalog",
            *_ALWAYS,
        ),
        (
            "nemofit need nemotron --context 32k --min-tps 20",
            "nemofit need qwen3-8b -q Q8_0 --prices prices.yaml --power-price 0.30",
        ),
        required=("model",),
    ),
    "launch": Entry(
        "Print what runs the best plan: a command, a script, a unit, a container.",
        (
            "model",
            *_MODEL_KNOBS,
            *_GOAL,
            "format",
            "launch_program",
            "port",
            "launch_directory",
            "run",
            *_MACHINE,
            *_ALWAYS,
        ),
        (
            "nemofit launch nemotron",
            "nemofit launch nemotron --format script > run.sh",
            "nemofit launch ./model.gguf --format systemd > ~/.config/systemd/user/llm.service",
        ),
        required=("model",),
    ),
    "verify": Entry(
        "Ask the installed engine itself, before any download, and print both numbers.",
        (
            "model",
            *_MODEL_KNOBS,
            *_GOAL,
            "program",
            "running",
            "log",
            "url",
            *_MACHINE,
            *_ALWAYS,
        ),
        (
            "nemofit verify nemotron -q Q4_K_M -c 8k",
            "nemofit verify --running",
            "nemofit verify --log server.log",
        ),
    ),
    "watch": Entry(
        "Show the memory of an engine over time, while it loads a model.",
        (
            "target",
            "model_option",
            *_MODEL_KNOBS,
            "seconds",
            "interval",
            "svg",
            *_MACHINE,
            *_ALWAYS,
        ),
        (
            "nemofit watch",
            "nemofit watch llama.cpp -m nemotron -q Q4_K_M --svg load.svg",
            "nemofit watch 4711 --json --seconds 30",
        ),
    ),
    "calibrate": Entry(
        "Measure this machine with your own llama-bench, and estimate from that.",
        (
            "model",
            "quant",
            "kv_type",
            "ubatch",
            "flash_attention",
            "gpu_layers",
            "tensor_split",
            "cpu_moe_layers",
            "program",
            "from_file",
            "running",
            "url",
            "repetitions",
            "show",
            "forget",
            "catalog",
            *_ALWAYS,
        ),
        (
            "nemofit calibrate ./model.gguf",
            "nemofit calibrate --from bench.json",
            "nemofit calibrate --running",
        ),
    ),
    "probe": Entry(
        "Show the hardware alone, for scripts and inventories.",
        ("machine", "measure", "save", "catalog", *_ALWAYS),
        (
            "nemofit probe",
            "nemofit probe --measure --save office",
            "nemofit probe --json > machine.json",
            "nemofit recommend --machine machine.json",
        ),
    ),
    "list": Entry(
        "List what is known: models, quants, gpus, engines or saved machines.",
        ("what", "local", "catalog", *_ALWAYS),
        ("nemofit list models", "nemofit list models --local", "nemofit list quants --json"),
        required=("what",),
    ),
    "catalog": Entry(
        "Show a model of the catalog, add one of your own, or check them: show, add or check.",
        ("catalog_what", "catalog_name", "entry_name", "repo", "force", "catalog", *_ALWAYS),
        (
            "nemofit catalog show nemotron",
            "nemofit catalog add ./House-8B-Q4_K_M.gguf --name house-8b",
            "nemofit catalog check ./Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf --name llama-3.1-8b",
        ),
        required=("catalog_what",),
    ),
    "schema": Entry(
        "Print the JSON Schema of a command's --json output.",
        ("name", *_ALWAYS),
        ("nemofit schema", "nemofit schema recommend"),
    ),
}
