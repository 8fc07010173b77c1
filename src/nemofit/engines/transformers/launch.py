"""A Python script that runs a configuration with transformers, 4.56 and newer.

Written for that line: ``dtype=`` (``torch_dtype=`` is deprecated since 4.56) and a
``BitsAndBytesConfig`` (the keywords ``load_in_4bit`` and ``load_in_8bit`` are gone in 5.0).
"""

from __future__ import annotations

from collections.abc import Mapping

from nemofit.units import GIB, MIB

from .config import TransformersConfig

REQUIREMENTS = ("torch", "transformers>=4.56", "accelerate")
_BITSANDBYTES = "bitsandbytes>=0.46.1"
_PROMPT = "Explain in two sentences what a key-value cache is."


def requirements(config: TransformersConfig) -> tuple[str, ...]:
    """What ``pip install`` has to get for the script."""
    return REQUIREMENTS if config.quantization == "none" else (*REQUIREMENTS, _BITSANDBYTES)


def install_command(config: TransformersConfig) -> str:
    """One line for a POSIX shell."""
    import shlex

    return shlex.join(["python3", "-m", "pip", "install", *requirements(config)])


def script(
    config: TransformersConfig,
    model: str,
    *,
    prompt: str = _PROMPT,
    max_new_tokens: int = 256,
    device_map: Mapping[str, int | str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """The text of the script; every value is a Python literal, whatever characters it has.

    Args:
        config: The configuration.
        model: Repository or directory of the checkpoint.
        prompt: What it asks.
        max_new_tokens: Tokens that it generates at most.
        device_map: A placement to pin instead of the name in the configuration.
        variables: Environment to set before the libraries are loaded.
    """
    quantized = config.quantization != "none"
    lines = [
        f"# pip install {' '.join(repr(r) for r in requirements(config))}",
        *(["import os", ""] if variables else []),
        *(f"os.environ[{name!r}] = {value!r}" for name, value in (variables or {}).items()),
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer"
        + (", BitsAndBytesConfig" if quantized else ""),
        "",
        f"model_id = {model!r}",
        "",
        "tokenizer = AutoTokenizer.from_pretrained(model_id)",
        "model = AutoModelForCausalLM.from_pretrained(",
        "    model_id,",
        *(f"    {line}" for line in _arguments(config, device_map)),
        ")",
        "",
        f"messages = [{{'role': 'user', 'content': {prompt!r}}}]",
        "inputs = tokenizer.apply_chat_template(",
        "    messages, add_generation_prompt=True, return_dict=True, return_tensors='pt'",
        ").to(model.device)",
        f"output = model.generate(**inputs, max_new_tokens={int(max_new_tokens)})",
        "answer = output[0][inputs['input_ids'].shape[1]:]",
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
        "for i in range(torch.cuda.device_count()):",
        "    peak = torch.cuda.max_memory_reserved(i) / 2**30",
        "    print(f'GPU {i}: {peak:.2f} GiB at most')",
    ]
    return "\n".join(lines) + "\n"


def _arguments(config: TransformersConfig, device_map: Mapping[str, int | str] | None) -> list[str]:
    where: object = dict(device_map) if device_map is not None else config.device_map
    args = [f"dtype=torch.{config.dtype},", f"device_map={where!r},"]
    if config.max_memory is not None and device_map is None and config.device_map != "cpu":
        limits = {d: _size(n) for d, n in config.max_memory.items()}
        args.append(f"max_memory={limits!r},")
    args.append(f"attn_implementation={config.attention!r},")
    if config.offload_folder is not None:
        args.append(f"offload_folder={config.offload_folder!r},")
    if config.quantization == "bnb-4bit":
        args += [
            "quantization_config=BitsAndBytesConfig(",
            "    load_in_4bit=True,",
            "    bnb_4bit_quant_type='nf4',",
            f"    bnb_4bit_compute_dtype=torch.{config.dtype},",
            f"    bnb_4bit_use_double_quant={config.double_quant},",
            "),",
        ]
    elif config.quantization == "bnb-8bit":
        args.append("quantization_config=BitsAndBytesConfig(load_in_8bit=True),")
    return args


def _size(n: int) -> str | int:
    """A limit as transformers reads it: whole GiB or MiB as text, else bytes."""
    if n and n % GIB == 0:
        return f"{n // GIB}GiB"
    return f"{n // MIB}MiB" if n and n % MIB == 0 else n
