"""Encoders.

The rules are those of ggml-org/llama.cpp: ``src/models/<architecture>.cpp`` says what a file may
hold, ``conversion/`` what the converter writes.
"""

from __future__ import annotations

from . import feed_forward as ffn
from . import rules
from .attention import attention
from .feed_forward import experts, feed_forward
from .pieces import norm, unless, when
from .roots import encoder
from .row import ATTN_NORM, FFN_NORM, Row

AFTER_ATTENTION = norm("attn_output_norm", bias=True)
AFTER_ALL = norm("layer_output_norm", bias=True)

ENCODER_ROWS: dict[str, Row] = {
    "bert": Row(
        root=(encoder(positions=True),),
        block=(
            attention(qkv_bias=True, out_bias=True),
            AFTER_ATTENTION,
            feed_forward(gate=False, bias=True),
            AFTER_ALL,
        ),
    ),
    "jina-bert-v2": Row(
        root=(encoder(),),
        block=(
            attention(qkv_bias=True, out_bias=True),
            AFTER_ATTENTION,
            feed_forward(gate=False, up_factor=2, bias=False, down_bias=True),
            AFTER_ALL,
        ),
    ),
    "modern-bert": Row(
        root=(encoder(norm_bias=False, output_norm=True),),
        block=(
            when("mark", ATTN_NORM),
            attention(qkv_bias=False, out_bias=False, fused=True),
            FFN_NORM,
            feed_forward(gate=False, up_factor=2, bias=False),
        ),
        mark=rules.not_first,
    ),
    "nomic-bert": Row(
        root=(encoder(),),
        block=(
            attention(qkv_bias=False, out_bias=False, fused=True),
            AFTER_ATTENTION,
            feed_forward(bias=False),
            AFTER_ALL,
        ),
    ),
    "nomic-bert-moe": Row(
        root=(encoder(),),
        block=(
            attention(qkv_bias=True, out_bias=True, fused=True),
            AFTER_ATTENTION,
            when("sparse", experts(ffn.dense_width, gate=False)),
            unless("sparse", feed_forward(gate=False, bias=True)),
            AFTER_ALL,
        ),
        sparse=rules.every_n_from_second,
    ),
}
