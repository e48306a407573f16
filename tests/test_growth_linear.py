"""A linear layer in sections: one product, rates of their own, and fused it is a plain layer of the same function."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kancourse.growth import GrowableLinear, fuse
from kancourse.zoo import build

sizes = st.integers(0, 4)


def layer_of(inputs: int, outputs: int, steps: list[tuple[int, int]], *, bias: bool = True) -> GrowableLinear:
    generator = torch.Generator().manual_seed(0)
    layer = GrowableLinear(inputs, outputs, bias=bias).double()
    for more_inputs, more_outputs in steps:
        inputs, outputs = inputs + more_inputs, outputs + more_outputs
        layer.grow(in_features=inputs, out_features=outputs, generator=generator)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return layer


def by_sections(x: torch.Tensor, layer: GrowableLinear) -> torch.Tensor:
    """What the layer computes, one product for each section."""
    seen, y = 0, x.new_zeros(*x.shape[:-1], 0)
    for generation in layer.generations:
        if "right" in generation:
            width = generation["right"].size(1)
            y = y + x[..., seen : seen + width] @ generation["right"].T
            seen += width
        if "below" in generation:
            seen = max(seen, generation["below"].size(1))
            below = x[..., :seen] @ generation["below"].T
            y = torch.cat((y, below + generation["bias"] if "bias" in generation else below), dim=-1)
    return y


growths = st.lists(st.tuples(sizes, sizes).filter(lambda step: any(step)), max_size=4)


@given(st.integers(1, 4), st.integers(1, 4), growths, st.booleans())
def test_one_product_equals_the_sum_over_sections_in_value_and_gradient(inputs, outputs, steps, bias):
    layer = layer_of(inputs, outputs, steps, bias=bias)
    assert layer.in_features == inputs + sum(step[0] for step in steps)
    assert layer.out_features == outputs + sum(step[1] for step in steps)
    assert layer.weight.shape == (layer.out_features, layer.in_features)
    assert (layer.bias is not None) == bias
    x = torch.randn(5, layer.in_features, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(5, layer.out_features, dtype=torch.float64)
    torch.testing.assert_close(layer(x), by_sections(x, layer))
    wanted = (x, *layer.parameters())
    for a, b in zip(
        torch.autograd.grad((layer(x) * direction).sum(), wanted),
        torch.autograd.grad((by_sections(x, layer) * direction).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@given(st.integers(1, 4), st.integers(1, 4), growths, st.booleans())
def test_fused_it_is_a_plain_layer_of_the_same_function(inputs, outputs, steps, bias):
    layer = layer_of(inputs, outputs, steps, bias=bias)
    plain, x = fuse(layer), torch.randn(3, 2, layer.in_features, dtype=torch.float64)
    assert type(plain) is nn.Linear
    assert (plain.in_features, plain.out_features) == (layer.in_features, layer.out_features)
    assert torch.equal(plain(x), layer(x))
    with torch.no_grad():  # nothing is shared
        plain.weight.zero_()
    assert not torch.equal(plain(x), layer(x))


@pytest.mark.parametrize("silent", ["right", "below"])
def test_growing_keeps_the_function(silent):
    layer = GrowableLinear(3, 4)
    x, more = torch.randn(6, 3), torch.randn(6, 2)
    before = layer(x)
    layer.grow(in_features=5, out_features=7, silent=silent)
    coming = more if silent == "right" else torch.zeros_like(more)  # with zeros below, the new inputs start as 0
    after = layer(torch.cat((x, coming), dim=1))
    torch.testing.assert_close(after[:, :4], before)
    assert (after[:, 4:].abs().max() == 0) == (silent == "below")
    zero, drawn = ("right", "below") if silent == "right" else ("below", "right")
    assert layer.generations[1][zero].abs().max() == 0
    assert layer.generations[1][drawn].abs().min() > 0


def test_only_inputs_or_only_outputs():
    layer = GrowableLinear(3, 4, bias=False)
    layer.grow(in_features=5)
    assert list(layer.generations[1]) == ["right"]
    layer.grow(out_features=6)
    assert list(layer.generations[2]) == ["below"]
    assert layer(torch.randn(2, 5)).shape == (2, 6)


def test_sections_have_rates_and_counts_of_their_own():
    layer = layer_of(3, 4, [(1, 2), (2, 0)]).float()
    optimizer = torch.optim.AdamW(layer.parameter_groups(0.0, 1e-2, 1e-1), weight_decay=0.0)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(layer.parameters())
    before = {p: p.detach().clone() for p in listed}
    layer(torch.randn(8, 6)).square().sum().backward()
    optimizer.step()
    for group, lr in zip(optimizer.param_groups, (0.0, 1e-2, 1e-1), strict=True):
        for p in group["params"]:
            moved = (p - before[p]).abs()
            torch.testing.assert_close(moved, torch.full_like(moved, lr), rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="3 generations take as many learning rates, got 2"):
        layer.parameter_groups(0.1, 0.1)


def test_nothing_is_kept_that_a_step_would_make_stale():
    layer = layer_of(3, 4, [(1, 2)])
    x = torch.randn(2, 4, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        layer.generations[1]["below"].mul_(2)
    assert not torch.equal(layer(x), before)


def test_it_costs_one_product_whatever_its_past():
    layer, x = layer_of(16, 16, [(8, 8), (8, 0), (0, 8)]), torch.randn(64, 32, dtype=torch.float64)
    flops = []
    for module in (layer, fuse(layer)):
        with FlopCounterMode(display=False) as counter:
            module(x).sum().backward()
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] == 2 * 2 * 64 * 32 * 32  # forward, and the weight's gradient


def test_a_saved_layer_loads_into_one_without_its_past():
    layer = layer_of(3, 4, [(1, 2), (2, 0)])
    again = GrowableLinear(3, 4).double()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.weight, layer.weight)
    assert torch.equal(again.bias, layer.bias)
    assert len(again.generations) == 3
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict({})


def test_a_gpt_of_growable_layers_fuses_into_a_plain_one():
    from kancourse.gpt import GPT, GPTConfig

    config = GPTConfig(vocab_size=37, block_size=12, n_layer=2, n_head=2, n_embd=16)
    model = GPT(config, linear=GrowableLinear).eval()
    idx = torch.arange(24).reshape(2, 12)
    before = model(idx)
    plain = fuse(model)
    assert plain is model
    assert not any(isinstance(module, GrowableLinear) for module in plain.modules())
    assert torch.equal(plain(idx), before)
    twin = build("gpt-nano", vocab_size=37, block_size=12, n_layer=2, n_head=2, n_embd=16).eval()
    twin.load_state_dict(plain.state_dict())
    assert torch.equal(twin(idx), before)


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        ({"in_features": 2}, "a layer of 3 inputs and 4 outputs cannot grow to 2 and 4"),
        ({"in_features": 9, "out_features": 3}, "cannot grow to 9 and 3"),
        ({}, "cannot grow to 3 and 4"),
        ({"in_features": 5, "silent": "both"}, "unknown silent 'both'; known: right, below"),
    ],
)
def test_growths_that_cannot_be_are_one_clear_error(growth, message):
    layer = GrowableLinear(3, 4)
    with pytest.raises(ValueError, match=message):
        layer.grow(**growth)
    assert len(layer.generations) == 1
    with pytest.raises(ValueError, match="at least 1 input and 1 output, got 0 and 4"):
        GrowableLinear(0, 4)
