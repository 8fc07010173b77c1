"""The script is Python, whatever the values, and asks the library for what was configured."""

from __future__ import annotations

import ast
import shlex

import pytest

from nemofit.engines.transformers.config import TransformersConfig
from nemofit.engines.transformers.launch import install_command, requirements, script
from nemofit.units import GIB

HOSTILE = "x'\"\\\n'''; __import__('os').system('true') #"


def loading_call(text: str) -> dict[str, str]:
    """The keywords of ``from_pretrained`` as source text."""
    calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
    call = next(c for c in calls if c.keywords and getattr(c.func, "attr", "") == "from_pretrained")
    return {k.arg or "": ast.unparse(k.value) for k in call.keywords}


def test_a_plain_script() -> None:
    text = script(TransformersConfig(), "owner/model")
    assert loading_call(text) == {
        "dtype": "torch.bfloat16",
        "device_map": "'auto'",
        "attn_implementation": "'sdpa'",
    }
    assert "torch_dtype" not in text and "BitsAndBytesConfig" not in text


def test_bitsandbytes_goes_through_its_configuration() -> None:
    text = script(TransformersConfig(quantization="bnb-4bit", dtype="float16"), "owner/model")
    assert loading_call(text)["quantization_config"] == (
        "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4',"
        " bnb_4bit_compute_dtype=torch.float16, bnb_4bit_use_double_quant=True)"
    )
    eight = script(TransformersConfig(quantization="bnb-8bit"), "owner/model")
    assert loading_call(eight)["quantization_config"] == "BitsAndBytesConfig(load_in_8bit=True)"


def test_limits_and_folder() -> None:
    config = TransformersConfig(
        max_memory={0: 20 * GIB, 1: GIB // 2, "cpu": 123}, offload_folder="a'b"
    )
    call = loading_call(script(config, "owner/model"))
    assert ast.literal_eval(call["max_memory"]) == {0: "20GiB", 1: "512MiB", "cpu": 123}
    assert ast.literal_eval(call["offload_folder"]) == "a'b"


def test_a_pinned_placement_replaces_the_limits() -> None:
    config = TransformersConfig(max_memory={0: GIB})
    call = loading_call(script(config, "m", device_map={"model": 0, "lm_head": "cpu"}))
    assert ast.literal_eval(call["device_map"]) == {"model": 0, "lm_head": "cpu"}
    assert "max_memory" not in call


@pytest.mark.parametrize("quantization", ["none", "bnb-4bit", "bnb-8bit"])
def test_hostile_values_stay_text(quantization: str) -> None:
    config = TransformersConfig(quantization=quantization, offload_folder=HOSTILE)
    text = script(config, HOSTILE, prompt=HOSTILE)
    tree = ast.parse(text)
    named = {
        n.targets[0].id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    assert ast.literal_eval(named["model_id"]) == HOSTILE
    assert ast.literal_eval(named["messages"]) == [{"role": "user", "content": HOSTILE}]
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert "__import__" not in names


def test_requirements_are_quoted_for_the_shell() -> None:
    words = shlex.split(install_command(TransformersConfig(quantization="bnb-4bit")))
    assert words[-4:] == list(requirements(TransformersConfig(quantization="bnb-4bit")))
    assert "transformers>=4.56" in words
