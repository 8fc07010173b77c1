"""Parameters and tensors of real models against the counts that others published.

``parameters`` is what the model's page on Hugging Face states for its safetensors files. Where a
GGUF file holds other tensors than those, ``difference`` says how many elements more and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nemofit.catalog.model import Value
from nemofit.catalog.shapes import tensors_of

TIED = {"tied_embeddings": True}
ROPE_FACTORS = {"rope_factors": True}


@dataclass(frozen=True)
class Published:
    repo: str
    architecture: str
    parameters: int
    metadata: dict[str, Value]
    difference: int = 0
    why: str = field(default="", compare=False)


def sizes(
    blocks: int, embedding: int, heads: int, kv_heads: int, ff: int, vocab: int, head: int = 0
) -> dict[str, Value]:
    found: dict[str, Value] = {
        "block_count": blocks,
        "embedding_length": embedding,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "feed_forward_length": ff,
        "vocab_size": vocab,
    }
    if head:
        found |= {"attention.key_length": head, "attention.value_length": head}
    return found


def experts(
    n: int, used: int, ff: int | None = None, shared: int = 0, dense: int = 0
) -> dict[str, Value]:
    found: dict[str, Value] = {"expert_count": n, "expert_used_count": used}
    if ff:
        found["expert_feed_forward_length"] = ff
    if shared:
        found["expert_shared_count"] = shared
    if dense:
        found["leading_dense_block_count"] = dense
    return found


def shared_width(ff: int) -> dict[str, Value]:
    return {"expert_shared_feed_forward_length": ff}


def latent(q: int, kv: int, key: int, value: int, rotated: int = 64) -> dict[str, Value]:
    return {
        "attention.q_lora_rank": q,
        "attention.kv_lora_rank": kv,
        "attention.key_length_mla": key,
        "attention.value_length_mla": value,
        "rope.dimension_count": rotated,
    }


def ssm(inner: int, state: int, rank: int, groups: int = 1) -> dict[str, Value]:
    return {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
        "ssm.group_count": groups,
    }


def kv_heads_at(n: int, blocks: int, *places: int) -> dict[str, Value]:
    return {"attention.head_count_kv": tuple(n if i in places else 0 for i in range(blocks))}


def by_pattern(pattern: str, kv_heads: int, ff: int) -> dict[str, Value]:
    """Nemotron-H's blocks: M Mamba, * attention, - and E feed-forward."""
    return {
        "block_count": len(pattern),
        "attention.head_count_kv": tuple(kv_heads if c == "*" else 0 for c in pattern),
        "feed_forward_length": tuple(ff if c in "-E" else 0 for c in pattern),
    }


INDEXER = {"attention.indexer.head_count": 32, "attention.indexer.key_length": 128}
STEP_SLIDING = tuple(i % 4 != 0 for i in range(48))

MODELS = [
    Published(
        "meta-llama/Llama-3.1-8B", "llama", 8030261248,
        sizes(32, 4096, 32, 8, 14336, 128256) | ROPE_FACTORS, 64, "frequency factors",
    ),
    Published(
        "meta-llama/Llama-3.1-70B", "llama", 70553706496,
        sizes(80, 8192, 64, 8, 28672, 128256) | ROPE_FACTORS, 64, "frequency factors",
    ),
    Published(
        "meta-llama/Llama-3.2-1B", "llama", 1235814400,
        sizes(16, 2048, 32, 8, 8192, 128256) | ROPE_FACTORS | TIED, 32, "frequency factors",
    ),
    Published(
        "mistralai/Mistral-7B-v0.3", "llama", 7248023552, sizes(32, 4096, 32, 8, 14336, 32768)
    ),
    Published(
        "mistralai/Mistral-Nemo-Instruct-2407", "llama", 12247782400,
        sizes(40, 5120, 32, 8, 14336, 131072, 128),
    ),
    Published(
        "mistralai/Mistral-Small-24B-Instruct-2501", "llama", 23572403200,
        sizes(40, 5120, 32, 8, 32768, 131072, 128),
    ),
    Published(
        "mistralai/Mixtral-8x7B-v0.1", "llama", 46702792704,
        sizes(32, 4096, 32, 8, 14336, 32000) | experts(8, 2),
    ),
    Published(
        "mistralai/Mixtral-8x22B-Instruct-v0.1", "llama", 140630071296,
        sizes(56, 6144, 48, 8, 16384, 32768) | experts(8, 2),
    ),
    Published(
        "openbmb/MiniCPM-2B-sft-bf16", "minicpm", 2724880896,
        sizes(40, 2304, 36, 36, 5760, 122753) | TIED,
    ),
    Published(
        "ibm-granite/granite-3.3-8b-instruct", "granite", 8170864640,
        sizes(40, 4096, 32, 8, 12800, 49159) | TIED,
    ),
    Published(
        "ibm-granite/granite-3.1-3b-a800m-instruct", "granitemoe", 3298793472,
        sizes(32, 1536, 24, 8, 512, 49155) | experts(40, 8) | TIED,
    ),
    Published(
        "ibm-granite/granite-4.0-h-tiny", "granitehybrid", 6939037248,
        sizes(40, 1536, 12, 4, 512, 100352) | experts(64, 6) | shared_width(1024)
        | ssm(3072, 128, 48) | kv_heads_at(4, 40, 5, 15, 25, 35) | TIED,
    ),
    Published(
        "ibm-granite/granite-4.0-h-small", "granitehybrid", 32207337984,
        sizes(40, 4096, 32, 8, 768, 100352) | experts(72, 10) | shared_width(1536)
        | ssm(8192, 128, 128) | kv_heads_at(8, 40, 5, 15, 25, 35) | TIED,
    ),
    Published("Qwen/Qwen2.5-0.5B", "qwen2", 494032768, sizes(24, 896, 14, 2, 4864, 151936) | TIED),
    Published("Qwen/Qwen2.5-7B", "qwen2", 7615616512, sizes(28, 3584, 28, 4, 18944, 152064)),
    Published("Qwen/Qwen2.5-72B", "qwen2", 72706203648, sizes(80, 8192, 64, 8, 29568, 152064)),
    Published(
        "Qwen/Qwen1.5-MoE-A2.7B", "qwen2moe", 14315784192,
        sizes(24, 2048, 16, 16, 5632, 151936) | experts(60, 4, 1408) | shared_width(5632),
    ),
    Published("Qwen/Qwen3-8B", "qwen3", 8190735360, sizes(36, 4096, 32, 8, 12288, 151936, 128)),
    Published(
        "Qwen/Qwen3-30B-A3B", "qwen3moe", 30532122624,
        sizes(48, 2048, 32, 4, 6144, 151936, 128) | experts(128, 8, 768),
    ),
    Published(
        "Qwen/Qwen3-Next-80B-A3B-Instruct", "qwen3next", 81324862720,
        sizes(49, 2048, 16, 2, 5120, 151936, 256) | experts(512, 10, 512) | shared_width(512)
        | ssm(4096, 128, 32, 16) | {"nextn_predict_layers": 1},
    ),
    Published("google/gemma-2b", "gemma", 2506172416, sizes(18, 2048, 8, 1, 16384, 256000, 256)),
    Published("google/gemma-7b", "gemma", 8537680896, sizes(28, 3072, 16, 16, 24576, 256000, 256)),
    Published(
        "google/gemma-2-9b", "gemma2", 9241705984,
        sizes(42, 3584, 16, 8, 14336, 256000, 256),
    ),
    Published(
        "google/gemma-3-1b-it", "gemma3", 999885952,
        sizes(26, 1152, 4, 1, 6912, 262144, 256) | TIED,
    ),
    Published(
        "google/embeddinggemma-300m", "gemma-embedding", 302863104,
        sizes(24, 768, 3, 1, 1152, 262144, 256) | TIED,
    ),
    Published("microsoft/phi-2", "phi2", 2779683840, sizes(32, 2560, 32, 32, 10240, 51200)),
    Published(
        "microsoft/Phi-3-mini-4k-instruct", "phi3", 3821079552,
        sizes(32, 3072, 32, 32, 8192, 32064),
    ),
    Published("microsoft/phi-4", "phi3", 14659507200, sizes(40, 5120, 40, 10, 17920, 100352)),
    Published(
        "microsoft/Phi-3.5-MoE-instruct", "phimoe", 41873153344,
        sizes(32, 4096, 32, 8, 6400, 32064) | experts(16, 2),
    ),
    Published(
        "CohereLabs/c4ai-command-r-v01", "command-r", 34980831232,
        sizes(40, 8192, 64, 64, 22528, 256000),
    ),
    Published(
        "CohereLabs/c4ai-command-r-plus", "command-r", 103810674688,
        sizes(64, 12288, 96, 8, 33792, 256000),
    ),
    Published(
        "zai-org/GLM-4-32B-0414", "glm4", 32566081536, sizes(61, 6144, 48, 2, 23040, 151552, 128)
    ),
    Published(
        "zai-org/GLM-4.5-Air", "glm4moe", 110468824832,
        sizes(47, 4096, 96, 8, 10944, 151552, 128) | experts(128, 8, 1408, 1, 1)
        | {"nextn_predict_layers": 1, "nextn_embedding": True, "nextn_output": True,
           "attention_bias": True},
    ),
    Published(
        "zai-org/GLM-4.6", "glm4moe", 356785898816,
        sizes(93, 5120, 96, 8, 12288, 151552, 128) | experts(160, 8, 1536, 1, 3)
        | {"nextn_predict_layers": 1, "attention_bias": True, "attention_qk_norm": True},
    ),
    Published(
        "zai-org/GLM-4.7-Flash", "deepseek2", 31221488576,
        sizes(48, 2048, 20, 1, 10240, 154880) | experts(64, 4, 1536, 1, 1)
        | latent(768, 512, 256, 256)
        | {"nextn_predict_layers": 1, "nextn_embedding": True, "nextn_output": True,
           "expert_gating_func": 2},
    ),
    Published(
        "zai-org/GLM-5", "glm-dsa", 753864139008,
        sizes(79, 6144, 64, 1, 12288, 154880) | experts(256, 8, 2048, 1, 3)
        | latent(2048, 512, 256, 256) | INDEXER | {"nextn_predict_layers": 1},
    ),
    Published(
        "openai/gpt-oss-20b", "gpt-oss", 20914757184,
        sizes(24, 2880, 64, 8, 2880, 201088, 64) | experts(32, 4, 2880),
    ),
    Published(
        "openai/gpt-oss-120b", "gpt-oss", 116829156672,
        sizes(36, 2880, 64, 8, 2880, 201088, 64) | experts(128, 4, 2880),
    ),
    Published(
        "deepseek-ai/deepseek-moe-16b-base", "deepseek", 16375728128,
        sizes(28, 2048, 16, 16, 10944, 102400) | experts(64, 6, 1408, 2, 1),
    ),
    Published(
        "deepseek-ai/DeepSeek-V2-Lite", "deepseek2", 15706484224,
        sizes(27, 2048, 16, 1, 10944, 102400) | experts(64, 6, 1408, 2, 1)
        | latent(0, 512, 192, 128),
    ),
    Published(
        "deepseek-ai/DeepSeek-V2", "deepseek2", 235741434880,
        sizes(60, 5120, 128, 1, 12288, 102400) | experts(160, 6, 1536, 2, 1)
        | latent(1536, 512, 192, 128),
    ),
    Published(
        "nvidia/Llama-3_3-Nemotron-Super-49B-v1_5", "deci", 49867145216,
        sizes(80, 8192, 64, 8, 0, 128256, 128) | ROPE_FACTORS
        | {
            "attention.head_count": tuple(
                64 * (i not in (6, 7, 11)) for i in range(42)
            ) + (0,) * 10 + (64,) + (0,) * 18 + (64,) * 9,
            "attention.head_count_kv": tuple(
                8 * (i not in (6, 7, 11)) for i in range(42)
            ) + (0,) * 10 + (8,) + (0,) * 18 + (8,) * 9,
            "feed_forward_length": (
                14336, *(28672,) * 5, 14336, 14336, *(28672,) * 3, 17920, *(28672,) * 30, 7168,
                14336, 14336, 7168, 28672, 7168, 14336, 7168, 7168, 7168, 28672, 7168, 5632, 5632,
                7168, 5632, 5632, 5632, 7168, 7168, 2816, 2816, 5632, 5632, 2816, 2816, 5632, 2816,
                2816, *(28672,) * 9,
            ),
        },
        64, "frequency factors",
    ),
    Published(
        "nvidia/NVIDIA-Nemotron-Nano-9B-v2", "nemotron_h", 8888227328,
        sizes(56, 4480, 40, 8, 15680, 131072, 128) | ssm(10240, 128, 128, 8)
        | by_pattern("M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-", 8, 15680),
    ),
    Published(
        "state-spaces/mamba-2.8b-hf", "mamba", 2768345600,
        sizes(64, 2560, 0, 0, 0, 50280) | ssm(5120, 16, 160) | TIED,
    ),
    Published(
        "tiiuae/falcon-mamba-7b", "mamba", 7272665088,
        sizes(64, 4096, 0, 0, 0, 65024) | ssm(8192, 16, 256),
    ),
    Published(
        "mistralai/Mamba-Codestral-7B-v0.1", "mamba2", 7285403648,
        sizes(64, 4096, 0, 0, 0, 32768) | ssm(8192, 128, 128, 8),
    ),
    Published(
        "state-spaces/mamba2-2.7b", "mamba2", 2702599680,
        sizes(64, 2560, 0, 0, 0, 50288) | ssm(5120, 128, 80) | TIED,
    ),
    Published(
        "ai21labs/Jamba-v0.1", "jamba", 51570323328,
        sizes(32, 4096, 32, 8, 14336, 65536) | experts(16, 2) | ssm(8192, 16, 256)
        | kv_heads_at(8, 32, 4, 12, 20, 28),
    ),
    Published(
        "tiiuae/Falcon-H1-0.5B-Instruct", "falcon-h1", 521411104,
        sizes(36, 1024, 8, 2, 2048, 32784, 64) | ssm(1536, 128, 24),
    ),
    Published(
        "LiquidAI/LFM2-1.2B", "lfm2", 1170340608,
        sizes(16, 2048, 32, 8, 8192, 65536) | {"shortconv.l_cache": 3}
        | kv_heads_at(8, 16, 2, 5, 8, 10, 12, 14) | TIED,
    ),
    Published(
        "moonshotai/Kimi-Linear-48B-A3B-Instruct", "kimi-linear", 49122681728,
        sizes(27, 2304, 32, 1, 9216, 163840) | experts(256, 8, 1024, 1, 1)
        | latent(0, 512, 192, 128) | {"kda.head_dim": 128, "ssm.conv_kernel": 4}
        | kv_heads_at(1, 27, 3, 7, 11, 15, 19, 23, 26),
    ),
    Published(
        "stepfun-ai/Step-3.5-Flash", "step35", 199384301376,
        sizes(48, 4096, 64, 8, 11264, 128896, 128) | experts(288, 8, 1280, dense=3)
        | shared_width(1280)
        | {"nextn_predict_layers": 3, "nextn_output": True,
           "attention.head_count": tuple(96 if s else 64 for s in STEP_SLIDING)},
    ),
    Published(
        "swiss-ai/Apertus-8B-2509", "apertus", 8053338176,
        sizes(32, 4096, 32, 8, 21504, 131072), -64, "xIELU's numbers are metadata",
    ),
    Published("allenai/OLMo-7B-hf", "olmo", 6888095744, sizes(32, 4096, 32, 32, 11008, 50304)),
    Published(
        "allenai/OLMo-2-0325-32B", "olmo2", 32234279936, sizes(64, 5120, 40, 8, 27648, 100352)
    ),
    Published(
        "allenai/OLMoE-1B-7B-0924", "olmoe", 6919161856,
        sizes(16, 2048, 16, 16, 1024, 50304) | experts(64, 8),
    ),
    Published(
        "bigcode/starcoder2-7b", "starcoder2", 7173923840,
        sizes(32, 4608, 36, 4, 18432, 49152) | TIED,
    ),
    Published(
        "bigcode/starcoder2-15b", "starcoder2", 15957889024,
        sizes(40, 6144, 48, 4, 24576, 49152),
    ),
    Published(
        "stabilityai/stablelm-2-1_6b", "stablelm", 1644515328,
        sizes(24, 2048, 32, 32, 5632, 100352) | {"attention_bias": True},
    ),
    Published(
        "stabilityai/stablelm-2-12b", "stablelm", 12143185920,
        sizes(40, 5120, 32, 8, 13824, 100352)
        | {"use_parallel_residual": True, "attention_qk_norm": True},
    ),
    Published(
        "tiiuae/falcon-7b", "falcon", 7217189760, sizes(32, 4544, 71, 1, 18176, 65024)
    ),
    Published(
        "LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct", "exaone", 7818448896,
        sizes(32, 4096, 32, 8, 14336, 102400),
    ),
    Published(
        "LGAI-EXAONE/EXAONE-4.0-32B", "exaone4", 32003216384,
        sizes(64, 5120, 40, 8, 27392, 102400, 128),
    ),
    Published(
        "internlm/internlm2_5-7b-chat", "internlm2", 7737708544,
        sizes(32, 4096, 32, 8, 14336, 92544),
    ),
    Published(
        "HuggingFaceTB/SmolLM3-3B", "smollm3", 3075098624,
        sizes(36, 2048, 16, 4, 11008, 128256) | TIED,
    ),
    Published(
        "baidu/ERNIE-4.5-0.3B-PT", "ernie4_5", 360748032,
        sizes(18, 1024, 16, 2, 3072, 103424, 128) | TIED,
    ),
    Published(
        "baidu/ERNIE-4.5-21B-A3B-PT", "ernie4_5-moe", 21825437888,
        sizes(28, 2560, 20, 4, 12288, 103424, 128) | experts(64, 6, 1536, dense=1)
        | shared_width(3072) | {"expert_bias": True} | TIED,
    ),
    Published(
        "tencent/Hunyuan-A13B-Instruct", "hunyuan-moe", 80393183232,
        sizes(32, 4096, 32, 8, 3072, 128167, 128) | experts(64, 8, 3072) | shared_width(3072)
        | TIED,
    ),
    Published(
        "ByteDance-Seed/Seed-OSS-36B-Instruct", "seed_oss", 36151104512,
        sizes(64, 5120, 80, 8, 27648, 155136, 128) | {"attention_bias": True},
    ),
    Published(
        "rednote-hilab/dots.llm1.inst", "dots1", 142774381696,
        sizes(62, 4096, 32, 32, 10944, 152064, 128) | experts(128, 6, 1408, 2, 1)
        | {"expert_bias": True},
    ),
    Published(
        "inclusionAI/Ling-lite", "bailingmoe", 16801974272,
        sizes(28, 2048, 16, 4, 5632, 126464, 128) | experts(64, 6, 1408, 2),
    ),
    Published(
        "inclusionAI/Ling-mini-2.0", "bailingmoe2", 16255643392,
        sizes(20, 2048, 16, 4, 5120, 157184, 128) | experts(256, 8, 512, 1, 1)
        | {"expert_bias": True},
    ),
    Published(
        "BAAI/bge-base-en-v1.5", "bert", 109482240,
        sizes(12, 768, 12, 12, 3072, 30522) | {"context_length": 512, "token_type_count": 2},
        -(768 * 768 + 768), "the pooler is left out",
    ),
    Published(
        "nomic-ai/nomic-embed-text-v1.5", "nomic-bert", 136731648,
        sizes(12, 768, 12, 12, 3072, 30528) | {"token_type_count": 2},
    ),
    Published(
        "nomic-ai/nomic-embed-text-v2-moe", "nomic-bert-moe", 475292928,
        sizes(12, 768, 12, 12, 3072, 250048) | experts(8, 2)
        | {"token_type_count": 1, "moe_every_n_layers": 2},
        -6 * 768, "the bias that all experts of a block share is left out",
    ),
    Published(
        "jinaai/jina-embeddings-v2-base-en", "jina-bert-v2", 137368320,
        sizes(12, 768, 12, 12, 3072, 30528) | {"token_type_count": 2},
        -(768 * 768 + 768), "the pooler is left out",
    ),
    Published(
        "answerdotai/ModernBERT-base", "modern-bert", 149014272,
        sizes(22, 768, 12, 12, 1152, 50368),
    ),
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.repo)
def test_the_parameters_are_the_published_ones(model: Published) -> None:
    """The sum over all tensors is the published count to the last parameter."""
    tensors = tensors_of(model.architecture, model.metadata)
    assert model.parameters + model.difference == sum(t.elements for t in tensors)


GEMMA4_SLIDING = tuple((i + 1) % 6 != 0 for i in range(48))

LOGGED = [
    (
        "deepseek-ai/DeepSeek-V3", "deepseek2", 1086,
        sizes(61, 7168, 128, 1, 18432, 129280) | experts(256, 8, 2048, 1, 3)
        | latent(1536, 512, 192, 128) | {"expert_gating_func": 2},
    ),
    (
        "zai-org/GLM-4.5-Air", "glm4moe", 803,
        sizes(47, 4096, 96, 8, 10944, 151552, 128) | experts(128, 8, 1408, 1, 1)
        | {"nextn_predict_layers": 1, "nextn_embedding": True, "nextn_output": True,
           "attention_bias": True},
    ),
    (
        "openai/gpt-oss-20b", "gpt-oss", 459,
        sizes(24, 2880, 64, 8, 2880, 201088, 64) | experts(32, 4, 2880),
    ),
    (
        "Qwen/Qwen3-30B-A3B", "qwen3moe", 579,
        sizes(48, 2048, 32, 4, 6144, 151936, 128) | experts(128, 8, 768),
    ),
    ("mistralai/Mistral-7B-v0.1", "llama", 291, sizes(32, 4096, 32, 8, 14336, 32000)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("repo", "architecture", "count", "metadata"), LOGGED, ids=[row[0] for row in LOGGED]
)
def test_the_files_hold_as_many_tensors_as_llama_cpp_logs(
    repo: str, architecture: str, count: int, metadata: dict[str, Value]
) -> None:
    """The number in "loaded meta data with ... key-value pairs and N tensors" of published logs.

    ikawrakow/ik_llama.cpp, github-data; ggml-org/llama.cpp, issues.
    """
    assert count == len(tensors_of(architecture, metadata))


def test_gemma_4_12b_has_the_parameters_that_llama_bench_prints() -> None:
    """11.91 B, as llama-bench prints for bartowski/gemma-4-12B-it-GGUF."""
    metadata = (
        sizes(48, 3840, 16, 8, 15360, 262144)
        | TIED
        | {
            "attention.head_count_kv": tuple(8 if s else 1 for s in GEMMA4_SLIDING),
            "attention.sliding_window_pattern": GEMMA4_SLIDING,
            "attention.key_length": 512,
            "attention.value_length": 512,
            "attention.key_length_swa": 256,
            "attention.value_length_swa": 256,
            "attention_k_is_v": True,
        }
    )
    parameters = sum(t.elements for t in tensors_of("gemma4", metadata))
    assert round(parameters / 1e7) == 1191
