"""The arithmetic that is shown adds up to the plan's own figures."""

from __future__ import annotations

from collections import Counter

import pytest

from nemofit.catalog.models import find_model
from nemofit.machine import parse_machine
from nemofit.planner import Goal
from nemofit.planner.explain import explain
from nemofit.planner.single import single

KINDS = {
    "weights": "weights_bytes",
    "KV cache": "kv_bytes",
    "compute": "compute_bytes",
    "overhead": "overhead_bytes",
}


@pytest.mark.parametrize("name", ["llama-3.2-1b", "qwen3-30b-a3b", "gemma-3-4b"])
@pytest.mark.parametrize(
    "spec", ["2x RTX 3060, 64 GiB RAM", "32 GiB RAM, 8 cores", "1x GTX 1650, 64 GiB RAM"]
)
def test_the_terms_add_up(name: str, spec: str) -> None:
    """Per device and kind, to the byte; every term has a source."""
    plan, _ = single(find_model(name).spec(), parse_machine(spec), Goal())
    sums: Counter[tuple[str, str]] = Counter()
    for step in explain(plan):
        assert step.source
        sums[step.device, step.kind] += step.bytes
    devices = [(f"GPU {i}", device) for i, device in enumerate(plan.memory.gpus)]
    for device, memory in [*devices, ("RAM", plan.memory.host)]:
        for kind, field in KINDS.items():
            assert getattr(memory, field) == sums[device, kind]


def test_the_product_in_a_term_is_its_bytes() -> None:
    """The text of a term of weights can be worked out by hand."""
    plan, _ = single(
        find_model("llama-3.2-1b").spec(),
        parse_machine("1x RTX 3060, 64 GiB RAM"),
        Goal(quant="Q8_0"),
    )
    step = next(s for s in explain(plan) if "Q8_0" in s.text)
    words = step.text.split()
    elements, size, block = (
        int(words[words.index("weights") - 1]),
        int(words[words.index("x") + 1]),
        int(words[-1]),
    )
    assert step.bytes == elements * size // block
