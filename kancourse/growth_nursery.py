"""A copy of a model while it grows, and beside each of its parameters what the optimiser knows about it.

- Whatever grows takes its moments along, and only when all has gone well is the optimiser told: an error on the way
  leaves model and optimiser as they were.
- A tied parameter stays one parameter, and every parameter is in exactly one group.
"""

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kancourse.growth_adam import GenerationAdamW
from kancourse.growth_place import Axis, State, grown_state, new_state, spread

INIT_STD = 0.02  # of new numbers that are drawn, as `GPT.init_weights` draws them


@dataclass
class _Record:
    """What is known about a parameter of the copy."""

    before: nn.Parameter  # it, or for one that is new its twin, in the model that was given
    state: State = field(default_factory=dict)


class Nursery:
    """A copy of a model while it grows.

    Args:
        model: left as it is.
        optimizer: whose state goes along, or None.
        generator: draws the new numbers (on the CPU, whatever the device); None: the global one.

    Raises:
        TypeError: an optimiser of another kind.
        ValueError: the optimiser's parameters are not the model's.
    """

    def __init__(self, model: nn.Module, optimizer: GenerationAdamW | None, generator: torch.Generator | None) -> None:
        self.optimizer, self.generator = optimizer, generator
        self.generation = 0 if optimizer is None else _generation_after(model, optimizer)
        self.model = copy.deepcopy(model)
        pairs = zip(model.parameters(), self.model.parameters(), strict=True)
        states = {} if optimizer is None else optimizer.state
        self.records = {new: _Record(old, state=states.get(old, {})) for old, new in pairs}

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Numbers from N(0, INIT_STD²), with the dtype and device of `like`."""
        return (INIT_STD * torch.randn(shape, generator=self.generator)).to(like)

    def stretch(self, old: nn.Parameter, dim: int, axis: Axis, fill: Tensor, scale: Tensor | float = 1.0) -> None:
        """Replace a parameter, wherever the model has it, by one whose axis `dim` has grown.

        Args:
            old: the parameter.
            dim, axis: which axis, and where its old positions lie.
            fill: the new numbers, in a tensor of the new shape.
            scale: factor on the old ones, broadcast against them.
        """
        new = nn.Parameter(spread(old.detach() * scale, dim, axis, fill), requires_grad=old.requires_grad)
        record = self.records.pop(old)
        if self.optimizer is not None:
            record.state = grown_state(record.state, old, dim, axis, self.generation)
        self._put(old, new, record)

    def replace(self, old: nn.Parameter, new: nn.Parameter) -> None:
        """Put a parameter that is new altogether in the place of another; its moments start at zero."""
        record = self.records.pop(old)
        record.state = self._new_state(new)
        self._put(old, new, record)

    def welcome(self, module: nn.Module, twin: nn.Module) -> None:
        """Note the parameters of a new module; each joins the optimiser's group of its twin's parameter."""
        for new, old in zip(module.parameters(), twin.parameters(), strict=True):
            self.records[new] = _Record(self.records[old].before, state=self._new_state(new))

    def release(self) -> nn.Module:
        """The grown model; from now on the optimiser trains it and not the one that was given."""
        if self.optimizer is not None:
            for group in self.optimizer.param_groups:  # in the model's order, as an optimiser made anew would have it
                members = set(group["params"])
                group["params"] = [p for p in self.model.parameters() if self.records[p].before in members]
            self.optimizer.state.clear()
            self.optimizer.state.update({new: record.state for new, record in self.records.items() if record.state})
        _restate(self.model)
        return self.model

    def _put(self, old: nn.Parameter, new: nn.Parameter, record: _Record) -> None:
        self.records[new] = record
        for module in self.model.modules():
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                if parameter is old:
                    setattr(module, name, new)

    def _new_state(self, parameter: nn.Parameter) -> State:
        if self.optimizer is None:
            return {}
        return new_state(parameter, self.generation)


def _generation_after(model: nn.Module, optimizer: GenerationAdamW) -> int:
    """The number of the generation that is about to come."""
    if not isinstance(optimizer, GenerationAdamW):
        raise TypeError(
            "new numbers count their own steps, for which the optimiser has to be a GenerationAdamW, not "
            f"{type(optimizer).__name__}; GenerationAdamW.adopt makes one of a torch.optim.AdamW"
        )
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    ours = {p for p in model.parameters() if p.requires_grad}
    if len(trained) != len(set(trained)) or not ours <= set(trained) <= set(model.parameters()):
        missing, foreign = len(ours - set(trained)), len(set(trained) - set(model.parameters()))
        raise ValueError(
            f"the optimiser is not this model's: {missing} of the model's parameters are in none of its groups, and "
            f"{foreign} of its own are not the model's"
        )
    return optimizer.n_generations


def _restate(module: nn.Module) -> None:
    """Make the sizes that modules tell about themselves those of their weights."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.out_features, part.in_features = part.weight.shape
        elif isinstance(part, nn.Embedding):
            part.num_embeddings, part.embedding_dim = part.weight.shape
        elif isinstance(part, nn.LayerNorm | nn.RMSNorm):
            part.normalized_shape = tuple(part.weight.shape)
