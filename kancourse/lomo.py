"""LOMO: update each weight inside the backward pass, and free its gradient at once.

Usually all gradients lie in memory together, one number per weight, between the backward pass and the optimiser's step.
Here a hook updates a weight as soon as its gradient is complete, so that no more than one matrix's gradient is alive.

Notable points:
- The update rule is passed in. `torch.optim.SGD` makes it LOMO as published; any other that looks at one weight at a
  time does as well, and keeps its own state: with AdamW only the gradients' share of memory is saved.
- The result equals that of the same optimiser run the usual way, bit for bit.
- Clipping by the norm of *all* gradients needs them all before the first update. So there are two passes: the first one
  frees every gradient after squaring it, the second one scales and updates. It costs a second backward pass.
- A weight that is used twice (a tied head) is updated once, when both its uses have reported.

Paper: Lv et al. 2023, "Full Parameter Fine-tuning for Large Language Models with Limited Resources" (LOMO).
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = ["Lomo"]

Rule = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Lomo:
    """An optimiser that steps inside the backward pass.

    Args:
        parameters: what to train, each once.
        rule: `rule([parameter])` makes the optimiser of one weight, e.g. `partial(torch.optim.SGD, lr=0.1)`.
        grad_clip: largest norm of all gradients together; 0: never clip.

    After a step, `grad_norm` is the norm before clipping (nan without clipping: nobody saw all gradients), and
    `peak_gradient_bytes` the most bytes of gradients that were alive at a time.

    Raises:
        ValueError: no parameters, or a negative grad_clip.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rule: Rule, *, grad_clip: float = 0.0) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        if not self.parameters or grad_clip < 0:
            raise ValueError(
                f"Lomo needs parameters and a grad_clip of at least 0, got {len(self.parameters)} and {grad_clip}"
            )
        self.rules = {p: rule([p]) for p in self.parameters}
        self.grad_clip, self.grad_norm, self.peak_gradient_bytes = grad_clip, math.nan, 0
        self._norms: dict[nn.Parameter, Tensor] = {}
        self._on_gradient: Callable[[nn.Parameter], None] | None = None
        self._hooks = [p.register_post_accumulate_grad_hook(self._complete) for p in self.parameters]

    def set_lr(self, lr: float) -> None:
        """The learning rate of all weights from now on."""
        for rule in self.rules.values():
            for group in rule.param_groups:
                group["lr"] = lr

    def step(self, loss: Tensor) -> None:
        """Run the backward pass of a scalar loss and update all weights in it; no gradient is left afterwards.

        Raises:
            FloatingPointError: clipping meets a gradient that is not finite; the weights are as before.
        """
        self.peak_gradient_bytes, scale = 0, None
        if self.grad_clip:
            self._norms.clear()
            self._backward(loss, self._measure, retain_graph=True)
            norms = [self._norms[p] for p in self.parameters if p in self._norms]  # in order, as clip_grad_norm_ has it
            norm = torch.linalg.vector_norm(torch.stack(norms))
            self.grad_norm = float(norm)
            if not math.isfinite(self.grad_norm):
                raise FloatingPointError(f"gradient norm {self.grad_norm}: try a lower learning rate")
            scale = (self.grad_clip / (norm + 1e-6)).clamp(max=1.0)  # torch.nn.utils.clip_grad_norm_ divides so
        self._backward(loss, lambda parameter: self._update(parameter, scale), retain_graph=False)

    def close(self) -> None:
        """Take the hooks off: from now on `backward` leaves gradients as usual."""
        for hook in self._hooks:
            hook.remove()

    def _backward(self, loss: Tensor, on_gradient: Callable[[nn.Parameter], None], *, retain_graph: bool) -> None:
        self._on_gradient = on_gradient
        try:
            loss.backward(retain_graph=retain_graph)
        finally:
            self._on_gradient = None

    def _complete(self, parameter: nn.Parameter) -> None:
        if self._on_gradient is None:
            return  # a backward pass that is not ours
        alive = sum(p.grad.numel() * p.grad.element_size() for p in self.parameters if p.grad is not None)
        self.peak_gradient_bytes = max(self.peak_gradient_bytes, alive)
        self._on_gradient(parameter)
        parameter.grad = None

    def _measure(self, parameter: nn.Parameter) -> None:
        self._norms[parameter] = torch.linalg.vector_norm(parameter.grad)

    def _update(self, parameter: nn.Parameter, scale: Tensor | None) -> None:
        if scale is not None:
            parameter.grad.mul_(scale)
        self.rules[parameter].step()
