"""Updates inside the backward pass against the usual order. Run: pytest tests/test_lomo.py"""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from kancourse.lab.meters import peak_memory
from kancourse.lomo import Lomo
from kancourse.zoo import build

SGD = partial(torch.optim.SGD, lr=0.5, foreach=False)
RULES = {
    "sgd": SGD,
    "sgd with decay and momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=False),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, foreach=False),
}


def small(**overrides) -> nn.Module:
    return build("llama-nano", vocab_size=13, block_size=12, n_layer=2, seed=0, **overrides)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    text = torch.randint(13, (4, 13), generator=torch.Generator().manual_seed(step))
    return text[:, :-1], text[:, 1:]


@pytest.mark.parametrize("tie_head", [True, False])
@pytest.mark.parametrize("grad_clip", [0.0, 0.3, 100.0])
@pytest.mark.parametrize("rule", RULES)
def test_equals_the_optimiser_run_the_usual_way_bit_for_bit(rule, grad_clip, tie_head):
    usual = small(tie_head=tie_head)
    fused = copy.deepcopy(usual)
    optimizer, lomo = RULES[rule](list(usual.parameters())), Lomo(fused.parameters(), RULES[rule], grad_clip=grad_clip)
    for step in range(4):
        optimizer.zero_grad()
        usual.loss(*batch(step)).backward()
        if grad_clip:
            norm = nn.utils.clip_grad_norm_(usual.parameters(), grad_clip, foreach=False)
        optimizer.step()
        lomo.step(fused.loss(*batch(step)))
        if grad_clip:
            assert lomo.grad_norm == float(norm)
    for (name, one), other in zip(usual.named_parameters(), fused.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert other.grad is None


def test_no_more_than_one_matrix_of_gradients_is_alive():
    model = small(tie_head=False)
    lomo = Lomo(model.parameters(), SGD, grad_clip=1.0)
    lomo.step(model.loss(*batch(0)))
    sizes = [4 * p.numel() for p in model.parameters()]
    assert lomo.peak_gradient_bytes == max(sizes) < sum(sizes) / 5


def test_the_allocator_sees_it_too():
    """Many layers and few tokens, so that gradients, not activations, are what fills the memory."""
    wide = {"vocab_size": 13, "block_size": 12, "n_layer": 12, "n_embd": 96, "n_head": 3}
    usual, fused = build("llama-nano", seed=0, **wide), build("llama-nano", seed=0, **wide)
    optimizer, lomo = SGD(list(usual.parameters())), Lomo(fused.parameters(), SGD)
    x, y = batch(0)

    def step() -> None:
        usual.loss(x[:1], y[:1]).backward()
        optimizer.step()

    all_gradients = sum(4 * p.numel() for p in usual.parameters())
    saved = peak_memory(step) - peak_memory(lambda: lomo.step(fused.loss(x[:1], y[:1])))
    assert saved > 0.7 * all_gradients


def test_a_second_pass_is_the_price_of_clipping():
    model, calls = small(), []
    model.blocks[0].ffn.c_fc.register_full_backward_hook(lambda *_: calls.append(1))
    Lomo(model.parameters(), SGD).step(model.loss(*batch(0)))
    once = len(calls)
    Lomo(model.parameters(), SGD, grad_clip=1.0).step(model.loss(*batch(0)))
    assert (once, len(calls) - once) == (1, 2)  # hooks of the first Lomo only look


def test_frozen_and_unused_weights_are_left_alone():
    model = small()
    model.wte.weight.requires_grad_(False)
    before = model.wte.weight.clone()
    idle = nn.Parameter(torch.ones(3))
    lomo = Lomo([*model.parameters(), idle], SGD, grad_clip=1.0)
    lomo.step(model.loss(*batch(0)))
    assert torch.equal(model.wte.weight, before)
    assert torch.equal(idle, torch.ones(3))


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = small()
    before = copy.deepcopy(model.state_dict())
    lomo = Lomo(model.parameters(), SGD, grad_clip=1.0)
    with pytest.raises(FloatingPointError, match="gradient norm nan: try a lower learning rate"):
        lomo.step(model.loss(*batch(0)) * math.nan)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    lomo.step(model.loss(*batch(0)))
    assert math.isfinite(lomo.grad_norm)


def test_closed_it_leaves_gradients_as_usual():
    model = small()
    lomo = Lomo(model.parameters(), SGD)
    lomo.set_lr(0.0)
    before = copy.deepcopy(model.state_dict())
    lomo.step(model.loss(*batch(0)))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    lomo.close()
    model.loss(*batch(0)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_cannot_be_is_one_clear_error():
    with pytest.raises(ValueError, match="needs parameters and a grad_clip of at least 0, got 0 and 0"):
        Lomo([], SGD)
    with pytest.raises(ValueError, match="got 1 and -1"):
        Lomo([nn.Parameter(torch.ones(1))], SGD, grad_clip=-1)
