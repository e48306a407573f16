"""Many small networks side by side, and how they take updates: what experiments on forgetting are made of.

- R networks of one shape are one module whose tensors begin with the axis R: other seeds, other learning rates, one
  pass. They share nothing, so the gradient of the sum of their losses is the gradient of each.
- `ManyHidden` has one hidden layer with any activation, and biases as `nn.Linear` draws them or spread out evenly;
  `ManyKAN` has KAN layers with or without the base path. A test holds each run of it against `KANLinear`.
- `tangent_row` says beforehand what one update at one input does to the outputs at all others.

Papers: Lan & Mahmood 2023, "Elephant Neural Networks" [1]; Jacot et al. 2018, "Neural Tangent Kernel" [2]; Liu et al.
2024, "KAN" [3].

Shapes: R runs, N points, I inputs, H hidden units, O outputs, M basis functions.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from kancourse.elephant import spread_bias
from kancourse.splines import bspline_basis

Activation = Callable[[Tensor], Tensor]


class ManyHidden(nn.Module):
    """R networks x → activation(x·w_in + bias)·w_out.

    Args:
        seeds: R of them; equal seeds give equal weights.
        n_in, n_out, width: I, O and H.
        activation: between the layers.
        bias_std: None: biases are drawn as those of `nn.Linear`, within ±1/√I; else they stand in equal steps with
            about this standard deviation, as the source of [1] has them.

    Weights are drawn evenly from ±1/√fan-in; there is no output bias.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        n_in: int = 1,
        n_out: int = 1,
        *,
        width: int = 1000,
        activation: Activation = torch.relu,
        bias_std: float | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.w_in = _draw(seeds, n_in, width, bound=1 / math.sqrt(n_in))  # (R, I, H)
        if bias_std is None:
            self.bias = _draw(seeds, 1, width, bound=1 / math.sqrt(n_in), skip=n_in * width)  # (R, 1, H)
        else:
            self.bias = nn.Parameter(spread_bias(width, bias_std).repeat(len(seeds), 1, 1))
        self.w_out = _draw(seeds, width, n_out, bound=1 / math.sqrt(width), skip=(n_in + 1) * width)  # (R, H, O)

    def forward(self, x: Tensor) -> Tensor:
        """(N, I), the same for all runs, or (R, N, I) → (R, N, O)."""
        return self.activation(x @ self.w_in + self.bias) @ self.w_out


class ManyKAN(nn.Module):
    """R networks of KAN layers [3]: a spline on every edge, and with `base` a share of silu besides.

    Args:
        seeds: R of them.
        sizes: inputs, hidden ones if any, outputs: (1, 1) is one layer with one edge.
        grid_size, order: G intervals, cubic by default.
        grid_range: of all layers; beyond, a spline fades to zero.
        base: the silu path, whose one number per edge every input shares.
        noise: standard deviation of the first coefficients.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        sizes: Sequence[int] = (1, 1),
        *,
        grid_size: int = 20,
        order: int = 3,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        base: bool = False,
        noise: float = 0.1,
    ) -> None:
        super().__init__()
        self.grid = {"grid_size": grid_size, "order": order, "low": grid_range[0], "high": grid_range[1]}
        n_basis, skip = grid_size + order, 0
        self.coefficients, self.bases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in itertools.pairwise(sizes):
            bound = noise * math.sqrt(3 / n_in)
            self.coefficients.append(_draw(seeds, n_in * n_basis, n_out, bound=bound, skip=skip))  # (R, I·M, O)
            skip += n_in * n_basis * n_out
            if base:
                self.bases.append(_draw(seeds, n_in, n_out, bound=1 / math.sqrt(n_in), skip=skip))  # (R, I, O)
                skip += n_in * n_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, I), the same for all runs, or (R, N, I) → (R, N, O)."""
        for layer, coefficients in enumerate(self.coefficients):
            y = bspline_basis(x, **self.grid).flatten(-2) @ coefficients  # (R, N, O)
            x = y + F.silu(x) @ self.bases[layer] if len(self.bases) else y
        return x


class ManyAdam:
    """Adam without decay, and a learning rate for each run.

    Args:
        net: whose parameters begin with the axis R.
        lrs: R learning rates.
    """

    def __init__(self, net: nn.Module, lrs: Sequence[float], betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.parameters, self.betas, self.steps = list(net.parameters()), betas, 0
        n_runs = {len(p) for p in self.parameters}
        if n_runs != {len(lrs)}:
            raise ValueError(f"{len(lrs)} learning rates for {', '.join(map(str, sorted(n_runs)))} networks")
        self.lrs = [torch.tensor(lrs).view(-1, *[1] * (p.dim() - 1)) for p in self.parameters]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    def step(self, loss: Tensor) -> None:
        """One update by the gradient of a loss per run, (R,)."""
        self.steps += 1
        slow, slower = (1 - beta**self.steps for beta in self.betas)
        gradients = torch.autograd.grad(loss.sum(), self.parameters)
        with torch.no_grad():
            for p, g, lr, (mean, square) in zip(self.parameters, gradients, self.lrs, self.moments, strict=True):
                mean.lerp_(g, 1 - self.betas[0])
                square.mul_(self.betas[1]).addcmul_(g, g, value=1 - self.betas[1])
                p.sub_(lr / slow * mean / (square / slower).sqrt_().add_(1e-8))


def tangent_row(net: nn.Module, x: Tensor, x_t: Tensor, *, output: int = 0) -> Tensor:
    """⟨∇f(x), ∇f(x_t)⟩, the gradients by all weights: to first order, how a step at x_t moves the output at x [2].

    A step of gradient descent with rate η on (f(x_t) − y)²/2 changes f(x) by −η·(f(x_t) − y) times this.

    Args:
        net: of R runs.
        x: (N, I).
        x_t: (1, I).
        output: which one.

    Returns:
        (R, N).
    """
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def gradients(at: Tensor) -> dict[str, Tensor]:  # of one point (I,); runs share no weights, so their sum will do
        return grad(lambda weights: functional_call(net, weights, (at[None],))[..., output].sum())(weights)

    here, there = gradients(x_t[0]), vmap(gradients)(x)  # (R, ...) and (N, R, ...) by name
    return sum((there[name] * here[name]).flatten(2).sum(2) for name in weights).mT


def edit(net: nn.Module, x_t: Tensor, y_t: float, *, n_steps: int = 20, share: float = 0.2) -> None:
    """Move the outputs at one point towards another value, in place, by plain gradient descent on that point alone.

    The rate of each run is `share` over its kernel at the point, so that all runs, whatever their activation, come as
    near in as many steps: about a factor 1 − share per step.

    Args:
        net: of R runs with one output.
        x_t: (1, I).
        y_t: wanted there.
    """
    for _ in range(n_steps):
        rate = share / tangent_row(net, x_t, x_t)[:, 0]  # (R,)
        miss = (net(x_t)[:, 0, 0] - y_t).square() / 2
        for p, g in zip(net.parameters(), torch.autograd.grad(miss.sum(), list(net.parameters())), strict=True):
            p.data -= rate.view(-1, *[1] * (p.dim() - 1)) * g


def _draw(seeds: Sequence[int], rows: int, columns: int, *, bound: float, skip: int = 0) -> nn.Parameter:
    """(R, rows, columns) even draws from ±bound; each run has its seed's own sequence, after `skip` numbers of it."""
    draws = []
    for seed in seeds:
        sequence = torch.rand(skip + rows * columns, generator=torch.Generator().manual_seed(seed))
        draws.append((2 * sequence[skip:] - 1).view(rows, columns) * bound)
    return nn.Parameter(torch.stack(draws))
