"""The gated delta net: linear attention whose state is one matrix per head.

Source: src/models/delta-net-base.cpp, qwen3next.cpp, qwen35.cpp, kimi-linear.cpp, kimi-k3.cpp,
llama.cpp 0c1e570.
"""

from __future__ import annotations

from . import ops
from .context import Context
from .ops import T
from .recurrent import RecurrentState


def gated_delta_net(ctx: Context, state: RecurrentState, il: int, x: T) -> T:
    """Qwen's gated delta net on [width, tokens]."""
    m = ctx.model
    head, groups = m.integer("ssm.state_size"), m.integer("ssm.group_count")
    heads, tokens, sequences = m.integer("ssm.time_step_rank"), state.tokens, state.sequences
    ctx.g.expand(x)
    qkv, z = _inputs(ctx, state, il, x)
    fused = ctx.w(il, "ssm_ba")
    if fused is not None:
        beta, alpha = _split_rates(ops.mul_mat(fused, x), state, groups, heads)
    else:
        beta = ops.mul_mat(ctx.must(il, "ssm_beta"), x)
        beta = ops.unary(ops.reshape(beta, 1, heads, tokens, sequences))
        alpha = state.by_sequence(ops.mul_mat(ctx.must(il, "ssm_alpha"), x))
    bias, decay = ctx.b(il, "ssm_dt"), ctx.weights.get(f"blk.{il}.ssm_a")
    assert bias is not None and decay is not None
    gate = ops.mul(ops.unary(ops.add(alpha, bias)), decay)
    gate = ops.reshape(gate, 1, heads, tokens, sequences)

    kernel = ctx.must(il, "ssm_conv1d")
    joined = state.join(il, ops.transpose(qkv), kernel)
    matrix = own_state(state, il, head, heads)
    mixed = ops.unary(ops.ssm_conv(joined, kernel))
    row = mixed.nb[1]

    def part(count: int) -> T:
        step = ops.row_size(mixed.type, head)
        return ops.view(mixed, (head, count, tokens, sequences), (step, row, row * tokens))

    q, k, v = unit(part(groups)), unit(part(groups)), part(heads)
    if fused is not None and groups != heads:
        q, k = (_repeat(t, heads // groups) for t in (q, k))
    out = attend(state, il, (q, k, v, gate, beta), matrix)
    out = ctx.norm(out, ctx.w(il, "ssm_norm"), il=il)
    out = ops.mul(out, ops.unary(ops.reshape(z, head, heads, tokens, sequences)))
    out = ops.reshape(out, head * heads, tokens, sequences)
    out = ops.mul_mat(ctx.must(il, "ssm_out"), out)
    return ops.reshape(out, ctx.n_embd, ctx.n_tokens)


def _inputs(ctx: Context, state: RecurrentState, il: int, x: T) -> tuple[T, T]:
    """What is convolved, and the output's gate; older files have one matrix that mixes them."""
    mixing = ctx.w(il, "ssm_in")
    if mixing is None:
        qkv = ops.mul_mat(ctx.must(il, "attn_qkv"), x)
        return state.by_sequence(qkv), ops.mul_mat(ctx.must(il, "attn_gate"), x)
    m = ctx.model
    head, groups = m.integer("ssm.state_size"), m.integer("ssm.group_count")
    tokens, sequences = state.tokens, state.sequences
    wide = head * m.integer("ssm.time_step_rank") // groups
    mixed = ops.mul_mat(mixing, x)
    mixed = ops.reshape(mixed, 2 * head + 2 * wide, groups, tokens, sequences)

    def part(width: int) -> T:
        return ops.view(mixed, (width, groups, tokens, sequences), mixed.nb[1:4])

    def flat(width: int) -> T:
        return ops.cont(part(width), width * groups, tokens, sequences)

    qkv = ops.concat(ops.concat(flat(head), flat(head), 0), flat(wide), 0)
    return qkv, ops.cont(part(wide))


def kimi_delta_attention(ctx: Context, state: RecurrentState, il: int, x: T) -> T:
    """Kimi's delta attention on [width, tokens]: a decay of its own for every channel."""
    m = ctx.model
    head, heads = m.integer("kda.head_dim"), m.per_layer("attention.head_count")[0]
    tokens, sequences, n = state.tokens, state.sequences, ctx.n_tokens
    ctx.g.expand(x)
    kept = state.read(state.convolution(il))
    q, k, v = (_convolved(ctx, state, il, part, kept, x, (head, heads)) for part in "qkv")
    gate = _channel_decay(ctx, il, x, (head, heads))
    gate = ops.reshape(gate, head, heads, tokens, sequences)
    beta = ops.mul_mat(ctx.must(il, "ssm_beta"), x)
    beta = ops.unary(ops.reshape(beta, 1, heads, tokens, sequences))
    matrix = own_state(state, il, head, heads)
    out = ops.cont(attend(state, il, (unit(q), unit(k), v, gate, beta), matrix))
    out = ctx.norm(ops.reshape(out, head, heads, n), ctx.w(il, "ssm_norm"), il=il)
    x = ops.reshape(state.by_sequence(x), x.ne[0], n)
    full = ctx.w(il, "ssm_g")
    if full is not None:
        z = ops.mul_mat(full, x)
    else:
        z = ops.mul_mat(ctx.must(il, "ssm_g_a"), x)
        z = ops.mul_mat(ctx.must(il, "ssm_g_b"), z)
    out = ops.mul(out, ops.unary(ops.reshape(z, head, heads, n)))
    return ops.mul_mat(ctx.must(il, "attn_output"), ops.cont(out, head * heads, n))


def _convolved(
    ctx: Context,
    state: RecurrentState,
    il: int,
    part: str,
    kept: T,
    x: T,
    heads: tuple[int, int],
) -> T:
    """One of q, k and v behind its own convolution; all three share a state."""
    kernel = ctx.must(il, f"ssm_conv1d_{part}")
    inner, sequences = heads[0] * heads[1], state.sequences
    size = ops.row_size(kept.type, kernel.ne[0] - 1)
    own = (kernel.ne[0] - 1, inner, sequences)
    before = ops.view(kept, own, (size, kept.nb[1]))
    new = state.by_sequence(ops.mul_mat(ctx.must(il, f"attn_{part}"), x))
    joined = ops.concat(before, ops.transpose(new), 0)
    to = ops.view(state.convolution(il), own, (size, kept.nb[1]))
    ctx.g.expand(ops.cpy(ops.view(joined, own, joined.nb[1:3]), to))
    y = ops.ssm_conv(joined, ops.reshape(kernel, kernel.ne[0], inner))
    y = ops.unary(ops.reshape(y, inner, ctx.n_tokens))
    return ops.reshape(y, *heads, state.tokens, sequences)


def _channel_decay(ctx: Context, il: int, x: T, heads: tuple[int, int]) -> T:
    bias, decay = ctx.b(il, "ssm_dt"), ctx.weights.get(f"blk.{il}.ssm_a")
    assert bias is not None and decay is not None
    decay = ops.reshape(decay, 1, heads[1], 1)
    y = ops.mul_mat(ctx.must(il, "ssm_f_b"), ops.mul_mat(ctx.must(il, "ssm_f_a"), x))
    y = ops.add(y, bias)
    if "kda.gate_lower_bound" in ctx.model.metadata:
        y = ops.mul(ops.reshape(y, *heads, ctx.n_tokens), decay)
        return ops.scale(ops.unary(ops.scale(y)))
    return ops.mul(ops.reshape(ops.unary(y), *heads, ctx.n_tokens), decay)


def _split_rates(both: T, state: RecurrentState, groups: int, heads: int) -> tuple[T, T]:
    """Beta and alpha out of one product in which they alternate by group."""
    per = heads // groups
    tokens, sequences = state.tokens, state.sequences
    both = ops.reshape(both, 2 * per, groups, tokens, sequences)
    b, a = (ops.view(both, (per, groups, tokens, sequences), both.nb[1:4]) for _ in range(2))
    beta = ops.reshape(ops.unary(ops.cont(b)), 1, heads, tokens, sequences)
    return beta, ops.cont(a, heads, tokens, sequences)


def _repeat(x: T, times: int) -> T:
    """Each group's head once for every head of the group."""
    head, groups, tokens, sequences = x.ne
    apart = ops.reshape(x, head, 1, groups, tokens * sequences)
    repeated = ops.repeat(apart, head, times, groups, tokens * sequences)
    return ops.reshape(repeated, head, groups * times, tokens, sequences)


def unit(x: T) -> T:
    """Vectors of length one."""
    return ops.scale(ops.rms_norm(x))


def own_state(state: RecurrentState, il: int, head: int, heads: int) -> T:
    """The sequences' matrices as they were."""
    rows = state.read(state.recurrence(il))
    return ops.reshape(rows, head, head, heads, state.sequences)


def attend(state: RecurrentState, il: int, inputs: tuple[T, T, T, T, T], matrix: T) -> T:
    """Run the recurrence over q, k, v, gate and beta; keep the new matrices."""
    v = inputs[2]
    head, heads, tokens, _ = v.ne
    out = ops.gated_delta_net(*inputs, matrix)
    row = ops.row_size("F32", head)
    result = ops.view(out, v.ne, (row, row * heads, row * heads * tokens))
    new = ops.view(out, matrix.ne, (row, row * head, row * head * heads))
    state.write(new, state.recurrence(il))
    return result
