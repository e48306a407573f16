"""Points between models: weighted means of state dicts, which is all that interpolation and model soups are.

Notable points:
- A mean is computed as A + Σ w·(S − A): where models agree it is exactly what they have, whatever the weights.
- At a corner (one weight 1, the others 0) it is exactly that model.
- A tensor that several names share is averaged once, and shared in the result, too.
- Parameters and buffers of floating dtype are averaged. Where all have the same number it stays as it is (the -inf of a
  mask has no middle); whole numbers and booleans have none either, so these must be equal.

Paper: Wortsman et al. 2022, "Model soups".

Shapes: S models, P points between them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]  # what `model.state_dict()` returns

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def interpolate(
    state_a: State, state_b: State, alpha: float, *, within: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Tensor]:
    """The point (1 - alpha)·A + alpha·B: A at 0, B at 1.

    Args:
        state_a, state_b: state dicts of models of one architecture.
        alpha: where on the line.
        within: alphas that are meant; beyond 0 and 1 the line goes on past the models.

    Returns:
        A state dict with tensors of its own.

    Raises:
        ValueError: alpha lies outside `within`, or the states are of different architectures or vocabularies.
    """
    alpha = float(alpha)
    check_alphas([alpha], within)
    return mix((state_a, state_b), (1 - alpha, alpha))


def soup(states: Sequence[State], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The weighted mean of several models; without weights, of equal ones.

    Raises:
        ValueError: no states, weights that are negative or do not sum to 1, or different architectures.
    """
    weights = [1 / len(states)] * len(states) if weights is None and states else list(weights or ())
    if weights and (min(weights) < 0 or abs(sum(weights) - 1) > 1e-6):
        raise ValueError(f"a soup's weights are not negative and sum to 1, got {weights}")
    return mix(states, weights)


def mix(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """The state Σ_s weights[s]·states[s], for weights that sum to 1.

    Raises:
        ValueError: not a weight for every state, or states of different architectures.
    """
    if not states or len(weights) != len(states):
        raise ValueError(f"{len(states)} states need as many weights, at least one, got {len(weights)}")
    check_alike(states)
    twins = shared_names(states)
    row = torch.tensor([list(weights)], dtype=torch.float64)  # (1, S)
    mixed = {name: mix_tensors([state[name] for state in states], row)[0] for name in states[0] if name not in twins}
    return {name: mixed[twins.get(name, name)] for name in states[0]}


def mix_tensors(tensors: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The points Σ_s weights[p, s]·tensors[s], one above the other: (P, *shape) of the tensors' dtype.

    Args:
        tensors: S of them, of one shape.
        weights: (P, S), each row sums to 1.
    """
    first = tensors[0].detach()
    n_points = len(weights)
    if not first.is_floating_point():
        return first.expand(n_points, *first.shape).clone()
    wide = torch.promote_types(first.dtype, torch.float32)  # half-width numbers are rounded once, at the end
    weights = weights.to(first.device)
    shape = (n_points, *[1] * first.ndim)
    out = first.to(wide).expand(n_points, *first.shape).clone()  # (P, *shape)
    for s, tensor in enumerate(tensors[1:], start=1):
        tensor = tensor.detach().to(first.device)
        step = torch.where(tensor == first, 0.0, tensor.to(wide) - first.to(wide))
        out += weights[:, s].to(wide).reshape(shape) * step
    out = out.to(first.dtype)
    for p, s in (weights == 1).nonzero().tolist():
        if int((weights[p] != 0).sum()) == 1:
            out[p] = tensors[s].detach()
    return out


def as_vector(state: State) -> Tensor:
    """All numbers of floating dtype end to end, shared tensors once, in float64: to measure distances and angles."""
    twins = shared_names([state])
    parts = [t.detach().double().flatten() for name, t in state.items() if name not in twins and t.is_floating_point()]
    return torch.cat(parts)


def check_alphas(alphas: Sequence[float], within: tuple[float, float]) -> None:
    """Raise ValueError for an alpha outside the range that is meant."""
    for alpha in alphas:
        if not within[0] <= alpha <= within[1]:
            raise ValueError(
                f"alpha {alpha:g} lies outside [{within[0]:g}, {within[1]:g}]; to go further, pass within=(low, high)"
            )


def check_alike(states: Sequence[State]) -> None:
    """Raise ValueError, naming the first difference, unless all states can be averaged."""
    first = states[0]
    for letter, state in zip(_LETTERS[1:], states[1:], strict=False):
        odd = sorted(set(first) ^ set(state))
        if odd:
            owner = "A" if odd[0] in first else letter
            raise ValueError(f"A and {letter} are of different architectures: only {owner} has {odd[0]}")
        for name, a in first.items():
            b = state[name]
            if a.shape != b.shape:
                what = (
                    "vocabularies" if name.startswith(("wte.", "lm_head.")) and a.shape[1:] == b.shape[1:] else "sizes"
                )
                raise ValueError(
                    f"A and {letter} have different {what}: {name} is {(*a.shape,)} in A and {(*b.shape,)} in {letter}"
                )
            if a.dtype != b.dtype:
                raise ValueError(f"{name} is {a.dtype} in A and {b.dtype} in {letter}")
            if not a.is_floating_point() and not torch.equal(a, b.to(a.device)):
                raise ValueError(f"{name} holds {a.dtype}, which has no middle, and differs between A and {letter}")


def shared_names(states: Sequence[State]) -> dict[str, str]:
    """Names whose tensor another, earlier name holds, too: later name → first name.

    Raises:
        ValueError: a state shares it and another has two different tensors.
    """
    twins: dict[str, str] = {}
    for state in states:
        firsts: dict[tuple, str] = {}
        for name, tensor in state.items():
            if tensor.numel():
                where = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
                if firsts.setdefault(where, name) != name:
                    twins.setdefault(name, firsts[where])
    check_shared(states, twins)
    return twins


def check_shared(states: Sequence[State], twins: Mapping[str, str]) -> None:
    """Raise ValueError when a state has different numbers under names that ought to be one tensor."""
    for name, twin in twins.items():
        for letter, state in zip(_LETTERS, states, strict=False):
            if not torch.equal(state[name], state[twin]):
                raise ValueError(f"{name} and {twin} are one tensor, but {letter} has two different ones")


def model_states(model: nn.Module, states: Sequence[State]) -> list[dict[str, Tensor]]:
    """The states as `model` takes them: on its device, a tensor that the model shares under its first name only.

    Raises:
        ValueError: they do not fit the model, or differ in architecture.
    """
    own = model.state_dict(keep_vars=True)
    for letter, state in zip(_LETTERS, states, strict=False):
        odd = sorted(set(own) ^ set(state))
        if odd:
            verb = "lacks" if odd[0] in own else "also has"
            raise ValueError(f"state {letter} is not of this model's architecture: it {verb} {odd[0]}")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                sizes = f"{tuple(state[name].shape)} in {letter}, {tuple(tensor.shape)} in the model"
                raise ValueError(f"state {letter} is of another size than the model: {name} is {sizes}")
    check_alike(states)
    twins = shared_names([own])
    check_shared(states, twins)
    return [{name: state[name].to(t.device) for name, t in own.items() if name not in twins} for state in states]
