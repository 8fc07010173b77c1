"""The pieces that llama.cpp's graphs are made of: inputs, norms, projections, feed-forwards.

One function per function of llama-graph.cpp (llama.cpp 0c1e570), with the same order of operations;
what a layer has is decided by the tensors that the model has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nemofit.catalog.model import ModelSpec

from . import ops
from .ops import Graph, T


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphShape:
    """What decides a graph beside the model.

    Attributes:
        tokens, sequences, outputs: Of the micro-batch that the buffers are reserved for.
        streams: Separate caches: 1 when unified, else the sequences.
        cells: KV cells per stream; ``window_cells`` those of sliding-window layers.
        flash: Flash attention.
        type_k, type_v: ggml types of the caches.
        kv_offload: Caches lie with their layers; else on the host.
        pins: Norms are forced onto their own layer's device (full offload, or few tokens).
        layers: The block indices to build; a run of equal blocks may be shortened.
        device_of: Backend index of each block, and of the output as the last entry.
        cpu: Backend index of the CPU.
        states: Cells of a recurrent cache: one per sequence that the engine is set up for.
        embeddings: The result is the pooled embedding instead of logits.
    """

    tokens: int
    sequences: int
    outputs: int
    streams: int
    cells: int
    window_cells: int
    flash: bool
    type_k: str
    type_v: str
    kv_offload: bool
    pins: bool
    layers: tuple[int, ...]
    device_of: tuple[int, ...]
    cpu: int
    states: int = 1
    embeddings: bool = False


@dataclass(slots=True)
class Qkv:
    q: T
    k: T
    v: T


@dataclass(slots=True)
class Weights:
    """The model's tensors as graph leaves, made when first asked for.

    Attributes:
        shapes: Name to (ggml type, extents).
        home: Backend index of a tensor by name.
    """

    shapes: Mapping[str, tuple[str, tuple[int, ...]]]
    home: Callable[[str], int]
    made: dict[str, T] = field(default_factory=dict)

    def get(self, name: str) -> T | None:
        t = self.made.get(name)
        if t is None:
            found = self.shapes.get(name)
            if found is None:
                return None
            t = self.made[name] = ops.stored(self.home(name), found[0], *found[1], weight=True)
            t.name = name
        return t


class Context:
    """Builds one graph; an architecture's builder calls these in its own order."""

    def __init__(self, model: ModelSpec, shape: GraphShape, weights: Weights) -> None:
        self.model = model
        self.shape = shape
        self.weights = weights
        self.g = Graph()
        self.n_tokens = shape.tokens
        self.n_embd = model.integer("embedding_length")

    # weights -------------------------------------------------------------------------------

    def root(self, name: str) -> T | None:
        """A tensor outside the blocks: ``output``, ``output_norm``."""
        return self.weights.get(f"{name}.weight")

    def w(self, il: int, name: str) -> T | None:
        """A block's weight, None where the model has none."""
        return self.weights.get(f"blk.{il}.{name}.weight")

    def b(self, il: int, name: str) -> T | None:
        """A block's bias, None where the model has none."""
        return self.weights.get(f"blk.{il}.{name}.bias")

    def must(self, il: int, *names: str) -> T:
        """A block's weight under the first of several names; the layout promises that it exists."""
        for name in names:
            t = self.w(il, name)
            if t is not None:
                return t
        raise KeyError(f"blk.{il}.{names[0]}.weight")

    def rope_factors(self, il: int, name: str = "rope_freqs") -> T | None:
        """Frequency factors of the rotation; every device with blocks holds its own copy."""
        full = f"{name}.weight"
        found = self.weights.shapes.get(full)
        if found is None and name == "rope_freqs":
            trained = self.model.integer("rope.scaling.original_context_length")
            per_sequence = self.shape.cells
            which = "long" if per_sequence > (trained or per_sequence) else "short"
            return self.rope_factors(il, f"rope_factors_{which}")
        if found is None:
            return None
        home = self.shape.device_of[il]
        key = f"{full}@{home}"
        t = self.weights.made.get(key)
        if t is None:
            t = self.weights.made[key] = ops.stored(home, found[0], *found[1], weight=True)
        return t

    # inputs --------------------------------------------------------------------------------

    def input_embedding(self) -> T:
        """Token ids looked up in the embedding; the input for raw embeddings stays unused.

        Raw embeddings may bring more rows, which are added behind the first blocks.
        """
        tokens = self.tokens = ops.input_("I32", self.n_tokens)
        table = self.root("token_embd")
        assert table is not None
        looked_up = ops.get_rows(table, tokens)
        wide = self.n_embd * (1 + self.model.integer("n_deepstack_layers"))
        if wide > self.n_embd:
            looked_up = ops.pad(looked_up, wide - self.n_embd)
        self.g.expand(looked_up)
        self.g.expand(ops.input_("F32", wide, self.n_tokens))
        if wide > self.n_embd:
            return ops.view(looked_up, (self.n_embd, self.n_tokens), looked_up.nb[1:2])
        return looked_up

    def input_positions(self, per_token: int = 1) -> T:
        return ops.input_("I32", self.n_tokens * per_token)

    def input_output_ids(self) -> T:
        return ops.input_("I32", self.shape.outputs)

    # norms and projections -----------------------------------------------------------------

    def norm(
        self, x: T, weight: T | None, bias: T | None = None, *, il: int = -1, kind: str = "rms"
    ) -> T:
        """A norm with its weight and bias; with ``il`` it belongs to that block's device."""
        x = ops.rms_norm(x) if kind == "rms" else ops.norm(x)
        if il >= 0 and self.shape.pins and (weight is not None or bias is not None):
            self.g.pin(x, self.shape.device_of[il])
        if weight is not None:
            x = ops.mul(x, weight)
        if bias is not None:
            x = ops.add(x, bias)
        return x

    def linear(self, weight: T, x: T, bias: T | None = None, scale: T | None = None) -> T:
        x = ops.mul_mat(weight, x)
        if scale is not None:
            x = ops.mul(x, scale)
        return x if bias is None else ops.add(x, bias)

    def qkv(
        self,
        il: int,
        x: T,
        heads: int,
        kv_heads: int,
        head_k: int,
        head_v: int,
        *,
        flat: bool = False,
    ) -> Qkv:
        """Project to q, k and v, fused or apart, as [head, heads, tokens].

        Args:
            flat: Leave q and k as they come, [head * heads, tokens], to be normed as a whole.
        """
        n = self.n_tokens
        clamp = self.model.number("attention.clamp_kqv") > 0
        fused = self.w(il, "attn_qkv")
        if fused is not None:
            y = self.linear(fused, x, self.b(il, "attn_qkv"))
            if clamp:
                y = ops.clamp(y)
            row = y.nb[1]

            def part(head: int, count: int) -> T:
                return ops.view(y, (head, count, n), (ops.row_size(y.type, head), row))

            return Qkv(part(head_k, heads), part(head_k, kv_heads), part(head_v, kv_heads))

        def project(name: str, head: int, count: int) -> T:
            y = self.linear(self.must(il, name), x, self.b(il, name))
            if clamp and not flat:
                y = ops.clamp(y)
            return y if flat and name != "attn_v" else ops.reshape(y, head, count, n)

        return Qkv(
            project("attn_q", head_k, heads),
            project("attn_k", head_k, kv_heads),
            project("attn_v", head_v, kv_heads),
        )

    # feed-forward --------------------------------------------------------------------------

    def feed_forward(
        self, il: int, x: T, activation: str, *, suffix: str = "", parallel_gate: bool = True
    ) -> T:
        """A dense feed-forward; gated where the block has a gate.

        Args:
            activation: silu, gelu, relu, relu_sqr; ``silu_clamped`` limits both sides of the
                gate. A projection of twice the width is gate and value in one.
            suffix: ``_shexp`` for the shared expert.
        """
        up, gate = self.w(il, f"ffn_up{suffix}"), self.w(il, f"ffn_gate{suffix}")
        y = x if up is None else self.linear(up, x, self.b(il, f"ffn_up{suffix}"))
        if gate is not None:
            z = self.linear(gate, x if parallel_gate else y, self.b(il, f"ffn_gate{suffix}"))
        else:
            z = y
        gated = gate is not None and parallel_gate
        down = self.w(il, f"ffn_down{suffix}")
        if gate is None and down is not None and z.ne[0] == 2 * down.ne[0]:
            z = ops.glu(z)
        elif activation == "silu_clamped" and gated:
            z = _clamped_glu(z, y)
        elif activation == "situ" and gated:
            z = self._situ(z, y)
        elif activation == "relu_sqr":
            z = ops.like("SQR", ops.unary(z))
            if gated:
                z = ops.mul(z, y)
        else:
            z = ops.glu(z, y) if gated else ops.unary(z)
        return z if down is None else self.linear(down, z, self.b(il, f"ffn_down{suffix}"))

    def experts(
        self,
        il: int,
        x: T,
        *,
        used: int,
        activation: str = "silu",
        gating: str = "softmax",
        normalize: bool = False,
        scaled: bool = False,
        weight_first: bool = False,
        groups: tuple[int, int] = (0, 0),
        logits: T | None = None,
        chosen: T | None = None,
        precise: bool = False,
    ) -> T:
        """A mixture of experts: route every token, run the chosen experts, sum their results.

        Args:
            used: Experts per token.
            gating: softmax, sigmoid, softmax_weight (softmax over the chosen ones), sqrt_softplus.
            normalize, scaled: The weights are normalized, multiplied by a constant.
            weight_first: Weights multiply the experts' input instead of their output.
            groups: Expert groups and how many of them are used, (0, 0) for none.
            precise: The last product asks for full precision.
        """
        n, n_embd = self.n_tokens if x.ne[1] == 0 else x.ne[1], x.ne[0]
        if logits is None:
            logits = ops.mul_mat(self.must(il, "ffn_gate_inp"), x)
        gate_bias = self.b(il, "ffn_gate_inp")
        if gate_bias is not None:
            logits = ops.add(logits, gate_bias)
        n_expert = logits.ne[0]
        if gating == "softmax":
            probs = ops.soft_max(logits)
        elif gating == "sigmoid":
            probs = ops.unary(logits)
        elif gating == "sqrt_softplus":
            probs = ops.like("SQRT", ops.unary(logits))
        else:
            probs = logits
        if chosen is None:
            chosen = self._choose_experts(il, probs, logits, used, weight_first, groups)
        weights = ops.get_rows(ops.reshape(probs, 1, n_expert, n), chosen)
        if gating == "softmax_weight":
            weights = ops.reshape(ops.soft_max(ops.reshape(weights, used, n)), 1, used, n)
        if normalize:
            flat = ops.reshape(weights, used, n)
            total = ops.clamp(ops.sum_rows(flat))
            weights = ops.reshape(ops.div(flat, total), 1, used, n)
        if scaled:
            weights = ops.scale(weights)
        self.g.expand(weights)
        x = ops.reshape(x, n_embd, 1, n)
        if weight_first:
            x = ops.mul(ops.repeat(x, n_embd, used, n), weights)
        y = self._expert_products(il, x, chosen, activation)
        y = ops.mul_mat_id(self.must(il, "ffn_down_exps"), y, chosen)
        scale = self.weights.get(f"blk.{il}.ffn_down_exps.scale")
        if scale is not None:
            scale = ops.repeat(ops.reshape(scale, 1, n_expert), 1, n_expert, n)
            y = ops.mul(y, ops.get_rows(scale, chosen))
        y.precise = precise
        down_bias = self.b(il, "ffn_down_exps")
        if down_bias is not None:
            y = ops.add_id(y, down_bias, chosen)
        if not weight_first:
            y = ops.mul(y, weights)
        self.g.expand(y)
        parts = [ops.view(y, (n_embd, n), (y.nb[2],)) for _ in range(used)]
        for p in parts:
            self.g.expand(p)
        out = parts[0]
        for p in parts[1:]:
            out = ops.add(out, p)
            self.g.expand(out)
        return ops.cont(out) if used == 1 else out

    def _choose_experts(
        self, il: int, probs: T, logits: T, used: int, by_logits: bool, groups: tuple[int, int]
    ) -> T:
        selection = probs
        correction = self.b(il, "exp_probs_b")
        if correction is not None:
            selection = ops.add(probs, correction)
        if by_logits:
            selection = logits
        if groups[0] > 1:
            selection = _mask_groups(selection, probs.ne[0], groups, probs.ne[1])
        return ops.argsort_top_k(selection, used)

    def _expert_products(self, il: int, x: T, chosen: T, activation: str) -> T:
        merged = self.w(il, "ffn_gate_up_exps")
        if merged is not None:
            both = ops.mul_mat_id(merged, x, chosen)
            bias = self.b(il, "ffn_gate_up_exps")
            if bias is not None:
                both = ops.add_id(both, bias, chosen)
            half = (both.ne[0] // 2, both.ne[1], both.ne[2])
            gate = ops.view(both, half, both.nb[1:3])
            up = ops.view(both, half, both.nb[1:3])
            return ops.glu(gate, up)
        up = ops.mul_mat_id(self.must(il, "ffn_up_exps"), x, chosen)
        bias = self.b(il, "ffn_up_exps")
        if bias is not None:
            up = ops.add_id(up, bias, chosen)
        gates = self.w(il, "ffn_gate_exps")
        if gates is None:
            return ops.like("SQR", ops.unary(up)) if activation == "relu_sqr" else ops.unary(up)
        gate = ops.mul_mat_id(gates, x, chosen)
        bias = self.b(il, "ffn_gate_exps")
        if bias is not None:
            gate = ops.add_id(gate, bias, chosen)
        if activation == "situ":
            return self._situ(gate, up)
        return _clamped_glu(gate, up) if activation == "silu_clamped" else ops.glu(gate, up)

    def _situ(self, gate: T, up: T) -> T:
        """A gate softly limited on both sides."""
        limited = ops.scale(ops.unary(ops.scale(gate)))
        gated = ops.mul(limited, ops.unary(gate))
        if self.model.number("activation.situ_linear_beta") > 0:
            up = ops.scale(ops.unary(ops.scale(up)))
        return ops.mul(gated, up)


def _clamped_glu(gate: T, up: T) -> T:
    up = ops.clamp(up)
    return ops.mul(ops.clamp(ops.unary(gate)), up)


def _mask_groups(selection: T, n_expert: int, groups: tuple[int, int], n: int) -> T:
    """Leave only the experts of the best groups selectable, as DeepSeek V3 routes."""
    count, used = groups
    by_group = ops.reshape(selection, n_expert // count, count, n)
    best = ops.argsort_top_k(by_group, 2)
    scores = ops.get_rows(ops.reshape(by_group, 1, *by_group.ne[:3]), best)
    scores = ops.sum_rows(ops.reshape(scores, *scores.ne[1:]))
    scores = ops.reshape(scores, scores.ne[1], scores.ne[2])
    chosen = ops.argsort_top_k(scores, used)
    kept = ops.get_rows(by_group, chosen)
    return ops.reshape(ops.set_rows(ops.fill(by_group), kept, chosen), n_expert, n)
