"""A checkpoint's ``config.json``, read key by key and checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nemofit.errors import DataError

_LARGEST = 1 << 31
# Where multimodal configurations keep the language model's: conversion/base.py (load_hparams) of
# ggml-org/llama.cpp.
_LANGUAGE = ("text_config", "llm_config", "language_config", "lm_config")
# Classes that stand for the whole model even though their language part names a class of its own.
_WHOLE = frozenset({"KimiK3ForConditionalGeneration", "Exaone4_5_ForConditionalGeneration"})


class Config:
    """One configuration; a multimodal model's language part lies over the rest.

    Args:
        values: The JSON object.
        where: What messages call the file.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.where = where
        self.top = values
        thinker = values.get("thinker_config")
        inner: Any = next((values[k] for k in _LANGUAGE if isinstance(values.get(k), dict)), None)
        if inner is None and isinstance(thinker, dict):
            inner = thinker.get("text_config")
        self.inner: Mapping[str, Any] = inner if isinstance(inner, dict) else {}
        self.values: dict[str, Any] = {**values, **self.inner}
        self.rope = self._rope()

    @property
    def family(self) -> str:
        """The class that names the language model: ``LlamaForCausalLM``.

        Raises:
            DataError: The configuration names none.
        """
        own, inner = (_first(v.get("architectures")) for v in (self.top, self.inner))
        found = own if own in _WHOLE else inner or own
        if not found:
            raise DataError(f"{self.where} names no architecture", "download the file again")
        return found[:100]

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def integer(self, *keys: str, default: int | None = None) -> int:
        """A whole number under the first of the keys that is there.

        Raises:
            DataError: None is there and there is no default, or it is no such number.
        """
        key, value = self._found(keys)
        if value is None:
            if default is None:
                raise DataError(f"{self.where} lacks {keys[0]}", "download the file again")
            return default
        if isinstance(value, float) and value == int(value if math.isfinite(value) else 0):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
            raise self._wrong(key, value, f"a whole number from 0 to {_LARGEST}")
        return value

    def number(self, *keys: str) -> float | None:
        """A number under the first of the keys that is there, None if none is."""
        key, value = self._found(keys)
        if value is None:
            return None
        return self._number(key, value)

    def flag(self, key: str, default: bool = False) -> bool:
        """A yes or no."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, *keys: str) -> str:
        """A text, empty where there is none."""
        _, value = self._found(keys)
        return value if isinstance(value, str) else ""

    def listed(self, key: str, length: int | None = None) -> list[Any] | None:
        """A list, None where there is none.

        Raises:
            DataError: It is no list, or not of that length.
        """
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or (length is not None and len(value) != length):
            expected = "a list" + (f" of {length}" if length is not None else "")
            raise self._wrong(key, value, expected)
        return value

    def inside(self, key: str) -> Mapping[str, Any]:
        """An object, empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, dict) else {}

    def rope_number(self, key: str) -> float | None:
        """A number of the rotary embedding's parameters."""
        value = self.rope.get(key)
        return None if value is None else self._number(key, value)

    @property
    def rope_kind(self) -> str:
        kind = self.rope.get("rope_type")
        return kind.lower() if isinstance(kind, str) else ""

    @property
    def head(self) -> int:
        """Elements of one head."""
        stated = self.integer("head_dim", default=0)
        return stated or self.integer("hidden_size", "n_embd") // max(
            self.integer("num_attention_heads", "n_head"), 1
        )

    def _rope(self) -> dict[str, Any]:
        """The rotary parameters of layers that see everything, whichever way they are written."""
        v = self.values
        found = v.get("rope_parameters") or v.get("rope_scaling")
        rope = dict(found) if isinstance(found, dict) else {}
        self.sliding_theta = _first_of(
            v, "local_rope_theta", "rope_local_theta", "swa_rope_theta", "rope_local_base_freq"
        )
        if isinstance(rope.get("full_attention"), dict):
            sliding = rope.get("sliding_attention")
            if isinstance(sliding, dict):
                self.sliding_theta = sliding.get("rope_theta", self.sliding_theta)
            return dict(rope["full_attention"])
        for key, others in (
            ("rope_theta", ("global_rope_theta", "rope_theta", "rotary_emb_base")),
            ("partial_rotary_factor", ("partial_rotary_factor", "rope_pct", "rope_percent")),
            ("original_max_position_embeddings", ("original_max_position_embeddings",)),
        ):
            if rope.get(key) is None:
                rope[key] = _first_of(v, *others)
        if rope.get("rope_type") is None:
            rope["rope_type"] = rope.get("type")
        return rope

    def _found(self, keys: tuple[str, ...]) -> tuple[str, Any]:
        return next(((k, self.values[k]) for k in keys if self.has(k)), (keys[0], None))

    def _number(self, key: str, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._wrong(key, value, "a number")
        if not math.isfinite(value) or abs(value) >= 1 << 63:
            raise self._wrong(key, value, "a finite number")
        return float(value)

    def _wrong(self, key: str, value: object, expected: str) -> DataError:
        return DataError(
            f"{self.where}: {key} is {value!r:.80}, expected {expected}", "download the file again"
        )


def _first(value: object) -> str | None:
    """The first text of a list."""
    found = value[0] if isinstance(value, list) and value else None
    return found if isinstance(found, str) and found.isprintable() else None


def _first_of(values: Mapping[str, Any], *keys: str) -> Any:
    return next((values[k] for k in keys if values.get(k) is not None), None)
