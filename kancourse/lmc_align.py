"""Weight matching: bring the units of one network into the order of another's, before averaging the two.

Notable points:
- Within a group the best order is an assignment: which unit of B is most like which of A, by the inner product of all
  their weights; `lmc_assignment.assign` solves it exactly.
- Groups that meet in a tensor depend on each other's orders, so they take turns until none changes. In the first round
  a group looks only at tensors in which no group meets it that has not had its turn: so a network whose parts have
  only changed places is put back exactly.

Paper: Ainsworth et al. 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries" [1].

Glossary (code name ↔ paper symbol): `match` ↔ Algorithm 1 (weight matching), `orders` ↔ π [1].
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from kancourse.gpt import GPT
from kancourse.lmc_assignment import assign
from kancourse.lmc_states import State, check_alike, model_states
from kancourse.lmc_symmetry import Axis, Group, permute, random_permutations, symmetries

__all__ = ["align", "match", "permute", "random_permutations"]


def align(model: GPT, state_a: State, state_b: State, *, residual: bool = False) -> dict[str, Tensor]:
    """B's state with its units and heads in the order of A's: the same function as B, as near to A as that goes.

    Args:
        model: gives the architecture.
        state_a, state_b: state dicts of that architecture.
        residual: rearrange the channels of the residual stream, too. Worth it for models from different
            initialisations; those from one have it in common.

    Raises:
        ValueError: states that do not fit, or a part whose symmetries are not known.
    """
    return permute(model, state_b, match(model, state_a, state_b, residual=residual), residual=residual)


@torch.no_grad()
def match(
    model: GPT, state_a: State, state_b: State, *, residual: bool = False, max_rounds: int = 50
) -> dict[str, Tensor]:
    """The order of B's members that is nearest to A's, by group; see `align`.

    Args:
        max_rounds: stop after so many turns of all groups; each makes the two more alike, or is the last.
    """
    check_alike([state_a, state_b])
    a, b = model_states(model, [state_a, state_b])
    groups = symmetries(model, residual=residual)
    orders = {group.name: torch.arange(group.n) for group in groups}
    seen: set[str] = set()
    for round_number in range(max_rounds):
        changed = False
        for group in groups:
            meeting = _meeting(group, groups)
            free = [axis for axis in group.axes if round_number or meeting[axis.name] <= seen]
            order = assign(_likeness(group, free or group.axes, groups, orders, a, b))
            seen.add(group.name)
            changed |= not torch.equal(order, orders[group.name])
            orders[group.name] = order
        if round_number and not changed:
            break
    return orders


def _meeting(group: Group, groups: list[Group]) -> dict[str, set[str]]:
    """Which other groups each tensor of this group belongs to."""
    names = {axis.name for axis in group.axes}
    others = [other for other in groups if other.name != group.name]
    return {name: {o.name for o in others if any(axis.name == name for axis in o.axes)} for name in names}


def _likeness(
    group: Group, axes: list[Axis], groups: list[Group], orders: Mapping[str, Tensor], a: State, b: State
) -> Tensor:
    """(n, n) inner products of each member of A with each of B, whose other groups are in their present order."""
    total = torch.zeros(group.n, group.n, dtype=torch.float64)
    for axis in axes:
        there = b[axis.name]
        for other in groups:
            for theirs in other.axes:
                if other.name != group.name and theirs.name == axis.name:
                    there = theirs.arrange(there, orders[other.name])
        here, there = axis.members(a[axis.name], group.n).double(), axis.members(there, group.n).double()
        total += (here @ there.T).cpu()
    return total
