"""From a checkpoint's configuration to the GGUF metadata of the same model.

A family is a class that a configuration names. What it adds to the shared keys is a function of
its own; flags that GGUF does not know (biases, tied embeddings) are read off the tensors' names.

Source: the classes of ``conversion/`` in ggml-org/llama.cpp that are registered for the names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from . import keys_dense as dense
from . import keys_hybrid as hybrid
from . import keys_sparse as sparse
from .config import Config
from .keys_shared import Metadata, shared_keys

Keys = Callable[[Metadata, Config], None]


class Family(NamedTuple):
    """One row of the table.

    Attributes:
        architecture: GGUF ``general.architecture``.
        keys: Adds the family's own keys.
        next_tokens: Appended next-token layers become blocks of the GGUF file; otherwise the
            converter leaves them out.
    """

    architecture: str
    keys: Keys
    next_tokens: bool = False


def family_of(c: Config) -> Family | None:
    """The row of a configuration, None where its class is not known."""
    name, kind = c.family, c.values.get("model_type")
    if name in ("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM") and kind == "mistral4":
        return Family("mistral4", sparse.latent)
    if name == "NemotronHForCausalLM" and hybrid.EXPERT_LAYERS & set(hybrid.layer_kinds(c)):
        return Family("nemotron_h_moe", hybrid.nemotron_hybrid, next_tokens=True)
    return FAMILIES.get(name)


def metadata_of(c: Config, family: Family) -> Metadata:
    """The GGUF keys of the architecture, without flags of the tensors.

    Raises:
        DataError: A key is missing or makes no sense.
    """
    m = shared_keys(c)
    family.keys(m, c)
    return m


def known_families() -> Collection[str]:
    """Classes whose GGUF shape is known, sorted."""
    return sorted(FAMILIES)


_LLAMA = Family("llama", dense.llama)
_QWEN2 = Family("qwen2", dense.nothing)
_QWEN2VL = Family("qwen2vl", dense.nothing)
_GEMMA3 = Family("gemma3", dense.gemma3)
_MISTRAL3 = Family("mistral3", dense.mistral3)
_LATENT = Family("deepseek2", sparse.latent)
_LLAMA4 = Family("llama4", sparse.llama4)
_GRANITE_MOE = Family("granitemoe", dense.granite)
_PHI_MOE = Family("phimoe", dense.phi3)
_QWEN35 = Family("qwen35", hybrid.qwen35, next_tokens=True)
_QWEN35_MOE = Family("qwen35moe", hybrid.qwen35, next_tokens=True)

FAMILIES: dict[str, Family] = {
    "ArceeForCausalLM": Family("arcee", dense.llama),
    "Cohere2ForCausalLM": Family("cohere2", dense.cohere2),
    "CohereForCausalLM": Family("command-r", dense.command_r),
    "DeepseekForCausalLM": Family("deepseek", sparse.deepseek),
    "DeepseekV2ForCausalLM": _LATENT,
    "DeepseekV32ForCausalLM": Family("deepseek32", sparse.indexed, next_tokens=True),
    "DeepseekV3ForCausalLM": _LATENT,
    "Dots1ForCausalLM": Family("dots1", sparse.dots1),
    "Ernie4_5ForCausalLM": Family("ernie4_5", dense.nothing),
    "Exaone4ForCausalLM": Family("exaone4", dense.exaone4),
    "FalconForCausalLM": Family("falcon", dense.falcon),
    "Gemma2ForCausalLM": Family("gemma2", dense.gemma2),
    "Gemma3ForCausalLM": _GEMMA3,
    "Gemma3ForConditionalGeneration": _GEMMA3,
    "GemmaForCausalLM": Family("gemma", dense.gemma),
    "Glm4ForCausalLM": Family("glm4", dense.glm4),
    "Glm4MoeForCausalLM": Family("glm4moe", sparse.glm4moe, next_tokens=True),
    "Glm4MoeLiteForCausalLM": Family("deepseek2", sparse.latent, next_tokens=True),
    "Glm4vMoeForConditionalGeneration": Family("glm4moe", sparse.glm4moe, next_tokens=True),
    "GlmMoeDsaForCausalLM": Family("glm-dsa", sparse.indexed, next_tokens=True),
    "GptOssForCausalLM": Family("gpt-oss", sparse.gpt_oss),
    "GraniteForCausalLM": Family("granite", dense.granite),
    "GraniteMoeForCausalLM": _GRANITE_MOE,
    "GraniteMoeHybridForCausalLM": Family("granitehybrid", hybrid.granite_hybrid),
    "GraniteMoeSharedForCausalLM": _GRANITE_MOE,
    "KimiK25ForConditionalGeneration": _LATENT,
    "KimiVLForConditionalGeneration": _LATENT,
    "Lfm2ForCausalLM": Family("lfm2", hybrid.lfm2),
    "Lfm2MoeForCausalLM": Family("lfm2moe", hybrid.lfm2moe),
    "Llama4ForCausalLM": _LLAMA4,
    "Llama4ForConditionalGeneration": _LLAMA4,
    "LlamaForCausalLM": _LLAMA,
    "MiniMaxM2ForCausalLM": Family("minimax-m2", sparse.minimax_m2),
    "Ministral3ForCausalLM": _MISTRAL3,
    "Mistral3ForConditionalGeneration": _MISTRAL3,
    "MistralForCausalLM": _LLAMA,
    "MixtralForCausalLM": Family("llama", dense.plain),
    "NemotronForCausalLM": Family("nemotron", dense.nemotron),
    "NemotronHForCausalLM": Family("nemotron_h", hybrid.nemotron_hybrid),
    "Olmo2ForCausalLM": Family("olmo2", dense.olmo2),
    "Olmo3ForCausalLM": Family("olmo2", dense.olmo2),
    "OlmoForCausalLM": Family("olmo", dense.olmo),
    "OlmoeForCausalLM": Family("olmoe", sparse.olmoe),
    "Phi3ForCausalLM": Family("phi3", dense.phi3),
    "PhiForCausalLM": Family("phi2", dense.phi2),
    "PhiMoEForCausalLM": _PHI_MOE,
    "PhimoeForCausalLM": _PHI_MOE,
    "Qwen2ForCausalLM": _QWEN2,
    "Qwen2MoeForCausalLM": Family("qwen2moe", sparse.experts),
    "Qwen2VLForConditionalGeneration": _QWEN2VL,
    "Qwen2_5_VLForConditionalGeneration": _QWEN2VL,
    "Qwen3ForCausalLM": Family("qwen3", dense.nothing),
    "Qwen3MoeForCausalLM": Family("qwen3moe", sparse.experts),
    "Qwen3NextForCausalLM": Family("qwen3next", hybrid.delta_net, next_tokens=True),
    "Qwen3VLForConditionalGeneration": Family("qwen3vl", dense.deepstack),
    "Qwen3VLMoeForConditionalGeneration": Family("qwen3vlmoe", sparse.qwen3vlmoe),
    "Qwen3_5ForCausalLM": _QWEN35,
    "Qwen3_5ForConditionalGeneration": _QWEN35,
    "Qwen3_5MoeForCausalLM": _QWEN35_MOE,
    "Qwen3_5MoeForConditionalGeneration": _QWEN35_MOE,
    "SeedOssForCausalLM": Family("seed_oss", dense.nothing),
    "SmolLM3ForCausalLM": Family("smollm3", dense.plain),
    "StableLmForCausalLM": Family("stablelm", dense.stablelm),
    "Starcoder2ForCausalLM": Family("starcoder2", dense.nothing),
}
