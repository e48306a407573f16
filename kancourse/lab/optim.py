"""AdamW with the right decay groups.

- Matrices (two or more axes) decay; biases, gains and whatever a part lists in its `no_decay` names do not.
- Every parameter is in exactly one group, a tied one once.
- State is float32 whatever autocast computes in: in bfloat16 the second moment could never decay, because 0.999·v
  rounds back to v.

Paper: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
"""

import torch
from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups for an optimiser: those that decay, and those that do not.

    A module excludes parameters of its own by listing their names: `no_decay = ("spline_scale",)`.
    """
    decay, no_decay, seen = [], [], set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            exempt = parameter.ndim < 2 or name in getattr(module, "no_decay", ())
            (no_decay if exempt else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": no_decay, "weight_decay": 0.0}]


def make_adamw(model: nn.Module, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over `decay_groups(model)`; fused into one kernel, which CPU and CUDA both have."""
    return torch.optim.AdamW(decay_groups(model, weight_decay), lr=lr, betas=(beta1, beta2), fused=True)
