"""Growth inside a run: what a model's growths are asked for, checked before anything is trained, and done on the way.

A growth is a dict of plain data, so that a run file can hold it: {"step": 200, "n_layer": 8}. It says

- `step`: before which it happens;
- sizes and `new_rows`, for `kancourse.growth.grow`;
- `lr_factors`, one per generation so far (`GenerationAdamW.set_lr_factors`);
- `keep_state`: False starts Adam's moments afresh.
"""

from typing import Any

import torch

from kancourse.gpt import GPT
from kancourse.growth import GenerationAdamW, grow

__all__ = ["check_growth", "grow_between"]

OWN = ("step", "lr_factors", "keep_state")  # the rest is for grow
KNOWN = ("step", "n_layer", "n_head", "head_dim", "ffn_dim", "vocab_size", "new_rows", "lr_factors", "keep_state")

Growths = list[dict[str, Any]] | None


def check_growth(growths: Growths, n_steps: int) -> None:
    """Raise ValueError for steps out of order or outside the run, or for a key that no growth has."""
    steps = [growth.get("step", 0) for growth in growths or []]
    if not all(isinstance(step, int) and 0 < step < n_steps for step in steps) or steps != sorted(set(steps)):
        raise ValueError(f"every growth has a `step` between 1 and {n_steps - 1}, in rising order; got {steps}")
    for key in (key for growth in growths or [] for key in growth if key not in KNOWN):
        raise ValueError(f"a growth has no {key!r}; known: {', '.join(KNOWN)}")


def grow_between(
    model: GPT, optimizer: GenerationAdamW, growths: Growths, *, since: int, until: int, seed: int
) -> bool:
    """Let the model grow in place as it is to grow before steps `since` to `until`; returns whether it did.

    Args:
        model, optimizer: grow together; where nothing is to grow, any optimiser will do.
        growths: of the whole run.
        since, until: steps, both included.
        seed: with the step, draws the new weights.

    Raises:
        ValueError, TypeError: as `grow`.
    """
    due = [growth for growth in growths or [] if since <= growth["step"] <= until]
    for growth in due:
        if not growth.get("keep_state", True):
            optimizer.state.clear()
        sizes = {name: value for name, value in growth.items() if name not in OWN}
        generator = torch.Generator().manual_seed((seed << 40) + growth["step"])
        model.__dict__.update(grow(model, **sizes, optimizer=optimizer, generator=generator).__dict__)
        if "lr_factors" in growth:
            optimizer.set_lr_factors(*growth["lr_factors"])
    return bool(due)
