"""A checkpoint grows into a larger one, and is looked at before it is written.

- The function is checked on random ids, right where it counts: with the weights as the new file holds them.
- Weights and tokenizer go along. Moments do not: a run that goes on from the file starts its optimiser anew; to keep
  them, let the model grow inside a run (`growth` of a training config).

Shapes: B batch, T time, V vocabulary before.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kancourse.gpt import GPT
from kancourse.growth import grow, refine_grids
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.meters import count_parameters

TOLERANCE = 1e-4  # of the largest logit, in float32


@dataclass(kw_only=True)
class GrowSizes:
    """What to grow, and to what; a size that is not given stays."""

    n_layer: int | None = None
    n_head: int | None = None
    head_dim: int | None = None  # width of the stream is n_head · head_dim
    ffn_dim: int | None = None
    vocab_size: int | None = None
    grid_size: int | None = None  # of KAN layers, which grow in no other way
    new_rows: str = "mean"  # where vectors of new words start: "mean" (of the old), "zero" or "random"
    seed: int = 0  # draws new weights


@dataclass(frozen=True, kw_only=True)
class GrownFile:
    """What came of it."""

    parameters: tuple[int, int]  # before, after
    change: float  # the largest change of an old logit
    largest: float  # logit, for comparison

    def __str__(self) -> str:
        before, after = self.parameters
        return (
            f"{before:,} parameters before, {after:,} after ({after / before:.2f}x); the largest change of a logit on "
            f"random ids is {self.change:.1g}, where the largest logit is {self.largest:.3g}"
        )


def grow_file(source: str | Path, out: str | Path, sizes: GrowSizes) -> GrownFile:
    """Grow the model of a checkpoint into another checkpoint.

    Args:
        source: a checkpoint; it stays as it is.
        out: where the larger one goes.
        sizes: what grows.

    Raises:
        ValueError: nothing to grow, sizes that do not fit, a model that cannot grow, or out is source.
        OSError: source cannot be read, or out cannot be written.
    """
    given = {
        name: size for name, size in asdict(sizes).items() if size is not None and name not in ("new_rows", "seed")
    }
    if not given:
        names = [name for name in asdict(sizes) if name not in ("new_rows", "seed")]
        raise ValueError(f"nothing is asked to grow: give one or more of {', '.join(names)}")
    if Path(source).resolve() == Path(out).resolve():
        raise ValueError(f"{out} is the model that grows: choose another file for the larger one")
    checkpoint = load_checkpoint(source)
    model, generator = checkpoint.model, torch.Generator().manual_seed(sizes.seed)
    grid_size = given.pop("grid_size", None)
    try:
        grown = model if grid_size is None else refine_grids(model, grid_size)
        if given:
            grown = grow(grown, **given, new_rows=sizes.new_rows, generator=generator)
    except TypeError as error:  # a part that does not grow: for a file that is wrong input, not a wrong call
        raise ValueError(f"{source} cannot grow: {error}") from error
    change, largest = compare_logits(model, grown, generator)
    if change > TOLERANCE * max(1.0, largest):
        raise ValueError(f"{source} would become another function: a logit changes by {change:.3g}; nothing is written")
    save_checkpoint(out, grown, tokenizer=checkpoint.tokenizer)
    counts = tuple(count_parameters(each)["total"] for each in (model, grown))
    return GrownFile(parameters=counts, change=change, largest=largest)


@torch.no_grad()
def compare_logits(before: GPT, after: GPT, generator: torch.Generator) -> tuple[float, float]:
    """The largest change of an old logit on random ids, and the largest old logit."""
    awake = getattr(before.lm_head, "n_active", before.config.vocab_size)
    idx = torch.randint(awake, (2, before.config.block_size), generator=generator)  # (B, T)
    old, new = (model.eval()(idx)[..., :awake] for model in (before, after))  # (B, T, V)
    return (new - old).abs().max().item(), old.abs().max().item()
