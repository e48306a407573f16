"""An answer of lesson 08 that is too small to be a part of the package of its own.

Shapes: N points, H hidden units, I inputs.
"""

from torch import Tensor


def hidden_kernel(
    x: Tensor, x_t: Tensor, height: Tensor, height_t: Tensor, slope: Tensor, slope_t: Tensor, w_out: Tensor
) -> Tensor:
    """How an update at x_t moves the output at x, in a network with one hidden layer and no output bias.

    The gradients by w_out meet in the heights φ, those by w_in and the biases in the slopes φ′:
    φ(x)·φ(x_t) + (x·x_t + 1)·Σ w_out²·φ′(x)·φ′(x_t).

    Args:
        x: (N, I).
        x_t: (I,).
        height, slope: φ and φ′ of every unit at x, (N, H).
        height_t, slope_t: at x_t, (H,).
        w_out: (H,).

    Returns:
        (N,).
    """
    return height @ height_t + (x @ x_t + 1) * (slope @ (w_out.square() * slope_t))
