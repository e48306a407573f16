"""Retention in its three forms: one sum over the past, computed all at once, token by token, or chunk by chunk.

    o_t = Σ_{s ≤ t} γ^(t-s) (q_t · k_s) v_s

Nothing but this sum: no softmax, no divisor, no epsilon. The three forms are the same numbers in another order.

Notable points:
- The decay is kept as its logarithm in float32, since 1 - 2⁻⁹ is 1 in bfloat16. A power of γ is exp of a sum of logs,
  and every sum taken here is of a stretch that lies behind: it is at most 0, so no length of text overflows.
- A state loses γ^c - 1 of itself (`expm1`): near 1, that has seven digits where γ^c has three, and the same rounding,
  thousands of times over, would show.
- The usual factoring γ^t·γ^(-s) overflows after a few thousand tokens; masking after exp makes NaN of what it masks.
- A decay may also be one number per token, which makes the retention gated: the same three forms, the same code.
- A state that goes on for ever keeps a NaN for ever, and masks multiply, so that one at a later token would reach
  earlier ones. Inputs that are not finite are therefore refused.

Papers: Sun et al. 2023, "Retentive Network: A Successor to Transformer for Large Language Models" [1]; Sun et al. 2024,
"You Only Cache Once" (gated retention) [2].

Glossary (code name ↔ paper symbol): `decay` ↔ ln γ [1], ln γ_t [2]; `state` ↔ S_n, R_i [1]; `chunk_size` ↔ B [1];
the matrix of weights between tokens ↔ D [1].

Shapes: B batch, H heads, T time, D head dim of q, k and v (v may have another), c tokens in a chunk, N chunks.
"""

import torch
from torch import Tensor

__all__ = ["chunkwise_retention", "naive_retention", "parallel_retention", "recurrent_retention", "retention_decay"]


def retention_decay(n_head: int) -> Tensor:
    """Natural logarithms of the decays γ_h = 1 - 2^(-5-h) of the paper's heads, float32, (H,).

    Head 0 forgets half of the past in 22 tokens, every further head takes twice as long.

    Raises:
        ValueError: n_head is below 1.
    """
    if n_head < 1:
        raise ValueError(f"n_head must be at least 1, got {n_head}")
    return torch.log1p(-(2.0 ** -(5 + torch.arange(n_head, dtype=torch.float64)))).float()


def naive_retention(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """The formula, one pair of tokens at a time. Slow; the oracle of the other forms. Arguments as there."""
    q, k, v, decay, _ = checked(q, k, v, decay)
    out = torch.zeros_like(v)
    for t in range(q.size(2)):
        for s in range(t + 1):
            log_weight = decay * (t - s) if decay.ndim == 1 else decay[..., s + 1 : t + 1].sum(-1)  # (H,) or (B, H)
            score = log_weight.exp() * (q[:, :, t] * k[:, :, s]).sum(-1)  # (B, H)
            out[:, :, t] += score[..., None] * v[:, :, s]
    return out


def parallel_retention(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """All tokens at once, (q kᵀ ⊙ D) v: for short texts, since it makes a T×T matrix.

    Args:
        q, k: (B, H, T, D); scaled by whoever calls, nothing is divided here.
        v: (B, H, T, D), where D may be another.
        decay: logarithms, at most 0: (H,) as from `retention_decay`, or (B, H, T) with what happens *before* token t
            reads, so that its own k and v arrive undiminished.

    Returns:
        (B, H, T, D) in the dtype of v; computed in float32 at least, except where autocast says otherwise.

    Raises:
        ValueError: shapes that do not fit, a decay above 0, a value that is not finite.
    """
    q, k, v, decay, _ = checked(q, k, v, decay)
    return retain(q, k, v, decay, None, q.size(2))[0]


def recurrent_retention(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Token by token: S ← γ S + k vᵀ, then o = q S. A step costs the same however long the text is.

    Args:
        q, k, v, decay: as in `parallel_retention`.
        state: S after the tokens so far, (B, H, D of k, D of v); None: nothing was seen.

    Returns:
        The outputs as there, and the state after the last token, float32 at least.

    Raises:
        ValueError: as there, or a state of another shape.
    """
    q, k, v, decay, state = checked(q, k, v, decay, state)
    outputs = []
    for t in range(q.size(2)):
        piece = slice(t, t + 1)
        y, state = retain_one(q[:, :, piece], k[:, :, piece], v[:, :, piece], decay_of(decay, piece), state)
        outputs.append(y)
    return torch.cat(outputs, dim=2), state


def chunkwise_retention(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *, chunk_size: int, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Chunk by chunk: in parallel inside a chunk, by the state between chunks. The cost grows linearly with T.

    Args:
        q, k, v, decay, state: as in `recurrent_retention`.
        chunk_size: tokens per chunk, at least 1; T need not be a multiple. It changes the cost, not the result.

    Returns:
        As `recurrent_retention`.

    Raises:
        ValueError: as there, or a chunk_size below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    q, k, v, decay, state = checked(q, k, v, decay, state)
    return retain(q, k, v, decay, state, chunk_size)


def checked(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The arguments of a form of retention, once they are known to fit together.

    Raises:
        ValueError: they do not; the message names both sides.
    """
    if q.ndim != 4 or q.shape != k.shape or v.ndim != 4 or v.shape[:3] != q.shape[:3] or q.size(2) < 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"q and k must be (B, H, T, D) and v (B, H, T, any D) with T at least 1, got {shapes}")
    B, H, T, _ = q.shape
    if decay.shape not in ((H,), (B, H, T)):
        raise ValueError(f"decay must be of shape {(H,)} or {(B, H, T)} for these tokens, got {tuple(decay.shape)}")
    if not bool(((decay <= 0) & torch.isfinite(decay)).all()):
        worst = decay.max() if bool((decay > 0).any()) else decay.min()
        raise ValueError(f"decay holds logarithms, finite and at most 0, got {worst.item():.4g}: pass ln γ, not γ")
    expected = (B, H, k.size(3), v.size(3))
    if state is not None and state.shape != expected:
        raise ValueError(f"the state is {tuple(state.shape)}, these tokens need {expected}: is it another model's?")
    for name, value in (("q", q), ("k", k), ("v", v), ("state", state)):
        if value is not None and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds a value that is not finite, which a state would keep for ever")
    return q, k, v, decay, state


def retain_one(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token, unchecked: q, k, v (B, H, 1, D), decay (H,) or (B, H, 1), and the state before and after it."""
    dtype = _wide(q)
    write = k.to(dtype).mT * v.to(dtype)  # (B, H, D, D), k vᵀ
    if state is not None:
        loss = decay.to(dtype).expm1()[(..., None, None) if decay.ndim == 1 else (..., None)]  # (H or B, H, 1, 1)
        write = torch.addcmul(write + state, state, loss)
    return (q.to(dtype) @ write).to(v.dtype), write


def retain(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Chunks, unchecked: the whole ones side by side, then what is left as one shorter chunk."""
    T, c = q.size(2), min(chunk_size, q.size(2))
    whole = slice(0, T // c * c)
    out, state = _chunks(q[:, :, whole], k[:, :, whole], v[:, :, whole], decay_of(decay, whole), state, c)
    if T % c == 0:
        return out, state
    rest = slice(T // c * c, T)
    last, state = _chunks(q[:, :, rest], k[:, :, rest], v[:, :, rest], decay_of(decay, rest), state, T % c)
    return torch.cat((out, last), dim=2), state


def _chunks(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor | None, c: int) -> tuple[Tensor, Tensor]:
    """N chunks of c tokens: inside each by its c×c matrix, across them by the states at their beginnings."""
    dtype, out_dtype = _wide(q), v.dtype
    q, k, v = (x.to(dtype).unflatten(2, (-1, c)) for x in (q, k, v))  # (B, H, N, c, D)
    between, since_start, to_end, over = _stretches(decay.to(dtype), c)
    out = ((q @ k.mT) * between.exp()) @ v  # (B, H, N, c, D), what each chunk says by itself
    written = (k * to_end.exp()[..., None]).mT @ v  # (B, H, N, D, D), what it leaves behind
    N, is_first = q.size(2), state is None
    loss = over.expm1()[..., None, None].expand(-1, -1, N, -1, -1)  # (1 or B, H, N, 1, 1)
    state = torch.zeros_like(written[:, :, 0]) if is_first else state  # (B, H, D, D)
    before = []  # the state at the beginning of each chunk
    for n in range(N):
        before.append(state)
        state = torch.addcmul(written[:, :, n] + state, state, loss[:, :, n])
    if N > 1 or not is_first:
        out = out + (q * since_start.exp()[..., None]) @ torch.stack(before, dim=2)
    return out.flatten(2, 3).to(out_dtype), state


def _stretches(decay: Tensor, c: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logs of what is left after a stretch of text, in chunks of c tokens; leading axes (1, H, 1) or (B, H, N).

    Returns:
        From token s to token t of the same chunk (…, c, c), -inf for s > t; from before the chunk to token t (…, c);
        from token s to the chunk's end (…, c); over the whole chunk (…).
    """
    step = torch.arange(c, device=decay.device)
    behind = step[:, None] - step  # (c, c), how far token s lies behind token t
    if decay.ndim == 1:
        rate = decay.view(1, -1, 1, 1)  # (1, H, 1, 1)
        between = rate[..., None] * behind.clamp(min=0)
        since_start = rate * (step + 1)
    else:
        decay = decay.unflatten(2, (-1, c))  # (B, H, N, c)
        # Summed from each s on: a difference of two long sums would lose the digits of a short one.
        between = decay[..., :, None].masked_fill(behind <= 0, 0.0).cumsum(-2)  # (B, H, N, c, c)
        since_start = decay.cumsum(-1)
    to_end = between[..., -1, :]
    return between.masked_fill(behind < 0, -torch.inf), since_start, to_end, since_start[..., -1]


def decay_of(decay: Tensor, piece: slice) -> Tensor:
    """The decay of some of the tokens."""
    return decay if decay.ndim == 1 else decay[:, :, piece]


def _wide(x: Tensor) -> torch.dtype:
    """The dtype sums and states are kept in."""
    return torch.promote_types(x.dtype, torch.float32)
