"""Which module lies on which device: the choice that ``device_map="auto"`` makes, computed.

Modules are taken in the model's order and put on the first device that still has room; a decoder
layer is never cut. The first GPU and the host keep room for the largest layer, because layers that
lie elsewhere are brought there to be computed. ``auto`` first lowers what each GPU but the last
may take, so that all get about equally much.

Source: huggingface/transformers 5.23.0, ``src/transformers/integrations/accelerate.py``
(get_max_memory, get_balanced_memory, infer_auto_device_map) and
``src/transformers/quantizers/quantizer_bnb_4bit.py``; huggingface/accelerate 1.15.0,
``src/accelerate/utils/modeling.py``, which it follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from nemofit.catalog.model import ModelSpec
from nemofit.errors import UsageError

from .config import TransformersConfig
from .parameters import (
    Parameter,
    decoder_layers,
    parameters,
    rotary_tables,
    rotated_elements,
    tied,
)

CPU = "cpu"
DISK = "disk"
Device = int | str

_QUANTIZER_SHARE = 0.9  # quantizers leave a tenth of every device for their buffers
_ALONE_SHARE = 0.9  # a single GPU whose limit nobody set keeps a tenth
_HOST_SHARE = 0.9  # and so does the host
_BUFFER = 1.25  # of the largest module, that each GPU gets beside its equal share
# Bytes of one element as the placement counts them: without scales.
_COUNTED = {"bnb-4bit": 0.5, "bnb-8bit": 1.0}
# bitsandbytes 0.50, functional.py: a float32 scale for each 64 weights, or with double
# quantization one byte for each 64 and a float32 scale and offset table for each 256 of those.
_BLOCK = 64
_NESTED_BLOCK = 256
_CODE_TABLE = 16 * 4
_NESTED_TABLE = 256 * 4 + 4
# Tables of the rotary embedding, float32: the frequencies, twice.
_ROTARY_COPIES = 2
# nn.Linear, which bitsandbytes replaces; stacked experts are one parameter in transformers 5.
_LINEAR = "linear"
# Names of the embedding and the final norm where they are not embed_tokens and norm.
_NAMES = {
    "nemotron_h": ("embeddings", "norm_f"),
    "nemotron_h_moe": ("embeddings", "norm_f"),
}


TOWER = "towers"
"""Name of the module that stands for everything beside the language model."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module that is placed whole, or a container of such.

    Attributes:
        name: As in a device map: ``model.layers.3``.
        bytes: What the placement counts for it and everything in it.
        children: Empty for a leaf and for a decoder layer.
    """

    name: str
    bytes: int
    children: tuple[Module, ...] = ()

    def wholes(self) -> Iterator[Module]:
        """The modules in it that are never cut."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.wholes()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where every module lies.

    Attributes:
        device_of: Device of the embedding, each layer, the final norm, the rotary tables and the
            output matrix, by their names in the model.
        used: Bytes counted on each device.
        limits: Bytes that each device was allowed, in order.
    """

    device_of: Mapping[str, Device]
    used: Mapping[Device, int]
    limits: Mapping[Device, int]

    @property
    def offloaded(self) -> tuple[str, ...]:
        """Modules on the host or on disk."""
        return tuple(n for n, d in self.device_of.items() if d in (CPU, DISK))


def module_tree(model: ModelSpec, config: TransformersConfig) -> tuple[Module, ...]:
    """The model's top modules as the placement sees and counts them."""
    layers = [0.0] * decoder_layers(model)
    outside = {"embed": 0.0, "norm": 0.0, "head": 0.0}
    for p in parameters(model):
        if p.block is not None:
            layers[p.block] += _counted(p, config)
        else:
            outside[_part(p.name)] += linear_bytes(p, config)
    embedding, norm = _NAMES.get(model.architecture, ("embed_tokens", "norm"))
    body = [
        Module(f"model.{embedding}", int(outside["embed"])),
        Module(
            "model.layers",
            sum(int(x) for x in layers),
            tuple(Module(f"model.layers.{i}", int(x)) for i, x in enumerate(layers)),
        ),
        Module(f"model.{norm}", int(outside["norm"])),
    ]
    if rotary_tables(model):
        body.append(Module("model.rotary_emb", rotary_bytes(model)))
    if model.checkpoint is not None and model.checkpoint.tower_bytes:
        body.insert(0, Module(f"model.{TOWER}", model.checkpoint.tower_bytes))
    whole = Module("model", sum(m.bytes for m in body), tuple(body))
    return whole, Module("lm_head", int(outside["head"]))


def place(
    model: ModelSpec,
    config: TransformersConfig,
    free: Sequence[int],
    host_free: int,
) -> Placement:
    """The placement that ``from_pretrained`` would choose.

    Args:
        model: The model.
        config: The configuration.
        free: Bytes free on each GPU once a CUDA context is there.
        host_free: Bytes of host memory that are available.

    Raises:
        UsageError: A 4- or 8-bit model would lie partly on the host, which is refused; or parts
            of it fit nowhere and there is no folder to offload to.
    """
    stored = model.checkpoint.quantization if model.checkpoint is not None else None
    if stored is not None and config.quantization != "none":
        raise UsageError(
            f"{model.id} is stored as {stored}, which cannot be quantized again",
            "leave the quantization out, or use the 16-bit checkpoint",
        )
    tree = module_tree(model, config)
    limits = memory_limits(tree, config, free, host_free)
    placement = _infer(tree, limits, tied(model))
    quantized = config.quantization != "none"
    elsewhere = placement.offloaded
    if quantized and elsewhere and config.device_map != "cpu" and free:
        raise UsageError(
            f"{config.quantization}: {elsewhere[0]} and {len(elsewhere) - 1} more modules would"
            " lie on the host or disk, which transformers refuses for quantized models",
            "use more or larger GPUs, or no quantization",
        )
    if config.offload_folder is None and DISK in placement.device_of.values():
        first = next(n for n, d in placement.device_of.items() if d == DISK)
        raise UsageError(
            f"{first} and what follows fit neither the GPUs nor the host's memory",
            "name an offload_folder, or use a smaller model or a quantization",
        )
    return placement


def memory_limits(
    tree: Sequence[Module],
    config: TransformersConfig,
    free: Sequence[int],
    host_free: int,
) -> dict[Device, int]:
    """How much each device may take, after balancing and the shares that are held back."""
    given = config.max_memory
    if config.device_map == "cpu":
        return {CPU: host_free if given is None else given.get(CPU, host_free)}
    limits: dict[Device, float]
    if given is None:
        limits = {**dict(enumerate(free)), CPU: host_free * _HOST_SHARE}
    else:
        numbers = sorted(d for d in given if isinstance(d, int) and d < len(free))
        limits = {d: given[d] for d in numbers}
        if CPU in given:
            limits[CPU] = given[CPU]
    if config.device_map != "sequential":
        _balance(tree, limits, config, user_set=given is not None)
    if config.quantization != "none":
        limits = {d: n * _QUANTIZER_SHARE for d, n in limits.items()}
    return {d: int(n) for d, n in limits.items()}


def linear_bytes(p: Parameter, config: TransformersConfig) -> int:
    """What one parameter takes in memory, scales included."""
    if p.stored:
        return p.stored_bytes
    if p.kind != _LINEAR or config.quantization == "none":
        return p.elements * config.element_bytes
    if config.quantization == "bnb-8bit":
        return p.elements + 4 * p.outputs
    blocks = ceil(p.elements / _BLOCK)
    packed = ceil(p.elements / 2)
    if not config.double_quant:
        return packed + 4 * blocks + _CODE_TABLE
    nested = ceil(blocks / _NESTED_BLOCK)
    return packed + blocks + 4 * nested + _CODE_TABLE + _NESTED_TABLE


def rotary_bytes(model: ModelSpec) -> int:
    """The rotary embedding's frequencies and the copy of their first values, float32."""
    return rotated_elements(model) // 2 * 4 * _ROTARY_COPIES * rotary_tables(model)


def _counted(p: Parameter, config: TransformersConfig) -> float:
    if p.stored:
        return p.stored_bytes
    if p.kind == _LINEAR and config.quantization in _COUNTED:
        return p.elements * _COUNTED[config.quantization]
    return p.elements * config.element_bytes


def _part(name: str) -> str:
    if name.startswith(("output.", "cls")):
        return "head"
    return "norm" if name.startswith("output_norm") else "embed"


def _balance(
    tree: Sequence[Module],
    limits: dict[Device, float],
    config: TransformersConfig,
    *,
    user_set: bool,
) -> None:
    """Lower the limits of all GPUs but the last so that they get about equally much."""
    gpus = sorted(d for d, n in limits.items() if isinstance(d, int) and n > 0)
    if not gpus:
        return
    low_zero = config.device_map == "balanced_low_0" and len(gpus) > 1
    if len(gpus) == 1 and not user_set:
        limits[gpus[0]] *= _ALONE_SHARE
    total = sum(m.bytes for m in tree)
    largest = max(w.bytes for m in tree for w in m.wholes())
    share = total // (len(gpus) - low_zero) + int(_BUFFER * largest)
    for d in gpus[:-1]:
        limits[d] = min(limits[0] if low_zero and d == 0 else share, limits[d])
    if low_zero:
        least = max(0, total - sum(limits[d] for d in range(1, len(gpus))))
        limits[0] = min(least, limits[0])


def _infer(tree: Sequence[Module], limits: Mapping[Device, int], is_tied: bool) -> Placement:
    """Greedy placement in the model's order."""
    devices: list[Device] = [*limits, DISK]
    gpus = [d for d in devices if isinstance(d, int)]
    keeps_room = {gpus[0], CPU} if gpus else {CPU}
    used: dict[Device, int] = dict.fromkeys(devices, 0)
    device_of: dict[str, Device] = {}
    queue = list(tree)
    reserve, largest = _largest(queue)
    at = 0
    while queue:
        module = queue.pop(0)
        largest = {n for n in largest if n != module.name and not n.startswith(module.name + ".")}
        if not largest:
            reserve, largest = _largest(queue)
        device = devices[at]
        kept = reserve if device in keeps_room else 0
        if device == DISK or used[device] + module.bytes <= limits[device] - kept:
            used[device] += module.bytes
            _assign(device_of, module, device)
            if is_tied and module.name in ("model", tree[0].children[0].name):
                queue = [m for m in queue if m.name != "lm_head"]
                device_of["lm_head"] = device
        elif module.children:
            queue = [*module.children, *queue]
            reserve, largest = _largest(queue)
        else:
            at += 1
            queue.insert(0, module)
    return Placement(device_of, {d: n for d, n in used.items() if n}, dict(limits))


def _largest(queue: Sequence[Module]) -> tuple[int, set[str]]:
    """Size and names of the largest modules that are never cut."""
    wholes = [w for m in queue for w in m.wholes()]
    size = max((w.bytes for w in wholes), default=0)
    return size, {w.name for w in wholes if w.bytes == size}


def _assign(device_of: dict[str, Device], module: Module, device: Device) -> None:
    for whole in module.wholes():
        device_of[whole.name] = device
