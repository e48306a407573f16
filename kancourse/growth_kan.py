"""A KAN grows without a new neuron: its grids get finer, and every function on an edge stays what it is.

- Splines over a grid are splines over every refinement of it too, so this growth is exact, tangents outside the grid
  included, and needs no zeros: the new coefficients are determined by the old ones.
- They are another basis, so moments do not carry over: the spline weights start theirs anew, all others keep them.

Paper: Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks" (grid extension, by a fit; here exact).
"""

import dataclasses

from kancourse.gpt import GPT, GPTConfig
from kancourse.growth_adam import GenerationAdamW
from kancourse.growth_nursery import Nursery
from kancourse.kan_grid import SplineGrid


def refine_grids(model: GPT, grid_size: int, *, optimizer: GenerationAdamW | None = None) -> GPT:
    """A model whose KAN layers all have `grid_size` intervals, and the same function. The given one is left as it is.

    Args:
        model: a GPT with KAN layers anywhere.
        grid_size: a multiple of each layer's present one.
        optimizer: of `model`; from now on it trains the refined one, spline weights as a new generation.

    Raises:
        ValueError: no KAN layer, a grid_size that is not such a multiple, or an optimiser of another model.
        TypeError: an optimiser that is no `GenerationAdamW`.
    """
    nursery = Nursery(model, optimizer, None)
    layers = [module for module in nursery.model.modules() if isinstance(module, SplineGrid)]
    if not layers:
        raise ValueError("there is no KAN layer in this model, so no grid to refine")
    for layer in layers:
        coarse = layer.spline_weight
        layer.refine(grid_size)
        fine, layer.spline_weight = layer.spline_weight, coarse
        nursery.replace(coarse, fine)
    nursery.model.config = _with_grid(model.config, grid_size)
    return nursery.release()


def _with_grid(config: GPTConfig, grid_size: int) -> GPTConfig:
    """The config with the new size for every seat that a KAN layer sits in."""
    seats = [seat for seat in ("ffn", "linear", "head") if getattr(config, seat, "") in ("kan", "shared_kan")]
    options = {f"{seat}_options": getattr(config, f"{seat}_options") | {"grid_size": grid_size} for seat in seats}
    return dataclasses.replace(config, **options)
