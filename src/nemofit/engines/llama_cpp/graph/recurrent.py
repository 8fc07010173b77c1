"""Mixers that carry a state from token to token: Mamba, Mamba 2, a gated short convolution.

Source: llama-graph.cpp (build_rs), src/models/mamba-base.cpp, lfm2.cpp, llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Callable

from nemofit.engines.llama_cpp.recurrent_state import states

from . import ops
from .context import Context
from .ops import T


class RecurrentState:
    """The states' input: which cell each sequence goes on from; shared by all blocks."""

    def __init__(self, ctx: Context) -> None:
        s = ctx.shape
        self.ctx = ctx
        self.sequences = s.sequences
        self.tokens = s.tokens // s.sequences
        self.cells = s.states
        self.spare = self.cells - self.sequences
        ids = ops.input_("I32", self.cells)
        self.ids = ops.view(ids, (self.sequences,))
        self.spare_ids = ops.view(ids, (self.spare,))
        self.widths = states(ctx.model)

    def convolution(self, il: int) -> T:
        """The stored inputs of a block's convolutions, one row per cell."""
        return self._stored(il, "r")

    def recurrence(self, il: int) -> T:
        """The stored matrices of a block's recurrence, one row per cell."""
        return self._stored(il, "s")

    def _stored(self, il: int, kind: str) -> T:
        s, made = self.ctx.shape, self.ctx.weights.made
        name = f"cache_{kind}_{il}"
        if name not in made:
            state = self.widths[il]
            assert state is not None
            width = state.convolution if kind == "r" else state.recurrence
            home = s.device_of[il] if s.kv_offload else s.cpu
            made[name] = ops.stored(home, "F32", width, self.cells)
        return made[name]

    def read(self, stored: T, take: Callable[[T, T], T] = ops.get_rows) -> T:
        """The sequences' own rows, taken before anything overwrites them.

        Args:
            take: What is done with the rows and the sequences' ids.
        """
        g = self.ctx.g
        rows = ops.reshape(stored, stored.ne[0], stored.ne[1])
        g.expand(ops.scale_inplace(ops.view(rows, (rows.ne[0],))))
        taken = take(rows, self.ids)
        g.expand(taken)
        spare = ops.get_rows(rows, self.spare_ids)
        to = ops.view(stored, (stored.ne[0], self.spare), (stored.nb[1],))
        g.expand(ops.cpy(spare, to))
        return taken

    def write(self, new: T, stored: T) -> None:
        """Keep the sequences' new rows."""
        to = ops.view(stored, (stored.ne[0], self.sequences), (stored.nb[1],))
        self.ctx.g.expand(ops.cpy(new, to))

    def by_sequence(self, x: T) -> T:
        """[width, tokens] as [width, tokens of a sequence, sequences]."""
        return ops.reshape(x, x.ne[0], self.tokens, self.sequences)

    def join(self, il: int, x: T, kernel: T) -> T:
        """What a convolution of [tokens, channels, sequences] reads: kept inputs, then these."""
        stored = self.convolution(il)
        before = ops.reshape(self.read(stored), kernel.ne[0] - 1, x.ne[1], self.sequences)
        joined = ops.concat(before, x, 0)
        self.write(ops.view(joined, before.ne[:3], joined.nb[1:3]), stored)
        return joined

    def convolve(self, il: int, x: T, kernel: T) -> T:
        """A causal convolution that goes on from the state."""
        return ops.ssm_conv(self.join(il, x, kernel), kernel)


def mamba(ctx: Context, state: RecurrentState, il: int, x: T) -> T:
    """Mamba's selective state space on [width, tokens]."""
    m = ctx.model
    inner, width = m.integer("ssm.inner_size"), m.integer("ssm.state_size")
    rank, tokens, sequences = m.integer("ssm.time_step_rank"), state.tokens, state.sequences
    xz = ops.mul_mat(ctx.must(il, "ssm_in"), state.by_sequence(x))
    x, z = (ops.view(xz, (inner, tokens, sequences), xz.nb[1:3]) for _ in range(2))
    x = state.convolve(il, ops.transpose(x), ctx.must(il, "ssm_conv1d"))
    x = ops.unary(_plus(x, ctx.b(il, "ssm_conv1d")))

    mixed = ops.mul_mat(ctx.must(il, "ssm_x"), x)
    dt = ops.view(mixed, (rank, tokens, sequences), mixed.nb[1:3])
    b, c = (
        ops.view(mixed, (width, 1, tokens, sequences), (width * mixed.nb[0], *mixed.nb[1:3]))
        for _ in range(2)
    )
    if ctx.w(il, "ssm_dt_norm") is not None or m.metadata.get("ssm.dt_b_c_rms"):
        dt = ctx.norm(dt, ctx.w(il, "ssm_dt_norm"), il=il)
        b = ctx.norm(b, ctx.w(il, "ssm_b_norm"), il=il)
        c = ctx.norm(c, ctx.w(il, "ssm_c_norm"), il=il)
    else:
        dt = ops.cont(dt)
    dt = _plus(ops.mul_mat(ctx.must(il, "ssm_dt"), dt), ctx.b(il, "ssm_dt"))

    heads = ops.reshape(x, 1, inner, tokens, sequences)
    out = _scan(ctx, state, il, (width, 1, inner), (heads, dt, b, c))
    y = ops.view(out, (inner, tokens, sequences), heads.nb[2:4])
    y = ops.add(y, ops.mul(x, _bare(ctx, il, "ssm_d")))
    y = ops.glu(ops.cont(z), y)
    y = ops.mul_mat(ctx.must(il, "ssm_out"), y)
    return ops.reshape(y, y.ne[0], ctx.n_tokens)


def mamba2(ctx: Context, state: RecurrentState, il: int, x: T) -> T:
    """Mamba 2 on [width, tokens]: heads that share B and C in groups."""
    m = ctx.model
    inner, width = m.integer("ssm.inner_size"), m.integer("ssm.state_size")
    heads, groups = m.integer("ssm.time_step_rank"), m.integer("ssm.group_count")
    tokens, sequences = state.tokens, state.sequences
    head = inner // heads
    mixed = state.by_sequence(ops.mul_mat(ctx.must(il, "ssm_in"), x))
    step = mixed.nb[0]

    def parts(of: T, size: int, count: int) -> T:
        return ops.view(of, (size, count, tokens, sequences), (size * step, *of.nb[1:3]))

    z = parts(mixed, head, heads)
    xbc = ops.view(mixed, (inner + 2 * groups * width, tokens, sequences), mixed.nb[1:3])
    dt = ops.view(mixed, (heads, tokens, sequences), mixed.nb[1:3])
    xbc = state.convolve(il, ops.transpose(xbc), ctx.must(il, "ssm_conv1d"))
    xbc = ops.unary(_plus(xbc, ctx.b(il, "ssm_conv1d")))

    x, b, c = parts(xbc, head, heads), parts(xbc, width, groups), parts(xbc, width, groups)
    dt = _plus(ops.cont(dt), ctx.b(il, "ssm_dt"))
    out = _scan(ctx, state, il, (width, head, heads), (x, dt, b, c))
    row = heads * x.nb[1]
    y = ops.view(out, x.ne, (x.nb[1], row, tokens * row))
    y = ops.add(y, ops.mul(x, _bare(ctx, il, "ssm_d")))
    y = ops.glu(ops.cont(z), y)
    norm = ctx.w(il, "ssm_norm")
    if norm is not None:
        y = ctx.norm(ops.reshape(y, inner // groups, groups, tokens, sequences), norm, il=il)
    return ops.mul_mat(ctx.must(il, "ssm_out"), ops.reshape(y, inner, ctx.n_tokens))


def short_convolution(ctx: Context, state: RecurrentState, il: int, x: T) -> T:
    """A convolution between two gates on [width, tokens]."""
    mixed = ops.mul_mat(ctx.must(il, "shortconv.in_proj"), state.by_sequence(x))
    part = (mixed.ne[0] // 3, *mixed.ne[1:3])
    b, c, x = (ops.view(mixed, part, mixed.nb[1:3]) for _ in range(3))
    y = state.convolve(il, ops.transpose(ops.mul(b, x)), ctx.must(il, "shortconv.conv"))
    y = ops.mul_mat(ctx.must(il, "shortconv.out_proj"), ops.mul(c, y))
    return ops.reshape(y, y.ne[0], ctx.n_tokens)


def _scan(
    ctx: Context,
    state: RecurrentState,
    il: int,
    matrix: tuple[int, int, int],
    inputs: tuple[T, T, T, T],
) -> T:
    """Run the recurrence and keep the new states, which lie behind its results."""
    x, dt, b, c = inputs
    stored = state.recurrence(il)

    def run(rows: T, ids: T) -> T:
        own = ops.reshape(rows, *matrix, rows.ne[1])
        return ops.ssm_scan(own, x, dt, _bare(ctx, il, "ssm_a"), b, c, ids)

    out = state.read(stored, run)
    state.write(ops.view(out, (stored.ne[0], state.sequences)), stored)
    return out


def _bare(ctx: Context, il: int, name: str) -> T:
    """A block's tensor whose name has no ending."""
    t = ctx.weights.get(f"blk.{il}.{name}")
    assert t is not None
    return t


def _plus(x: T, bias: T | None) -> T:
    return x if bias is None else ops.add(x, bias)
