"""Which type llama-quantize gives every tensor of a model.

The rules are data (``data/quants.yaml``); here is the frame around them, as llama.cpp's
``src/llama-quant.cpp`` runs it: tensors are visited layer by layer and by name within a layer, and
those of one kind are counted on the way.

A model's tensors fall into few groups of equal kind and row length. The groups are worked out once
per model, after which a file type costs a few dozen lookups.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, cast

from ..errors import DataError, UsageError
from . import store
from .clauses import Case, Clause, parse_rules
from .ggml import FileType, ggml_types, row_bytes, section
from .model import ModelSpec, Tensor

_LAYER = re.compile(r"blk\.(\d{1,9})")
_KINDS: Final = (
    ("attn_qkv.weight", "attn_v"),
    ("attn_kv_b.weight", "attn_v"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_q.weight", "attn_q"),
    ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"),
    ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)
"""Part of a name -> kind of tensor, the first that is found."""
_COUNTED: Final = frozenset({"attn_v", "ffn_gate", "ffn_up", "ffn_down"})
_NEED_IMATRIX: Final = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
_EMBEDDINGS: Final = ("token_embd.weight", "per_layer_token_embd.weight")


class Kind(NamedTuple):
    """What a tensor's name says.

    Attributes:
        category: One of :data:`~nemofit.catalog.clauses.CATEGORIES`.
        kept: llama-quantize leaves the tensor as it is.
        source: Type that the converter writes: F16 or F32.
        at_least_q8_0: Never below Q8_0.
    """

    category: str
    kept: bool
    source: str
    at_least_q8_0: bool


class Traits(NamedTuple):
    """What the rules ask about a model as a whole."""

    architecture: str
    gqa: int
    experts: int
    layers: int
    family_70b: bool


@dataclass(slots=True)
class Group:
    """Tensors that differ at most in their layer: same kind, same row length.

    Attributes:
        category: Kind of tensor; a tied token_embd is ``output``.
        row: Elements of a row.
        expert: The mixture "experts" takes them for experts.
        at_least_q8_0: Never below Q8_0.
        rows: Rows of all tensors together.
        members: Place in the model, layer, place among its kind and rows of each tensor.
    """

    category: str
    row: int
    expert: bool
    at_least_q8_0: bool
    named_embedding: bool
    rows: int
    members: list[tuple[int, int, int, int]]


@dataclass(slots=True)
class Table:
    """A model's tensors as llama-quantize sees them.

    Attributes:
        traits: The model as a whole.
        attn_v: Tensors of the kind attn_v, quantized or not: L of their rules.
        kept: Place in the model and type of every tensor that stays as it is.
        kept_bytes: Bytes of those.
        groups: All others.
    """

    traits: Traits
    attn_v: int
    kept: list[tuple[int, str]]
    kept_bytes: int
    groups: list[Group]

    def length(self, category: str) -> int:
        """L of the rules for a kind of tensor."""
        return self.attn_v if category == "attn_v" else self.traits.layers


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """Where an architecture differs; see ``data/quants.yaml``."""

    keep: tuple[str, ...]
    keep_named: tuple[str, ...]
    float32: tuple[str, ...]
    float32_named: frozenset[str]
    float16: tuple[str, ...]
    q8_0: tuple[str, ...]
    output: str | None
    rules: Mapping[str, Mapping[str, tuple[Clause, ...]]]
    expert_kinds: frozenset[str] | None
    facts: Mapping[str, object]


def table(model: ModelSpec) -> Table:
    """The model's tensors in groups; kept with the model until the catalog is read again."""
    made_from = architectures()
    cached = vars(model).get("_quantize_table")
    if cached is None or cached[0] is not made_from:
        cached = made_from, _table(model)
        vars(model)["_quantize_table"] = cached
    return cast("Table", cached[1])


def group_types(file_type: FileType, found: Table, group: Group, imatrix: bool) -> tuple[str, ...]:
    """The type of each member of a group: one value where it is the same for all.

    Raises:
        UsageError: llama-quantize refuses: a row does not divide and the type has no fallback.
    """
    if file_type.mixture == "float":
        return (file_type.type,)
    if group.at_least_q8_0:
        return (_fallback("Q8_0", group.row),)
    category = group.category
    if category == "output":
        return (_fallback(_output(file_type, found.traits, group.row), group.row),)
    if file_type.mixture == "experts":
        return (_fallback(file_type.type if group.expert else "Q8_0", group.row),)
    chosen = _choices(file_type, category, found.traits, found.length(category), imatrix)
    if len(chosen.types) == 1:
        return (_fallback(chosen.types[0], group.row),)
    last = len(chosen.types) - 1
    place = 2 if chosen.by == "seen" else 1
    return tuple(
        _fallback(chosen.types[min(member[place], last)], group.row) for member in group.members
    )


def needs_imatrix(file_type: FileType, found: Table) -> bool:
    """Whether llama-quantize refuses to make this file without an importance matrix."""
    too_low = _NEED_IMATRIX | ({"Q2_K"} if file_type.name == "Q2_K_S" else set())
    return any(
        not too_low.isdisjoint(group_types(file_type, found, group, False))
        for group in found.groups
        if not group.named_embedding
    )


def source_type(architecture: str, tensor: Tensor) -> str:
    """The type that llama.cpp's converter writes for a tensor: F16, or F32 for what is delicate.

    Source: llama.cpp ``conversion/base.py``, prepare_tensors, with ``--outtype f16``.
    """
    return "F32" if len(tensor.shape) < 2 else _kind(architecture, tensor.name).source


def architectures() -> Mapping[str, Architecture]:
    """Architectures that differ, by name; ``""`` is every other one."""
    return store.derived("quants", _architectures)


def _table(model: ModelSpec) -> Table:
    traits = _traits(model)
    tied = all(t.name != "output.weight" for t in model.tensors)
    experts_by_name = architectures().get(model.architecture, architectures()[""]).expert_kinds
    kept: list[tuple[int, str]] = []
    groups: dict[tuple[str, int, bool, bool, bool], Group] = {}
    kept_bytes = attn_v = 0
    for place, tensor, layer, kind, seen in _visit(model):
        attn_v += kind.category == "attn_v"
        shape = tensor.shape
        if kind.kept or _dimensions(shape) < 2:
            type_name = tensor.type or source_type(model.architecture, tensor)
            kept.append((place, type_name))
            kept_bytes += row_bytes(type_name, shape[0]) * (tensor.elements // shape[0])
            continue
        category = kind.category
        embedding = tensor.name in _EMBEDDINGS or category == "output"
        if tied and category == "token_embd":
            category = "output"
        stacked = len(shape) > 2 and shape[2] > 1
        expert = stacked and (experts_by_name is None or category in experts_by_name)
        key = category, shape[0], expert, kind.at_least_q8_0, embedding
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(*key, rows=0, members=[])
        rows = tensor.elements // shape[0]
        group.rows += rows
        i = layer if traits.experts > 1 and category != "attn_v" else seen
        if category in _COUNTED and traits.experts > 1 and category != "attn_v":
            _check_layer(tensor.name, layer, traits.layers)
        group.members.append((place, i, seen, rows))
    return Table(traits, attn_v, kept, kept_bytes, list(groups.values()))


def _visit(model: ModelSpec) -> Iterator[tuple[int, Tensor, int, Kind, int]]:
    """Every tensor with its place in the model, layer, kind and place among its kind."""
    counters = dict.fromkeys(_COUNTED, 0)
    order = []
    for place, tensor in enumerate(model.tensors):
        if not tensor.shape or min(tensor.shape) < 1:
            raise DataError(
                f"tensor {tensor.name!r:.80} of {model.id} has the shape {tensor.shape}",
                "every dimension has at least one element",
            )
        found = _LAYER.match(tensor.name)
        order.append((int(found.group(1)) if found else -1, tensor.name, place))
    order.sort()
    for layer, name, place in order:
        tensor = model.tensors[place]
        stem = name if layer < 0 else f"blk.0{name[4 + len(str(layer)) :]}"
        kind = _kind(model.architecture, stem)
        seen = counters.get(kind.category, 0)
        if kind.category in counters and not kind.kept and _dimensions(tensor.shape) > 1:
            counters[kind.category] += 1
        yield place, tensor, layer, kind, seen


def _dimensions(shape: tuple[int, ...]) -> int:
    """Dimensions as ggml counts them: trailing ones do not count."""
    n = len(shape)
    while n > 1 and shape[n - 1] == 1:
        n -= 1
    return n


def _check_layer(name: str, layer: int, layers: int) -> None:
    if not 0 <= layer < layers:
        raise DataError(
            f"tensor {name!r:.80} belongs to no layer of the {layers} that the model has",
            "llama-quantize refuses such a model; check block_count",
        )


def _traits(model: ModelSpec) -> Traits:
    known = architectures()
    facts = known.get(model.architecture, known[""]).facts
    blocks = model.integer("block_count")
    heads = _first(model, "attention.head_count", 0)
    heads_kv = _first(model, "attention.head_count_kv", heads)
    experts = model.integer("expert_count")
    family = cast("Mapping[str, int] | None", facts.get("family_70b"))
    is_70b = (
        family is not None
        and blocks - model.integer("nextn_predict_layers") == family["blocks"]
        and not (family["more_heads"] and heads == heads_kv)
        and not (family["fewer_experts"] and experts == 8)
    )
    layers = blocks + cast("int", facts.get("extra_layers", 0))
    if times := facts.get("layers_times"):
        layers *= max(1, model.integer(str(times), 1))
    return Traits(model.architecture, heads // heads_kv if heads_kv else 0, experts, layers, is_70b)


def _first(model: ModelSpec, key: str, default: int) -> int:
    """A metadata value of layer 0."""
    value = model.metadata.get(key, default)
    if isinstance(value, tuple):
        return int(value[0]) if value else default
    return int(value)


@lru_cache(maxsize=4096)
def _kind(architecture: str, name: str) -> Kind:
    known = architectures()
    a = known.get(architecture, known[""])
    kept = (
        not name.endswith("weight") or name in a.keep_named or any(part in name for part in a.keep)
    )
    if name == "output.weight":
        category = "output"
    elif name in _EMBEDDINGS:
        category = "token_embd"
    else:
        category = next((kind for part, kind in _KINDS if part in name), "other")
    found = _LAYER.match(name)
    stem = name[found.end() + 1 :] if found else name
    float32 = (
        not name.endswith(".weight")
        or name.endswith("_norm.weight")
        or stem.removesuffix(".weight") in a.float32_named
        or any(part in name for part in a.float32)
    )
    if float32 and any(part in name for part in a.float16):
        float32 = False
    lifted = any(part in name for part in a.q8_0)
    return Kind(category, kept, "F32" if float32 else "F16", lifted)


def _output(file_type: FileType, traits: Traits, row: int) -> str:
    known = architectures()
    a = known.get(traits.architecture, known[""])
    if a.output is not None:
        return a.output
    if row % ggml_types()[file_type.type].block:
        return "Q8_0"
    rule = file_type.rules.get("output")
    return rule[0].type if rule else "Q6_K"


class _Choices(NamedTuple):
    """Types by place; ``by`` says which place: i or seen. One type: the same everywhere."""

    by: str
    types: tuple[str, ...]


@lru_cache(maxsize=4096)
def _choices(
    file_type: FileType, category: str, traits: Traits, length: int, imatrix: bool
) -> _Choices:
    known = architectures()
    own = known.get(traits.architecture, known[""]).rules.get(file_type.name, {})
    rules = own.get(category, file_type.rules.get(category, ()))
    asked = frozenset().union(*(clause.places for clause in rules))
    # "seen" runs on where a layer has several tensors of a kind; beyond L no condition changes.
    places = range(length + 1) if asked else range(1)
    types = []
    for at in places:
        case = Case(traits.gqa, traits.experts, imatrix, length, at, at)
        types.append(next((c.type for c in rules if c.holds(case)), file_type.type))
    if file_type.mixture == "standard":
        types = [_lift(t, category, traits) for t in types]
    return _Choices("seen" if "seen" in asked else "i", tuple(types))


def _lift(type_name: str, category: str, traits: Traits) -> str:
    """What llama-quantize does to attention whatever the file type."""
    if category in ("attn_v", "attn_k") and traits.experts == 8:
        return "Q8_0"
    if category == "attn_v" and traits.family_70b and type_name in ("Q3_K", "Q4_K"):
        return "Q5_K"
    return type_name


@lru_cache(maxsize=4096)
def _fallback(type_name: str, row: int) -> str:
    types = ggml_types()
    t = types[type_name]
    if row % t.block == 0:
        return type_name
    if t.fallback is None and t.block > 32:
        raise UsageError(
            f"llama-quantize has no type instead of {type_name} for rows of {row} elements, "
            f"which are no multiple of {t.block}",
            "choose another quantization",
        )
    instead = t.fallback or type_name
    return instead if row % types[instead].block == 0 else "F16"


def _architectures(entries: store.Entries) -> Mapping[str, Architecture]:
    common = section(entries, "tensors")

    def names(name: str) -> tuple[str, ...]:
        return tuple(cast("list[str]", common.get(name, {}).get("names", [])))

    def build(facts: Mapping[str, object]) -> Architecture:
        def own(name: str) -> tuple[str, ...]:
            return tuple(cast("list[str]", facts.get(name, [])))

        rules = cast("Mapping[str, Mapping[str, list[str]]]", facts.get("rules", {}))
        kinds = facts.get("expert_kinds")
        return Architecture(
            keep=names("keep") + own("keep"),
            keep_named=names("keep_named"),
            float32=own("float32"),
            float32_named=frozenset(names("float32")),
            float16=own("float16"),
            q8_0=own("q8_0"),
            output=cast("str | None", facts.get("output")),
            rules={name: parse_rules(r) for name, r in rules.items()},
            expert_kinds=None if kinds is None else frozenset(cast("list[str]", kinds)),
            facts=facts,
        )

    found = {name: build(facts) for name, facts in section(entries, "architectures").items()}
    _forget()
    return {**found, "": build({})}


def _forget() -> None:
    """The catalog was read again: what was derived from the old one is void."""
    for cache in (_kind, _choices, _fallback):
        cache.cache_clear()
