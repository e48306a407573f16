"""Experts against their formula, and the laws of routing and balance. Run: pytest tests/test_moe.py"""

import copy
import json
import math
import subprocess
import sys
import textwrap
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import FAST, corpus, same_weights
from torch import nn

from kancourse.gpt import GPT, MLP, GPTConfig, SwiGLU
from kancourse.kan import KANFeedForward
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.evaluate import evaluate
from kancourse.lab.meters import count_flops
from kancourse.lab.train import LATEST, TrainConfig, train
from kancourse.moe import (
    MoE,
    load_violation,
    mixtral_gate,
    moe_feed_forward,
    naive_moe,
    run_experts,
    sampling_floor,
    sigmoid_gate,
    softmax_gate,
    switch_loss,
    update_router_bias,
    z_loss,
)
from kancourse.moe_tools import mixtures, routes, without_best, without_experts
from kancourse.zoo import PRESETS, build

GATES = {"softmax": softmax_gate, "mixtral": mixtral_gate, "sigmoid": sigmoid_gate}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make(n_embd: int = 6, *, seed: int = 0, crowded: float = 0.0, **options) -> MoE:
    """A small mixture in float64 with weights large enough to matter, and a bias that is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = MoE(n_embd, **options).double()
        for parameter in layer.parameters():
            parameter.data.copy_(0.5 * torch.randn_like(parameter))
        layer.router.bias.copy_(0.1 * torch.randn_like(layer.router.bias))
        layer.router.bias[0] += crowded
    return layer


def gradients(y: torch.Tensor, wanted: list[torch.Tensor]) -> list[torch.Tensor]:
    return torch.autograd.grad(y, wanted, randn(*y.shape, seed=1), materialize_grads=True)


# ---------------------------------------------------------------- the formula


@settings(max_examples=40)
@given(
    n=st.integers(0, 20),
    n_expert=st.integers(1, 7),
    share=st.floats(0, 1),
    n_shared=st.integers(0, 2),
    gate=st.sampled_from(list(GATES)),
    crowded=st.sampled_from([0.0, 5.0]),
    seed=st.integers(0, 99),
)
def test_fast_equals_naive_in_value_and_gradients_at_awkward_sizes(n, n_expert, share, n_shared, gate, crowded, seed):
    """One token, none, more experts than tokens, one expert that everybody wants."""
    top_k = max(1, round(share * n_expert), 1 if gate == "softmax" else min(2, n_expert))
    sizes = {"n_expert": n_expert, "top_k": top_k, "n_shared": n_shared, "gate": GATES[gate]}
    layer = make(seed=seed, crowded=crowded, **sizes)
    x = randn(n, 6, seed=seed).requires_grad_()
    wanted = [x, *layer.parameters()]
    fast = layer(x)
    slow = naive_moe(x, layer) if n else x * 0
    torch.testing.assert_close(fast, slow)
    for a, b in zip(gradients(fast, wanted), gradients(slow, wanted), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(layer.eval()(x), slow)


def test_any_leading_axes():
    layer, x = make(), randn(2, 3, 4, 6)
    torch.testing.assert_close(layer(x), naive_moe(x, layer))
    torch.testing.assert_close(layer(x)[1, 2], layer(x[1, 2]))


@pytest.mark.parametrize("gate", [softmax_gate, mixtral_gate])
def test_all_experts_chosen_is_the_dense_mixture(gate):
    layer, x = make(n_expert=5, top_k=5, n_shared=0, gate=gate), randn(9, 6)
    probability = (x @ layer.router.weight.T).softmax(-1)  # (N, E)
    dense = sum(probability[:, i, None] * expert(x) for i, expert in enumerate(layer.experts))
    torch.testing.assert_close(layer(x), dense)


def test_gates_by_hand():
    logits, bias = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)]]), torch.zeros(3)
    weights, chosen, scores = softmax_gate(logits, bias, 2)
    assert chosen.tolist() == [[2, 1]]
    torch.testing.assert_close(weights, torch.tensor([[5 / 8, 2 / 8]]))
    torch.testing.assert_close(scores, torch.tensor([[1 / 8, 2 / 8, 5 / 8]]))
    torch.testing.assert_close(mixtral_gate(logits, bias, 2).weights, torch.tensor([[5 / 7, 2 / 7]]))
    one, two, five = 1 / 2, 2 / 3, 5 / 6  # sigmoid(ln a) = a/(1+a)
    weights, _, scores = sigmoid_gate(logits, bias, 2)
    torch.testing.assert_close(weights, torch.tensor([[five, two]]) / (five + two))
    torch.testing.assert_close(scores, torch.tensor([[one, two, five]]))
    far = sigmoid_gate(torch.full((1, 3), -500.0), bias, 2).weights  # every sigmoid is 0 in float32
    torch.testing.assert_close(far, torch.full((1, 2), 0.5))


@pytest.mark.parametrize("gate", GATES.values())
def test_the_bias_decides_the_choice_and_never_the_weight(gate):
    logits, bias = randn(50, 6), torch.zeros(6)
    bias[3] = 10.0  # everybody goes there
    weights, chosen, _ = gate(logits, bias, 2)
    assert (chosen == 3).any(-1).all()
    assert not (gate(logits, torch.zeros(6), 2).chosen == 3).any(-1).all()
    shifted = gate(logits, bias + 7.0, 2)
    assert torch.equal(shifted.chosen, chosen)
    forced = torch.full((50, 6), -torch.inf).scatter_(1, chosen, 0.0)  # the same choice, by another bias
    again = gate(logits, forced, 2)
    by_expert = [torch.zeros(50, 6).double().scatter_(1, r[1], r[0]) for r in ((weights, chosen), again)]
    torch.testing.assert_close(*by_expert)


def test_the_router_learns_from_the_gate_but_the_bias_does_not():
    layer = make(n_expert=4)
    layer(randn(30, 6)).square().sum().backward()
    assert layer.router.weight.grad.abs().min() > 0
    assert "bias" not in dict(layer.router.named_parameters())
    assert not layer.router.bias.requires_grad


# ---------------------------------------------------------------- nobody is dropped, nobody else is seen


def gpt(seed: int = 0, *, ffn=None, **sizes) -> GPT:
    sizes = {"vocab_size": 31, "block_size": 24, "n_layer": 2, "n_head": 2, "n_embd": 16, "position": "rope"} | sizes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ffn = ffn or partial(moe_feed_forward, n_expert=6, top_k=2, n_shared=1)
        return GPT(GPTConfig(**sizes), ffn=ffn)


def test_no_token_is_dropped_however_crowded_an_expert_is():
    layer = make(n_expert=8, top_k=2, n_shared=0)
    layer.router.bias[:2] += 100.0  # all tokens choose the same two
    seen = []
    for expert in layer.experts:
        expert.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    y = layer(randn(64, 6))
    assert seen == [64, 64, 0, 0, 0, 0, 0, 0]
    assert (y.abs().sum(-1) > 0).all()


def test_each_expert_runs_once_on_its_own_tokens_only():
    layer = make(n_expert=5, top_k=2, n_shared=1)
    rows = {}
    for i, expert in enumerate(layer.experts):
        expert.register_forward_hook(lambda module, args, out, i=i: rows.setdefault(i, []).append(args[0]))
    x = randn(40, 6)
    chosen = layer.gate(layer.router(x), layer.router.bias, 2).chosen
    layer(x)
    for i in range(5):
        (got,) = rows[i]
        assert torch.equal(got, x[(chosen == i).any(-1)])  # in the order of the text


@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_independent_of_future_tokens_and_of_the_rest_of_the_batch(training):
    model = gpt().double().train(training)
    idx = torch.randint(31, (4, 20), generator=torch.Generator().manual_seed(0))
    whole = model(idx)
    changed = idx.clone()
    changed[:, 12:] = 7  # a future that crowds some experts
    torch.testing.assert_close(model(changed)[:, :12], whole[:, :12], atol=1e-12, rtol=1e-12)
    for i in range(4):
        torch.testing.assert_close(model(idx[i : i + 1]), whole[i : i + 1], atol=1e-12, rtol=1e-12)


def test_decoding_by_steps_equals_the_whole():
    model = gpt().eval()
    idx = torch.randint(31, (1, 20), generator=torch.Generator().manual_seed(0))
    logits, state = model.step(idx[:, :7])
    parts = [logits]
    for t in range(7, 20):
        logits, state = model.step(idx[:, t : t + 1], state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), model(idx), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize(("n_expert", "top_k", "n_shared"), [(6, 2, 1), (16, 1, 0), (5, 5, 2)])
def test_flops_per_token_are_the_formulas_and_follow_the_active_experts(n_expert, top_k, n_shared):
    sizes = {"n_expert": n_expert, "top_k": top_k, "n_shared": n_shared, "expert_dim": 10}
    mixture = gpt(ffn=partial(moe_feed_forward, gate=softmax_gate, **sizes))
    without = gpt(ffn=lambda config, linear: nn.Identity())
    c, tokens = 16, 24
    counted = (count_flops(mixture, 1, tokens) - count_flops(without, 1, tokens)) / (tokens * 2)  # in 2 layers
    assert counted == 2 * 3 * c * 10 * (top_k + n_shared) + 2 * c * n_expert


def test_without_a_width_a_token_meets_as_many_weights_as_in_one_swiglu():
    config = GPTConfig(n_embd=48, n_head=1, bias=False)
    dense = sum(p.numel() for p in SwiGLU(config).parameters())
    for top_k, n_shared, ffn_dim in ((3, 1, None), (2, 0, None), (3, 1, 128)):
        layer = moe_feed_forward(
            GPTConfig(n_embd=48, n_head=1, bias=False, ffn_dim=ffn_dim), nn.Linear, top_k=top_k, n_shared=n_shared
        )
        active = (top_k + n_shared) * sum(p.numel() for p in layer.experts[0].parameters())
        assert active == pytest.approx(dense, rel=0.02)


@pytest.mark.parametrize("expert", [SwiGLU, MLP, KANFeedForward])
def test_experts_are_any_feed_forward(expert):
    model = gpt(ffn=partial(moe_feed_forward, expert=expert, expert_dim=6, n_expert=4, top_k=2))
    assert {type(e) for layer in mixtures(model) for e in [*layer.experts, *layer.shared]} == {expert}
    idx = torch.arange(24)[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = model.loss(idx, idx + 1).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = model.loss(idx, idx + 1)
        loss.backward()
        optimizer.step()
        for layer in mixtures(model):
            layer.after_step()
    assert loss < first / 2


def test_experts_without_tokens_get_gradients_of_zero_not_none():
    layer = make(n_expert=8, top_k=2)
    layer.router.bias[:2] += 100.0
    layer(randn(3, 6)).sum().backward()
    assert all((p.grad == 0).all() for p in layer.experts[5].parameters())
    assert all(p.grad.abs().max() > 0 for p in layer.experts[0].parameters())


# ---------------------------------------------------------------- the router's precision


def test_the_router_computes_in_float32_under_autocast():
    layer, x = MoE(16, n_expert=4), randn(10, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer.router(x)
        y = layer(x)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, layer.router(x))
    y.float().square().sum().backward()
    torch.testing.assert_close(y.float(), layer(x), atol=0.05, rtol=0.1)
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in layer.parameters())


def test_a_model_in_half_precision_keeps_its_router_in_float32():
    model = gpt().bfloat16()
    router = mixtures(model)[0].router
    assert router.weight.dtype == router.bias.dtype == torch.float32
    assert model(torch.zeros(2, 5, dtype=torch.long)).dtype == torch.bfloat16
    assert gpt().double().blocks[0].ffn.router.weight.dtype == torch.float64
    assert MoE(4).to("meta").router.weight.device.type == "meta"


def test_the_router_is_no_matrix_for_others_to_swap_or_quantise():
    from kancourse.swap import swap_linears

    model = gpt()
    made = []
    ffn = partial(moe_feed_forward, n_expert=3)
    GPT(
        GPTConfig(n_embd=16, n_head=2, n_layer=1),
        ffn=ffn,
        linear=lambda i, o, **kw: made.append((i, o)) or nn.Linear(i, o),
    )
    assert (16, 3) not in made
    report = swap_linears(model, nn.Linear)
    assert not any("router" in swap.name for swap in report.swapped)


def test_initial_weights():
    model = gpt(n_embd=64, n_head=2, n_layer=8)
    layer = model.blocks[0].ffn
    assert float(layer.router.weight.detach().std()) == pytest.approx(0.02, rel=0.15)
    assert float(layer.experts[0].c_proj.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.05)
    assert float(layer.experts[0].c_fc.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


# ---------------------------------------------------------------- balance


@given(
    n=st.integers(1, 40),
    n_expert=st.integers(1, 8),
    k=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_the_switch_loss_is_1_at_balance_for_any_number_of_choices(n, n_expert, k, seed):
    k = min(k, n_expert)
    chosen = randn(n, n_expert, seed=seed).topk(k).indices
    torch.testing.assert_close(switch_loss(torch.full((n, n_expert), 0.3), chosen), torch.tensor(1.0))
    even = torch.arange(n_expert).repeat(k).view(-1, k)  # every expert k times
    scores = randn(len(even), n_expert, seed=seed).sigmoid()
    assert float(switch_loss(scores, even)) == pytest.approx(1.0)


def test_the_switch_loss_is_the_number_of_experts_when_all_go_to_one():
    scores = torch.zeros(10, 4)
    scores[:, 2] = 1.0
    assert float(switch_loss(scores, torch.full((10, 1), 2))) == 4.0


def test_the_switch_loss_pushes_probability_away_from_the_crowded_expert():
    logits = randn(20, 3).requires_grad_()
    chosen = torch.zeros(20, 1, dtype=torch.long)
    (grad,) = torch.autograd.grad(switch_loss(logits.softmax(-1), chosen), logits)
    assert (grad[:, 0] > 0).all()
    assert (grad[:, 1:] < 0).all()


def test_the_z_loss_is_0_where_the_exponentials_add_up_to_1():
    logits = randn(20, 5)
    torch.testing.assert_close(z_loss(logits.log_softmax(-1)), torch.tensor(0.0, dtype=torch.float64))
    torch.testing.assert_close(z_loss(logits.log_softmax(-1) + 3), torch.tensor(9.0, dtype=torch.float64))


def test_load_violation_by_hand():
    assert float(load_violation(torch.tensor([5, 5, 5, 5]))) == 0.0
    assert float(load_violation(torch.tensor([12, 0, 0]))) == 2.0
    torch.testing.assert_close(
        load_violation(torch.tensor([[2, 2], [3, 1]])), torch.tensor([0.0, 0.5], dtype=torch.float64)
    )


@pytest.mark.parametrize(("n_token", "n_expert", "top_k"), [(2048, 16, 2), (4096, 16, 1), (1024, 8, 4), (999, 2, 1)])
def test_the_sampling_floor_is_what_a_perfect_router_shows(n_token, n_expert, top_k):
    generator = torch.Generator().manual_seed(0)
    shown = []
    for _ in range(150):
        chosen = torch.rand(n_token, n_expert, generator=generator).topk(top_k).indices
        shown.append(load_violation(chosen.flatten().bincount(minlength=n_expert)))
    mean = float(torch.stack(shown).mean())
    assert sampling_floor(n_token, n_expert, top_k) == pytest.approx(mean, rel=0.09)
    assert sampling_floor(100, 4, 4) == 0.0


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=9), rate=st.floats(1e-6, 1))
def test_the_bias_moves_by_its_rate_towards_those_who_got_less(counts, rate):
    bias = torch.linspace(-1, 1, len(counts), dtype=torch.float64)
    counts = torch.tensor(counts)
    moved = update_router_bias(bias, counts, rate) - bias
    mean = counts.double().mean()
    assert (moved.sign() == (mean - counts).sign()).all()
    torch.testing.assert_close(moved.abs(), rate * (counts != mean).double())


@pytest.mark.parametrize("gate", [sigmoid_gate, softmax_gate])
def test_the_bias_reaches_balance(gate):
    layer = MoE(8, n_expert=8, top_k=2, gate=gate, bias_rate=2e-3 if gate is sigmoid_gate else 1e-3)
    layer.router.weight.data.copy_(0.3 * randn(8, 8))
    mean = 2 * randn(8, seed=5, dtype=torch.float32)  # all tokens alike, so that all would go to the same experts
    totals = torch.zeros(2, 8)
    with torch.no_grad():
        for step in range(400):
            layer(mean + randn(256, 8, seed=step, dtype=torch.float32))
            layer.after_step()
            if step < 5 or step >= 300:
                totals[int(step >= 300)] += layer.load
    start, end = load_violation(totals).tolist()
    assert start > 1.0
    assert end < 0.05


def test_balance_is_kept_from_training_forwards_only_and_by_after_step():
    layer, x = MoE(6, n_expert=4), randn(40, 6, dtype=torch.float32)
    layer.eval()(x)
    layer.after_step()
    assert layer.load is None
    assert (layer.router.bias == 0).all()
    layer.train()
    layer(x), layer(x[:10])  # two micro-batches
    assert (layer.router.bias == 0).all()
    layer.after_step()
    assert int(layer.load.sum()) == 2 * 50
    moved = layer.router.bias.clone()
    assert moved.abs().max() == pytest.approx(1e-3)
    layer.after_step()  # nothing since
    assert torch.equal(layer.router.bias, moved)
    assert torch.equal(layer.state_dict()["router.bias"], moved)
    still = MoE(6, n_expert=4, bias_rate=0.0)
    still(x)
    still.after_step()
    assert (still.router.bias == 0).all()
    assert int(still.load.sum()) == 80


def test_auxiliary_losses_are_of_the_last_training_forward():
    layer, x = MoE(6, n_expert=4, balance_weight=0.5, z_weight=0.25), randn(30, 6, dtype=torch.float32)
    assert MoE(6)(x).isfinite().all()
    assert MoE(6).auxiliary_loss() is None
    layer(x)
    logits = layer.router(x)
    routing = sigmoid_gate(logits, layer.router.bias, 2)
    expected = 0.5 * switch_loss(routing.scores, routing.chosen) + 0.25 * z_loss(logits)
    torch.testing.assert_close(layer.auxiliary_loss(), expected)
    (grad,) = torch.autograd.grad(layer.auxiliary_loss(), layer.router.weight)
    assert grad.abs().max() > 0
    layer.after_step()
    assert layer.auxiliary_loss() is None
    copy.deepcopy(layer)


# ---------------------------------------------------------------- looking into it


def test_routes_are_where_the_tokens_go():
    model = gpt().double()
    idx = torch.randint(31, (3, 10), generator=torch.Generator().manual_seed(0))
    chosen = routes(model, idx)
    assert chosen.shape == (2, 3, 10, 2)
    assert model.training
    torch.testing.assert_close(routes(model, idx[:, :4]), chosen[:, :, :4])
    model(idx)
    for layer, where in zip(mixtures(model), chosen, strict=True):
        layer.after_step()
        assert torch.equal(layer.load, where.flatten().bincount(minlength=6))


def test_an_expert_that_is_switched_off_is_replaced_by_the_next_best():
    model = gpt().eval()
    idx = torch.randint(31, (3, 10), generator=torch.Generator().manual_seed(0))
    before, layer = model(idx), mixtures(model)[0]
    plain = routes(model, idx)
    with without_experts(layer, [2, 3]):
        assert not torch.isin(routes(model, idx)[0], torch.tensor([2, 3])).any()
        assert not torch.equal(model(idx), before)
    with without_best(model, 1):
        skipped = routes(model, idx)
    assert (skipped[0, ..., 0] == plain[0, ..., 1]).all()  # second becomes first
    assert not (skipped[0] == plain[0, ..., :1]).any()
    with without_best(model, 0):
        assert torch.equal(model(idx), before)
    assert torch.equal(model(idx), before)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MoE(8, n_expert=4, top_k=5), "top_k must lie between 1 and n_expert 4, got 5"),
        (lambda: MoE(8, n_expert=4, top_k=0), "top_k must lie between 1 and n_expert 4, got 0"),
        (lambda: MoE(8, n_expert=0), "n_expert >= 1 and n_shared >= 0, got 8, 0 and 1"),
        (lambda: MoE(8, n_shared=-1), "got 8, 8 and -1"),
        (lambda: MoE(8, bias_rate=-1.0), "cannot be negative, got -1.0, 0.0, 0.0"),
        (lambda: MoE(8, top_k=1), "sigmoid_gate with top_k 1 gives every weight 1, .* use softmax_gate"),
        (lambda: MoE(8, top_k=1, gate=mixtral_gate), "mixtral_gate with top_k 1 gives every weight 1"),
        (lambda: MoE(8)(torch.zeros(2, 7)), r"MoE takes 8 channels on the last axis, got shape \(2, 7\)"),
        (lambda: load_violation(torch.zeros(4)), "not all 0"),
        (lambda: sampling_floor(10, 4, 5), "1 <= top_k <= n_expert, got 10, 5, 4"),
        (lambda: mixtures(nn.Linear(2, 2)), "this Linear has no mixture of experts"),
        (lambda: without_experts(MoE(8), [9]).__enter__(), "experts are 0 to 7"),
        (lambda: without_experts(MoE(8), range(7)).__enter__(), "2 must be left"),
        (lambda: without_best(MoE(8), 7).__enter__(), "cannot close 7 of 8 experts, of which 2 are to be chosen"),
    ],
)
def test_each_mistake_gets_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    layer, x = MoE(8), torch.zeros(5, 8)
    x[3, 2] = bad
    for n in (slice(None), slice(3, 4)):
        for training in (True, False):
            with pytest.raises(FloatingPointError, match="met nan or infinity in 1 of"):
                layer.train(training)(x[n])


def test_run_experts_stands_alone():
    x = randn(4, 2)
    routing = softmax_gate(torch.tensor([[2.0, 0], [0, 2], [2, 0], [2, 0]]).double(), torch.zeros(2), 1)
    y = run_experts(x, routing, nn.ModuleList([nn.Identity(), nn.ReLU()]), [3, 1])
    weight = F.softmax(torch.tensor([2.0, 0.0]), 0)[0]
    expected = torch.stack([x[0], x[1].relu(), x[2], x[3]]) * weight
    torch.testing.assert_close(y, expected)


# ---------------------------------------------------------------- by name, in training, in a checkpoint


def test_the_zoo_makes_mixtures_of_any_ffn_by_name():
    options = {"expert": "kan", "expert_options": {"grid_size": 3}, "expert_dim": 5, "n_expert": 4, "gate": "softmax"}
    model = build("moe-nano", vocab_size=11, n_layer=1, ffn_options=options, seed=0)
    layer = mixtures(model)[0]
    assert (layer.gate, layer.n_expert, layer.experts[0].c_fc.grid_size) == (softmax_gate, 4, 3)
    assert layer.experts[0].c_fc.out_features == 5
    for change, message in (
        ({"expert": "moe"}, "unknown expert 'moe' of a mixture; known: mlp, swiglu, "),
        ({"gate": "hard"}, "unknown gate 'hard' of a mixture; known: sigmoid, softmax, mixtral"),
        ({"n_expert": 2}, "top_k must lie between 1 and n_expert 2, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            build("moe-nano", ffn_options=PRESETS["moe-nano"].ffn_options | change)


def test_presets_do_a_dense_models_work_with_four_times_its_feed_forwards():
    sizes = {"vocab_size": 30, "block_size": 16, "seed": 0}
    dense, mixture = build("llama-nano", **sizes), build("moe-nano", **sizes)
    router = 2 * 48 * 15 * 3 * 16  # FLOPs
    assert count_flops(mixture, 1, 16) - router == pytest.approx(count_flops(dense, 1, 16), rel=1e-3)
    body = [sum(p.numel() for block in m.blocks for p in block.ffn.parameters()) for m in (dense, mixture)]
    assert body[1] == pytest.approx(4 * body[0], rel=0.05)


@pytest.mark.parametrize(
    "parts",
    [
        {"linear": "bit"},
        {"mixer": "retention"},
        {"linear": "bit", "mixer": "retention", "ffn_options": {"expert": "kan", "expert_dim": 6, "n_expert": 9}},
    ],
)
def test_other_ideas_in_one_model_with_experts(parts):
    model = build("moe-nano", vocab_size=30, n_layer=2, block_size=16, seed=0, **parts)
    idx = torch.randint(30, (1, 12), generator=torch.Generator().manual_seed(0))
    model.loss(idx, idx).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    logits, state = model.step(idx[:, :5])
    parts_read = [logits]
    for t in range(5, 12):
        logits, state = model.step(idx[:, t : t + 1], state)
        parts_read.append(logits)
    torch.testing.assert_close(torch.cat(parts_read, 1), model(idx), atol=1e-5, rtol=1e-5)


def mixture_model(**overrides) -> GPT:
    sizes = {"vocab_size": 257, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "seed": 0}
    options = {"n_expert": 5, "top_k": 2, "n_shared": 1, "balance_weight": 0.01, "z_weight": 0.001}
    return build("moe-nano", **(sizes | {"ffn_options": options} | overrides))


def test_a_run_that_died_resumes_to_the_same_bits_with_its_bias(tmp_path):
    class Died(Exception):
        pass

    def die(row):
        if row["step"] == 8:  # the checkpoint of step 7 exists
            raise Died

    settings = FAST | {"checkpoint_minutes": 0.0}
    whole = mixture_model(dropout=0.1)
    train(whole, corpus(), TrainConfig(**settings))
    folder = str(tmp_path)
    with pytest.raises(Died):
        train(mixture_model(dropout=0.1), corpus(), TrainConfig(**settings, out_dir=folder), on_step=die)
    resumed = mixture_model(dropout=0.1, seed=7)
    train(resumed, corpus(), TrainConfig(**settings, out_dir=folder))
    assert mixtures(whole)[0].router.bias.abs().max() > 0
    assert same_weights(whole, resumed)
    assert same_weights(load_checkpoint(tmp_path / LATEST).model, whole)


def test_training_moves_the_bias_and_validation_does_not():
    model, seen = mixture_model(), []
    train(model, corpus(), TrainConfig(**FAST), on_step=lambda row: seen.append(mixtures(model)[0].load.sum().item()))
    assert seen == [8 * 16 * 2] * FAST["steps"]  # batch · T · k, whether there was a validation or not
    assert not model.training
    before = mixtures(model)[0].router.bias.clone()
    evaluate(model, corpus().val, batch_size=8)
    mixtures(model)[0].after_step()
    assert torch.equal(mixtures(model)[0].router.bias, before)


def test_micro_batches_give_the_bias_of_the_big_batch():
    ends = []
    for micro in (None, 3):
        options = {"n_expert": 5, "top_k": 2, "n_shared": 1}
        model = mixture_model(ffn_options=options).double()
        train(model, corpus(), TrainConfig(**FAST, micro_batch=micro))
        ends.append(mixtures(model)[1].router.bias)
    torch.testing.assert_close(*ends)


WORKER = """
    import json, torch, torch.distributed as dist
    from kancourse.moe import MoE
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    layer = MoE(6, n_expert=4)
    wrapped = torch.nn.parallel.DistributedDataParallel(layer)
    torch.manual_seed(1)
    x = torch.randn(2, 40, 6) + torch.tensor([[[0.0]], [[2.0]]])  # the two processes see different texts
    for _ in range(3):
        wrapped(x[dist.get_rank()]).square().sum().backward()
        layer.after_step()
    print(json.dumps([layer.load.tolist(), layer.router.bias.tolist()]), flush=True)
    dist.destroy_process_group()
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_several_processes_keep_one_bias(tmp_path):
    (tmp_path / "worker.py").write_text(textwrap.dedent(WORKER))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*command, str(tmp_path / "worker.py")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(told) == 2
    assert told[0] == told[1]
    load, bias = json.loads(told[0])
    assert sum(load) == 2 * 40 * 2
    assert max(bias) > 0
