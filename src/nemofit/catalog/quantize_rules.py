"""Which type llama-quantize gives every tensor of a model.

The rules are data (``data/quants.yaml``); here is the frame around them, as llama.cpp's
``src/llama-quant.cpp`` runs it: tensors are visited layer by layer and by name within a layer, and
those of one kind are counted on the way.

A model's tensors fall into few groups of equal kind and row length. The groups are worked out once
per model, after which a file type costs a few dozen lookups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple, cast

from ..errors import DataError, UsageError
from . import store
from .clauses import Choice, Clause, choose, parse_rules
from .ggml import FileType, GgmlType, ggml_types, row_bytes, section
from .model import ModelSpec, Tensor

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
_LIFTED: Final = ("attn_v", "attn_k")
_NEED_IMATRIX: Final = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
_EMBEDDINGS: Final = ("token_embd.weight", "per_layer_token_embd.weight")
_Q8_0: Final = Choice(("Q8_0",))
_NUMBERS: Final = {str(n): n for n in range(1024)}


class Kind(NamedTuple):
    """What a tensor's name says.

    Attributes:
        category: One of :data:`~nemofit.catalog.clauses.CATEGORIES`.
        kept: llama-quantize leaves the tensor as it is.
        source: Type that the converter writes: F16, F32 or I32.
        at_least_q8_0: Never below Q8_0.
    """

    category: str
    kept: bool
    source: str
    at_least_q8_0: bool


class Traits(NamedTuple):
    """What the rules ask about a model as a whole."""

    architecture: Architecture
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
        no_imatrix: Embeddings and output, which are quantized without an importance matrix.
        total_rows: Rows of all tensors together.
        members: Place of each tensor in the model.
        rows: Rows of each tensor.
        i: Place of each tensor that the rules call ``i``, at most L; empty where no rule asks.
        seen: The same for the place that they call ``seen``.
    """

    category: str
    row: int
    expert: bool
    at_least_q8_0: bool
    no_imatrix: bool
    total_rows: int = 0
    members: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    i: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)


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


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """Where an architecture differs; see ``data/quants.yaml``."""

    keep: tuple[str, ...]
    keep_named: tuple[str, ...]
    float32: tuple[str, ...]
    float32_named: frozenset[str]
    float16: tuple[str, ...]
    int32_named: frozenset[str]
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


def group_types(file_type: FileType, found: Table, group: Group, imatrix: bool) -> list[str]:
    """The type of each member of a group, or a single one that holds for all.

    Raises:
        UsageError: llama-quantize refuses: a row does not divide and the type has no fallback.
    """
    if file_type.mixture == "float":
        return [file_type.type]
    choice = _choice(file_type, found, group, imatrix)
    known = ggml_types()
    if len(choice.types) == 1:
        return [_fallback(known, choice.types[0], group.row)]
    fitting = {t: _fallback(known, t, group.row) for t in set(choice.types)}
    places = group.seen if choice.by == "seen" else group.i
    return [fitting[choice.types[at]] for at in places]


def total_bytes(file_type: FileType, found: Table, imatrix: bool) -> int:
    """Bytes of all tensors; arguments and errors as for :func:`group_types`."""
    known = ggml_types()
    total = found.kept_bytes
    for group in found.groups:
        types = group_types(file_type, found, group, imatrix)
        if len(types) == 1:
            t = known[types[0]]
            total += group.total_rows * (group.row // t.block * t.bytes)
        else:
            sizes = {t: row_bytes(t, group.row) for t in set(types)}
            total += sum([sizes[t] * rows for t, rows in zip(types, group.rows, strict=True)])
    return total


def needs_imatrix(file_type: FileType, found: Table) -> bool:
    """Whether llama-quantize refuses to make this file without an importance matrix."""
    too_low = _NEED_IMATRIX | ({"Q2_K"} if file_type.name == "Q2_K_S" else set())
    return any(
        not too_low.isdisjoint(group_types(file_type, found, group, False))
        for group in found.groups
        if not group.no_imatrix
    )


def source_type(architecture: str, tensor: Tensor) -> str:
    """The type that llama.cpp's converter writes for a tensor: F16, or F32 for what is delicate.

    Source: llama.cpp ``conversion/base.py``, prepare_tensors, with ``--outtype f16``.
    """
    if len(tensor.shape) < 2:
        return "F32"
    return _kind(_architecture(architecture), _layer(tensor.name)[1]).source


def architectures() -> Mapping[str, Architecture]:
    """Architectures that differ, by name; ``""`` is every other one."""
    return store.derived("quants", _architectures)


def _table(model: ModelSpec) -> Table:
    found = Table(_traits(model), 0, [], 0, [])
    kinds: dict[tuple[str, tuple[int, ...]], tuple[Kind, Group | None, int]] = {}
    groups: dict[tuple[str, int, bool, bool, bool], Group] = {}
    tied = all(t.name != "output.weight" for t in model.tensors)
    counted: dict[str, list[tuple[int, str, int, Group, int]]] = {}
    for place, tensor in enumerate(model.tensors):
        name, shape = tensor.name, tensor.shape
        layer, stem = _layer(name)
        known = kinds.get((stem, shape))
        if known is None:
            _check_shape(model, tensor)
            kind = _kind(found.traits.architecture, stem)
            group = None
            if not kind.kept and _dimensions(shape) > 1:
                group = _group(groups, kind, tensor, found.traits, tied)
            known = kinds[stem, shape] = kind, group, tensor.elements // shape[0]
        kind, group, rows = known
        if kind.category == "attn_v":
            found.attn_v += 1
        if group is None:
            type_name = tensor.type or ("F32" if len(shape) < 2 else kind.source)
            found.kept.append((place, type_name))
            found.kept_bytes += rows * row_bytes(type_name, shape[0])
            continue
        group.total_rows += rows
        if kind.category in _COUNTED:
            counted.setdefault(kind.category, []).append((layer, name, place, group, rows))
        else:
            group.members.append(place)
            group.rows.append(rows)
    for category, members in counted.items():
        _count(category, members, found.traits)
    found.groups = list(groups.values())
    return found


def _group(
    groups: dict[tuple[str, int, bool, bool, bool], Group],
    kind: Kind,
    tensor: Tensor,
    traits: Traits,
    tied: bool,
) -> Group:
    category = "output" if tied and kind.category == "token_embd" else kind.category
    stacked = len(tensor.shape) > 2 and tensor.shape[2] > 1
    taken = traits.architecture.expert_kinds
    expert = stacked and (taken is None or category in taken)
    unmeasured = kind.category in ("token_embd", "output")
    key = category, tensor.shape[0], expert, kind.at_least_q8_0, unmeasured
    if key not in groups:
        groups[key] = Group(*key)
    return groups[key]


def _count(category: str, members: list[tuple[int, str, int, Group, int]], traits: Traits) -> None:
    """Give tensors of one kind their places, in the order in which llama-quantize visits them."""
    members.sort(key=itemgetter(0, 1))
    by_layer = traits.experts > 1 and category != "attn_v"
    last = len(members) if category == "attn_v" else traits.layers
    for seen, (layer, name, place, group, rows) in enumerate(members):
        if by_layer and not 0 <= layer < traits.layers:
            raise DataError(
                f"tensor {name!r:.80} belongs to none of the {traits.layers} layers of the model",
                "llama-quantize refuses such a model; check block_count",
            )
        group.members.append(place)
        group.rows.append(rows)
        group.i.append(layer if by_layer else min(seen, last))
        group.seen.append(min(seen, last))


def _layer(name: str) -> tuple[int, str]:
    """Layer of a tensor, -1 outside the blocks, and its name without "blk.N"."""
    parts = name.split(".", 2)
    if parts[0] != "blk" or len(parts) < 3:
        return -1, name
    try:
        return _NUMBERS[parts[1]], "." + parts[2]
    except KeyError:
        return -1, name


def _check_shape(model: ModelSpec, tensor: Tensor) -> None:
    if not tensor.shape or min(tensor.shape) < 1:
        raise DataError(
            f"tensor {tensor.name!r:.80} of {model.id} has the shape {tensor.shape}",
            "every dimension has at least one element",
        )


def _dimensions(shape: tuple[int, ...]) -> int:
    """Dimensions as ggml counts them: trailing ones do not count."""
    n = len(shape)
    while n > 1 and shape[n - 1] == 1:
        n -= 1
    return n


def _architecture(name: str) -> Architecture:
    known = architectures()
    return known.get(name) or known[""]


def _traits(model: ModelSpec) -> Traits:
    architecture = _architecture(model.architecture)
    facts = architecture.facts
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
    return Traits(architecture, heads // heads_kv if heads_kv else 0, experts, layers, is_70b)


def _first(model: ModelSpec, key: str, default: int) -> int:
    """A metadata value of layer 0."""
    value = model.metadata.get(key, default)
    if isinstance(value, tuple):
        return int(value[0]) if value else default
    return int(value)


@lru_cache(maxsize=4096)
def _kind(a: Architecture, name: str) -> Kind:
    kept = (
        not name.endswith("weight") or name in a.keep_named or any(part in name for part in a.keep)
    )
    if name == "output.weight":
        category = "output"
    elif name in _EMBEDDINGS:
        category = "token_embd"
    else:
        category = next((kind for part, kind in _KINDS if part in name), "other")
    stem = name.removeprefix(".").removesuffix(".weight")
    float32 = (
        not name.endswith(".weight")
        or name.endswith("_norm.weight")
        or stem in a.float32_named
        or any(part in name for part in a.float32)
    )
    float32 = float32 and not any(part in name for part in a.float16)
    source = "I32" if stem in a.int32_named else "F32" if float32 else "F16"
    return Kind(category, kept, source, at_least_q8_0=any(part in name for part in a.q8_0))


def _choice(file_type: FileType, found: Table, group: Group, imatrix: bool) -> Choice:
    """What the rules say before it is asked whether the rows divide."""
    if group.at_least_q8_0:
        return _Q8_0
    if group.category == "output":
        return _output(file_type, found.traits.architecture, group.row)
    if file_type.mixture == "experts":
        return Choice((file_type.type,)) if group.expert else _Q8_0
    traits = found.traits
    rules = _rules(file_type, traits.architecture, group.category)
    if not rules and group.category not in _LIFTED:
        return Choice((file_type.type,))
    length = found.attn_v if group.category == "attn_v" else traits.layers
    return _ruled(file_type, group.category, traits, length, imatrix)


@lru_cache(maxsize=1024)
def _output(file_type: FileType, architecture: Architecture, row: int) -> Choice:
    own = architecture.output
    if own is None and row % ggml_types()[file_type.type].block:
        own = "Q8_0"
    rule = file_type.rules.get("output")
    return Choice((own or (rule[0].type if rule else "Q6_K"),))


def _rules(file_type: FileType, architecture: Architecture, category: str) -> tuple[Clause, ...]:
    own = architecture.rules.get(file_type.name)
    if own is not None and category in own:
        return own[category]
    return file_type.rules.get(category, ())


@lru_cache(maxsize=1 << 14)
def _ruled(
    file_type: FileType, category: str, traits: Traits, length: int, imatrix: bool
) -> Choice:
    rules = _rules(file_type, traits.architecture, category)
    values = {"gqa": traits.gqa, "experts": traits.experts, "imatrix": int(imatrix)}
    choice = choose(rules, file_type.type, values, length)
    if file_type.mixture == "standard" and category in _LIFTED:
        return Choice(tuple(_lift(t, category, traits) for t in choice.types), choice.by)
    return choice


def _lift(type_name: str, category: str, traits: Traits) -> str:
    """What llama-quantize does to attn_v and attn_k whatever the file type."""
    if traits.experts == 8:
        return "Q8_0"
    if category == "attn_v" and traits.family_70b and type_name in ("Q3_K", "Q4_K"):
        return "Q5_K"
    return type_name


def _fallback(types: Mapping[str, GgmlType], type_name: str, row: int) -> str:
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
            int32_named=frozenset(names("int32")),
            q8_0=own("q8_0"),
            output=cast("str | None", facts.get("output")),
            rules={name: parse_rules(r) for name, r in rules.items()},
            expert_kinds=None if kinds is None else frozenset(cast("list[str]", kinds)),
            facts=facts,
        )

    found = {name: build(facts) for name, facts in section(entries, "architectures").items()}
    return {**found, "": build({})}
