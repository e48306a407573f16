"""Checks a reader can see: `check.close` and `check.true` for a lesson's own steps, `check.<exercise>` for theirs.

- A lesson's own step must hold: `close` and `true` print ✔ with the numbers and raise AssertionError otherwise.
- An exercise may be open: `check.causal_mask(fn)` prints ✔ or ✘, never raises, and returns the function to go on with.
- A stub returns `check.TODO`.
"""

from typing import Any

import torch

from kancourse.lesson.exercises import TODO, Exercise, all_exercises

__all__ = ["TODO", "close", "true"]


def close(name: str, got: Any, want: Any, tol: float = 1e-6) -> None:
    """Print ✔ with both numbers when every |got - want| <= tol; raise otherwise.

    Args:
        name: what is compared, in a few words.
        got, want: numbers or tensors of one shape (a single number stands for all of a tensor).
        tol: largest absolute difference, in the values' own unit.

    Raises:
        AssertionError: a difference above tol, a NaN on one side only, or two shapes.
    """
    have, wanted = torch.as_tensor(got).detach().double().cpu(), torch.as_tensor(want).detach().double().cpu()
    if have.shape != wanted.shape and wanted.dim() > 0:
        raise AssertionError(f"✘ {name}: got shape {tuple(have.shape)}, expected {tuple(wanted.shape)}")
    wanted = wanted.expand_as(have)
    gap = (have - wanted).abs()
    gap[have == wanted] = 0  # equal infinities
    gap[have.isnan() & wanted.isnan()] = 0
    gap[gap.isnan()] = torch.inf  # a NaN on one side only
    if have.numel() == 0:
        raise AssertionError(f"✘ {name}: there is nothing to compare (shape {tuple(have.shape)})")
    worst = int(gap.argmax())
    numbers = f"got {have.flatten()[worst].item():.6g}, expected {wanted.flatten()[worst].item():.6g}"
    if have.numel() > 1:
        numbers = f"{have.numel()} values, largest difference {gap.max().item():.2g} ({numbers})"
    if not gap.max().item() <= tol:
        raise AssertionError(f"✘ {name}: {numbers}, more than {tol:g} apart")
    print(f"✔ {name}: {numbers}")


def true(name: str, condition: Any, detail: str = "") -> None:
    """Print ✔ when the condition holds; raise AssertionError otherwise.

    Args:
        name: what is claimed, in a few words.
        condition: a bool, or a tensor of bools that must all be true.
        detail: the numbers behind it, printed either way.
    """
    told = f": {detail}" if detail else ""
    if not bool(torch.as_tensor(condition).all()):
        raise AssertionError(f"✘ {name}{told}")
    print(f"✔ {name}{told}")


def __getattr__(name: str) -> Exercise:
    """`check.<exercise>`: looked up in the `checks_*` topic files when first used."""
    if name.startswith("__"):
        raise AttributeError(name)
    known = all_exercises()
    if name not in known:
        raise AttributeError(f"no check named {name!r}; known: {', '.join(known)}")
    return known[name]
