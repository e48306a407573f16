"""Ternary weights: a linear layer that multiplies by −1, 0 and 1 only, on activations of eight bits.

`BitLinear` is the layer of BitNet b1.58 [2]: it normalises its input, rounds it to integers, multiplies these by a
matrix of −1, 0 and 1, and scales at the end (`bit_codes` has the rounding). The optimiser moves real *latent* weights;
rounding is done afresh at every use, and gradients pass through it as if it were not there (straight-through, [3]).

Notable points:
- The product is exact, and what surrounds it is defined to the last bit, so packed inference can equal it bitwise.
  `in_features` for which sums might be inexact are refused.
- The norm belongs to the layer: blocks of such layers need none of their own (`block_norm="none"` in `zoo`).
- One scale per matrix: matrices that are fused into one (`c_attn`) share theirs, which is not the same model.
- A checkpoint holds latent weights. Ternary values must not take their place: rounding them again keeps the signs but
  multiplies the scale by the share of weights that are not zero. Loading refuses them.
- Computes in float32 whatever autocast says, and answers in the dtype of its input. A token with a NaN or an infinity
  in it comes out as NaN throughout, and no other token does.

Papers: Wang et al. 2023, "BitNet" (binary weights) [1]; Ma et al. 2024, "The Era of 1-bit LLMs" (b1.58), with its
"Training Tips, Code and FAQ" [2]; Bengio et al. 2013, "Estimating or Propagating Gradients" (straight-through) [3].

Shapes: N tokens, I in_features, O out_features, `...` any leading axes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kancourse.bit_codes import (
    LARGEST_CODE,
    LEAST,
    absmax_quantize,
    binary_quantize,
    bit_input_codes,
    bit_product,
    ordered_sum_,
    rms_gradient,
    rms_normalise,
    round_binary,
    round_ternary,
    round_tokens,
    ternary_quantize,
)
from kancourse.bit_pack import PackedBitLinear, pack_ternary, unpack_ternary

__all__ = [
    "LARGEST_CODE",
    "LEAST",
    "MAX_IN_FEATURES",
    "BinaryLinear",
    "BitLinear",
    "PackedBitLinear",
    "absmax_quantize",
    "binary_quantize",
    "bit_input_codes",
    "bit_product",
    "is_ternary",
    "naive_bit_linear",
    "ordered_sum_",
    "pack_ternary",
    "ternary_quantize",
    "unpack_ternary",
    "zero_fraction",
]

MAX_IN_FEATURES = (2**24 - 1) // LARGEST_CODE  # beyond it an integer sum could be inexact in float32


def naive_bit_linear(x: Tensor, layer: "BitLinear") -> Tensor:
    """What `layer` computes, as its authors write it down [2]: rounded values in place of the real ones, and autograd.

    The same number up to the order of rounding, and the same gradients: `z + (rounded − z).detach()` has the value of
    the second term and the gradient of the first. The oracle of the layer.

    Args:
        x: (..., I), float32.
        layer: a `BitLinear` or `BinaryLinear`.

    Returns:
        (..., O).
    """
    z = F.rms_norm(x, (layer.in_features,), layer.norm_weight, layer.eps)
    codes, scale = bit_input_codes(x, layer.norm_weight, layer.eps)
    weight_codes, weight_scale = layer.weight_codes()
    rounded_input = z + (codes * scale - z).detach()
    rounded_weight = layer.weight + (weight_codes * weight_scale - layer.weight).detach()
    return F.linear(rounded_input, rounded_weight)


class BitLinear(nn.Module):
    """y = (codes of norm(x)) @ (ternary codes of weight).T, times both scales [2]. No bias; the norm is inside.

    Args:
        in_features, out_features: I and O.
        bias: must be False; the place is kept, because every linear factory is asked.
        eps: of the norm.

    Parameters: `weight (O, I)`, latent; `norm_weight (I,)`, the gain of the norm.

    Raises:
        ValueError: sizes below 1, in_features so large that integer sums might be inexact, or a bias.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, *, eps: float = 1e-5) -> None:
        super().__init__()
        name = type(self).__name__
        if bias:
            raise ValueError(f"{name} has no bias; build it, or the model, with bias=False")
        if min(in_features, out_features) < 1:
            raise ValueError(f"{name} needs sizes of at least 1, got {in_features} → {out_features}")
        if in_features > MAX_IN_FEATURES:
            raise ValueError(f"{name} sums exactly up to in_features {MAX_IN_FEATURES}, got {in_features}")
        self.in_features, self.out_features, self.eps = in_features, out_features, eps
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.norm_weight = nn.Parameter(torch.ones(in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw afresh: latent weights from N(0, 1/I), gains 1. An input then comes out with a variance of about 0.44.

        That is P(|w| > E|w|/2) · E|w|² · I, the share that is not zero times the scale squared, for each of I inputs.
        """
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        nn.init.ones_(self.norm_weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O), each token by itself. Differentiable once; `naive_bit_linear` more often.

        Raises:
            ValueError: another number of features.
            TypeError: x is not of a floating dtype.
        """
        if x.shape[-1:] != (self.in_features,):
            name = type(self).__name__
            raise ValueError(f"{name} takes {self.in_features} features on the last axis, got shape {(*x.shape,)}")
        if not x.is_floating_point():
            raise TypeError(f"{type(self).__name__} takes floating-point numbers, got {x.dtype}")
        with torch.autocast(x.device.type, enabled=False):
            y = _BitProduct.apply(
                x.reshape(-1, self.in_features).float(),
                self.norm_weight.float(),
                self.weight.float(),
                *self.weight_codes(),
                self.eps,
            )
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    @torch.no_grad()
    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """The matrix as it multiplies: int8 codes (O, I) and their scale (). A weight that is not finite: scale NaN."""
        return round_ternary(self.weight)

    @torch.no_grad()
    def scale_output_(self, factor: float) -> None:
        """Multiply the output: the codes stay, their scale follows the latent weights (down to 1e-5, then zero)."""
        self.weight.mul_(factor)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, eps={self.eps:g}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and is_ternary(weight):
            raise ValueError(
                f"{prefix}weight holds values that are ternary already; rounded again they would shrink by the share "
                "of zeros: load the latent weights instead"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class BinaryLinear(BitLinear):
    """The first BitNet's layer: weights ±1 without a zero [1]. Norm and input codes as in `BitLinear`, to compare."""

    @torch.no_grad()
    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """The matrix as it multiplies: int8 codes ±1 (O, I) and their scale ()."""
        return round_binary(self.weight)


@torch.no_grad()
def is_ternary(w: Tensor) -> bool:
    """Whether w has zeros, and all its other values are ±1 times one number: what rounding leaves behind."""
    magnitude = w.abs()
    largest = magnitude.max()
    zeros = magnitude == 0
    return bool(largest > 0) and bool(zeros.any()) and bool((zeros | (magnitude == largest)).all())


@torch.no_grad()
def zero_fraction(model: nn.Module) -> float:
    """The share of zeros among all codes of a model's layers with `weight_codes`: `BitLinear` and its like.

    Raises:
        ValueError: the model has none.
    """
    codes = [layer.weight_codes()[0] for layer in model.modules() if hasattr(layer, "weight_codes")]
    if not codes:
        raise ValueError(f"{type(model).__name__} has no BitLinear layers, so no ternary weights to count")
    return sum(int((code == 0).sum()) for code in codes) / sum(code.numel() for code in codes)


class _BitProduct(torch.autograd.Function):
    """Norm, rounding, product; backward as if nothing had been rounded, with the rounded values in the products."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm_weight: Tensor, weight: Tensor, codes_w: Tensor, scale_w: Tensor, eps: float
    ) -> Tensor:
        z, r = rms_normalise(x, norm_weight, eps)  # (N, I), (N, 1)
        codes, scale = round_tokens(z)
        ctx.save_for_backward(x, r, norm_weight, codes, scale, codes_w, scale_w)
        return bit_product(codes, scale, codes_w, scale_w)  # (N, O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, r, norm_weight, codes, scale, codes_w, scale_w = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            grad_weight = (grad * scale).T @ codes.float()  # (O, I)
            grad_z = (grad * scale_w) @ codes_w.float()  # (N, I)
            grad_norm_weight = (grad_z * (x * r)).sum(0)  # (I,)
            grad_x = rms_gradient(grad_z, x, r, norm_weight)
        return grad_x, grad_norm_weight, grad_weight, None, None, None
