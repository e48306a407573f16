"""From real numbers to the integers of a ternary layer: eight bits for an input, −1, 0 or 1 for a weight.

Notable points:
- **Every bit is defined.** What comes before the integers is products, sums in a fixed order (`ordered_sum_`), inverse
  roots, maxima and roundings, each of which every CPU does alike. So codes and scales do not depend on the number of
  threads, on the batch, or on the language that a kernel is written in (if its compiler fuses no product and sum).
  PyTorch's `sum` and `sqrt` would not do: their last bits depend on threads, shapes and the library behind them.
- **Integers first, scales afterwards** (`bit_product`). Sums of integers below 2^24 are exact in float32, in any order,
  so a kernel that multiplies packed weights as integers gives the same bits.
- A scale is always what codes are **multiplied** by to get values. (Elsewhere it may be what values are multiplied by.)

Papers: Wang et al. 2023, "BitNet" (binary weights) [1]; Ma et al. 2024, "The Era of 1-bit LLMs" (b1.58), with its
"Training Tips, Code and FAQ" [2].

Glossary (code name ↔ paper symbol): scale of a ternary matrix ↔ γ = mean|W| [2], 1/s_w in its code; scale of an input ↔
γ/Q_b [1], 1/s_x in the code of [2]; scale and mean of a binary matrix ↔ β and α [1].

Shapes: I in_features, O out_features, `...` any leading axes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_CODE = 127  # of an activation: eight bits, symmetric
LEAST = 1e-5  # no scale is computed from less, so that zeros can be divided by it


def absmax_quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each token to 255 equal steps between ±max|x| [2].

    Args:
        x: (..., I); every last axis is a token with a scale of its own.

    Returns:
        codes int8 (..., I) in −127 … 127, and scale float32 (..., 1): codes · scale ≈ x, off by at most scale/2.

    Raises:
        ValueError: x is not finite; no code could say so.
    """
    return round_tokens(_finite(x, "activations"))


def ternary_quantize(w: Tensor) -> tuple[Tensor, Tensor]:
    """Round a whole matrix to {−1, 0, 1} times its mean absolute value [2]: zero is what lies within half of it.

    In this order: total = ordered sum of |w|, row by row · scale = max(total · (1/size), 1e-5) ·
    codes = clamp(round(w · (1/scale)), −1, 1), where halves go to the even neighbour.

    Args:
        w: the matrix, (O, I).

    Returns:
        codes int8 (O, I), and scale float32 (): codes · scale ≈ w.

    Raises:
        ValueError: w is not finite; no code could say so.
    """
    return round_ternary(_finite(w, "weights"))


def binary_quantize(w: Tensor) -> tuple[Tensor, Tensor]:
    """Round a whole matrix to ±1 times its mean absolute value, by the side of its mean on which each weight lies [1].

    Args:
        w: the matrix, (O, I).

    Returns:
        codes int8 (O, I), and scale float32 (): codes · scale ≈ w − mean w. A weight that equals the mean gets −1.

    Raises:
        ValueError: w is not finite; no code could say so.
    """
    return round_binary(_finite(w, "weights"))


def ordered_sum_(x: Tensor) -> Tensor:
    """Sum over the last axis, (..., I) → (..., 1), in an order that nothing can change; x is used up as scratch space.

    The second half is added to the first until one number is left; of an odd count the first half is the larger one.
    PyTorch's own sum adds in an order that depends on threads and shapes, and so do its last bits.
    """
    count = x.size(-1)
    while count > 1:
        half = (count + 1) // 2
        x[..., : count - half].add_(x[..., half:count])
        count = half
    return x[..., :1]


def bit_input_codes(x: Tensor, norm_weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """What a `BitLinear` makes of its input before the matrix comes in: RMS norm, then codes of eight bits.

    In this order, every line rounded to float32 as it stands:

    - total = ordered sum of x · x
    - r = 1 / sqrt(total · (1/I) + eps), PyTorch's `rsqrt`: root and quotient each rounded correctly
    - z = (x · r) · norm_weight
    - largest = max(max|z|, 1e-5)
    - codes = round(z · ((1/largest) · 127)), where halves go to the even neighbour
    - scale = largest · (1/127)

    Args:
        x: (..., I), of any floating dtype.
        norm_weight: the gain of the norm, (I,).
        eps: keeps a token of zeros from being divided by zero.

    Returns:
        codes int8 (..., I) and scale float32 (..., 1). A token that is not finite has the scale NaN, and any codes.
    """
    return round_tokens(rms_normalise(x.float(), norm_weight.float(), eps)[0])


def bit_product(codes: Tensor, scale: Tensor, weight_codes: Tensor, weight_scale: Tensor) -> Tensor:
    """The product of a `BitLinear`: exact integers, then one factor per token.

    Args:
        codes, scale: of the input, int8 (..., I) and float32 (..., 1).
        weight_codes, weight_scale: of the matrix, int8 (O, I) and float32 ().

    Returns:
        (Σ_i codes · weight_codes) · (scale · weight_scale), float32 (..., O).
    """
    return F.linear(codes.float(), weight_codes.float()) * (scale * weight_scale)


def rms_normalise(x: Tensor, norm_weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """z and r of `bit_input_codes`, from float32: (..., I) and (..., 1)."""
    r = (ordered_sum_(x * x) * (1 / x.size(-1)) + eps).rsqrt()  # (..., 1)
    return x * r * norm_weight, r


def rms_gradient(grad: Tensor, x: Tensor, r: Tensor, norm_weight: Tensor) -> Tensor:
    """The gradient of the norm's input, from that of its output z: all float32, (..., I), with r of `rms_normalise`."""
    unit, grad_unit = x * r, grad * norm_weight
    return r * (grad_unit - unit * (grad_unit * unit).mean(-1, keepdim=True))


def round_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """`absmax_quantize` without its check: a token that is not finite gets the scale NaN."""
    x = x.float()
    largest = x.abs().amax(-1, keepdim=True).clamp(min=LEAST)  # (..., 1)
    return (x * (largest.reciprocal() * LARGEST_CODE)).round_().to(torch.int8), largest * (1 / LARGEST_CODE)


def round_ternary(w: Tensor) -> tuple[Tensor, Tensor]:
    """`ternary_quantize` without its check: a matrix that is not finite gets the scale NaN."""
    w = w.float()
    scale = _mean(w.abs()).clamp(min=LEAST)
    return (w * scale.reciprocal()).round_().clamp_(-1, 1).to(torch.int8), scale


def round_binary(w: Tensor) -> tuple[Tensor, Tensor]:
    """`binary_quantize` without its check: a matrix that is not finite gets the scale NaN."""
    w = w.float()
    codes = torch.where(w > _mean(w.clone()), 1, -1).to(torch.int8)
    return codes, _mean(w.abs()).clamp(min=LEAST)


def _mean(w: Tensor) -> Tensor:
    """The mean of all values, as a scalar; w is used up."""
    return ordered_sum_(w.flatten())[0] * (1 / w.numel())


def _finite(x: Tensor, what: str) -> Tensor:
    if not x.isfinite().all():
        raise ValueError(f"{what} hold NaN or infinity, which no integer code can say")
    return x
