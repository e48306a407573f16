"""AdamW for a model that has grown: old numbers go on with their moments, new ones count their own steps.

Notable points:
- A *generation* is what came into being together: 0 at the start, one more at each growth. One matrix may hold several.
- Adam divides its moments by 1 - β^t, which makes up for their start at zero. With the old count t for a new number
  the second moment looks complete while it is nearly empty, and with β = (0.9, 0.999) the number's first step becomes
  √10 times the learning rate. Here each generation of a parameter has its own t.
- Each generation may have its own learning rate, as a factor on the group's: old parts can go on decaying while new
  ones start high. A schedule that sets `group["lr"]` every step keeps working.
- What has never grown takes PyTorch's own AdamW, fused kernel included; the rest costs a byte per number more.

Papers: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization" [1]; Shen et al. 2022, "Staged Training for
Transformer Language Models" (moments carried over, with the old count) [2].

Glossary (code name ↔ paper symbol): `exp_avg`, `exp_avg_sq` ↔ m, v; `step` ↔ t; `betas` ↔ β₁, β₂ [1].

Shapes: G generations so far.
"""

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor

from kancourse.growth_place import State

__all__ = ["GenerationAdamW"]


class GenerationAdamW(torch.optim.AdamW):
    """AdamW [1] whose parameters may hold numbers of several generations.

    State of a parameter that has grown: `exp_avg` and `exp_avg_sq` as ever; `generation`, uint8, of each number; and
    `step (G,)`, one count for each generation. Others have PyTorch's own state.

    Args:
        params, lr, betas, eps, weight_decay, fused: as for `torch.optim.AdamW`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)

    @classmethod
    def adopt(cls, optimizer: torch.optim.AdamW) -> Self:
        """Go on in place of a `torch.optim.AdamW`: the same groups and moments.

        Raises:
            TypeError: another kind of optimiser.
            ValueError: its `amsgrad` or `maximize` is on.
        """
        if not isinstance(optimizer, torch.optim.AdamW):
            raise TypeError(f"only a torch.optim.AdamW can be adopted, got {type(optimizer).__name__}")
        for option in ("amsgrad", "maximize"):
            if any(group[option] for group in optimizer.param_groups):
                raise ValueError(f"an AdamW with {option}=True cannot be adopted; False can")
        adopted = cls([dict(group) for group in optimizer.param_groups])
        adopted.state.update(optimizer.state)
        return adopted

    @property
    def n_generations(self) -> int:
        """How many generations there are; 1 before anything has grown."""
        counts = [state["step"].numel() for state in self.state.values() if "generation" in state]
        return max([1, *counts, *(len(group.get("lr_factors", [])) for group in self.param_groups)])

    def set_lr_factors(self, *factors: float) -> None:
        """Let generation g learn at factors[g] times its group's learning rate; generations not named, at 1 times.

        Raises:
            ValueError: more factors than generations, or one below 0.
        """
        if len(factors) > self.n_generations or min(factors, default=0.0) < 0:
            raise ValueError(f"{self.n_generations} generations take as many factors, none below 0; got {factors}")
        for group in self.param_groups:
            group["lr_factors"] = list(factors)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict()` told, generations included."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            if "generation" in state:  # PyTorch gives all state the dtype of the parameter
                state["generation"] = state["generation"].to(torch.uint8)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; a parameter without gradient stays as it is."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        mixed = [
            (p, p.grad, group)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and "generation" in self.state[p]
        ]
        for p, _, _ in mixed:
            p.grad = None  # AdamW passes over what has none
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:  # what is left to AdamW is of the first generation
            group["lr"] = group["lr"] * (group.get("lr_factors") or [1.0])[0]
        super().step()
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
        for p, grad, group in mixed:
            p.grad = grad
            adamw_by_generation_(p, grad, self.state[p], group)
        return loss


def adamw_by_generation_(p: Tensor, grad: Tensor, state: State, group: dict[str, Any]) -> None:
    """The step of AdamW [1] on one parameter, with a count t and a learning rate for each generation in it."""
    (beta1, beta2), count = group["betas"], state["step"]
    count += 1
    given = group.get("lr_factors", [])[: len(count)]
    factors = torch.tensor(given + [1.0] * (len(count) - len(given)), dtype=torch.float64)
    lr, t = float(group["lr"]) * factors, count.double().cpu()
    generation = state["generation"].int()

    def each(by_generation: Tensor) -> Tensor:  # (G,) → one per number
        return by_generation.to(p)[generation]

    state["exp_avg"].lerp_(grad, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    p.mul_(each(1 - lr * group["weight_decay"]))
    size = state["exp_avg_sq"].sqrt().div_(each((1 - beta2**t).sqrt())).add_(group["eps"])
    p.sub_(state["exp_avg"].mul(each(lr / (1 - beta1**t))).div_(size))
