"""Exercises of lesson 07: choose and weigh experts, sort tokens by expert, measure the load, balance it two ways.

Shapes: N tokens, E experts, k of them chosen per token.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise
from kancourse.moe_router import mixtral_gate


def _gate_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for n, n_expert, top_k in ((5, 4, 2), (3, 6, 3), (4, 3, 3)):
        yield torch.randn(n, n_expert, generator=generator), torch.randn(n_expert, generator=generator), top_k


def _gate_of(scores: Tensor, by: Tensor, weights: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    chosen = by.topk(top_k).indices
    return weights.gather(-1, chosen), chosen, scores


@exercise(
    reference="kancourse.moe_router.softmax_gate",
    cases=_gate_cases,
    mutants=(
        lambda logits, bias, k: _gate_of(logits.softmax(-1), logits.softmax(-1), logits.softmax(-1), k),  # no bias
        lambda logits, bias, k: _gate_of(  # the bias enters the weights
            logits.softmax(-1), logits.softmax(-1) + bias, logits.softmax(-1) + bias, k
        ),
        lambda logits, bias, k: _gate_of(  # the bias is added to the logits
            (logits + bias).softmax(-1), logits + bias, (logits + bias).softmax(-1), k
        ),
        lambda logits, bias, k: tuple(mixtral_gate(logits, bias, k)),  # the weights add up to 1
    ),
)
def softmax_gate(logits, bias, top_k):
    return TODO


def _sort_cases() -> Iterator[tuple]:
    yield torch.tensor([[2, 0], [0, 1], [2, 1]]), 4  # nobody goes to expert 3
    yield torch.tensor([[1], [0], [1], [1], [0]]), 2
    yield torch.rand(9, 6, generator=torch.Generator().manual_seed(0)).topk(3).indices, 6


def _sort(chosen: Tensor, n_expert: int, divide: int, *, descending: bool = False) -> tuple[Tensor, Tensor]:
    order = chosen.flatten().argsort(stable=True, descending=descending)
    return order // divide, torch.bincount(chosen.flatten(), minlength=n_expert)


@exercise(
    reference="kancourse.lesson.answers.sort_by_expert",
    cases=_sort_cases,
    mutants=(
        lambda chosen, n_expert: _sort(chosen, n_expert, 1),  # numbers of choices, not of tokens
        lambda chosen, n_expert: _sort(chosen, n_expert, chosen.size(1), descending=True),
        lambda chosen, n_expert: (_sort(chosen, n_expert, chosen.size(1))[0], chosen.unique(return_counts=True)[1]),
        lambda chosen, n_expert: (chosen.flatten().sort().values, _sort(chosen, n_expert, 1)[1]),  # experts, not tokens
    ),
)
def sort_by_expert(chosen, n_expert):
    return TODO


def _count_cases() -> Iterator[tuple]:
    yield (torch.tensor([5, 5, 5, 5]),)
    yield (torch.tensor([12, 0, 0]),)
    yield (torch.tensor([[2, 4], [3, 1], [0, 7]]),)
    yield (torch.tensor([0, 5, 5, 6]),)  # the idlest is further from the mean than the busiest


@exercise(
    reference="kancourse.moe_balance.load_violation",
    cases=_count_cases,
    mutants=(
        lambda counts: counts.amax(-1) / counts.double().mean(-1),  # 1 when balanced
        lambda counts: counts.amax(-1) / counts.double().sum(-1),  # the share
        lambda counts: (counts.amax(-1) - counts.amin(-1)) / counts.double().mean(-1),  # the range
        lambda counts: counts.max() / counts.double().mean() - 1,  # all rows thrown together
        lambda counts: (counts / counts.double().mean(-1, keepdim=True) - 1).abs().amax(-1),  # who is too idle, as well
    ),
)
def load_violation(counts):
    return TODO


def _bias_cases() -> Iterator[tuple]:
    yield torch.zeros(4), torch.tensor([10, 0, 5, 5]), 0.001
    yield torch.tensor([0.3, -0.2, 0.1]), torch.tensor([7, 1, 2]), 0.1


@exercise(
    reference="kancourse.moe_balance.update_router_bias",
    cases=_bias_cases,
    mutants=(
        lambda bias, counts, rate: bias + rate * (counts - counts.double().mean()).sign(),  # feeds the fat
        lambda bias, counts, rate: bias + rate * (counts.double().mean() - counts),  # by how much, not the sign
        lambda bias, counts, rate: rate * (counts.double().mean() - counts).sign(),  # forgets what it was
        lambda bias, counts, rate: bias - rate * (counts == counts.max()).double(),  # only the busiest
    ),
)
def update_router_bias(bias, counts, rate):
    return TODO


def _loss_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for n, n_expert, top_k in ((6, 4, 2), (5, 3, 1)):
        scores = torch.randn(n, n_expert, generator=generator).softmax(-1)
        yield scores, scores.topk(top_k).indices
    scores = torch.randn(6, 4, generator=generator).softmax(-1)
    yield scores, (scores + torch.tensor([0.9, 0, 0, 0])).topk(2).indices  # chosen with a bias: not the best by score
    yield torch.full((4, 4), 0.25), torch.tensor([[0, 1], [2, 3], [1, 2], [3, 0]])  # balance


def _switch(scores: Tensor, chosen: Tensor, share: float) -> Tensor:
    n_expert = scores.size(-1)
    f = torch.bincount(chosen.flatten(), minlength=n_expert) * share
    return n_expert * (f * scores.mean(0)).sum()


@exercise(
    reference="kancourse.moe_balance.switch_loss",
    cases=_loss_cases,
    mutants=(
        lambda scores, chosen: _switch(scores, chosen, 1 / len(chosen)),  # k at balance, not 1
        lambda scores, chosen: _switch(scores, chosen, 1 / chosen.numel()) / scores.size(-1),  # no factor E
        lambda scores, chosen: _switch(  # the probabilities of the chosen alone
            torch.zeros_like(scores).scatter(-1, chosen, scores.gather(-1, chosen)), chosen, 1 / chosen.numel()
        ),
        lambda scores, chosen: _switch(scores, scores.topk(chosen.size(1)).indices, 1 / chosen.numel()),  # chosen anew
    ),
)
def switch_loss(scores, chosen):
    return TODO
