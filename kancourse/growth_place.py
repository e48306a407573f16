"""Where the old numbers of a parameter lie in the grown one, and their moments with them.

- An `Axis` says where each old position of an axis lies in the longer one: at the front, or spread in between (heads
  that become wider, rotary pairs). Everything that grows does so axis by axis, by `spread`.
- Moments are moved by the same rule, so an old number and its moments always meet again.

Shapes: n old length of an axis, N new length, G generations so far.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

State = dict[str, Tensor]  # what an optimiser keeps about one parameter


@dataclass(frozen=True)
class Axis:
    """Where the n old positions of an axis lie among its N new ones."""

    size: int  # N
    old: Tensor  # (n,) integers, all different

    @classmethod
    def longer(cls, old_size: int, size: int) -> "Axis":
        """The old positions first, the new ones behind them."""
        return cls(size, torch.arange(old_size))


def spread(old: Tensor, dim: int, axis: Axis, fill: Tensor) -> Tensor:
    """`fill`, of the new shape, with the old numbers written over it in their places along `dim`."""
    return fill.index_copy(dim, axis.old.to(old.device), old.to(fill.dtype))


def grown_state(state: State, parameter: nn.Parameter, dim: int, axis: Axis, generation: int) -> State:
    """The state of `parameter` once its axis `dim` has grown: old moments in their places, new ones 0, never stepped.

    Args:
        state: as it was; empty when no step was taken yet.
        parameter: as it was.
        dim, axis: which axis grows, and where its old positions lie.
        generation: number of the new generation.
    """
    if not state:
        state = new_state(parameter, 0)
    elif "generation" not in state:
        born = torch.zeros_like(parameter, dtype=torch.uint8)
        state = {**state, "step": state["step"].reshape(1), "generation": born}
    step = torch.zeros(generation + 1, dtype=state["step"].dtype, device=state["step"].device)
    step[: state["step"].numel()] = state["step"]
    shape = list(parameter.shape)
    shape[dim] = axis.size
    grown: State = {"step": step}
    for name, fill in (("exp_avg", 0), ("exp_avg_sq", 0), ("generation", generation)):
        grown[name] = spread(state[name], dim, axis, state[name].new_full(shape, fill))
    return grown


def new_state(parameter: nn.Parameter, generation: int) -> State:
    """The state of a parameter all of whose numbers are of one generation and have never been stepped."""
    return {
        "step": torch.zeros(generation + 1),
        "exp_avg": torch.zeros_like(parameter, requires_grad=False),
        "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        "generation": torch.full_like(parameter, generation, dtype=torch.uint8, requires_grad=False),
    }


def regenerated_state(state: State, parameter: nn.Parameter, where: Tensor, generation: int) -> State:
    """The state once the numbers at `where` are of a new generation: their moments 0, their count 0, the others' kept.

    Args:
        state: as it was; empty when no step was taken yet.
        parameter: whose state it is.
        where: boolean, broadcast against the parameter.
        generation: number of the new generation.
    """
    same = Axis.longer(parameter.size(0), parameter.size(0))
    state = grown_state(state, parameter, 0, same, generation)
    where = where.to(parameter.device)
    for name, value in (("exp_avg", 0.0), ("exp_avg_sq", 0.0), ("generation", generation)):
        state[name] = state[name].masked_fill(where, value)
    return state
