"""Loops over packed ternary weights, in plain Python that Numba compiles: one token through a whole part of a model.

Notable points:
- The functions here are Python: they run (slowly) without Numba, on NumPy arrays, and so can be read and tested.
  `compiled` makes machine code of them, which is kept beside this file for the next process.
- `bit_linear` does every operation of `BitLinear` in the same order, rounded to float32 each: the same bits. That is
  why constants come in as float32 numbers (Python's own would make the arithmetic double), and why no loop may add
  floats in another order, except where it says so (`dot`).
- Integer sums are kept in sixteen bits for 31 rows of bytes at a time: |Σ| ≤ 31·4·127·2 = 31,496 < 2¹⁵.
- All loops stand in this one file: the cache of Numba's machine code watches only the file that a loop stands in.
- Weights are stored as code + 1, so that no sign needs care; what that adds is the sum of the inputs, taken off once.

Shapes: I inputs, O outputs, R = I/4 rounded up, C channels, H heads, D head dim, S tokens seen. One token at a time.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Array = Any  # of NumPy
Number = Any  # of NumPy too, float32
Turn = tuple[Array, Array]  # cosines and sines of one position, (D/2,) each

SOFTMAX, MIXTRAL, SIGMOID = range(3)  # gates
ROWS = 31  # of bytes, before sixteen bits could overflow


class Weights(NamedTuple):
    """A packed layer as the loops take it: arrays that share its memory, and numbers in float32."""

    packed: Array  # (R, O) uint8
    norm_weight: Array  # (I,) float32
    scale: Array  # (1,) float32
    per_feature: Number  # 1/I
    eps: Number
    one: Number
    largest_code: Number  # 127
    per_code: Number  # 1/127
    least: Number  # 1e-5


class KANWeights(NamedTuple):
    """A packed `BitKAN` as the loops take it."""

    packed: Array  # (R, O) uint8, of I·F weights per output
    norm_weight: Array  # (I,) float32
    scale: Array  # (O,) float32
    table: Array  # (255, F) int8
    per_feature: Number  # 1/I
    eps: Number
    one: Number
    reach: Number
    codes_per_unit: Number  # 127/reach


class How(NamedTuple):
    """The settings of a mixer: switches, and numbers in float32."""

    rotary: bool
    gate: bool
    norm: bool
    key_scale: Number  # D^-½
    per_channel: Number  # 1/D
    eps: Number  # of the norm per head


class Work(NamedTuple):
    """Scratch space, as large as the largest layer needs."""

    floats: Array  # (I,) float32
    others: Array  # (I,) float32
    codes: Array  # (4R,) int16
    partial: Array  # (O,) int16
    sums: Array  # (O,) int32
    wide: Array  # (O,) float32
    hidden: Array  # (O,) float32


def ordered_sum(x: Array, count: int) -> Number:
    """The sum of x[:count] in the order of `bitnet.ordered_sum_`; x is used up."""
    while count > 1:
        half = (count + 1) // 2
        for i in range(count - half):
            x[i] += x[half + i]
        count = half
    return x[0]


def largest(x: Array, count: int) -> Number:
    """The largest of x[:count], NaN if there is one; x is used up."""
    while count > 1:
        half = (count + 1) // 2
        for i in range(count - half):
            a, b = x[i], x[half + i]
            x[i] = a if a > b or a != a else b
        count = half
    return x[0]


def input_codes(x: Array, weights: Weights, floats: Array, others: Array, codes: Array) -> Number:
    """`bitnet.bit_input_codes` of one token: fills codes (4R,), with zeros at the end, and returns their scale."""
    count = len(x)
    for i in range(count):
        floats[i] = x[i] * x[i]
    r = weights.one / math.sqrt(ordered_sum(floats, count) * weights.per_feature + weights.eps)
    for i in range(count):
        floats[i] = x[i] * r * weights.norm_weight[i]
        others[i] = abs(floats[i])
    top = largest(others, count)
    if top < weights.least:
        top = weights.least
    factor = weights.one / top * weights.largest_code
    for i in range(count):
        codes[i] = round(floats[i] * factor)
    for i in range(count, 4 * len(weights.packed)):
        codes[i] = 0
    return top * weights.per_code


def ternary_product(packed: Array, codes: Array, partial: Array, sums: Array) -> None:
    """sums (O,) = Σ_i codes[i] · weight[o, i], exactly."""
    total = 0
    for code in codes[: 4 * len(packed)]:
        total += code
    outputs = packed.shape[1]
    for o in range(outputs):
        sums[o] = -total
    for start in range(0, len(packed), ROWS):
        for o in range(outputs):
            partial[o] = 0
        for r in range(start, min(start + ROWS, len(packed))):
            a, b, c, d = codes[4 * r], codes[4 * r + 1], codes[4 * r + 2], codes[4 * r + 3]
            row = packed[r]
            for o in range(outputs):
                byte = row[o]
                partial[o] += a * (byte & 3) + b * (byte >> 2 & 3) + c * (byte >> 4 & 3) + d * (byte >> 6)
        for o in range(outputs):
            sums[o] += partial[o]


def bit_linear(x: Array, weights: Weights, work: Work, out: Array) -> None:
    """out (O,) = `BitLinear` of x (I,), to the last bit."""
    scale = input_codes(x, weights, work.floats, work.others, work.codes) * weights.scale[0]
    ternary_product(weights.packed, work.codes, work.partial, work.sums)
    for o in range(weights.packed.shape[1]):
        out[o] = work.sums[o]
        out[o] *= scale


def bit_linear_rows(x: Array, weights: Weights, work: Work, out: Array) -> None:
    """out (N, O) = `BitLinear` of x (N, I), one token after the other."""
    for n in range(len(x)):
        bit_linear(x[n], weights, work, out[n])


def kan_features(x: Array, weights: KANWeights, floats: Array, codes: Array) -> bool:
    """The features of `bit_kan_codes.kan_input_codes` of one token: fills codes (4R,); whether the token is finite."""
    count, features, finite = len(x), weights.table.shape[1], True
    for i in range(count):
        floats[i] = x[i] * x[i]
    r = weights.one / math.sqrt(ordered_sum(floats, count) * weights.per_feature + weights.eps)
    for i in range(count):
        z = x[i] * r * weights.norm_weight[i]
        if not abs(z) < math.inf:
            finite, z = False, weights.one
        z = min(max(z, -weights.reach), weights.reach)
        code = round(z * weights.codes_per_unit)
        for f in range(features):
            codes[i * features + f] = weights.table[127 + code, f]
    for i in range(count * features, 4 * len(weights.packed)):
        codes[i] = 0
    return finite


def bit_kan(x: Array, weights: KANWeights, work: Work, out: Array) -> None:
    """out (O,) = `BitKAN` of x (I,), to the last bit."""
    finite = kan_features(x, weights, work.floats, work.codes)
    ternary_product(weights.packed, work.codes, work.partial, work.sums)
    for o in range(weights.packed.shape[1]):
        out[o] = work.sums[o] if finite else math.nan
        out[o] *= weights.scale[o]


def bit_kan_rows(x: Array, weights: KANWeights, work: Work, out: Array) -> None:
    """out (N, O) = `BitKAN` of x (N, I), one token after the other."""
    for n in range(len(x)):
        bit_kan(x[n], weights, work, out[n])


def kan_feed_forward(x: Array, into: KANWeights, out_of: KANWeights, work: Work, y: Array) -> None:
    """y (C,) = `BitKANFeedForward` of x (C,)."""
    bit_kan(x, into, work, work.hidden)
    bit_kan(work.hidden[: into.packed.shape[1]], out_of, work, y)


def route(
    x: Array, weight: Array, bias: Array, kind: int, scores: Array, logits: Array, chosen: Array, factors: Array
) -> bool:
    """The router and gate of a `MoE` for one token: fills chosen (k,) and factors (k,); whether all is finite.

    Args:
        kind: of gate: SOFTMAX, MIXTRAL or SIGMOID.
        scores, logits: scratch, (E,).
    """
    experts, top_k, top = len(weight), len(chosen), -math.inf
    for e in range(experts):
        logits[e] = dot(x, weight[e])
        if not abs(logits[e]) < math.inf:
            return False
        top = max(top, logits[e])
    total = 0.0
    for e in range(experts):
        scores[e] = 1 / (1 + math.exp(-logits[e])) if kind == SIGMOID else math.exp(logits[e] - top)
        total += scores[e]
    for e in range(experts):
        scores[e] = (scores[e] if kind == SIGMOID else scores[e] / total) + bias[e]
    for j in range(top_k):
        best = 0
        for e in range(experts):
            best = e if scores[e] > scores[best] else best
        chosen[j], factors[j], scores[best] = best, logits[best], -math.inf
    if kind == SOFTMAX:
        for j in range(top_k):
            factors[j] = math.exp(factors[j] - top) / total
        return True
    top = -math.inf
    for j in range(top_k):
        if kind == SIGMOID:  # its logarithm, which does not underflow
            factors[j] = min(factors[j], 0.0) - math.log1p(math.exp(-abs(factors[j])))
        top = max(top, factors[j])
    total = 0.0
    for j in range(top_k):
        factors[j] = math.exp(factors[j] - top)
        total += factors[j]
    for j in range(top_k):
        factors[j] /= total
    return True


def kan_mixture(
    x: Array, experts: tuple[tuple[KANWeights, KANWeights], ...], factors: Array, work: Work, y: Array
) -> None:
    """y (C,) = Σ over experts of factor · `BitKANFeedForward` of x (C,); those beyond the factors count as they are."""
    for i in range(len(y)):
        y[i] = 0
    for e in range(len(experts)):
        into, out_of = experts[e]
        kan_feed_forward(x, into, out_of, work, work.wide)
        for i in range(len(y)):
            y[i] += work.wide[i] * factors[e] if e < len(factors) else work.wide[i]


def dot(a: Array, b: Array) -> Number:
    """Σ a·b, summed in whatever order is fastest."""
    total = a[0] * b[0]
    for i in range(1, len(a)):
        total += a[i] * b[i]
    return total


def rotate(x: Array, cos: Array, sin: Array) -> None:
    """`attention.rope` of all heads (H·D,) at one position, in place; cos and sin (D/2,)."""
    half = len(cos)
    for start in range(0, len(x), 2 * half):
        for i in range(half):
            first, second = x[start + i], x[start + half + i]
            x[start + i] = first * cos[i] - second * sin[i]
            x[start + half + i] = second * cos[i] + first * sin[i]


def retention(
    x: Array,
    into: Weights,
    out_of: Weights,
    turn: Turn,
    loss: Array,
    memory: Array,
    written: Array,
    how: How,
    work: Work,
    y: Array,
) -> None:
    """y (C,) = one step of `MultiScaleRetention`: x (C,), memory (H, D, D) → written (H, D, D); loss (H,) is γ - 1."""
    width, head_dim = len(x), memory.shape[1]
    bit_linear(x, into, work, work.wide)  # q, k, v and, if there is one, the gate: (H, D) each
    if how.rotary:
        rotate(work.wide[: 2 * width], turn[0], turn[1])
    for h in range(len(memory)):
        start = h * head_dim
        v, o = work.wide[2 * width + start : 2 * width + start + head_dim], work.hidden[start : start + head_dim]
        for j in range(head_dim):
            o[j] = 0
        for i in range(head_dim):
            query, key = work.wide[start + i], work.wide[width + start + i] * how.key_scale
            before, after = memory[h, i], written[h, i]
            for j in range(head_dim):
                after[j] = key * v[j] + before[j] + before[j] * loss[h]
                o[j] += query * after[j]
        if how.norm:
            r = into.one / math.sqrt(dot(o, o) * how.per_channel + how.eps)
            for j in range(head_dim):
                o[j] *= r
    if how.gate:
        gate_by_silu(work.hidden, work.wide[3 * width : 4 * width], into.one)
    bit_linear(work.hidden[:width], out_of, work, y)


def attention(
    x: Array,
    into: Weights,
    out_of: Weights,
    turn: Turn,
    keys: Array,
    values: Array,
    seen: int,
    scores: Array,
    how: How,
    work: Work,
    y: Array,
) -> None:
    """y (C,) = one step of `CausalSelfAttention`; keys and values (H, block_size, D) get their row number `seen`."""
    width, head_dim = len(x), keys.shape[2]
    bit_linear(x, into, work, work.wide)  # q, k, v: (H, D) each
    if how.rotary:
        rotate(work.wide[: 2 * width], turn[0], turn[1])
    for h in range(len(keys)):
        start = h * head_dim
        q, o = work.wide[start : start + head_dim], work.hidden[start : start + head_dim]
        for j in range(head_dim):
            keys[h, seen, j] = work.wide[width + start + j]
            values[h, seen, j] = work.wide[2 * width + start + j]
            o[j] = 0
        for t in range(seen + 1):
            scores[t] = dot(q, keys[h, t]) * how.key_scale
        top = scores[0]
        for t in range(1, seen + 1):
            top = max(top, scores[t])
        total = how.eps - how.eps
        for t in range(seen + 1):
            weight = math.exp(scores[t] - top)
            total += weight
            for j in range(head_dim):
                o[j] += weight * values[h, t, j]
        for j in range(head_dim):
            o[j] /= total
    bit_linear(work.hidden[:width], out_of, work, y)


def gate_by_silu(x: Array, gate: Array, one: Number) -> None:
    """x ← silu(gate) · x, for as many as gate has."""
    for i in range(len(gate)):
        x[i] *= gate[i] / (one + math.exp(-gate[i]))


def swiglu(x: Array, gate: Weights, into: Weights, out_of: Weights, work: Work, y: Array) -> None:
    """y (C,) = `SwiGLU` of x (C,)."""
    bit_linear(x, gate, work, work.wide)
    bit_linear(x, into, work, work.hidden)
    width = gate.packed.shape[1]
    gate_by_silu(work.hidden, work.wide[:width], gate.one)
    bit_linear(work.hidden[:width], out_of, work, y)


def mlp(x: Array, into: Weights, out_of: Weights, work: Work, y: Array) -> None:
    """y (C,) = `MLP` of x (C,)."""
    bit_linear(x, into, work, work.hidden)
    width = into.packed.shape[1]
    for i in range(width):
        z = work.hidden[i]
        work.hidden[i] = 0.5 * z * (1 + math.tanh(0.7978845608028654 * (z + 0.044715 * z * z * z)))
    bit_linear(work.hidden[:width], out_of, work, y)


PARTS = (  # called by other loops
    *(ordered_sum, largest, input_codes, ternary_product, bit_linear),
    *(rotate, gate_by_silu, kan_features, bit_kan, kan_feed_forward),
)


@functools.cache
def compiled(loop: Callable) -> Callable:
    """A loop of this file as machine code; the first call of a new kind of argument compiles, or finds it compiled."""
    import numba

    _make_callable()
    return numba.njit(cache=True, nogil=True, error_model="numpy")(loop)


@functools.cache
def _make_callable() -> None:
    from numba.extending import register_jitable

    for part in PARTS:
        register_jitable(error_model="numpy")(part)
    register_jitable(fastmath={"reassoc", "nsz"})(dot)


def float32_numbers(*values: float) -> tuple[Any, ...]:
    """Python numbers as NumPy's float32 scalars."""
    return tuple(torch.tensor(values, dtype=torch.float32).numpy())
