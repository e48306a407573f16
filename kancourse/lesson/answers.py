"""The answers to exercises that are too small to be a part of the package of their own.

Answers that are ideas live with their idea, for example `kancourse.attention.naive_attention`.

Shapes: B batch, H heads, S tokens seen so far, D head dim, T time, V vocabulary; for splines G grid intervals, K order,
N points, Z knots, `...` any leading axes; for retention c tokens of a chunk; for KAN layers
I in_features, O out_features, M = G+K basis functions, F functions of one input; for ternary layers N tokens.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kancourse.bit_codes import absmax_quantize, ternary_quantize
from kancourse.splines import evaluate_spline


def unigram_entropy(counts: Tensor) -> float:
    """Entropy in nats of how often each token occurs, from (V,) counts: -Σ p ln p. A count of 0 adds nothing."""
    p = counts[counts > 0].double() / counts.sum()
    return float(-(p * p.log()).sum())


def perplexity(loss: float) -> float:
    """How many equally likely tokens a model with this loss (nats per token) hesitates between: e to the loss."""
    return math.exp(loss)


def causal_mask(n_time: int) -> Tensor:
    """(T, T) of bools: row t says which positions s the token at t may look at, those with s <= t."""
    position = torch.arange(n_time)
    return position[None, :] <= position[:, None]  # (T, T)


def initial_loss(vocab_size: int) -> float:
    """The loss in nats of a model that finds all V tokens equally likely: ln V."""
    return math.log(vocab_size)


def kv_cache_step(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One decoding step of attention with a cache.

    Args:
        q, k, v: (B, H, 1, D), of the new token alone.
        past_k, past_v: (B, H, S, D), of the S tokens before it; S may be 0.

    Returns:
        the new token's output (B, H, 1, D), and both caches, one position longer: (B, H, S+1, D).
    """
    k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)  # (B, H, S+1, D)
    weight = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(-1)  # (B, H, 1, S+1): it may see all of them
    return weight @ v, k, v


def knot_vector(grid_size: int, order: int, low: float, high: float) -> Tensor:
    """(G+2K+1,) knots: the ends of G equal intervals from low to high, and `order` more on either side."""
    h = (high - low) / grid_size
    return low + h * torch.arange(-order, grid_size + order + 1)


def cox_de_boor_step(x: Tensor, knots: Tensor, lower: Tensor, order: int) -> Tensor:
    """B-splines of one order more, as Cox and de Boor blend them from two neighbours of the order below.

    Args:
        x: points, (N,).
        knots: ascending, all different, (Z,).
        lower: (N, Z-order), the B-splines of order-1 at x.
        order: of the result, at least 1.

    Returns:
        (N, Z-order-1).
    """
    x = x[:, None]  # (N, 1)
    rise = (x - knots[: -order - 1]) / (knots[order:-1] - knots[: -order - 1])  # (N, Z-order-1)
    fall = (knots[order + 1 :] - x) / (knots[order + 1 :] - knots[1:-order])
    return rise * lower[:, :-1] + fall * lower[:, 1:]


def alive_bumps(x: float, grid_size: int, order: int, low: float, high: float) -> Tensor:
    """(K+1,) the numbers of the bumps that can be nonzero at a point x of [low, high].

    Bump m covers the cells m-K … m, so those over cell c are c … c+K. On a knot it is the cell to the right that
    counts; high has none, and belongs to the last.
    """
    cell = min(math.floor((x - low) / (high - low) * grid_size), grid_size - 1)
    return torch.arange(cell, cell + order + 1)


def refine_hats(coefficients: Tensor) -> Tensor:
    """A broken line through G+1 heights (..., G+1), on a grid twice as fine: (..., 2G+1). Midpoints in between."""
    fine = coefficients.repeat_interleave(2, dim=-1)[..., :-1]  # (..., 2G+1)
    fine[..., 1::2] = (coefficients[..., :-1] + coefficients[..., 1:]) / 2
    return fine


def kan_edge(x: Tensor, base_weight: float, coefficients: Tensor, low: float, high: float) -> Tensor:
    """The function on one edge of a KAN: a share of silu plus a cubic spline on [low, high], (N,) → (N,)."""
    return base_weight * F.silu(x) + evaluate_spline(x, coefficients, low=low, high=high)


def kan_layer(bent: Tensor, basis: Tensor, base_weight: Tensor, spline_weight: Tensor) -> Tensor:
    """All edges of a KAN layer, summed in every output.

    Args:
        bent: silu of the inputs, (N, I).
        basis: their B-splines, (N, I, M).
        base_weight: (O, I).
        spline_weight: (O, I, M).

    Returns:
        (N, O).
    """
    return bent @ base_weight.T + torch.einsum("nim,oim->no", basis, spline_weight)


def weight_std(scale: float, in_features: int, features: Tensor) -> float:
    """How large to draw weights so that a sum over inputs and their functions has the standard deviation `scale`.

    Args:
        scale: wanted.
        in_features: I.
        features: (N, F), the functions of one input at N typical points; each gets a weight of mean 0.
    """
    return scale / math.sqrt(in_features * float(features.square().sum(-1).mean()))


def straight_through(grad: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of y = x @ rounded(w).T for x and for w, where rounding counts as the identity.

    Args:
        grad: of the loss by y, (N, O).
        x: (N, I).
        w: (O, I), before it is rounded to ternary values.

    Returns:
        gradients (N, I) and (O, I): that of x meets the rounded matrix, that of w does not notice the rounding.
    """
    codes, scale = ternary_quantize(w)
    return grad @ (codes * scale), grad.T @ x


def pack_trits(codes: Tensor) -> Tensor:
    """Five codes of −1, 0, 1 as one number in base three below 243: (..., 5) → (...), the first the lowest digit."""
    return ((codes + 1) * 3 ** torch.arange(5)).sum(-1)


def repaired_bit_linear(x: Tensor, w: Tensor) -> Tensor:
    """A ternary layer without gains: x (N, I), w (O, I) → (N, O)."""
    z = x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()  # the norm, token by token
    codes, scale = absmax_quantize(z)  # a scale for each token
    w_codes, w_scale = ternary_quantize(w)  # with zeros, and a scale to multiply by
    return (codes.float() @ w_codes.float().T) * scale * w_scale


def decay_matrix(log_decay: float, n_time: int) -> Tensor:
    """(T, T) what is left at token t of what token s said, γ^(t-s), from the logarithm of γ; 0 where s is later."""
    step = torch.arange(n_time)
    behind = step[:, None] - step  # (T, T)
    return (log_decay * behind).masked_fill(behind < 0, -torch.inf).exp()  # masked first: exp never sees a future


def retention_step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token of retention.

    Args:
        q, k, v: (B, H, D), of the new token.
        log_decay: (H,).
        state: (B, H, D, D), of the tokens before it; rows belong to k, columns to v.

    Returns:
        the token's output (B, H, D), and the state after it.
    """
    state = log_decay.exp()[:, None, None] * state + k[..., :, None] * v[..., None, :]
    return (q[..., None, :] @ state)[..., 0, :], state


def retention_chunk(q: Tensor, k: Tensor, v: Tensor, log_decay: float, state: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk of c tokens of one head.

    Args:
        q, k, v: (c, D).
        log_decay: ln γ.
        state: (D, D), after the tokens before the chunk.

    Returns:
        outputs (c, D), and the state after the chunk.
    """
    c = len(q)
    step = torch.arange(c)
    inside = (q @ k.T * decay_matrix(log_decay, c)) @ v
    before = (q * (log_decay * (step + 1)).exp()[:, None]) @ state
    left = k * (log_decay * (c - 1 - step)).exp()[:, None]  # what is left of each at the end of the chunk
    return inside + before, math.exp(log_decay * c) * state + left.T @ v


def gated_decay_matrix(log_decays: Tensor) -> Tensor:
    """(T, T) what is left at token t of what token s said, γ_{s+1}·…·γ_t, from (T,) logs; 0 where s is later."""
    step = torch.arange(len(log_decays))
    behind = step[:, None] - step
    summed = log_decays[:, None].expand(-1, len(step)).masked_fill(behind <= 0, 0.0).cumsum(0)  # from each s on
    return summed.masked_fill(behind < 0, -torch.inf).exp()


def sort_by_expert(chosen: Tensor, n_expert: int) -> tuple[Tensor, Tensor]:
    """The tokens in the order of the experts that they chose.

    Args:
        chosen: (N, k), numbers of experts, 0 to n_expert - 1.

    Returns:
        (N·k,) numbers of tokens: those of expert 0 first, within an expert in the order of the text; and how many each
        expert has, (n_expert,).
    """
    order = chosen.flatten().argsort(stable=True)
    return order // chosen.size(1), torch.bincount(chosen.flatten(), minlength=n_expert)
